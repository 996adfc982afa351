//! Any bytes to an SMTP session whose questions are all answered yes: no panic, bounded memory, replies of SMTP's form, and what is
//! taken as a message and not declared binary has CRLF line ends only.
#![no_main]

use std::sync::Arc;

use aldis::mail::{BodyKind, Precedence, Status};
use aldis::smtp::Reply;
use aldis::smtp::policy::{Budget, Mechanisms, Peer, Policy};
use aldis::smtp::scram;
use aldis::smtp::server::{Answer, Event, Question, Session};
use aldis::time::Instant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let budget = Arc::new(Budget::new(1 << 20));
    let mut policy = Policy::relay("mx.example", budget.clone());
    (policy.auth, policy.auth_clear_loopback, policy.message_bytes) = (true, true, 64 << 10);
    policy.mechanisms = Mechanisms { plain: true, scram: true, external: false };
    let peer = Peer { address: Some([127, 0, 0, 1].into()), tls: false };
    let mut session = Session::new(Instant::ZERO, Arc::new(policy), peer);
    let step = data.first().map_or(1, |b| usize::from(*b) + 1);
    for (n, part) in data.chunks(step).enumerate() {
        let now = Instant::from_millis(n as u64);
        session.handle_bytes(now, part);
        loop {
            while let Some(bytes) = session.poll_transmit() {
                assert!(bytes.ends_with(b"\r\n"));
            }
            match session.poll_event() {
                Some(Event::Ask { id, question }) => {
                    let answer = match question {
                        Question::Auth { user, .. } => {
                            Answer::Authenticated { user, max_precedence: Precedence::Flash }
                        }
                        Question::Scram { user } => Answer::Verifier {
                            nonce: "xyz".into(),
                            verifier: scram::decoy(b"fuzz", &user, 4096),
                            max_precedence: Some(Precedence::Flash),
                        },
                        Question::External { .. } => Answer::Refuse(Reply::new(535, Status(5, 7, 8), "no")),
                        Question::Fetch { most, .. } if most > 2 => Answer::Content(b"x\r\n".to_vec()),
                        Question::Fetch { .. } => Answer::Refuse(Reply::new(554, Status(5, 6, 6), "no")),
                        Question::End(transaction) => {
                            // Binary mail may hold anything.
                            let lines = transaction.envelope.body != BodyKind::BinaryMime;
                            let body: &[u8] = if lines { &transaction.body } else { &[] };
                            for (i, byte) in body.iter().enumerate() {
                                assert!(*byte != b'\n' || i > 0 && body[i - 1] == b'\r', "bare LF taken");
                                assert!(*byte != b'\r' || body.get(i + 1) == Some(&b'\n'), "bare CR taken");
                            }
                            Answer::Queued(Reply::new(250, Status(2, 0, 0), "ok"))
                        }
                        Question::Mail { .. } | Question::Rcpt { .. } => Answer::Ok,
                    };
                    session.answer(now, id, answer);
                }
                Some(Event::StartTls | Event::Close) => return,
                None => break,
            }
        }
        assert!(session.buffered_bytes() <= 4 << 20);
    }
    drop(session);
    assert_eq!(budget.used(), 0, "memory was not given back");
});
