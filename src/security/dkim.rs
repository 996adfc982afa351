//! Keys that sign mail: DKIM (RFC 6376, Ed25519 by RFC 8463) and the seals of ARC (RFC 8617), and the DNS record of each key.
//!
//! Made once from a profile's `[[dkim]]`; called off the switch's thread, since a body is hashed whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use data_encoding::BASE64;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::{Algorithm, DkimKey, Ed25519Key, RsaKey, Sha256, SigningKey};
use mail_auth::common::headers::{HeaderWriter, Writable};
use mail_auth::dkim::{Canonicalization, DkimSigner};
use mail_auth::{ArcOutput, AuthenticatedMessage, AuthenticationResults};
use mail_parser::MessageParser;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// What a key signs unless the profile says otherwise, of what a message has (RFC 6376 5.4.1).
pub const HEADERS: &[&str] = &[
    "From",
    "Reply-To",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Of which fields no further one may be added: each is signed once more than it is there (RFC 6376 5.4).
pub const OVERSIGNED: &[&str] = &["From", "Reply-To", "Subject", "Date", "To", "Cc"];
/// Fields that change under way, so that no signature may cover them.
const VOLATILE: &[&str] =
    &["Return-Path", "Received", "Authentication-Results", "DKIM-Signature", "MT-Priority", "Bcc"];
/// Names one key may sign.
pub const MOST_HEADERS: usize = 40;

/// How octets are brought into one form before they are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As they are.
    Simple,
    /// Blanks and folds do not count.
    Relaxed,
}

impl Form {
    /// `simple` or `relaxed`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "simple" => Self::Simple,
            "relaxed" => Self::Relaxed,
            _ => return None,
        })
    }

    const fn canonicalization(self) -> Canonicalization {
        match self {
            Self::Simple => Canonicalization::Simple,
            Self::Relaxed => Canonicalization::Relaxed,
        }
    }
}

/// Which kind of key it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// rsa-sha256, 2048 bits or more.
    Rsa,
    /// ed25519-sha256
    Ed25519,
}

/// A private key.
#[derive(Clone)]
pub struct Key {
    secret: Arc<DkimKey>,
    /// As its DNS record has it: a SubjectPublicKeyInfo for RSA, the bare 32 octets for Ed25519.
    public: Vec<u8>,
    kind: KeyKind,
}

impl Key {
    /// Reads a PEM file: PKCS#8 or PKCS#1, RSA of at least 2048 bits or Ed25519.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key".to_owned())?;
        if let PrivateKeyDer::Pkcs8(pkcs8) = &der
            && let Ok(key) = Ed25519Key::from_pkcs8_maybe_unchecked_der(pkcs8.secret_pkcs8_der())
        {
            let public = key.public_key();
            return Ok(Self { secret: Arc::new(key.into()), public, kind: KeyKind::Ed25519 });
        }
        let key = RsaKey::<Sha256>::from_key_der(der)
            .map_err(|_| "holds neither RSA of 2048 bits or more nor Ed25519".to_owned())?;
        let public = subject_public_key_info(&key.public_key());
        Ok(Self { secret: Arc::new(key.into()), public, kind: KeyKind::Rsa })
    }

    /// What kind it is.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }
}

impl SigningKey for Key {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        self.secret.sign(input)
    }

    fn algorithm(&self) -> Algorithm {
        self.secret.algorithm()
    }
}

/// One `[[dkim]]`: a key at work for a domain.
#[derive(Clone)]
pub struct Signer {
    /// Its name in the profile.
    pub name: String,
    /// The domain it signs for, in lower case.
    pub domain: String,
    /// Which of the domain's keys it is.
    pub selector: String,
    /// The key.
    pub key: Key,
    /// Fields it signs where a message has them.
    pub headers: Vec<String>,
    /// Fields of which no further one may be added.
    pub oversigned: Vec<String>,
    /// How the header is brought into form.
    pub header_form: Form,
    /// How the body is.
    pub body_form: Form,
}

impl Signer {
    /// Why a field may not be signed, if so.
    pub fn unfit(name: &str) -> Option<&'static str> {
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b';') {
            return Some("is no name of a header field");
        }
        let volatile = |v: &&str| v.eq_ignore_ascii_case(name);
        let arc = name.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("ARC-"));
        (arc || VOLATILE.iter().any(volatile)).then_some("changes under way")
    }

    /// The DKIM-Signature field of `message`, ready to be put on top of it. It reads the machine's clock for `t=`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signer = DkimSigner::from_key(self.key.clone())
            .domain(self.domain.as_str())
            .selector(self.selector.as_str())
            .headers(self.names_in(message, &[]))
            .header_canonicalization(self.header_form.canonicalization())
            .body_canonicalization(self.body_form.canonicalization());
        let signature = signer.sign(message).map_err(|e| e.to_string())?;
        Ok(signature.to_header().into_bytes())
    }

    /// The three fields of the next ARC set, ready to be put on top of `message`; `results` is the text of Authentication-Results
    /// on one line, and `chain` what was found on arrival. `None` where the chain has ended: it says itself that it is broken.
    pub fn seal<'m>(
        &self,
        message: &'m AuthenticatedMessage<'m>,
        results: &str,
        chain: &ArcOutput<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        if !chain.can_be_sealed() {
            return Ok(None);
        }
        let names = self.names_in(message.raw_message(), &["DKIM-Signature"]);
        // The crate writes what it takes for a host name as it is: so the results are ours to the letter.
        let results = AuthenticationResults::new(results);
        let sealer = ArcSealer::from_key(self.key.clone())
            .domain(self.domain.as_str())
            .selector(self.selector.as_str())
            .headers(names)
            .header_canonicalization(self.header_form.canonicalization())
            .body_canonicalization(self.body_form.canonicalization());
        let mut out = Vec::new();
        // A borrow as long as the shortest of the three.
        seal_into(&sealer, message, &results, chain, &mut out)?;
        Ok(Some(out))
    }

    /// Name and content of the TXT record that publishes the key (RFC 6376 3.6.1).
    pub fn record(&self) -> (String, String) {
        let name = format!("{}._domainkey.{}.", self.selector, self.domain);
        let kind = match self.key.kind {
            KeyKind::Rsa => "rsa",
            KeyKind::Ed25519 => "ed25519",
        };
        (name, format!("v=DKIM1; k={kind}; p={}", BASE64.encode(&self.key.public)))
    }

    /// The names for `h=`: those of ours that the message has, and `more`; once again what nobody may add.
    fn names_in(&self, message: &[u8], more: &[&str]) -> Vec<String> {
        let parsed = MessageParser::new().parse_headers(message);
        let fields = parsed.iter().flat_map(|m| m.headers());
        let there: BTreeSet<String> = fields.map(|h| h.name().to_ascii_lowercase()).collect();
        let has = |name: &&str| there.contains(&name.to_ascii_lowercase());
        let ours = self.headers.iter().map(String::as_str).chain(more.iter().copied()).filter(has);
        ours.chain(self.oversigned.iter().map(String::as_str)).map(str::to_owned).collect()
    }
}

fn seal_into<'x>(
    sealer: &ArcSealer<Key, mail_auth::dkim::Done>,
    message: &'x AuthenticatedMessage<'x>,
    results: &'x AuthenticationResults<'x>,
    chain: &ArcOutput<'_>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let set = sealer.seal(message, results, chain).map_err(|e| e.to_string())?;
    set.write_header(out);
    Ok(())
}

impl core::fmt::Debug for Signer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Signer {{ name: {}, domain: {}, selector: {} }}", self.name, self.domain, self.selector)
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        let plain = |s: &Self| (s.name.clone(), s.domain.clone(), s.selector.clone(), s.header_form, s.body_form);
        plain(self) == plain(other)
            && self.key.public == other.key.public
            && self.headers == other.headers
            && self.oversigned == other.oversigned
    }
}

/// An RSAPublicKey as a SubjectPublicKeyInfo (RFC 3279 2.3.1), the form every verifier takes.
fn subject_public_key_info(rsa: &[u8]) -> Vec<u8> {
    /// SEQUENCE { rsaEncryption, NULL }
    const ALGORITHM: &[u8] =
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = [&[0], rsa].concat();
    element(0x30, &[ALGORITHM, &element(0x03, &bits)].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let digits: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | digits.len() as u8);
            out.extend(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let pkcs8 = Ed25519Key::generate_pkcs8().expect("random numbers");
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(&pkcs8));
        let text = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
        Signer {
            name: "one".into(),
            domain: "ship.example".into(),
            selector: "s1".into(),
            key: Key::from_pem(pem.as_bytes()).expect("a key"),
            headers: text(HEADERS),
            oversigned: text(OVERSIGNED),
            header_form: Form::Relaxed,
            body_form: Form::Relaxed,
        }
    }

    #[test]
    fn what_is_there_is_signed_and_what_nobody_may_add_once_more() {
        let signer = signer();
        let field = signer.sign(b"From: a@ship.example\r\nSubject: s\r\nX: y\r\n\r\nbody\r\n").expect("signed");
        let text = String::from_utf8(field).expect("ASCII").replace("\r\n\t", "");
        assert!(
            text.starts_with("DKIM-Signature: v=1; a=ed25519-sha256; s=s1; d=ship.example; c=relaxed/relaxed;"),
            "{text}"
        );
        let names = text.split("h=").nth(1).and_then(|t| t.split(';').next()).expect("h=");
        let mut names: Vec<&str> = names.split(':').collect();
        names.sort_unstable();
        assert_eq!(names, ["Cc", "Date", "From", "From", "Reply-To", "Subject", "Subject", "To"]);
        assert!(text.ends_with("\r\n") && !text.contains("x="), "{text}");
    }

    #[test]
    fn a_record_names_key_and_place_and_secrets_are_not_shown() {
        let signer = signer();
        let (name, text) = signer.record();
        assert_eq!(name, "s1._domainkey.ship.example.");
        assert!(text.starts_with("v=DKIM1; k=ed25519; p=") && text.len() == 22 + 44, "{text}");
        assert_eq!(format!("{signer:?}"), "Signer { name: one, domain: ship.example, selector: s1 }");
    }

    #[test]
    fn keys_that_are_none_are_told() {
        for pem in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(Key::from_pem(pem.as_bytes()).is_err(), "{pem:?}");
        }
        assert!(
            Signer::unfit("Received").is_some()
                && Signer::unfit("arc-seal").is_some()
                && Signer::unfit("a:b").is_some()
        );
        assert!(HEADERS.iter().chain(OVERSIGNED).all(|name| Signer::unfit(name).is_none()));
    }

    #[test]
    fn long_elements_have_long_lengths() {
        assert_eq!(element(0x30, &[0; 3]), [0x30, 3, 0, 0, 0]);
        assert_eq!(element(0x30, &[0; 300])[..4], [0x30, 0x82, 1, 44]);
    }
}
