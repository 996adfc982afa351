//! Trace fields: the Received field of each hop (RFC 5321 4.4, 6531 4.3, 6710 8), what a relay takes away, and the MT-Priority
//! field that carries a priority past hops which do not know the parameter (RFC 6758).

use std::borrow::Cow;
use std::net::IpAddr;

use super::header;
use super::server::TlsFacts;
use crate::mail::{Mailbox, MtPriority};
use crate::time::Wall;

/// How a message came to us, as its Received field tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceFacts {
    /// The name the client gave.
    pub ehlo: String,
    /// Its address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// The `with` clause.
    pub protocol: Protocol,
    /// The authenticated user.
    pub user: Option<String>,
    /// TLS, when it was on.
    pub tls: Option<TlsFacts>,
}

/// The parts of the protocol keyword (RFC 3848, 6531 4.3). Nobody authenticates over LMTP here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protocol {
    /// LMTP rather than SMTP.
    pub lmtp: bool,
    /// EHLO rather than HELO.
    pub extended: bool,
    /// SMTPUTF8 was given.
    pub utf8: bool,
    /// TLS was on.
    pub tls: bool,
    /// The client had authenticated.
    pub auth: bool,
}

impl Protocol {
    /// `ESMTPSA`, `UTF8SMTPS`, `LMTPS`, …
    pub const fn keyword(self) -> &'static str {
        if self.lmtp {
            return match (self.utf8, self.tls) {
                (false, false) => "LMTP",
                (false, true) => "LMTPS",
                (true, false) => "UTF8LMTP",
                (true, true) => "UTF8LMTPS",
            };
        }
        match (self.utf8, self.extended, self.tls, self.auth) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, _, true, false) => "ESMTPS",
            (false, _, false, true) => "ESMTPA",
            (false, _, true, true) => "ESMTPSA",
            (false, true, false, false) => "ESMTP",
            (false, false, false, false) => "SMTP",
        }
    }
}

/// The Received field of this hop. `for_one` only when the message has a single recipient.
pub fn received(
    facts: &TraceFacts,
    by_host: &str,
    id: &str,
    for_one: Option<&Mailbox>,
    priority: Option<MtPriority>,
    wall: Wall,
) -> Vec<u8> {
    let address = match facts.address.map(|a| a.to_canonical()) {
        Some(IpAddr::V4(a)) => format!(" ([{a}])"),
        Some(IpAddr::V6(a)) => format!(" ([IPv6:{a}])"),
        None => String::new(),
    };
    let for_one = for_one.map(|m| format!("\r\n\tfor <{m}>")).unwrap_or_default();
    let priority = priority.map(|p| format!(" PRIORITY {p}")).unwrap_or_default();
    format!(
        "Received: from {ehlo}{address}\r\n\tby {by_host} with {with} id {id}{for_one}{priority};\r\n\t{date}\r\n",
        ehlo = facts.ehlo,
        with = facts.protocol.keyword(),
        date = wall.rfc5322(),
    )
    .into_bytes()
}

/// Puts `field` on top of `message`; where the message has no header at all, a blank line keeps its first line out of ours.
pub fn prepend(field: &[u8], message: &[u8]) -> Vec<u8> {
    let orphan = header::end(message) == 0 && !message.is_empty() && !message.starts_with(b"\r\n");
    let mut out = Vec::with_capacity(field.len() + message.len() + 2);
    out.extend_from_slice(field);
    if orphan {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(message);
    out
}

/// Drops Return-Path fields: they are written at final delivery only.
pub fn strip_return_path(message: &[u8]) -> Cow<'_, [u8]> {
    header::without(message, |f| f.is("Return-Path"))
}

/// Drops Authentication-Results fields that claim to be of `authserv_id` (RFC 8601 5): who checks mail must be the only one to say so.
/// Also how many there were.
pub fn strip_results<'m>(message: &'m [u8], authserv_id: &str) -> (Cow<'m, [u8]>, usize) {
    let mut found = 0;
    let claims = |f: &header::Field<'_>| f.is("Authentication-Results") && claims_id(f.value, authserv_id);
    let rest = header::without(message, |f| {
        let ours = claims(f);
        found += usize::from(ours);
        ours
    });
    (rest, found)
}

/// Whether the value of an Authentication-Results field begins with this id, behind any comments, bare or in quotes.
fn claims_id(value: &[u8], id: &str) -> bool {
    let mut rest = value.trim_ascii_start();
    while let Some(b'(') = rest.first() {
        let mut depth = 0_usize;
        let mut escaped = false;
        let end = rest.iter().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(end) = end else { return false };
        rest = rest.get(end + 1..).unwrap_or_default().trim_ascii_start();
    }
    let mut claimed = Vec::new();
    match rest.split_first() {
        Some((b'"', quoted)) => {
            let mut octets = quoted.iter();
            while let Some(b) = octets.next().filter(|b| **b != b'"') {
                claimed.extend(if *b == b'\\' { octets.next() } else { Some(b) });
            }
        }
        _ => claimed.extend(rest.iter().take_while(|b| !b.is_ascii_whitespace() && !b";(".contains(b))),
    }
    claimed.trim_ascii().eq_ignore_ascii_case(id.as_bytes())
}

/// Whether a Received field's `by` clause names `host`.
pub fn names_host(value: &[u8], host: &str) -> bool {
    let mut words = value.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"by") {
            return words.next().is_some_and(|by| {
                let by = by.split(|b| *b == b';').next().unwrap_or_default();
                by.eq_ignore_ascii_case(host.as_bytes())
            });
        }
    }
    false
}

/// The value of the message's MT-Priority field, if it has exactly one and it is valid (RFC 6758 3). For trusted sources only.
pub fn header_priority(message: &[u8]) -> Option<MtPriority> {
    let mut all = header::fields(message).filter(|f| f.is("MT-Priority"));
    let only = all.next()?;
    if all.next().is_some() {
        return None;
    }
    MtPriority::parse(core::str::from_utf8(only.value).ok()?.trim())
}

/// What a next hop without MT-PRIORITY gets (RFC 6758 4): every MT-Priority field goes, and if there had been a parameter or a
/// field, one field with the value in force stands instead. A DKIM signature over the field outweighs that: then nothing changes.
pub fn priority_for_plain_hop(message: &[u8], parameter: Option<MtPriority>) -> Cow<'_, [u8]> {
    let present = header::fields(message).any(|f| f.is("MT-Priority"));
    if !present && parameter.is_none() || signs_priority(message) {
        return message.into();
    }
    // A field nobody honoured says no more than its absence does: 0 (RFC 6710 4.1).
    let value = parameter.map_or(0, MtPriority::get);
    let bare = header::without(message, |f| f.is("MT-Priority"));
    let trace_end =
        header::fields(&bare).take_while(|f| f.is("Received") || f.is("Return-Path")).last().map_or(0, |f| f.range.end);
    let (trace, rest) = bare.split_at(trace_end);
    let mut out = trace.to_vec();
    out.extend_from_slice(&prepend(format!("MT-Priority: {value}\r\n").as_bytes(), rest));
    out.into()
}

fn signs_priority(message: &[u8]) -> bool {
    header::fields(message).filter(|f| f.is("DKIM-Signature")).any(|f| {
        let packed: Vec<u8> = f.value.iter().filter(|b| !b.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect();
        packed
            .split(|b| *b == b';')
            .filter_map(|tag| tag.strip_prefix(b"h="))
            .any(|names| names.split(|b| *b == b':').any(|name| name == b"mt-priority"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> TraceFacts {
        TraceFacts {
            ehlo: "client.example".into(),
            address: Some("2001:db8::1".parse().expect("address")),
            protocol: Protocol { lmtp: false, extended: true, utf8: false, tls: true, auth: true },
            user: Some("op1".into()),
            tls: None,
        }
    }

    #[test]
    fn received_has_all_clauses_in_order() {
        let wall = Wall::parse_rfc3339("2026-11-23T10:15:00Z").expect("valid");
        let to = Mailbox::new("b@x.example");
        let field = received(&facts(), "mx.example", "0000002A", Some(&to), MtPriority::new(4), wall);
        assert_eq!(
            String::from_utf8_lossy(&field),
            "Received: from client.example ([IPv6:2001:db8::1])\r\n\tby mx.example with ESMTPSA id 0000002A\
             \r\n\tfor <b@x.example> PRIORITY 4;\r\n\tMon, 23 Nov 2026 10:15:00 +0000\r\n"
        );
        assert!(names_host(&field, "MX.example") && !names_host(&field, "client.example"));
        let message = prepend(&field, b"no header here\r\n");
        assert_eq!(header::fields(&message).count(), 1);
        assert!(message.ends_with(b"+0000\r\n\r\nno header here\r\n"));
        assert_eq!(header::fields(&prepend(&field, b"Subject: x\r\n\r\nb\r\n")).count(), 2);
    }

    #[test]
    fn protocol_keywords_follow_the_registry() {
        let p = |utf8, extended, tls, auth| Protocol { lmtp: false, extended, utf8, tls, auth }.keyword();
        assert_eq!(p(false, false, false, false), "SMTP");
        assert_eq!(p(false, true, false, false), "ESMTP");
        assert_eq!(p(true, true, true, true), "UTF8SMTPSA");
        assert_eq!(p(true, true, true, false), "UTF8SMTPS");
        let l = |utf8, tls| Protocol { lmtp: true, extended: true, utf8, tls, auth: false }.keyword();
        assert_eq!([l(false, false), l(false, true), l(true, false)], ["LMTP", "LMTPS", "UTF8LMTP"]);
    }

    #[test]
    fn return_path_goes_and_nothing_else() {
        let m = b"Return-Path: <a@x>\r\nReceived: from a by b; now\r\nReturn-path:\r\n <b@x>\r\nSubject: s\r\n\r\nReturn-Path: body\r\n";
        assert_eq!(&*strip_return_path(m), b"Received: from a by b; now\r\nSubject: s\r\n\r\nReturn-Path: body\r\n");
    }

    #[test]
    fn results_that_claim_to_be_ours_go_and_others_stay() {
        for ours in [
            "mx.example; spf=pass",
            "\r\n\tMX.Example 1;\r\n\tdkim=pass",
            "(a (b) \\) c) mx.example;none",
            "\"mx.example\" ; none",
            "\"mx\\.example\"; none",
            "mx.example(x); none",
            "mx.example",
        ] {
            let m = format!("Subject: s\r\nauthentication-results :{ours}\r\nTo: x\r\n\r\nb\r\n");
            let (rest, found) = strip_results(m.as_bytes(), "mx.example");
            assert_eq!((&*rest, found), (&b"Subject: s\r\nTo: x\r\n\r\nb\r\n"[..], 1), "{ours}");
        }
        for other in [
            "mx.example.org; spf=pass",
            "a.mx.example; none",
            "",
            "(mx.example",
            "(mx.example); x; none",
            "\"mx.example",
        ] {
            let m = format!("Authentication-Results: {other}\r\nX-Authentication-Results: mx.example\r\n\r\nb\r\n");
            let (rest, found) = strip_results(m.as_bytes(), "mx.example");
            assert!(found == usize::from(other == "\"mx.example") && (found == 1 || *rest == *m.as_bytes()), "{other}");
        }
    }

    #[test]
    fn priority_field_for_a_hop_without_the_keyword() {
        let m = b"Received: from a by b; now\r\nMT-Priority: 3\r\nSubject: s\r\nMT-PRIORITY: 5\r\n\r\nb\r\n";
        assert_eq!(
            &*priority_for_plain_hop(m, MtPriority::new(-2)),
            b"Received: from a by b; now\r\nMT-Priority: -2\r\nSubject: s\r\n\r\nb\r\n"
        );
        assert_eq!(header_priority(m), None);
        assert_eq!(header_priority(b"MT-Priority:  -4 \r\n\r\n"), MtPriority::new(-4));
        assert_eq!(&*priority_for_plain_hop(b"Subject: s\r\n\r\n", None), b"Subject: s\r\n\r\n");
        assert_eq!(
            &*priority_for_plain_hop(b"Subject: s\r\n\r\n", MtPriority::new(4)),
            b"MT-Priority: 4\r\nSubject: s\r\n\r\n"
        );
        assert_eq!(header_priority(&priority_for_plain_hop(m, None)), MtPriority::new(0));
        let signed = b"DKIM-Signature: v=1; h=From: MT-\r\n Priority; b=x\r\nMT-Priority: 3\r\n\r\n";
        assert_eq!(&*priority_for_plain_hop(signed, MtPriority::new(0)), signed);
    }
}
