//! A stranger's message through every check, with a DNS that says what the fuzzer wants: no panic, results that stay one field,
//! and what is sealed or signed leaves the message under it as it was.

#![no_main]

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use aldis::node::check::{Before, verify};
use aldis::security::dkim::{Form, HEADERS, Key, OVERSIGNED, Signer};
use aldis::security::vet::{Bounds, Checks, Vet, vet};
use libfuzzer_sys::fuzz_target;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dmarc::Dmarc;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::spf::Spf;
use mail_auth::{DnsError, Error, MX, MessageAuthenticator, RecordSet, ResolverCache, Txt};

/// Answers every question with these octets, as what is asked for.
struct Canned(Vec<u8>);

impl ResolverCache<Box<str>, Txt> for Canned {
    fn get<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        let none = Txt::Error(Error::Dns(DnsError::InvalidRecordType));
        Some(match self.0.split_first() {
            Some((0..=99, record)) => DomainKey::parse(record).map_or(none, |r| Txt::DomainKey(Arc::new(r))),
            Some((100..=199, record)) => Spf::parse(record).map_or(none, |r| Txt::Spf(Arc::new(r))),
            Some((_, record)) => Dmarc::parse(record).map_or(none, |r| Txt::Dmarc(Arc::new(r))),
            None => none,
        })
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

macro_rules! empty {
    ($($key:ty => $record:ty),* $(,)?) => { $(
        impl ResolverCache<$key, RecordSet<$record>> for Canned {
            fn get<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<RecordSet<$record>>
            where
                $key: Borrow<Q>,
            {
                Some(RecordSet { rrset: Arc::new([]), dnssec_status: Default::default() })
            }

            fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<RecordSet<$record>>
            where
                $key: Borrow<Q>,
            {
                None
            }

            fn insert(&self, _: $key, _: RecordSet<$record>, _: Instant) {}
        }
    )* };
}

empty! {
    Box<str> => MX,
    Box<str> => Ipv4Addr,
    Box<str> => Ipv6Addr,
    IpAddr => Box<str>,
}

impl Before for Canned {}

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
static NOBODY: LazyLock<MessageAuthenticator> = LazyLock::new(|| {
    let _inside = RUNTIME.enter();
    MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).expect("settings")
});
static SIGNER: LazyLock<Arc<Signer>> = LazyLock::new(|| {
    let text = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Arc::new(Signer {
        name: "rsa".into(),
        domain: "x.example".into(),
        selector: "s".into(),
        key: Key::from_pem(include_bytes!("../../tests/data/dkim-test-key.pem")).expect("a key"),
        headers: text(HEADERS),
        oversigned: text(OVERSIGNED),
        header_form: Form::Relaxed,
        body_form: Form::Simple,
    })
});

fuzz_target!(|input: &[u8]| {
    let (record, message) = input.split_at(input.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1));
    let canned = Canned(record.to_vec());
    let body: Arc<[u8]> = message.into();
    let work = Vet {
        arrived: body.clone(),
        stored: body,
        client: Some(Ipv4Addr::LOCALHOST.into()),
        helo: "c.example".into(),
        sender: "a@x.example".into(),
        checks: Checks { spf: true, dkim: true, dmarc: true, arc: true },
        bounds: Bounds { signatures: 5, arc_sets: 20, header_bytes: 128 << 10, lookups: 100, authors: 4 },
        authserv_id: "mx.example".into(),
        hostname: "mx.example".into(),
        signers: Some(vec![SIGNER.clone()]),
        sealer: Some(SIGNER.clone()),
    };
    let vetted = vet(&work, &canned, |message, canned| {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        RUNTIME.block_on(verify(&NOBODY, &work, message, canned, deadline))
    });
    assert!(vetted.results.is_some());
    for added in [&vetted.top, &vetted.signatures] {
        assert!(added.is_empty() || added.ends_with(b"\r\n"));
        // Every line that is added begins a field of ours or goes on with one, and none is too long.
        for line in added.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let ours = [&b"\t"[..], b" ", b"Authentication-Results:", b"ARC-", b"DKIM-Signature:"];
            assert!(line.ends_with(b"\r") && line.len() < 999 && ours.iter().any(|start| line.starts_with(start)));
        }
    }
});
