//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677; tls-exporter: RFC 9266): the server's side; the client's is [`client`].
//!
//! What is stored of a password is a [`Verifier`]: enough to check who knows it, and not enough to pretend to. The session reads the
//! client's [`First`] message, its driver brings nonce and verifier, and an [`Exchange`] does the rest. A user who does not exist
//! gets a [`decoy`] and fails where a wrong password fails. All primitives are ring's.

pub mod client;

use core::fmt;
use core::num::NonZeroU32;

use data_encoding::BASE64;
use ring::{digest, hmac, pbkdf2};

/// Fewest iterations a verifier may have (RFC 7677 4).
pub const LEAST_ITERATIONS: u32 = 4096;
/// Most iterations: each PLAIN login of such a user costs them here, and each SCRAM login at the client.
pub const MOST_ITERATIONS: u32 = 2_000_000;
/// What [`Verifier::derive`] is given where nobody says otherwise.
pub const USUAL_ITERATIONS: u32 = 100_000;

const MECHANISM: &str = "SCRAM-SHA-256";
const KEY: usize = 32;
/// Octets of a salt, as stored and as made.
const LEAST_SALT: usize = 8;
const MOST_SALT: usize = 64;
/// Octets of a user name or nonce a client may send.
const MOST_NAME: usize = 512;

/// What is stored of a password (RFC 5803, the form PostgreSQL shows): `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; KEY],
    server_key: [u8; KEY],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] = [&self.salt[..], &self.stored_key, &self.server_key].map(|b| BASE64.encode(b));
        write!(f, "{MECHANISM}${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl Verifier {
    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        let (cost, keys) = text.strip_prefix(MECHANISM)?.strip_prefix('$')?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (cost.split_once(':')?, keys.split_once(':')?);
        let key = |text: &str| BASE64.decode(text.as_bytes()).ok()?.try_into().ok();
        let salt = BASE64.decode(salt.as_bytes()).ok().filter(|s| (LEAST_SALT..=MOST_SALT).contains(&s.len()))?;
        let plain = iterations.bytes().all(|b| b.is_ascii_digit());
        let iterations: NonZeroU32 = iterations.parse().ok().filter(|_| plain)?;
        let bounded = (LEAST_ITERATIONS..=MOST_ITERATIONS).contains(&iterations.get());
        bounded.then_some(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// Derives it from a password; costs as much as a login by PLAIN does.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let bounded = iterations.clamp(LEAST_ITERATIONS, MOST_ITERATIONS);
        let iterations = NonZeroU32::new(bounded).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; KEY];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: hash(&mac(&salted, b"Client Key")),
            server_key: mac(&salted, b"Server Key"),
        }
    }

    /// Whether this is the password: for PLAIN.
    pub fn fits(&self, password: &str) -> bool {
        same(&Self::derive(password, &self.salt, self.iterations.get()).stored_key, &self.stored_key)
    }

    /// Iterations of its derivation.
    pub const fn iterations(&self) -> u32 {
        self.iterations.get()
    }
}

/// What a user without a verifier is shown: always the same salt for the same name, and keys that nothing fits.
pub fn decoy(secret: &[u8], user: &str, iterations: u32) -> Verifier {
    let drawn = |what: &str| mac(secret, format!("{what} {user}").as_bytes());
    let salt = drawn("salt").get(..16).unwrap_or_default().to_vec();
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    Verifier { iterations, salt, stored_key: drawn("stored"), server_key: drawn("server") }
}

/// Whether SCRAM says the same of this password everywhere: anything but printable ASCII would have to be normalised first
/// (SASLprep), and the two ends must not disagree on how.
pub fn is_plain_password(password: &str) -> bool {
    !password.is_empty() && password.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// What a client says of channel binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Binding {
    /// `n`: it knows none.
    Unknown,
    /// `y`: it knows some, and believes the server does not.
    NotOffered,
    /// `p=tls-exporter`
    Exporter,
    /// `p=` and another type.
    Other,
}

/// The client's first message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct First {
    binding: Binding,
    authzid: Option<String>,
    user: String,
    nonce: String,
    /// The GS2 header as it stood.
    header: String,
    /// The rest as it stood.
    bare: String,
}

impl First {
    /// Reads it; `None` when it is malformed or wants an extension nobody knows.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(message).ok()?;
        let (flag, rest) = text.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        let binding = match flag {
            "n" => Binding::Unknown,
            "y" => Binding::NotOffered,
            "p=tls-exporter" => Binding::Exporter,
            _ => flag.strip_prefix("p=").filter(|name| !name.is_empty()).map(|_| Binding::Other)?,
        };
        let authzid = match authzid {
            "" => None,
            text => Some(name(text.strip_prefix("a=")?)?),
        };
        // A mandatory extension (`m=`) would stand before the name, and none is known.
        let mut parts = bare.split(',');
        let user = name(parts.next()?.strip_prefix("n=")?)?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        if !is_nonce(nonce) || !parts.all(is_extension) {
            return None;
        }
        let header = text.get(..text.len() - bare.len())?.to_owned();
        Some(Self { binding, authzid, user, nonce: nonce.to_owned(), header, bare: bare.to_owned() })
    }

    /// Who wants in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether it may go on: nobody acts for somebody else, and the binding it speaks of is the mechanism's and the connection's.
    /// A client that could bind and believes we cannot, although we offered it, was lied to on the way (RFC 5802 6).
    pub fn may_go_on(&self, plus: bool, plus_offered: bool) -> bool {
        let bound = match self.binding {
            Binding::Unknown => !plus,
            Binding::NotOffered => !plus && !plus_offered,
            Binding::Exporter => plus,
            Binding::Other => false,
        };
        bound && self.authzid.as_ref().is_none_or(|a| *a == self.user)
    }
}

/// Why an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The client's last message is none.
    Malformed,
    /// It does not know the password, or its words or the channel are not those of this exchange.
    Wrong,
}

/// An exchange after the client's first message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exchange {
    first: First,
    nonce: String,
    challenge: String,
    verifier: Verifier,
    exporter: Option<[u8; KEY]>,
}

impl Exchange {
    /// Goes on from the client's first message. `nonce` is the server's part: fresh, printable, without commas. `exporter` is the
    /// connection's, for the mechanism that binds to it.
    pub fn new(first: First, nonce: &str, verifier: Verifier, exporter: Option<[u8; KEY]>) -> Self {
        let nonce = format!("{}{nonce}", first.nonce);
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        Self { first, nonce, challenge, verifier, exporter }
    }

    /// The server's first message.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Judges the client's last message; the server's last, when it is right.
    pub fn finish(&self, message: &[u8]) -> Result<String, Refused> {
        let text = core::str::from_utf8(message).map_err(|_| Refused::Malformed)?;
        let (claim, proof) = text.rsplit_once(",p=").ok_or(Refused::Malformed)?;
        let proof: [u8; KEY] =
            BASE64.decode(proof.as_bytes()).ok().and_then(|p| p.try_into().ok()).ok_or(Refused::Malformed)?;
        let mut parts = claim.split(',');
        let bound = parts.next().and_then(|p| p.strip_prefix("c=")).ok_or(Refused::Malformed)?;
        let nonce = parts.next().and_then(|p| p.strip_prefix("r=")).ok_or(Refused::Malformed)?;
        if !parts.all(is_extension) {
            return Err(Refused::Malformed);
        }
        let mut binding = self.first.header.clone().into_bytes();
        if self.first.binding == Binding::Exporter {
            binding.extend_from_slice(&self.exporter.ok_or(Refused::Wrong)?);
        }
        if BASE64.decode(bound.as_bytes()).ok() != Some(binding) || nonce != self.nonce {
            return Err(Refused::Wrong);
        }
        let said = format!("{},{},{claim}", self.first.bare, self.challenge);
        let mut client_key = mac(&self.verifier.stored_key, said.as_bytes());
        for (byte, mask) in client_key.iter_mut().zip(proof) {
            *byte ^= mask;
        }
        if !same(&hash(&client_key), &self.verifier.stored_key) {
            return Err(Refused::Wrong);
        }
        Ok(format!("v={}", BASE64.encode(&mac(&self.verifier.server_key, said.as_bytes()))))
    }
}

/// RFC 5802 5.1: commas and equals signs in names are written `=2C` and `=3D`, and no other `=` occurs.
fn name(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, tail)) = rest.split_once('=') {
        out.push_str(plain);
        out.push(match tail.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = tail.get(2..)?;
    }
    out.push_str(rest);
    let sound = !out.is_empty() && out.len() <= MOST_NAME && !out.chars().any(char::is_control);
    sound.then_some(out)
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.len() <= MOST_NAME && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// An optional extension: a letter, an equals sign, a value. None is known, so all are passed over.
fn is_extension(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() && b != b'm') && bytes.next() == Some(b'=')
}

fn mac(key: &[u8], message: &[u8]) -> [u8; KEY] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    octets(tag.as_ref())
}

fn hash(message: &[u8]) -> [u8; KEY] {
    octets(digest::digest(&digest::SHA256, message).as_ref())
}

/// SHA-256 gives as many.
fn octets(bytes: &[u8]) -> [u8; KEY] {
    let mut out = [0; KEY];
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    out
}

/// Compares without telling by time where they differ: ring compares tags so.
fn same(a: &[u8; KEY], b: &[u8; KEY]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b);
    hmac::verify(&key, a, hmac::sign(&key, b).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    /// The messages of a client that knows `password`: what a client's side of RFC 5802 is, for these tests.
    pub fn client_last(first: &str, challenge: &str, password: &str, binding: &[u8]) -> String {
        let (bare, header) = {
            let at = first.match_indices(',').nth(1).expect("header").0 + 1;
            (&first[at..], &first[..at])
        };
        let part = |key: &str| challenge.split(',').find_map(|p| p.strip_prefix(key)).expect("part").to_owned();
        let salt = BASE64.decode(part("s=").as_bytes()).expect("salt");
        let mut salted = [0; KEY];
        let iterations = part("i=").parse().expect("iterations");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = mac(&salted, b"Client Key");
        let bound = BASE64.encode(&[header.as_bytes(), binding].concat());
        let claim = format!("c={bound},r={}", part("r="));
        let signature = mac(&hash(&client_key), format!("{bare},{challenge},{claim}").as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        format!("{claim},p={}", BASE64.encode(&proof))
    }

    #[test]
    fn the_vector_of_rfc_7677_comes_out_octet_for_octet() {
        let verifier = Verifier::parse(STORED).expect("parses");
        assert_eq!(verifier.to_string(), STORED);
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        assert!(Verifier::derive("pencil", &salt, 4096) == verifier);
        assert!(verifier.fits("pencil") && !verifier.fits("Pencil"));
        let message = BASE64.decode(b"biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=").expect("base64");
        let first = First::parse(&message).expect("first");
        assert_eq!((first.user(), first.may_go_on(false, false)), ("user", true));
        let exchange = Exchange::new(first, SERVER_NONCE, verifier, None);
        assert_eq!(exchange.challenge(), format!("r={NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let last = format!("c=biws,r={NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(exchange.finish(last.as_bytes()), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned()));
        assert_eq!(client_last(&format!("n,,n=user,r={NONCE}"), exchange.challenge(), "pencil", b""), last);
        for (wrong, why) in [
            (last.replace("dHzb", "dHzc"), Refused::Wrong),
            (last.replace("c=biws", "c=eSws"), Refused::Wrong),
            (last.replace("$k0", "$k1"), Refused::Wrong),
            (last.replace(",p=", ",m=x,p="), Refused::Malformed),
            (last.replace(",p=", ",p=A"), Refused::Malformed),
            (last.replace("c=", "d="), Refused::Malformed),
            (String::new(), Refused::Malformed),
        ] {
            assert_eq!(exchange.finish(wrong.as_bytes()), Err(why), "{wrong}");
        }
    }

    #[test]
    fn the_channel_is_bound_and_a_client_that_was_lied_to_is_refused() {
        let (here, elsewhere) = ([7; 32], [8; 32]);
        let first = "p=tls-exporter,,n=user,r=abc";
        let parsed = || First::parse(first.as_bytes()).expect("first");
        assert!(parsed().may_go_on(true, true) && !parsed().may_go_on(false, true));
        let verifier = Verifier::parse(STORED).expect("parses");
        let exchange = Exchange::new(parsed(), "xyz", verifier.clone(), Some(here));
        assert!(exchange.finish(client_last(first, exchange.challenge(), "pencil", &here).as_bytes()).is_ok());
        for (password, channel) in [("pencil", &elsewhere[..]), ("pencil", b""), ("pen", &here)] {
            let last = client_last(first, exchange.challenge(), password, channel);
            assert_eq!(exchange.finish(last.as_bytes()), Err(Refused::Wrong));
        }
        let unbound = Exchange::new(parsed(), "xyz", verifier, None);
        let last = client_last(first, unbound.challenge(), "pencil", b"");
        assert_eq!(unbound.finish(last.as_bytes()), Err(Refused::Wrong));
        for (flag, plus, offered, may) in [
            ("n", false, true, true),
            ("n", true, true, false),
            ("y", false, false, true),
            ("y", false, true, false),
            ("y", true, true, false),
            ("p=tls-unique", true, true, false),
        ] {
            let first = First::parse(format!("{flag},,n=user,r=abc").as_bytes()).expect("first");
            assert_eq!(first.may_go_on(plus, offered), may, "{flag} {plus} {offered}");
        }
    }

    #[test]
    fn names_are_decoded_and_malformed_messages_are_none() {
        let first = First::parse(b"n,a=a=3Db=2Cc,n=a=3Db=2Cc,r=abc,x=later").expect("first");
        assert_eq!((first.user(), first.may_go_on(false, false)), ("a=b,c", true));
        assert!(!First::parse(b"n,a=other,n=user,r=abc").expect("first").may_go_on(false, false));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "q,,n=user,r=abc",
            "p=,,n=user,r=abc",
            "n,,n=,r=abc",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,r=abc,n=user",
            "n,,m=x,n=user,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=us=2cer,r=abc",
            "n,b=x,n=user,r=abc",
            "n,,n=user,r=a b",
            "n,,n=user,r=abc,m=x",
            "n,,n=user,r=abc,",
            "n,,n=us\u{7}er,r=abc",
        ] {
            assert_eq!(First::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(First::parse(b"n,,n=\xff,r=abc"), None);
    }

    #[test]
    fn stored_forms_are_read_strictly() {
        for bad in [
            STORED.replace("4096", "4095"),
            STORED.replace("4096", "+4096"),
            STORED.replace("4096", "99999999"),
            STORED.replace("SHA-256", "SHA-1"),
            STORED.replace("W22Z", "W2"),
            STORED.replace("WG5d", ""),
            STORED.replacen(':', ";", 1),
            format!("{STORED}x"),
        ] {
            assert!(Verifier::parse(&bad).is_none(), "{bad}");
        }
        assert!(!format!("{:?}", Verifier::parse(STORED)).contains("WG5d"), "not for logs");
        assert!(is_plain_password("correct horse") && !is_plain_password("Malmö") && !is_plain_password(""));
    }

    #[test]
    fn who_does_not_exist_looks_like_who_does() {
        let (a, b) = (decoy(b"secret", "a", 4096), decoy(b"secret", "b", 4096));
        assert!(a == decoy(b"secret", "a", 4096) && a.salt != b.salt && a.salt.len() == 16);
        assert!(a.salt != decoy(b"other", "a", 4096).salt);
        assert_eq!(Verifier::parse(&a.to_string()).map(|v| v.iterations()), Some(4096));
    }

    proptest::proptest! {
        #[test]
        fn no_message_of_a_client_makes_it_panic(
            first in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            text in "[nyp],[a-c=]{0,4},n=[a-z=,2C]{0,8},r=[ -~]{0,8}",
            last in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        ) {
            let _ = First::parse(&first);
            let made = First::parse(text.as_bytes()).or_else(|| First::parse(b"n,,n=user,r=abc")).expect("one");
            let exchange = Exchange::new(made, "xyz", Verifier::parse(STORED).expect("parses"), None);
            proptest::prop_assert!(exchange.finish(&last).is_err());
        }
    }
}
