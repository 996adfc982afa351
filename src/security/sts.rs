//! MTA-STS (RFC 8461): what a domain's TXT record and its policy say, which hosts a policy names, and what is remembered of it.
//!
//! Bytes in, values out. A driver asks for the TXT record, tells [`Cache::look`], fetches where it is told to, gives the bytes of the HTTPS
//! response to [`body`] and its text to [`Policy::parse`], and tells [`Cache::fetched`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::{Duration, Instant, Now, Wall};

/// Largest policy (RFC 8461 3.3), and the largest head of the response that brings it.
pub const MOST_BODY: usize = 64 << 10;
const MOST_HEAD: usize = 16 << 10;
/// Bytes of a response that are read at most; chunked ones need some for their framing.
pub const MOST_RESPONSE: usize = MOST_HEAD + 2 * MOST_BODY;
/// Header fields of a response.
const MOST_FIELDS: usize = 100;
/// Hosts that a policy names.
const MOST_PATTERNS: usize = 1000;
/// Longest that a policy may ask to be remembered (RFC 8461 3.2).
const LONGEST_AGE: Duration = Duration::from_secs(31_557_600);
/// After a policy could not be had, how long it is not asked for again.
const PAUSE: Duration = Duration::from_secs(300);

/// The id in a domain's TXT records at `_mta-sts`; `None`: it has no policy. Each record is given as one text.
pub fn id(records: &[String]) -> Option<String> {
    let mut ours = records.iter().filter_map(|text| text.strip_prefix("v=STSv1").filter(|rest| is_end(rest)));
    let (fields, None) = (ours.next()?, ours.next()) else { return None };
    let mut ids = fields.split(';').filter_map(|field| field.trim().strip_prefix("id"));
    let id = ids.find_map(|rest| rest.trim_start().strip_prefix('='))?.trim();
    let sound = (1..=32).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric());
    sound.then(|| id.to_owned())
}

fn is_end(rest: &str) -> bool {
    rest.trim_start().starts_with(';')
}

/// What is done where a host does not keep the policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// It is not used.
    Enforce,
    /// It is told, and the mail goes.
    Testing,
    /// There is no policy any more.
    None,
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// What is done where a host does not keep it.
    pub mode: Mode,
    /// How long it is to be remembered.
    pub age: Duration,
    /// Names of hosts, in lower case; `*.` at the beginning stands for one label.
    hosts: Vec<String>,
}

impl Policy {
    /// Reads the text of a policy (RFC 8461 3.2): of fields other than `mx` the first counts, unknown ones do not.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = core::str::from_utf8(text).map_err(|_| "the policy is no text".to_owned())?;
        let (mut version, mut mode, mut age, mut hosts) = (None, None, None, Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                return Err("a line of the policy is no field".to_owned());
            };
            let value = value.trim();
            match name.trim_end() {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => age = age.or(Some(value)),
                "mx" if hosts.len() >= MOST_PATTERNS => return Err("the policy names too many hosts".to_owned()),
                "mx" if is_pattern(value) => hosts.push(value.to_ascii_lowercase()),
                "mx" => return Err("a host of the policy is no name".to_owned()),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err("the policy is of no version that is known".to_owned());
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err("the policy is of no mode that is known".to_owned()),
        };
        let age = age.filter(|age| (1..=10).contains(&age.len()) && age.bytes().all(|b| b.is_ascii_digit()));
        let Some(age) = age.and_then(|age| age.parse().ok()) else {
            return Err("the policy does not say how long it holds".to_owned());
        };
        if hosts.is_empty() && mode != Mode::None {
            return Err("the policy names no host".to_owned());
        }
        Ok(Self { mode, age: Duration::from_secs(age).min(LONGEST_AGE), hosts })
    }

    /// Whether it names this host. A wildcard stands for the leftmost label alone (RFC 8461 4.1).
    pub fn names(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let above = host.split_once('.').map(|(_, above)| above);
        self.hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(domain) => above == Some(domain),
            None => *pattern == host,
        })
    }
}

fn is_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    name.len() <= 253 && name.split('.').all(label)
}

/// The policy's bytes in an HTTP/1.1 response (RFC 8461 3.3): 200 alone will do, no redirect is followed, and it must be text/plain.
/// `None`: it is not all here yet; at the `end` of the connection there is no yet.
pub fn body(response: &[u8], end: bool) -> Result<Option<Vec<u8>>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let head = match parsed.parse(response) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if end => return Err("the response ends in its head".to_owned()),
        Ok(httparse::Status::Partial) if response.len() > MOST_HEAD => return Err("its head is too large".to_owned()),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(format!("it is no response of HTTP: {e}")),
    };
    match parsed.code {
        Some(200) => {}
        code => return Err(format!("it answers {}", code.unwrap_or_default())),
    }
    let field = |name: &str| {
        let mut of = parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        of.next().and_then(|h| core::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let kind = field("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("text/plain") {
        return Err("it is not text/plain".to_owned());
    }
    let rest = &response[head..];
    let whole = match (field("transfer-encoding"), field("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => unchunked(rest)?,
        (Some(_), _) => return Err("its coding is not known".to_owned()),
        (None, Some(length)) => {
            let length: usize = length.parse().map_err(|_| "its length is no number".to_owned())?;
            if length > MOST_BODY {
                return Err("it is larger than 64 KiB".to_owned());
            }
            rest.get(..length).map(<[u8]>::to_vec)
        }
        (None, None) => end.then(|| rest.to_vec()),
    };
    match whole {
        Some(whole) if whole.len() > MOST_BODY => Err("it is larger than 64 KiB".to_owned()),
        None if end => Err("the response ends too early".to_owned()),
        None if rest.len() > 2 * MOST_BODY => Err("it is larger than 64 KiB".to_owned()),
        whole => Ok(whole),
    }
}

/// What is in chunks, once the last is here.
fn unchunked(mut rest: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut whole = Vec::new();
    loop {
        let (begin, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("its chunks are malformed".to_owned()),
        };
        if length == 0 {
            return Ok(Some(whole));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MOST_BODY - whole.len() {
            return Err("it is larger than 64 KiB".to_owned());
        }
        let Some(chunk) = rest.get(begin..begin + length) else { return Ok(None) };
        whole.extend_from_slice(chunk);
        match rest.get(begin + length..begin + length + 2) {
            Some(b"\r\n") => rest = &rest[begin + length + 2..],
            Some(_) => return Err("its chunks are malformed".to_owned()),
            None => return Ok(None),
        }
    }
}

/// What the DNS says at `_mta-sts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Announced {
    /// There is a policy, with this id.
    Id(String),
    /// There is none, for all that can be seen.
    Nothing,
}

/// What to do about a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// This policy holds, or none.
    Holds(Option<Policy>),
    /// The policy is to be fetched, then told to [`Cache::fetched`].
    Fetch,
}

/// Policies by domain, as long as they are to be remembered. One that is remembered holds on where the DNS or the web server say nothing
/// any more: whoever can silence them must not be able to take it away (RFC 8461 5.1).
#[derive(Clone, Debug)]
pub struct Cache {
    most: usize,
    known: BTreeMap<String, Kept>,
    /// Domains whose policy could not be had, with the id that was announced, and until when it is not asked for again.
    refused: BTreeMap<String, (String, Instant)>,
}

/// A policy as a node keeps it beyond its own end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stored {
    id: String,
    /// What the domain asks for.
    pub policy: Policy,
    /// Until when it is remembered; `None`: it was fetched while nobody knew the time.
    pub until: Option<Wall>,
}

impl Stored {
    /// A policy that was fetched now, under the id that was announced.
    pub fn new(now: Now, id: &str, policy: Policy) -> Self {
        let until = now.set.then(|| now.wall.plus(policy.age));
        Self { id: id.to_owned(), policy, until }
    }

    /// Reads what [`Self::bytes`] wrote.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// As it is stored.
    pub fn bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Dates one that is not.
    pub fn date(&mut self, now: Now) {
        self.until = self.until.or(now.set.then(|| now.wall.plus(self.policy.age)));
    }

    /// How much longer it is to be remembered. Without a clock nobody knows, and it counts from its beginning: whoever can keep the node from
    /// the time must not be able to take the policy away. It never holds longer than it asks for, wherever the clock has been.
    pub fn left(&self, now: Now) -> Duration {
        let dated = self.until.filter(|_| now.set);
        dated.map_or(self.policy.age, |until| until.since(now.wall)).min(self.policy.age)
    }
}

#[derive(Clone, Debug)]
struct Kept {
    id: String,
    policy: Policy,
    until: Instant,
}

impl Cache {
    /// For so many domains.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), known: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// What holds for a domain, by what the DNS says of it now.
    pub fn look(&mut self, now: Instant, domain: &str, announced: &Announced) -> Look {
        self.known.retain(|_, kept| kept.until > now);
        self.refused.retain(|_, (_, until)| *until > now);
        let kept = self.known.get(domain);
        let holds = || Look::Holds(kept.map(|kept| kept.policy.clone()).filter(|p| p.mode != Mode::None));
        match announced {
            Announced::Nothing => holds(),
            Announced::Id(id) if kept.is_some_and(|kept| kept.id == *id) => holds(),
            Announced::Id(id) if self.refused.get(domain).is_some_and(|(other, _)| other == id) => holds(),
            Announced::Id(_) => Look::Fetch,
        }
    }

    /// A policy was fetched, or could not be; what holds now.
    pub fn fetched(&mut self, now: Instant, domain: &str, id: &str, policy: Result<Policy, String>) -> Option<Policy> {
        match policy {
            Ok(policy) => {
                make_room(&mut self.known, self.most, domain, |kept| kept.until);
                let until = now + policy.age;
                self.known.insert(domain.to_owned(), Kept { id: id.to_owned(), policy, until });
                self.refused.remove(domain);
            }
            Err(_) => {
                make_room(&mut self.refused, self.most, domain, |(_, until)| *until);
                self.refused.insert(domain.to_owned(), (id.to_owned(), now + PAUSE));
            }
        }
        let kept = self.known.get(domain).filter(|kept| kept.until > now);
        kept.map(|kept| kept.policy.clone()).filter(|policy| policy.mode != Mode::None)
    }

    /// Takes in what was kept since before the node was started.
    pub fn restore(&mut self, now: Now, domain: &str, stored: Stored) {
        let left = stored.left(now);
        if !left.is_zero() {
            make_room(&mut self.known, self.most, domain, |kept| kept.until);
            let Stored { id, policy, .. } = stored;
            self.known.insert(domain.to_owned(), Kept { id, policy, until: now.at + left });
        }
    }

    /// Domains whose policy is remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Where one more does not fit, the one goes that would end first.
fn make_room<V>(map: &mut BTreeMap<String, V>, most: usize, domain: &str, until: impl Fn(&V) -> Instant) {
    if map.len() >= most && !map.contains_key(domain) {
        let first = map.iter().min_by_key(|(_, value)| until(value)).map(|(key, _)| key.clone());
        first.and_then(|key| map.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000)
    }

    fn policy(mode: &str, age: u64) -> Policy {
        let text =
            format!("version: STSv1\r\nmode: {mode}\r\nmx: mx.far.test\r\nmx: *.mail.far.test\r\nmax_age: {age}\r\n");
        Policy::parse(text.as_bytes()).expect("a policy")
    }

    #[test]
    fn one_record_announces_a_policy() {
        let of = |texts: &[&str]| id(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(of(&["v=spf1 -all", "v=STSv1;id=1"]).as_deref(), Some("1"));
        assert_eq!(of(&["v=STSv1; more=x; id=1;"]).as_deref(), Some("1"));
        for none in [
            &["v=STSv1; id=1;", "v=STSv1; id=2;"][..],
            &["v=STSv1"],
            &["v=STSv12; id=1"],
            &["v=STSv1; id=;"],
            &["v=STSv1; id=a-b;"],
            &["v=STSv1; id=123456789012345678901234567890123;"],
            &[" v=STSv1; id=1"],
            &["V=STSv1; id=1"],
            &[],
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_policy_names_its_hosts() {
        let policy = policy("enforce", 86_400);
        assert_eq!((policy.mode, policy.age), (Mode::Enforce, Duration::from_secs(86_400)));
        for host in ["mx.far.test", "MX.Far.Test", "a.mail.far.test"] {
            assert!(policy.names(host), "{host}");
        }
        for host in ["far.test", "mail.far.test", "a.b.mail.far.test", "xmx.far.test", "mx.far.test.evil.test"] {
            assert!(!policy.names(host), "{host}");
        }
    }

    #[test]
    fn what_a_policy_must_have() {
        let parse = |text: &str| Policy::parse(text.as_bytes());
        let sound = "version: STSv1\nmode: testing\nmode: enforce\nmx: a.test\nmax_age: 99999999999\nnew: thing\n";
        assert!(parse(sound).is_err(), "eleven digits are no age");
        let sound = sound.replace("99999999999", "9999999999");
        let policy = parse(&sound).expect("a policy");
        assert_eq!((policy.mode, policy.age), (Mode::Testing, LONGEST_AGE), "the first mode, the longest age");
        assert!(parse("version: STSv1\nmode: none\nmax_age: 1\n").is_ok());
        for (from, to) in [
            ("version: STSv1", "version: STSv2"),
            ("mode: testing\nmode: enforce", "mode: other"),
            ("mx: a.test", "mx: *.*.test"),
            ("mx: a.test", "mx: a..test"),
            ("mx: a.test", "my: a.test"),
            ("max_age", "min_age"),
            ("new: thing", "nonsense"),
        ] {
            assert!(parse(&sound.replace(from, to)).is_err(), "{to}");
        }
        assert!(Policy::parse(b"version: STSv1\nmode: \xff\n").is_err());
        let many = format!("{sound}{}", "mx: a.test\n".repeat(MOST_PATTERNS));
        assert!(parse(&many).is_err());
    }

    #[test]
    fn a_response_is_taken_whole_however_it_is_framed() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n";
        let length = format!("{head}Content-Length: 5\r\n\r\nhello");
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n");
        let closed = format!("{head}\r\nhello");
        for (text, ends_itself) in [(&length, true), (&chunked, true), (&closed, false)] {
            assert_eq!(body(text.as_bytes(), true), Ok(Some(b"hello".to_vec())), "{text}");
            assert_eq!(body(text.as_bytes(), false).expect("sound").is_some(), ends_itself, "{text}");
            for cut in 0..text.len() - 6 {
                assert!(matches!(body(&text.as_bytes()[..cut], false), Ok(None)), "{cut} of {text}");
            }
            let early = body(&text.as_bytes()[..text.len() - 4], true);
            assert_eq!(early.is_err(), ends_itself, "{text}");
        }
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        let refused = |text: String| body(text.as_bytes(), true).expect_err("refused");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
        assert!(refused("HTTP/1.1 301 Moved\r\nLocation: https://x.test/\r\n\r\n".into()).contains("301"));
        assert!(refused("HTTP/1.1 404 Not Found\r\n\r\n".into()).contains("404"));
        assert!(refused("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nx".into()).contains("text/plain"));
        assert!(refused(format!("{head}Content-Length: 70000\r\n\r\n")).contains("64 KiB"));
        assert!(refused(format!("{head}\r\n{}", "x".repeat(MOST_BODY + 1))).contains("64 KiB"));
        assert!(refused(format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n")).contains("64 KiB"));
        assert!(refused(format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhexx")).contains("malformed"));
        assert!(refused(format!("{head}Transfer-Encoding: gzip\r\n\r\nx")).contains("coding"));
        assert!(refused("SMTP/1.0\r\n\r\n".into()).contains("HTTP"));
        let endless = format!("{head}{}", "x: y\r\n".repeat(5000));
        assert!(body(endless.as_bytes(), false).is_err());
    }

    #[test]
    fn a_policy_that_is_remembered_outlives_silence() {
        let mut cache = Cache::new(10);
        let one = Announced::Id("1".into());
        let two = Announced::Id("2".into());
        assert_eq!(cache.look(at(0), "far.test", &Announced::Nothing), Look::Holds(None));
        assert_eq!(cache.look(at(0), "far.test", &one), Look::Fetch);
        let enforce = policy("enforce", 1000);
        assert_eq!(cache.fetched(at(0), "far.test", "1", Ok(enforce.clone())), Some(enforce.clone()));
        for announced in [&one, &Announced::Nothing] {
            assert_eq!(cache.look(at(10), "far.test", announced), Look::Holds(Some(enforce.clone())));
        }
        assert_eq!(cache.look(at(20), "far.test", &two), Look::Fetch);
        assert_eq!(cache.fetched(at(20), "far.test", "2", Err("away".into())), Some(enforce.clone()));
        assert_eq!(cache.look(at(21), "far.test", &two), Look::Holds(Some(enforce)), "not asked at every message");
        assert_eq!(cache.look(at(320), "far.test", &two), Look::Fetch, "but again after a while");
        assert_eq!(cache.fetched(at(320), "far.test", "2", Ok(policy("none", 1000))), None);
        assert_eq!(cache.look(at(321), "far.test", &two), Look::Holds(None));
        assert_eq!(cache.look(at(1320), "far.test", &two), Look::Fetch, "its time is over");
    }

    #[test]
    fn a_policy_outlives_a_restart_as_long_as_it_may_and_no_longer() {
        let clock = |s: i64, set| Now { at: at(5), wall: Wall::from_seconds(1_800_000_000 + s), set };
        let stored = Stored::new(clock(0, true), "1", policy("enforce", 1000));
        assert_eq!(Stored::read(&stored.bytes()), Some(stored.clone()));
        assert_eq!(Stored::read(&stored.bytes()[..9]), None);
        for (now, left) in [
            (clock(400, true), 600),
            (clock(1000, true), 0),
            (clock(-90_000, true), 1000),
            (clock(-90_000, false), 1000),
            (clock(90_000, false), 1000),
        ] {
            assert_eq!(stored.left(now), Duration::from_secs(left), "{now:?}");
            let mut cache = Cache::new(1);
            cache.restore(now, "far.test", stored.clone());
            let holds = (left > 0).then(|| stored.policy.clone());
            assert_eq!(cache.look(at(5), "far.test", &Announced::Nothing), Look::Holds(holds));
            let other = if left > 0 { Look::Holds(Some(stored.policy.clone())) } else { Look::Fetch };
            assert_eq!(cache.look(at(5), "far.test", &Announced::Id("1".into())), other);
        }
        assert_eq!(Stored::new(clock(0, false), "1", policy("enforce", 1000)).until, None);
    }

    proptest! {
        /// What holds is always the last policy that was fetched and whose time is not over; the cache stays within its bound.
        #[test]
        fn the_cache_holds_what_was_fetched_last(
            steps in proptest::collection::vec((0_u64..400, 0_u8..2, 0_u8..3, any::<bool>(), 1_u64..2000), 1..60),
        ) {
            let mut cache = Cache::new(2);
            let mut model: BTreeMap<String, (Policy, Instant)> = BTreeMap::new();
            let mut now = 0;
            for (wait, domain, id, fails, age) in steps {
                now += wait;
                let domain = format!("d{domain}.test");
                let announced = if id == 0 { Announced::Nothing } else { Announced::Id(id.to_string()) };
                let held = |model: &BTreeMap<String, (Policy, Instant)>| {
                    model.get(&domain).filter(|(_, until)| *until > at(now)).map(|(policy, _)| policy.clone())
                };
                let holds = match cache.look(at(now), &domain, &announced) {
                    Look::Holds(policy) => policy,
                    Look::Fetch => {
                        prop_assert!(id != 0);
                        let fetched = if fails { Err("away".to_owned()) } else { Ok(policy("enforce", age)) };
                        if let Ok(policy) = &fetched {
                            model.insert(domain.clone(), (policy.clone(), at(now) + policy.age));
                        }
                        cache.fetched(at(now), &domain, &id.to_string(), fetched)
                    }
                };
                prop_assert_eq!(holds, held(&model));
                prop_assert!(cache.len() <= 2);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), end in any::<bool>()) {
            let _ = Policy::parse(&bytes);
            let _ = body(&bytes, end);
            let _ = body(&[b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n", &*bytes].concat(), end);
            let _ = id(&[String::from_utf8_lossy(&bytes).into_owned()]);
        }
    }
}
