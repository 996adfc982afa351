//! A message as one next hop can take it: re-coded where that is allowed, with the parameters the hop knows, or why it cannot go.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::{command, header, seven_bit, trace};
use super::{Delivery, Extensions, RecipientResult};
use crate::mail::{BodyKind, ByMode, DeliverBy, Mailbox, Notify, Recipient, Ret, Status, original_recipient_line};

/// A message as one hop gets it.
pub struct Fitted {
    pub content: Arc<[u8]>,
    pub mail: String,
    /// By BDAT, octet for octet.
    pub binary: bool,
}

/// What stands between us and a hop, beside what it offers.
#[derive(Clone, Copy)]
pub struct Standing {
    /// It took our login.
    pub logged_in: bool,
    /// It delivers, and relays nothing.
    pub is_final: bool,
}

/// Turns a message into what the hop can take, or says why that is impossible.
pub fn fit(delivery: &Delivery, offered: Extensions, standing: Standing) -> Result<Fitted, (Status, String)> {
    let envelope = &delivery.envelope;
    let mut content: Cow<'_, [u8]> = Cow::Borrowed(&delivery.body);
    let sender = envelope.from.as_ref().map(|from| at_hop(from, offered));
    let utf8_sender = sender.as_deref().is_some_and(Mailbox::is_utf8);
    let utf8_header = !content.get(..header::end(&content)).unwrap_or_default().is_ascii();
    if !offered.smtputf8 {
        if utf8_sender {
            return Err((Status(5, 6, 7), "the sender's address needs SMTPUTF8, which the next hop lacks".to_owned()));
        }
        if envelope.smtputf8 && utf8_header {
            return Err((Status(5, 6, 9), "the header needs SMTPUTF8, which the next hop lacks".to_owned()));
        }
    }
    if envelope.from.as_ref().is_some_and(|m| command::mailbox(m.as_str(), true).is_none()) {
        return Err((Status(5, 1, 7), "malformed sender address".to_owned()));
    }
    let binary = envelope.body == BodyKind::BinaryMime && offered.binary_mime;
    if envelope.body == BodyKind::BinaryMime && !binary {
        let lines = seven_bit::without_binary(&content, offered.eight_bit_mime);
        content = lines.map_err(|why| (Status(5, 6, 3), why.text().to_owned()))?.into();
    }
    if !offered.mt_priority
        && let Cow::Owned(changed) = trace::priority_for_plain_hop(&content, envelope.mt_priority)
    {
        content = changed.into();
    }
    if let ([only], true, false) = (&envelope.recipients[..], standing.is_final, offered.dsn)
        && let Some(line) = original_recipient_line(only)
    {
        // It cannot be told by ORCPT. Where there are several recipients, each would read of the others.
        content = [line.as_bytes(), &content].concat().into();
    }
    let eight_bit = !content.is_ascii();
    if eight_bit && !offered.eight_bit_mime && !binary {
        content = seven_bit::convert(&content).map_err(|why| (Status(5, 6, 3), why.text().to_owned()))?.into();
    }
    let size = content.len() as u64;
    if let Some(limit) = offered.size_limit.filter(|limit| size > *limit) {
        return Err((Status(5, 3, 4), format!("larger than the {limit} octets the next hop takes")));
    }
    let mut mail = format!("MAIL FROM:<{}>", sender.as_deref().map_or("", Mailbox::as_str));
    if offered.size {
        mail.push_str(&format!(" SIZE={size}"));
    }
    if binary {
        mail.push_str(" BODY=BINARYMIME");
    } else if offered.eight_bit_mime && (eight_bit || envelope.body == BodyKind::EightBitMime) {
        mail.push_str(" BODY=8BITMIME");
    }
    if offered.smtputf8 && (envelope.smtputf8 || utf8_sender || envelope.recipients.iter().any(|r| r.address.is_utf8()))
    {
        mail.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match envelope.ret {
            Some(Ret::Full) => mail.push_str(" RET=FULL"),
            Some(Ret::Headers) => mail.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = envelope.envid.as_deref().filter(|e| command::is_xtext(e)) {
            mail.push_str(&format!(" ENVID={envid}"));
            // Who asks after the message names it by its ENVID.
            if let Some(tracking) = delivery.tracking.as_deref().filter(|_| offered.mtrk) {
                mail.push_str(&format!(" MTRK={tracking}"));
            }
        }
    }
    if let (true, Some(value)) = (offered.mt_priority, envelope.mt_priority) {
        mail.push_str(&format!(" MT-PRIORITY={value}"));
    }
    if envelope.require_tls && offered.require_tls {
        mail.push_str(" REQUIRETLS");
    }
    if let (Some(by), Some(seconds)) = (envelope.deliver_by, delivery.by_seconds) {
        mail.push_str(&by_parameter(by, seconds, offered, standing.is_final)?);
    }
    if standing.logged_in {
        // RFC 4954 5: the hop knows who we are; whose message it is we say besides, or that nobody knows.
        let submitter = envelope.auth.as_deref().filter(|s| command::is_xtext(s));
        mail.push_str(&format!(" AUTH={}", submitter.unwrap_or("<>")));
    }
    let content = match content {
        Cow::Borrowed(_) => Arc::clone(&delivery.body),
        Cow::Owned(bytes) => bytes.into(),
    };
    Ok(Fitted { content, mail, binary })
}

/// RFC 2852 4: mode R only goes where it can be kept, mode N goes anywhere. What delivers here and now need not know.
fn by_parameter(by: DeliverBy, seconds: i64, offered: Extensions, is_final: bool) -> Result<String, (Status, String)> {
    let trace = if by.trace { "T" } else { "" };
    let seconds = seconds.clamp(-999_999_999, 999_999_999);
    match (by.mode, offered.deliver_by) {
        (ByMode::Return, _) if seconds <= 0 => Err((Status(5, 4, 7), "delivery time expired".to_owned())),
        (ByMode::Return, Some(least)) if seconds >= i64::from(least) => Ok(format!(" BY={seconds};R{trace}")),
        (ByMode::Return, None) if is_final => Ok(String::new()),
        (ByMode::Return, _) => Err((Status(5, 4, 4), "the next hop cannot keep the delivery time".to_owned())),
        (ByMode::Notify, Some(_)) => Ok(format!(" BY={seconds};N{trace}")),
        (ByMode::Notify, None) => Ok(String::new()),
    }
}

/// An address as this hop can take it: a domain that needs SMTPUTF8 has another form that does not (RFC 6531 3.2), a local part has none.
fn at_hop(address: &Mailbox, offered: Extensions) -> Cow<'_, Mailbox> {
    if offered.smtputf8 || !address.is_utf8() || !address.local().is_ascii() {
        return Cow::Borrowed(address);
    }
    let plain = idna::domain_to_ascii_strict(address.domain()).ok();
    let plain = plain.and_then(|domain| command::mailbox(&format!("{}@{domain}", address.local()), false));
    plain.map_or(Cow::Borrowed(address), Cow::Owned)
}

/// Why an address cannot be given to this hop, if so.
pub fn misfit(address: &Mailbox, offered: Extensions) -> Option<RecipientResult> {
    let permanent = |status, text: &str| Some(RecipientResult::Permanent { status, text: text.to_owned() });
    let postmaster = address.as_str().eq_ignore_ascii_case("postmaster");
    if !postmaster && command::mailbox(address.as_str(), true).is_none() {
        return permanent(Status(5, 1, 3), "malformed recipient address");
    }
    if at_hop(address, offered).is_utf8() && !offered.smtputf8 {
        return permanent(Status(5, 6, 7), "the recipient's address needs SMTPUTF8, which the next hop lacks");
    }
    None
}

pub fn rcpt_line(recipient: &Recipient, delivery: &Delivery, offered: Extensions) -> String {
    let mut line = format!("RCPT TO:<{}>", at_hop(&recipient.address, offered));
    if !offered.dsn {
        return line;
    }
    if let Some(notify) = notify_at_hop(recipient.notify, delivery, offered) {
        line.push_str(&format!(" NOTIFY={}", notify.words()));
    }
    if let Some(orcpt) = recipient.orcpt.as_deref().filter(|o| command::is_orcpt(o, offered.smtputf8)) {
        line.push_str(&format!(" ORCPT={orcpt}"));
    }
    line
}

/// RFC 2852 4: a hop that does not know when a message of mode N is late is at least asked to tell of delays as it sees them. What
/// NOTIFY is where none was given, RFC 3461 5.2.1 says.
fn notify_at_hop(notify: Option<Notify>, delivery: &Delivery, offered: Extensions) -> Option<Notify> {
    let in_time = delivery.by_seconds.is_some_and(|seconds| seconds > 0);
    let waits = delivery.envelope.deliver_by.is_some_and(|by| by.mode == ByMode::Notify) && in_time;
    if !waits || offered.deliver_by.is_some() || notify == Some(Notify::NEVER) {
        return notify;
    }
    let given = notify.unwrap_or(Notify { failure: true, ..Notify::NEVER });
    Some(Notify { delay: true, ..given })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Envelope;
    use crate::time::Wall;

    const RELAY: Standing = Standing { logged_in: false, is_final: false };

    #[test]
    fn a_deliver_by_time_goes_on_where_it_is_kept_and_stops_a_message_that_would_be_late() {
        let (late, lost) = (Err(Status(5, 4, 7)), Err(Status(5, 4, 4)));
        for (mode, trace, seconds, least, want) in [
            (ByMode::Return, false, 60, Some(0), Ok(" BY=60;R")),
            (ByMode::Return, true, 60, Some(60), Ok(" BY=60;RT")),
            (ByMode::Return, false, 59, Some(60), lost),
            (ByMode::Return, false, 60, None, lost),
            (ByMode::Return, true, 1, Some(0), Ok(" BY=1;RT")),
            (ByMode::Return, false, 0, Some(0), late),
            (ByMode::Return, false, 0, None, late),
            (ByMode::Return, true, -5, Some(0), late),
            (ByMode::Notify, false, 60, Some(0), Ok(" BY=60;N")),
            (ByMode::Notify, true, 60, Some(100), Ok(" BY=60;NT")),
            (ByMode::Notify, false, 0, Some(0), Ok(" BY=0;N")),
            (ByMode::Notify, true, -5, Some(0), Ok(" BY=-5;NT")),
            (ByMode::Notify, false, i64::MAX, Some(0), Ok(" BY=999999999;N")),
            (ByMode::Notify, false, i64::MIN, Some(0), Ok(" BY=-999999999;N")),
            (ByMode::Notify, true, 60, None, Ok("")),
        ] {
            let offered = Extensions { deliver_by: least, ..Extensions::default() };
            let told = mail(&timed(mode, trace, seconds), offered, RELAY);
            assert_eq!(told, want.map(line), "{mode:?} {trace} {seconds} {least:?}");
        }
        // The mailbox itself: it is in time, or it is not.
        let server = Standing { is_final: true, ..RELAY };
        for (seconds, want) in [(60, Ok("")), (0, late)] {
            let told = mail(&timed(ByMode::Return, false, seconds), Extensions::default(), server);
            assert_eq!(told, want.map(line), "{seconds}");
        }
    }

    #[test]
    fn a_hop_that_does_not_know_the_time_is_asked_to_tell_of_delays() {
        let success = Notify { success: true, ..Notify::NEVER };
        let dsn = Extensions { dsn: true, ..Extensions::default() };
        let both = Extensions { deliver_by: Some(0), ..dsn };
        for (mode, seconds, offered, notify, want) in [
            (ByMode::Notify, 60, dsn, None, " NOTIFY=FAILURE,DELAY"),
            (ByMode::Notify, 60, dsn, Some(success), " NOTIFY=SUCCESS,DELAY"),
            (ByMode::Notify, 60, dsn, Some(Notify::NEVER), " NOTIFY=NEVER"),
            (ByMode::Notify, 0, dsn, Some(success), " NOTIFY=SUCCESS"),
            (ByMode::Notify, 60, both, None, ""),
            (ByMode::Notify, 60, both, Some(success), " NOTIFY=SUCCESS"),
            (ByMode::Return, 60, dsn, None, ""),
            (ByMode::Notify, 60, Extensions::default(), Some(success), ""),
        ] {
            let delivery = timed(mode, false, seconds);
            let recipient = Recipient { notify, ..delivery.envelope.recipients[0].clone() };
            let told = rcpt_line(&recipient, &delivery, offered);
            assert_eq!(told, format!("RCPT TO:<b@dest>{want}"), "{mode:?} {seconds} {notify:?}");
        }
    }

    #[test]
    fn a_domain_has_another_form_for_a_hop_without_smtputf8_and_a_local_part_has_none() {
        let (plain, utf8) = (Extensions::default(), Extensions { smtputf8: true, ..Extensions::default() });
        for (address, offered, want) in [
            ("ops@m\u{fc}nchen.example", plain, Some("ops@xn--mnchen-3ya.example")),
            ("ops@m\u{fc}nchen.example", utf8, Some("ops@m\u{fc}nchen.example")),
            ("\"o p\"@\u{4f8b}\u{3048}.example", plain, Some("\"o p\"@xn--r8jz45g.example")),
            ("\u{4f60}@dest.example", plain, None),
            ("\u{4f60}@m\u{fc}nchen.example", plain, None),
            // Nothing that a name of the DNS may hold.
            ("ops@a\u{fc}\u{2000}b.example", plain, None),
        ] {
            let recipient = Recipient::plain(Mailbox::new(address));
            assert_eq!(misfit(&recipient.address, offered).is_none(), want.is_some(), "{address}");
            let mut delivery = timed(ByMode::Notify, false, 0);
            delivery.envelope.from = Some(recipient.address.clone());
            delivery.envelope.smtputf8 = true;
            let told = mail(&delivery, offered, RELAY);
            match want {
                Some(want) => {
                    assert_eq!(rcpt_line(&recipient, &delivery, offered), format!("RCPT TO:<{want}>"));
                    let smtputf8 = if offered.smtputf8 { " SMTPUTF8" } else { "" };
                    assert_eq!(told, Ok(format!("MAIL FROM:<{want}>{smtputf8}")));
                }
                None => assert_eq!(told, Err(Status(5, 6, 7)), "{address}"),
            }
        }
    }

    #[test]
    fn a_hop_that_took_our_login_is_told_who_submitted_a_message_or_that_nobody_knows() {
        let member = Standing { logged_in: true, ..RELAY };
        let none = Extensions::default();
        for (submitter, standing, want) in [
            (None, member, " AUTH=<>"),
            (Some("e+3Dmc2@example.com"), member, " AUTH=e+3Dmc2@example.com"),
            (Some("not xtext"), member, " AUTH=<>"),
            (Some(""), member, " AUTH=<>"),
            (Some("a@b"), RELAY, ""),
        ] {
            let mut delivery = timed(ByMode::Notify, false, 60);
            delivery.envelope.auth = submitter.map(str::to_owned);
            assert_eq!(mail(&delivery, none, standing), Ok(line(want)), "{submitter:?}");
        }
    }

    #[test]
    fn an_lmtp_server_without_dsn_is_told_in_the_header_for_whom_a_message_was_first_meant() {
        let server = Standing { is_final: true, ..RELAY };
        let dsn = Extensions { dsn: true, ..Extensions::default() };
        let none = Extensions::default();
        for (recipients, offered, standing, told) in
            [(1, none, server, true), (2, none, server, false), (1, dsn, server, false), (1, none, RELAY, false)]
        {
            let mut delivery = timed(ByMode::Notify, false, 60);
            let orcpt = Some("rfc822;first+2Bx@src".to_owned());
            delivery.envelope.recipients =
                vec![Recipient { orcpt, ..delivery.envelope.recipients[0].clone() }; recipients];
            let fitted = fit(&delivery, offered, standing).map(|fitted| fitted.content).expect("it can go");
            let want = if told { "Original-Recipient: rfc822; first+x@src\r\n" } else { "" };
            assert_eq!(fitted, [want.as_bytes(), &delivery.body].concat().into(), "{recipients} {}", offered.dsn);
        }
    }

    fn mail(delivery: &Delivery, offered: Extensions, standing: Standing) -> Result<String, Status> {
        fit(delivery, offered, standing).map(|fitted| fitted.mail).map_err(|(status, _)| status)
    }

    fn line(parameters: &str) -> String {
        format!("MAIL FROM:<a@src>{parameters}")
    }

    fn timed(mode: ByMode, trace: bool, seconds: i64) -> Delivery {
        let recipients = vec![Recipient::plain(Mailbox::new("b@dest"))];
        let mut envelope = Envelope::plain(Some(Mailbox::new("a@src")), recipients, Wall::NEVER);
        envelope.deliver_by = Some(DeliverBy { deadline: Wall(0), mode, trace });
        let body = b"Subject: x\r\n\r\nbody\r\n".as_slice().into();
        Delivery { envelope, body, tracking: None, by_seconds: Some(seconds) }
    }
}
