//! Any bytes from a next hop: no panic, and nothing is sent onward that a server could read as something else. A second message
//! follows the first on the same connection where the hop lets it. The first octet says how the session is set up.
#![no_main]

use std::num::NonZeroU32;
use std::sync::Arc;

use aldis::mail::{BodyKind, Envelope, Mailbox, Recipient};
use aldis::smtp::client::{Config, Delivery, Dialect, Encryption, Event, Login, Mechanism, Session};
use aldis::smtp::scram::client::Keys;
use aldis::smtp::server::Secret;
use aldis::time::{Instant, Wall};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, said)) = data.split_first() else { return };
    let says = |bit: u8| how >> bit & 1 == 1;
    let dialect = if says(0) { Dialect::Lmtp } else { Dialect::Smtp };
    let login = says(1).then(|| Login {
        user: "user".to_owned(),
        password: Some(Secret("pencil".to_owned())),
        mechanisms: Mechanism::ALL.to_vec(),
        nonce: "abc".to_owned(),
    });
    let mut config = Config { login, loopback: true, ..Config::new("mx.example", dialect) };
    if says(2) {
        config.encryption = Encryption::Required;
    }
    let mut session = Session::new(Instant::ZERO, Arc::new(config));
    let to = ["b@dest.example", "c@dest.example"].map(|to| Recipient::plain(Mailbox::new(to)));
    let mut envelope = Envelope::plain(Some(Mailbox::new("a@src.example")), to.to_vec(), Wall::NEVER);
    let mut text = b"Subject: x\r\n\r\n.dot\r\n..\r\n".to_vec();
    if says(3) {
        envelope.body = BodyKind::EightBitMime;
        text.extend("Malmö\r\n.\r\n".bytes());
    }
    let delivery = Delivery {
        envelope,
        body: text.into(),
        tracking: says(4).then(|| "VheLhqV/rCKJmplkGFwsyW59pYk:86400".to_owned()),
        by_seconds: says(5).then_some(60),
    };
    session.deliver(Instant::ZERO, delivery.clone());
    let mut more = says(6).then_some(delivery);
    let mut sent = Vec::new();
    for (n, part) in said.chunks(7).enumerate() {
        session.handle_bytes(Instant::from_millis(n as u64), part);
        while let Some(bytes) = session.poll_transmit() {
            sent.extend(bytes);
        }
        while let Some(event) = session.poll_event() {
            match event {
                Event::StartTls => session.handle_tls_started(Instant::ZERO, Some([7; 32])),
                // At a cost that does not slow the fuzzer down.
                Event::DeriveKeys { salt, .. } => {
                    session.handle_keys(Instant::ZERO, &Keys::derive("pencil", &salt, NonZeroU32::MIN));
                }
                Event::Done(_) => {
                    if let Some(delivery) = more.take().filter(|_| !session.is_spent()) {
                        session.deliver(Instant::ZERO, delivery);
                    }
                }
                Event::Close => {}
            }
        }
    }
    for (i, byte) in sent.iter().enumerate() {
        assert!(*byte != b'\n' || i > 0 && sent[i - 1] == b'\r', "bare LF sent");
    }
});
