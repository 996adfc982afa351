//! The names a certificate gives its owner: mail addresses and host names of its subject alternative names (RFC 5280 4.2.1.6).
//!
//! Called with certificates whose chain TLS has verified already; it decides nothing but what they say. The common name of the
//! subject does not count (RFC 6125), and neither do wildcards: they name nobody.

/// Names taken from one certificate; further ones are passed over.
pub const MOST_NAMES: usize = 32;
const MOST_NAME_BYTES: usize = 255;

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
/// `[3] EXPLICIT` of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// `[1]` and `[2]` of a GeneralName.
const MAIL_ADDRESS: u8 = 0x81;
const HOST_NAME: u8 = 0x82;
/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The names in lower case, as [`same_name`] compares them. Empty when there are none or the bytes are no certificate.
pub fn names(der: &[u8]) -> Vec<String> {
    alternative_names(der).unwrap_or_default()
}

/// A name as a profile writes it, in the form [`names`] gives; `None` when it is no mail address or host name.
pub fn same_name(text: &str) -> Option<String> {
    let mut letters = text.bytes();
    let sound = !text.is_empty()
        && text.len() <= MOST_NAME_BYTES
        && !text.contains('*')
        && letters.all(|b| b.is_ascii_graphic());
    sound.then(|| text.to_ascii_lowercase())
}

fn alternative_names(der: &[u8]) -> Option<Vec<String>> {
    let certificate = only(der, SEQUENCE)?;
    let (_, signed) = element(&mut &certificate[..]).filter(|(tag, _)| *tag == SEQUENCE)?;
    let mut fields = signed;
    let extensions = loop {
        if let (EXTENSIONS, explicit) = element(&mut fields)? {
            break only(explicit, SEQUENCE)?;
        }
    };
    let mut rest = extensions;
    while let Some((SEQUENCE, extension)) = element(&mut rest) {
        let mut parts = extension;
        let (OID, id) = element(&mut parts)? else { return None };
        if id != SUBJECT_ALTERNATIVE_NAME {
            continue;
        }
        let value = match element(&mut parts)? {
            (BOOLEAN, _) => element(&mut parts)?,
            value => value,
        };
        let (OCTETS, value) = value else { return None };
        return Some(general_names(only(value, SEQUENCE)?));
    }
    None
}

fn general_names(mut list: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    while let Some((tag, value)) = element(&mut list) {
        if !matches!(tag, MAIL_ADDRESS | HOST_NAME) || out.len() >= MOST_NAMES {
            continue;
        }
        out.extend(core::str::from_utf8(value).ok().and_then(same_name));
    }
    out
}

/// The content of `bytes`, which are one element of this tag and nothing else.
fn only(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (found, content) = element(&mut bytes)?;
    (found == tag && bytes.is_empty()).then_some(content)
}

/// Takes one DER element off the front: its tag and content. Tags of several octets occur in no certificate.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = input.split_first().filter(|(tag, _)| **tag & 0x1f != 0x1f)?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((*tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[rcgen::SanType]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn mail_addresses_and_host_names_are_found_and_nothing_else() {
        let mail = rcgen::SanType::Rfc822Name("Op1@Ship.example".try_into().expect("ascii"));
        let host = rcgen::SanType::DnsName("mail.ship.example".try_into().expect("ascii"));
        let star = rcgen::SanType::DnsName("*.ship.example".try_into().expect("ascii"));
        let address = rcgen::SanType::IpAddress([127, 0, 0, 1].into());
        let der = certificate(&[address.clone(), mail, star, host]);
        assert_eq!(names(&der), ["op1@ship.example", "mail.ship.example"]);
        assert!(names(&certificate(&[])).is_empty() && names(&certificate(&[address])).is_empty());
        // The common name is none of them.
        assert_eq!(same_name("Op1@Ship.example").as_deref(), Some("op1@ship.example"));
        assert!(same_name("*.ship.example").is_none() && same_name("").is_none() && same_name("a b").is_none());
    }

    #[test]
    fn a_damaged_certificate_has_no_names_or_fewer() {
        let mail = rcgen::SanType::Rfc822Name("op1@ship.example".try_into().expect("ascii"));
        let der = certificate(&[mail]);
        for n in 0..der.len() {
            let _ = names(&der[..n]);
            let mut bent = der.clone();
            bent[n] ^= 0xff;
            let _ = names(&bent);
        }
        assert!(names(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_empty());
        let many: Vec<_> =
            (0..100).map(|n| rcgen::SanType::DnsName(format!("h{n}.example").try_into().expect("ascii"))).collect();
        assert_eq!(names(&certificate(&many)).len(), MOST_NAMES);
    }
}
