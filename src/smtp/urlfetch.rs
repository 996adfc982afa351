//! One URLFETCH (RFC 4467) at an IMAP server: the conversation of a submission server that is given a BURL.
//!
//! Sans-IO: bytes in by [`UrlFetch::handle_bytes`], bytes out by [`UrlFetch::poll_transmit`], and an [`Outcome`]. The driver connects,
//! begins TLS when asked, and bounds the time; the conversation bounds what it takes.

use data_encoding::BASE64;

/// Octets of a line, literals not counted.
const LONGEST_LINE: usize = 8 << 10;

/// What a submission server is known by at an IMAP server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name there: `submit`, usually.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl core::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The octets that the URL stands for.
    Content(Vec<u8>),
    /// The server does not give them out: a wrong or revoked token, a message that is gone.
    NotThere,
    /// There are more of them than may be taken.
    TooBig,
    /// The server knows nothing of us: no login, no TLS, no URLFETCH.
    NoTrust,
    /// It does not answer as an IMAP server does, or says that it cannot now.
    Broken,
}

/// What the driver has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Read, and hand over what came.
    Read,
    /// Begin TLS, then call [`UrlFetch::tls_started`].
    StartTls,
    /// Done; the connection may go.
    Done(Outcome),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Greeting,
    StartTls,
    Handshake,
    Challenge,
    Login,
    Fetch,
    Ended,
}

/// The client side of one connection.
#[derive(Debug)]
pub struct UrlFetch {
    state: State,
    url: String,
    credentials: Credentials,
    starttls: bool,
    /// Octets of content that may be taken.
    most: u64,
    input: Vec<u8>,
    /// Where the search for a line goes on, and where that line would begin: literals before it are passed over.
    seen: usize,
    out: Vec<u8>,
    content: Option<Vec<u8>>,
    outcome: Option<Outcome>,
}

impl UrlFetch {
    /// Fetches `url`, at most `most` octets; with `starttls` nothing is said before TLS is on.
    pub fn new(url: &str, credentials: Credentials, starttls: bool, most: u64) -> Self {
        Self {
            state: State::Greeting,
            url: url.to_owned(),
            credentials,
            starttls,
            most,
            input: Vec::new(),
            seen: 0,
            out: Vec::new(),
            content: None,
            outcome: None,
        }
    }

    /// Bytes to write.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.out.is_empty()).then(|| core::mem::take(&mut self.out))
    }

    /// What to do next, once everything is written.
    pub fn step(&self) -> Step {
        match (&self.outcome, self.state) {
            (Some(outcome), _) => Step::Done(outcome.clone()),
            (None, State::Handshake) => Step::StartTls,
            (None, _) => Step::Read,
        }
    }

    /// TLS is on.
    pub fn tls_started(&mut self) {
        if self.state == State::Handshake {
            self.login();
        }
    }

    /// The server sends no more.
    pub fn handle_eof(&mut self) {
        self.end(Outcome::Broken);
    }

    /// Takes bytes off the wire.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.outcome.is_some() {
            return;
        }
        // Before the handshake the server has nothing to say: what comes was put there by somebody else.
        if self.state == State::Handshake && !bytes.is_empty() {
            return self.end(Outcome::NoTrust);
        }
        self.input.extend_from_slice(bytes);
        while self.outcome.is_none() {
            match self.response() {
                Ok(Some(response)) => self.obey(&response),
                Ok(None) => return,
                Err(outcome) => return self.end(outcome),
            }
        }
    }

    /// Takes one whole response with its literals, if it is there.
    fn response(&mut self) -> Result<Option<Vec<u8>>, Outcome> {
        loop {
            let Some(end) = self.input.get(self.seen..).and_then(|rest| rest.windows(2).position(|w| w == b"\r\n"))
            else {
                let line = self.input.len() - self.seen.min(self.input.len());
                return if line > LONGEST_LINE { Err(Outcome::Broken) } else { Ok(None) };
            };
            let end = self.seen + end;
            let line = self.input.get(self.seen..end).unwrap_or_default();
            if line.len() > LONGEST_LINE {
                return Err(Outcome::Broken);
            }
            match literal(line) {
                None => {
                    let response = self.input.drain(..end + 2).collect();
                    self.seen = 0;
                    return Ok(Some(response));
                }
                Some(octets) if octets > self.most => return Err(Outcome::TooBig),
                Some(octets) => {
                    // Several literals in one response are no more than one may be.
                    let past = end as u64 + 2 + octets;
                    if past > self.most + 2 * LONGEST_LINE as u64 {
                        return Err(Outcome::TooBig);
                    }
                    let past = usize::try_from(past).map_err(|_| Outcome::TooBig)?;
                    if self.input.len() < past {
                        return Ok(None);
                    }
                    self.seen = past;
                }
            }
        }
    }

    fn obey(&mut self, response: &[u8]) {
        if response.len() >= 5 && response[..5].eq_ignore_ascii_case(b"* BYE") {
            return self.end(Outcome::Broken);
        }
        match self.state {
            State::Greeting if starts(response, "* OK") && self.starttls => self.say(State::StartTls, "s STARTTLS"),
            State::Greeting if starts(response, "* OK") => self.login(),
            // Logged in already, by whatever the machine knows of us; but never without the TLS that is wanted.
            State::Greeting if starts(response, "* PREAUTH") && !self.starttls => self.fetch(),
            State::StartTls if starts(response, "s OK") => {
                // Nothing may stand between this and the handshake (RFC 3501 6.2.1).
                match self.input.is_empty() {
                    true => self.state = State::Handshake,
                    false => self.end(Outcome::NoTrust),
                }
            }
            State::Challenge if response.starts_with(b"+") => {
                let Credentials { user, password } = &self.credentials;
                let word = BASE64.encode(format!("\0{user}\0{password}").as_bytes());
                self.say(State::Login, &word);
            }
            State::Login if starts(response, "l OK") => self.fetch(),
            State::Fetch if starts(response, "* URLFETCH ") => {
                let rest = response.get("* URLFETCH ".len()..).unwrap_or_default();
                match string(rest).and_then(|(_, rest)| string(rest.strip_prefix(b" ")?)) {
                    Some((Some(content), _)) if content.len() as u64 > self.most => self.end(Outcome::TooBig),
                    Some((content, _)) => self.content = content.map(<[u8]>::to_vec),
                    None => self.end(Outcome::Broken),
                }
            }
            State::Fetch if starts(response, "f OK") => {
                let outcome = self.content.take().map_or(Outcome::NotThere, Outcome::Content);
                self.end(outcome);
            }
            State::Fetch if starts(response, "f NO") => self.end(Outcome::NotThere),
            // Capabilities and whatever else it tells unasked.
            _ if response.starts_with(b"* ") && self.state != State::Greeting => {}
            State::StartTls | State::Challenge | State::Login | State::Fetch => self.end(Outcome::NoTrust),
            State::Greeting | State::Handshake | State::Ended => self.end(Outcome::Broken),
        }
    }

    fn login(&mut self) {
        self.say(State::Challenge, "l AUTHENTICATE PLAIN");
    }

    fn fetch(&mut self) {
        let line = format!("f URLFETCH \"{}\"", self.url);
        self.say(State::Fetch, &line);
    }

    fn say(&mut self, state: State, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.state = state;
    }

    fn end(&mut self, outcome: Outcome) {
        if self.outcome.is_none() {
            if self.state == State::Fetch {
                self.out.extend_from_slice(b"q LOGOUT\r\n");
            }
            (self.state, self.outcome) = (State::Ended, Some(outcome));
        }
    }
}

fn starts(response: &[u8], word: &str) -> bool {
    response.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
}

/// How many octets follow a line that ends in `{n}`.
fn literal(line: &[u8]) -> Option<u64> {
    let digits = line.strip_suffix(b"}")?;
    let open = digits.iter().rposition(|b| *b == b'{')?;
    let digits = digits.get(open + 1..)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(core::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX))
}

/// One string at the beginning: NIL (`None`), an atom, a quoted one or a literal; and what follows it.
fn string(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match bytes.first()? {
        b'"' => {
            let end = bytes.iter().skip(1).position(|b| *b == b'"')? + 1;
            let text = bytes.get(1..end)?;
            // A URL has no quotes and backslashes in it, and content that has them comes as a literal.
            (!text.contains(&b'\\')).then_some((Some(text), bytes.get(end + 1..)?))
        }
        b'{' => {
            let end = bytes.windows(2).position(|w| w == b"\r\n")?;
            let octets = usize::try_from(literal(bytes.get(..end)?)?).ok()?;
            let from = end + 2;
            Some((Some(bytes.get(from..from.checked_add(octets)?)?), bytes.get(from + octets..)?))
        }
        _ => {
            let end = bytes.iter().position(|b| matches!(b, b' ' | b'\r' | b'\n'))?;
            let text = bytes.get(..end)?;
            Some(((!text.eq_ignore_ascii_case(b"NIL")).then_some(text), bytes.get(end..)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "imap://h/b/;uid=1;urlauth=submit+j:internal:91354a473744909de610943775f92038";

    fn credentials() -> Credentials {
        Credentials { user: "submit".into(), password: "secret".into() }
    }

    /// Plays what the server says, line by line of ours; what we said, and how it ended.
    fn play(starttls: bool, most: u64, says: &[&[u8]], grain: usize) -> (String, Step) {
        let mut fetch = UrlFetch::new(URL, credentials(), starttls, most);
        let mut said = String::new();
        for words in says {
            for part in words.chunks(grain) {
                fetch.handle_bytes(part);
            }
            while let Some(bytes) = fetch.poll_transmit() {
                said += &String::from_utf8_lossy(&bytes);
            }
            if fetch.step() == Step::StartTls {
                said += "(TLS)\r\n";
                fetch.tls_started();
                while let Some(bytes) = fetch.poll_transmit() {
                    said += &String::from_utf8_lossy(&bytes);
                }
            }
        }
        (said, fetch.step())
    }

    #[test]
    fn content_comes_octet_for_octet_however_the_bytes_are_cut() {
        let body = b"Subject: x\r\n\r\n{3}\r\n)\r\nf OK no\r\n";
        let fetched = [
            format!("* URLFETCH \"{URL}\" {{{}}}\r\n", body.len()).as_bytes(),
            body,
            b"\r\n* 3 EXISTS\r\nf OK done\r\n",
        ]
        .concat();
        let says: [&[u8]; 5] = [
            b"* OK [CAPABILITY IMAP4rev1 URLAUTH] ready\r\n",
            b"s OK begin\r\n",
            b"+ \r\n",
            b"* CAPABILITY IMAP4rev1\r\nl OK in\r\n",
            &fetched,
        ];
        for grain in [1, 2, 3, 7, 1000] {
            let (said, step) = play(true, 100, &says, grain);
            let want = format!(
                "s STARTTLS\r\n(TLS)\r\nl AUTHENTICATE PLAIN\r\nAHN1Ym1pdABzZWNyZXQ=\r\nf URLFETCH \"{URL}\"\r\nq LOGOUT\r\n"
            );
            assert_eq!((said, step), (want, Step::Done(Outcome::Content(body.to_vec()))));
        }
    }

    #[test]
    fn everything_else_has_a_name() {
        let to_fetch: [&[u8]; 3] = [b"* OK hi\r\n", b"+\r\n", b"l OK\r\n"];
        let after = |words: &str| play(false, 100, &[&to_fetch[..], &[words.as_bytes()]].concat(), 1000).1;
        for (words, want) in [
            ("* URLFETCH \"u\" NIL\r\nf OK\r\n", Outcome::NotThere),
            ("f NO\r\n", Outcome::NotThere),
            ("f OK\r\n", Outcome::NotThere),
            ("f BAD unknown command\r\n", Outcome::NoTrust),
            ("* URLFETCH u {101}\r\n", Outcome::TooBig),
            ("* URLFETCH u {99999999999999999999999}\r\n", Outcome::TooBig),
            ("* URLFETCH u \"short\"\r\nf OK\r\n", Outcome::Content(b"short".to_vec())),
            ("* URLFETCH {1}\r\nu \"\"\r\nf OK\r\n", Outcome::Content(Vec::new())),
            ("* URLFETCH\r\nf OK\r\n", Outcome::NotThere),
            ("* URLFETCH u\r\n", Outcome::Broken),
            ("* BYE\r\n", Outcome::Broken),
        ] {
            assert_eq!(after(words), Step::Done(want), "{words:?}");
        }
        for (says, want) in [
            (&[&b"* BYE not now\r\n"[..]][..], Outcome::Broken),
            (&[b"SSH-2.0\r\n"], Outcome::Broken),
            (&[b"* OK\r\n", b"l NO\r\n"], Outcome::NoTrust),
            (&[b"* OK\r\n", b"+\r\n", b"l NO wrong\r\n"], Outcome::NoTrust),
        ] {
            assert_eq!(play(false, 100, says, 1000).1, Step::Done(want), "{says:?}");
        }
        let long = vec![b'x'; 2 * LONGEST_LINE];
        assert_eq!(play(false, 100, &[&long], 1000).1, Step::Done(Outcome::Broken));
    }

    #[test]
    fn words_put_before_the_handshake_end_it() {
        let injected = play(true, 100, &[b"* OK\r\n", b"s OK\r\nl OK\r\n"], 1000);
        assert_eq!(injected, ("s STARTTLS\r\n".to_owned(), Step::Done(Outcome::NoTrust)));
        // PREAUTH would skip TLS.
        assert_eq!(play(true, 100, &[b"* PREAUTH\r\n"], 1000).1, Step::Done(Outcome::Broken));
        assert_eq!(play(true, 100, &[b"* OK\r\n", b"s NO\r\n"], 1000).1, Step::Done(Outcome::NoTrust));
    }

    #[test]
    fn no_more_is_kept_than_was_bounded() {
        let mut fetch = UrlFetch::new(URL, credentials(), false, 100);
        fetch.handle_bytes(b"* OK\r\n");
        for _ in 0..10_000 {
            fetch.handle_bytes(b"* X {90}\r\n");
            fetch.handle_bytes(&[b'y'; 90]);
        }
        assert_eq!(fetch.step(), Step::Done(Outcome::TooBig));
        assert!(fetch.input.len() <= 3 * LONGEST_LINE + 200, "{}", fetch.input.len());
    }
}
