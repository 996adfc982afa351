//! URLs of BURL (RFC 4468): what of an IMAP URL (RFC 5092) decides whether a submission server may fetch it.
//!
//! Only URLs with URLAUTH (RFC 4467) are taken: their token says that whoever owns the mailbox lets this very user submit this very part.

/// Octets of a URL.
const LONGEST: usize = 2000;
/// Hexadecimal digits of a token, at least (RFC 4467 2.2).
const TOKEN: usize = 32;
/// Where IMAP is, if a URL does not say.
pub const IMAP_PORT: u16 = 143;

/// An IMAP URL that carries its own authorisation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// As given: printable ASCII without blanks, quotes and backslashes, so that it may stand in an IMAP quoted string.
    text: String,
    host: String,
    port: u16,
    access: String,
}

impl Url {
    /// Reads `imap://[user@]host[:port]/...;URLAUTH=access:mechanism:token`. What is wrong with it, if it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let sound = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
        if text.len() > LONGEST || !text.bytes().all(sound) {
            return Err("a URL is at most 2000 printable octets");
        }
        let rest = strip_any_case(text, "imap://").ok_or("only imap:// is fetched")?;
        let (authority, path) = rest.split_once('/').ok_or("an IMAP URL names a message")?;
        let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
        let (host, port) = match server.rsplit_once(':') {
            // An IPv6 address has colons of its own.
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| "not a port")?),
            Some(_) | None => (server, IMAP_PORT),
        };
        if host.is_empty() {
            return Err("an IMAP URL names a server");
        }
        let at = find_any_case(path, ";urlauth=").ok_or("only URLs with URLAUTH are fetched")?;
        let mut parts = path.get(at + ";urlauth=".len()..).unwrap_or_default().splitn(3, ':');
        let (Some(access), Some(mechanism), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("URLAUTH has no token");
        };
        if mechanism.is_empty() || token.len() < TOKEN || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("URLAUTH has no token");
        }
        Ok(Self { text: text.to_owned(), host: host.to_ascii_lowercase(), port, access: access.to_owned() })
    }

    /// The whole URL.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The server, in small letters.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it was made for this user to submit (RFC 4467 3: `submit+` and a name).
    pub fn lets_submit(&self, user: &str) -> bool {
        strip_any_case(&self.access, "submit+").and_then(decoded).is_some_and(|named| named == user)
    }
}

/// `%hh` undone.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match byte {
            b'%' => {
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

fn strip_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn find_any_case(text: &str, part: &str) -> Option<usize> {
    text.as_bytes().windows(part.len()).position(|w| w.eq_ignore_ascii_case(part.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "91354a473744909de610943775f92038";

    #[test]
    fn a_url_says_where_and_for_whom() {
        let url =
            Url::parse(&format!("IMAP://jack@IMAP.ship.example/INBOX/;uid=20;urlauth=submit+jack:internal:{TOKEN}"));
        let url = url.expect("a URL");
        assert_eq!((url.host(), url.port()), ("imap.ship.example", 143));
        assert!(url.lets_submit("jack") && !url.lets_submit("jac") && !url.lets_submit("Jack"));
        let port = format!("imap://h:1143/b/;uid=1;URLAUTH=SUBMIT+j%40x%2Ey:INTERNAL:{TOKEN}");
        let url = Url::parse(&port).expect("a URL");
        assert_eq!((url.host(), url.port()), ("h", 1143));
        assert!(url.lets_submit("j@x.y"));
        let six = Url::parse(&format!("imap://[::1]/b/;uid=1;urlauth=submit+j:internal:{TOKEN}")).expect("a URL");
        assert_eq!((six.host(), six.port()), ("[::1]", 143));
    }

    #[test]
    fn what_is_not_meant_for_submission_lets_nobody_submit() {
        for access in ["anonymous", "authuser", "user+jack", "submit+", "submit", "submit+%4", "submit+%ff"] {
            let text = format!("imap://h/b/;uid=1;urlauth={access}:internal:{TOKEN}");
            assert!(!Url::parse(&text).expect("a URL").lets_submit("jack"), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = format!("imap://h/b/;uid=1;urlauth=submit+j:internal:{TOKEN}");
        assert!(Url::parse(&good).is_ok());
        for text in [
            good.replace("imap:", "http:"),
            good.replace("imap:", "imaps:"),
            good.replace(";urlauth=", ";auth="),
            good.replace(TOKEN, "91354a47"),
            good.replace(TOKEN, "91354a473744909de610943775f9203g"),
            good.replace(":internal", ""),
            good.replace("//h", "//"),
            good.replace("//h", "//h:x"),
            good.replace("/b", "/\"b"),
            good.replace("/b", "/b\\"),
            good.replace("/b", "/b\r\na LOGOUT"),
            good.replace("/b", "/ø"),
            good.replace("/b", &"/b".repeat(1000)),
            "imap://h".to_owned(),
            String::new(),
        ] {
            assert!(Url::parse(&text).is_err(), "{text}");
        }
    }
}
