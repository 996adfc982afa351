//! TLSA records: what the DNS says of a server's certificate (RFC 6698, RFC 7671, for SMTP RFC 7672). Bytes in, verdict out; that a
//! record is proven by DNSSEC is the caller's affair, and whether a chain leads to an authority that one names.

use ring::digest::{Algorithm, SHA256, SHA512, digest};

/// Where a certificate stands that a record is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Usage {
    /// DANE-TA(2): it signed the server's; names and dates count.
    Authority,
    /// DANE-EE(3): it is the server's own; neither names nor dates count.
    Own,
}

/// What of a certificate is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Selector {
    /// Cert(0): all of it.
    Whole,
    /// SPKI(1): its public key.
    Key,
}

/// How it is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Matching {
    Full,
    Sha256,
    Sha512,
}

/// A record that may be used for SMTP.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tlsa {
    /// Where the certificate stands.
    pub usage: Usage,
    selector: Selector,
    matching: Matching,
    data: Vec<u8>,
}

impl Tlsa {
    /// A record by its four fields; `None` where it cannot be used: of a usage that SMTP does not know (RFC 7672 3.1.3), of unknown
    /// numbers, or of a length that its digest does not have.
    pub fn new(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Option<Self> {
        let usage = match usage {
            2 => Usage::Authority,
            3 => Usage::Own,
            _ => return None,
        };
        let selector = match selector {
            0 => Selector::Whole,
            1 => Selector::Key,
            _ => return None,
        };
        let (matching, sound) = match matching {
            0 => (Matching::Full, !data.is_empty()),
            1 => (Matching::Sha256, data.len() == 32),
            2 => (Matching::Sha512, data.len() == 64),
            _ => return None,
        };
        sound.then(|| Self { usage, selector, matching, data: data.to_vec() })
    }

    /// Whether it is about this certificate, of which `key` is the SubjectPublicKeyInfo. Both are DER.
    pub fn fits(&self, certificate: &[u8], key: &[u8]) -> bool {
        let part = match self.selector {
            Selector::Whole => certificate,
            Selector::Key => key,
        };
        let is = |algorithm: &'static Algorithm| digest(algorithm, part).as_ref() == self.data;
        match self.matching {
            Matching::Full => part == self.data,
            Matching::Sha256 => is(&SHA256),
            Matching::Sha512 => is(&SHA512),
        }
    }

    /// The whole certificate, where the record holds it: a server need not send an authority that is known by it.
    pub fn certificate(&self) -> Option<&[u8]> {
        (self.selector == Selector::Whole && self.matching == Matching::Full).then_some(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_fits_what_it_is_about_and_nothing_else() {
        let (certificate, key) = (b"a whole certificate", b"its key");
        for (selector, part) in [(0, &certificate[..]), (1, &key[..])] {
            for (matching, data) in [
                (0, part.to_vec()),
                (1, digest(&SHA256, part).as_ref().to_vec()),
                (2, digest(&SHA512, part).as_ref().to_vec()),
            ] {
                let record = Tlsa::new(3, selector, matching, &data).expect("usable");
                assert!(record.fits(certificate, key), "{record:?}");
                assert!(!record.fits(b"another", b"another"), "{record:?}");
                assert_eq!(record.certificate().is_some(), (selector, matching) == (0, 0));
                let mut wrong = data;
                wrong[0] ^= 1;
                assert!(!Tlsa::new(3, selector, matching, &wrong).expect("usable").fits(certificate, key));
            }
        }
    }

    #[test]
    fn what_smtp_cannot_use_is_no_record() {
        let digest = [7; 32];
        for usage in [0, 1, 4, 255] {
            assert_eq!(Tlsa::new(usage, 1, 1, &digest), None, "usage {usage}");
        }
        assert_eq!(Tlsa::new(3, 2, 1, &digest), None);
        assert_eq!(Tlsa::new(3, 1, 3, &digest), None);
        assert_eq!(Tlsa::new(3, 1, 1, &digest[..31]), None);
        assert_eq!(Tlsa::new(3, 1, 2, &digest), None);
        assert_eq!(Tlsa::new(3, 1, 0, &[]), None);
        assert_eq!(Tlsa::new(2, 1, 1, &digest).map(|r| r.usage), Some(Usage::Authority));
    }

    proptest! {
        #[test]
        fn no_bytes_fit_by_chance(
            fields in any::<(u8, u8, u8)>(),
            data in proptest::collection::vec(any::<u8>(), 0..80),
            certificate in proptest::collection::vec(any::<u8>(), 81..200),
        ) {
            if let Some(record) = Tlsa::new(fields.0, fields.1, fields.2, &data) {
                prop_assert!(!record.fits(&certificate, &certificate));
            }
        }
    }
}
