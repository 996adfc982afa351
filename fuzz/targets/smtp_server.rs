//! Any bytes to an SMTP session whose questions are all answered yes: no panic, bounded memory, replies of SMTP's form, and what is
//! taken as a message and not declared binary has CRLF line ends only.
//!
//! The first octet says what kind of listener it is (or a relay for programs of old), whether TLS is on from the first byte, whether BURL is
//! offered, the clock is set, MAIL needs a login, the peer is trusted and answers come late; the second how the rest is cut into pieces.
//! STARTTLS is taken for done at once, so that what follows is said inside TLS.
#![no_main]

use std::sync::Arc;

use aldis::mail::{BodyKind, Precedence, PriorityPolicy, Status};
use aldis::smtp::Reply;
use aldis::smtp::policy::{Budget, Kind, Mechanisms, Peer, Policy};
use aldis::smtp::scram;
use aldis::smtp::server::{Answer, Event, Question, Session, TlsFacts};
use aldis::time::{Duration, Instant, Now, Wall};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [how, size, said @ ..] = data else { return };
    let says = |bit: u8| how >> bit & 1 == 1;
    let budget = Arc::new(Budget::new(1 << 20));
    let mut policy = Policy::relay("mx.example", budget.clone());
    policy.kind = [Kind::Relay, Kind::Submission, Kind::Lmtp, Kind::Relay][usize::from(how & 3)];
    (policy.auth, policy.auth_clear_loopback, policy.message_bytes) = (policy.kind != Kind::Lmtp, true, 64 << 10);
    policy.mechanisms = Mechanisms { plain: true, scram: true, external: true };
    policy.starttls = !says(2);
    policy.deliver_by = Some(0);
    policy.future_release = Some(Duration::from_secs(86_400));
    if says(3) && policy.kind == Kind::Submission {
        policy.burl = vec![("imap.example".to_owned(), 143)];
    }
    if how & 3 == 3 {
        // A program of old: what it says amiss is mended.
        policy.normalize = vec![([127, 0, 0, 0].into(), 8)];
        policy.raw_header = policy.normalize.clone();
        policy.mt_priority = PriorityPolicy::Mixer;
        policy.precedence_bytes = [(Precedence::Flash, 1000)].into();
    }
    policy.auth_required = says(5);
    policy.trust = if says(6) { vec![([127, 0, 0, 0].into(), 8)] } else { Vec::new() };
    let binds = policy.kind;
    let facts = || TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
        exporter: Some([7; 32]),
        names: if binds == Kind::Relay { vec!["peer.example".to_owned()] } else { Vec::new() },
    };
    let peer = Peer { address: Some([127, 0, 0, 1].into()), tls: says(2) };
    let mut session = Session::new(Instant::ZERO, Arc::new(policy), peer);
    if says(2) {
        session.handle_tls_started(Instant::ZERO, facts());
    }
    let mut late = Vec::new();
    let pieces = said.chunks(usize::from(*size) + 1);
    // Behind the last piece nothing is said: the client closes its half, and what was asked is answered.
    for (n, part) in pieces.map(Some).chain([None, None]).enumerate() {
        let now = Instant::from_millis(n as u64);
        session.tell_time(Now { at: now, wall: Wall(1_795_000_000_000), set: says(4) });
        for (id, answer) in late.drain(..) {
            session.answer(now, id, answer);
        }
        match part {
            Some(part) => session.handle_bytes(now, part),
            None => session.handle_eof(now),
        }
        loop {
            while let Some(bytes) = session.poll_transmit() {
                assert!(bytes.ends_with(b"\r\n"));
                for line in bytes.split_inclusive(|b| *b == b'\n') {
                    assert!(line.len() <= 512 && line.ends_with(b"\r\n"), "a line of no reply");
                    assert!(line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'));
                    assert!(line[..line.len() - 2].iter().all(|b| !matches!(b, b'\r' | b'\0')), "a reply cut in two");
                }
            }
            match session.poll_event() {
                Some(Event::Ask { id, question }) => {
                    let answer = answered(question, said);
                    match says(7) {
                        true => late.push((id, answer)),
                        false => session.answer(now, id, answer),
                    }
                }
                Some(Event::StartTls) => session.handle_tls_started(now, facts()),
                Some(Event::Close) => return,
                None => break,
            }
        }
        assert!(session.buffered_bytes() <= 4 << 20);
    }
    drop(late);
    drop(session);
    assert_eq!(budget.used(), 0, "memory was not given back");
});

fn answered(question: Question, said: &[u8]) -> Answer {
    match question {
        Question::Auth { user, .. } => Answer::Authenticated { user, max_precedence: Precedence::Flash },
        Question::Scram { user } => Answer::Verifier {
            nonce: "xyz".into(),
            verifier: scram::decoy(b"fuzz", &user, 4096),
            max_precedence: Some(Precedence::Flash),
        },
        Question::External { names, .. } => match names.first() {
            Some(user) => Answer::Authenticated { user: user.clone(), max_precedence: Precedence::Flash },
            None => Answer::Refuse(Reply::new(535, Status(5, 7, 8), "no")),
        },
        // What lies at an IMAP server may hold anything.
        Question::Fetch { most, .. } if said.len() as u64 <= most && said.len() % 3 == 0 => {
            Answer::Content(said.to_vec())
        }
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
            assert!(!transaction.envelope.recipients.is_empty(), "mail to nobody");
            Answer::Queued(Reply::new(250, Status(2, 0, 0), "ok"))
        }
        Question::Mail { .. } | Question::Rcpt { .. } => Answer::Ok,
    }
}
