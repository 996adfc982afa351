//! Certificates that TLSA records speak of (RFC 7672 3): whose chain leads to an authority they name, or that are named themselves.

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::tls::{Check, Shown, chain_to};
use crate::security::dane::{Tlsa, Usage};

/// What the proven records of one host ask of its certificate.
#[derive(Debug)]
pub struct Dane {
    records: Vec<Tlsa>,
    /// The domain that mail is for: a certificate may name it instead of the host (RFC 7672 3.2.2).
    domain: Option<ServerName<'static>>,
}

impl Dane {
    /// For a host of this domain.
    pub fn new(records: Vec<Tlsa>, domain: &str) -> Self {
        Self { records, domain: ServerName::try_from(domain.to_owned()).ok() }
    }
}

impl Check for Dane {
    fn check(&self, Shown { own, between, name, now }: Shown<'_>) -> Result<(), Error> {
        let key = ParsedCertificate::try_from(own)?.subject_public_key_info();
        let of = |usage| self.records.iter().filter(move |record| record.usage == usage);
        if of(Usage::Own).any(|record| record.fits(own, &key)) {
            return Ok(());
        }
        let mut roots = RootCertStore::empty();
        for certificate in between {
            let Ok(parsed) = ParsedCertificate::try_from(certificate) else { continue };
            let key = parsed.subject_public_key_info();
            if of(Usage::Authority).any(|record| record.fits(certificate, &key)) {
                roots.add(certificate.clone().into_owned())?;
            }
        }
        for certificate in of(Usage::Authority).filter_map(Tlsa::certificate) {
            // One that is no certificate vouches for nobody.
            let _ = roots.add(CertificateDer::from(certificate.to_vec()));
        }
        if roots.is_empty() {
            return Err(Error::General("no TLSA record is about its certificate".to_owned()));
        }
        let chain = chain_to(roots).map_err(Error::General)?;
        let verified = |name: &ServerName<'_>| chain.verify_server_cert(own, between, name, &[], now).map(drop);
        match (verified(name), &self.domain) {
            (
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )),
                Some(domain),
            ) => verified(domain),
            (verdict, _) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use ring::digest::{SHA256, digest};
    use rustls::pki_types::UnixTime;

    use super::*;

    /// An authority, and a certificate by it for a host; the key of the second.
    struct Chain {
        authority: CertificateDer<'static>,
        own: CertificateDer<'static>,
        key: Vec<u8>,
    }

    impl Chain {
        fn new(host: &str) -> Self {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = params.self_signed(&key).expect("signed").der().clone();
            let issuer = Issuer::new(params, key);
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.subject_alt_names.push(SanType::DnsName(host.try_into().expect("ascii")));
            let own = params.signed_by(&key, &issuer).expect("signed").der().clone();
            let key = ParsedCertificate::try_from(&own).expect("sound").subject_public_key_info().to_vec();
            Self { authority, own, key }
        }

        fn check(&self, records: Vec<Tlsa>, sent: bool, host: &str, seconds: u64) -> Result<(), String> {
            let between = if sent { vec![self.authority.clone()] } else { Vec::new() };
            let name = ServerName::try_from(host.to_owned()).expect("a name");
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let shown = Shown { own: &self.own, between: &between, name: &name, now };
            Dane::new(records, "far.test").check(shown).map_err(|e| e.to_string())
        }
    }

    const NOW: u64 = 1_800_000_000;
    /// Long after rcgen's certificates end.
    const TOO_LATE: u64 = 100_000_000_000;

    fn record(usage: u8, selector: u8, part: &[u8]) -> Vec<Tlsa> {
        Tlsa::new(usage, selector, 1, digest(&SHA256, part).as_ref()).into_iter().collect()
    }

    #[test]
    fn its_own_record_counts_whatever_names_and_dates_say() {
        let chain = Chain::new("mx.far.test");
        assert_eq!(chain.check(record(3, 1, &chain.key), false, "another.test", TOO_LATE), Ok(()));
        assert_eq!(chain.check(record(3, 0, &chain.own), false, "another.test", TOO_LATE), Ok(()));
        let other = Chain::new("mx.far.test");
        let refused = chain.check(record(3, 1, &other.key), true, "mx.far.test", NOW).expect_err("another key");
        assert!(refused.contains("no TLSA record"), "{refused}");
        assert!(chain.check(record(3, 0, &chain.authority), true, "mx.far.test", NOW).is_err(), "not its own");
    }

    #[test]
    fn an_authority_counts_with_names_and_dates() {
        let chain = Chain::new("mx.far.test");
        let by_digest = || record(2, 0, &chain.authority);
        assert_eq!(chain.check(by_digest(), true, "mx.far.test", NOW), Ok(()));
        assert!(chain.check(by_digest(), false, "mx.far.test", NOW).is_err(), "nobody sent it");
        assert!(chain.check(by_digest(), true, "another.test", NOW).is_err());
        assert!(chain.check(by_digest(), true, "mx.far.test", TOO_LATE).is_err());
        let whole = || Tlsa::new(2, 0, 0, &chain.authority).into_iter().collect();
        assert_eq!(chain.check(whole(), false, "mx.far.test", NOW), Ok(()), "the record holds it");
        let stranger = Chain::new("mx.far.test");
        assert!(stranger.check(whole(), true, "mx.far.test", NOW).is_err());
        assert!(
            chain.check(Tlsa::new(2, 0, 0, b"no certificate").into_iter().collect(), true, "mx.far.test", NOW).is_err()
        );
        assert!(chain.check(record(2, 0, &chain.own), true, "mx.far.test", NOW).is_err(), "it is no authority");
    }

    #[test]
    fn a_certificate_may_name_the_domain_instead_of_the_host() {
        let chain = Chain::new("far.test");
        assert_eq!(chain.check(record(2, 0, &chain.authority), true, "mx.far.test", NOW), Ok(()));
    }
}
