//! What a listener's rules make of a session: priority policies, sizes by level, peers of old, who may name a submitter; and logins
//! that are pipelined.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::mail::PriorityPolicy;

const NEAR: Peer = Peer { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), tls: false };
const FAR: Peer = Peer { address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))), tls: false };

fn home() -> Vec<(IpAddr, u8)> {
    vec![(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8)]
}

fn told(w: &mut World, text: &str) -> Vec<String> {
    w.say(text);
    w.replies()
}

#[test]
fn ehlo_names_the_policy_and_ceilings_and_sizes_follow_its_levels() {
    for (policy, asked, granted) in [
        (PriorityPolicy::Stanag4406, 3, "250 2.3.6 2 "),
        (PriorityPolicy::Mixer, 1, "250 2.3.6 0 "),
        (PriorityPolicy::Mixer, -3, "250 2.1.0"),
        (PriorityPolicy::Nsep, 2, "250 2.1.0"),
        (PriorityPolicy::Nsep, 5, "250 2.3.6 2 "),
    ] {
        let mut w = World::new(|p| (p.mt_priority, p.max_precedence) = (policy, Precedence::Immediate));
        let hello = told(&mut w, "EHLO p.example\r\n").concat();
        assert!(hello.contains(&format!("MT-PRIORITY {}", policy.name())), "{hello}");
        let reply = told(&mut w, &format!("MAIL FROM:<a@src> MT-PRIORITY={asked}\r\n"));
        assert!(reply[0].starts_with(granted), "{policy:?} {asked}: {reply:?}");
    }
    // A size is that of the level a number is served at.
    for (policy, number, fits) in [
        (PriorityPolicy::Stanag4406, 3, false),
        (PriorityPolicy::Stanag4406, 2, true),
        (PriorityPolicy::Mixer, 1, false),
        (PriorityPolicy::Mixer, 0, true),
    ] {
        let rules = |p: &mut Policy| {
            (p.mt_priority, p.trust) = (policy, home());
            p.precedence_bytes = [(Precedence::Flash, 100)].into();
        };
        let mail = format!("MAIL FROM:<a@src> MT-PRIORITY={number}");
        let mut w = World::with_peer(rules, NEAR);
        told(&mut w, "EHLO p.example\r\n");
        let early = told(&mut w, &format!("{mail} SIZE=101\r\nRSET\r\n"));
        assert_eq!(early[0].starts_with("552 5.7.16"), !fits, "{early:?}");
        let text = "x".repeat(101);
        let late = told(&mut w, &format!("{mail}\r\nRCPT TO:<b@dest>\r\nDATA\r\nS: 1\r\n\r\n{text}\r\n.\r\n"));
        assert_eq!(late[3].starts_with("552 5.7.16"), !fits, "{late:?}");
    }
}

#[test]
fn eight_bit_headers_are_taken_of_listed_peers_alone() {
    for (peer, taken) in [(NEAR, true), (FAR, false)] {
        let mut w = World::with_peer(|p| p.raw_header = home(), peer);
        let mail = "EHLO p.example\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nSubject: é\r\n\r\n.\r\n";
        let replies = told(&mut w, mail);
        assert_eq!(replies[5].starts_with("250"), taken, "{replies:?}");
        assert_eq!(replies[5].starts_with("554 5.6.7"), !taken, "{replies:?}");
    }
}

#[test]
fn a_listed_peers_bare_line_ends_are_mended_and_no_second_message_arises() {
    let open = |peer| {
        let mut w = World::with_peer(|p| p.normalize = home(), peer);
        told(&mut w, "EHLO p.example\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        w
    };
    for seq in
        ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\n", "\r.\r\n", "\r\n.\r", "\n.\r", "\r\n.\r\r\n", "\r\n.\n\r"]
    {
        let content = format!("S: 1\r\n\r\nfirst{seq}MAIL FROM:<e@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nx\r\n.\r\n");
        let mut w = open(NEAR);
        let replies = told(&mut w, &format!("{content}NOOP\r\n"));
        assert_eq!(codes(&replies), [250, 250], "{seq:?}: one message, then NOOP");
        assert!(!w.closed && w.taken.len() == 1);
        let body = &w.taken[0].body;
        assert!(!has_odd_octets(body), "{seq:?}");
        assert!(String::from_utf8_lossy(body).ends_with("MAIL FROM:<e@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nx\r\n"));
        // Of anybody else it is refused, and the line cut.
        let mut w = open(FAR);
        assert!(told(&mut w, &content)[0].starts_with("550 5.5.2") && w.closed, "{seq:?}");
    }
    let mut w = open(NEAR);
    told(&mut w, ".\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\n");
    let replies = told(&mut w, "BDAT 9\r\nS: 1\n\nab\rBDAT 2 LAST\r\n\nc");
    assert_eq!(codes(&replies), [250, 250]);
    assert_eq!(&*w.taken[1].body, b"S: 1\r\n\r\nab\r\nc\r\n");
}

#[test]
fn who_submitted_it_goes_on_as_trusted_peers_say_it() {
    let login = "AUTH PLAIN AHVzAHNlY3JldA==\r\n";
    let open = |p: &mut Policy, kind| (p.kind, p.auth, p.auth_clear_loopback) = (kind, true, true);
    for (kind, trusted, logged_in, given, kept) in [
        (Kind::Relay, true, false, " AUTH=e+3Dmc2@example.com", Some("e+3Dmc2@example.com")),
        (Kind::Relay, true, false, " AUTH=<>", Some("<>")),
        (Kind::Relay, true, false, "", None),
        (Kind::Relay, false, true, " AUTH=e@example.com", Some("e@example.com")),
        (Kind::Relay, false, false, " AUTH=e@example.com", Some("<>")),
        (Kind::Submission, false, true, " AUTH=e@example.com", Some("<>")),
        (Kind::Submission, true, false, " AUTH=e@example.com", Some("e@example.com")),
    ] {
        let rules = |p: &mut Policy| {
            open(p, kind);
            p.trust = if trusted { home() } else { Vec::new() };
        };
        let mut w = World::with_peer(rules, NEAR);
        let login = if logged_in { login } else { "" };
        let mail = format!("EHLO p.example\r\n{login}MAIL FROM:<a@src>{given}\r\nRCPT TO:<b@dest>\r\n");
        told(&mut w, &format!("{mail}DATA\r\nS: x\r\n\r\n.\r\n"));
        assert_eq!(w.taken[0].envelope.auth.as_deref(), kept, "{kind:?} {trusted} {logged_in}{given}");
    }
}

#[test]
fn pipelined_logins_keep_the_order_of_replies_however_late_the_answers() {
    let mail = "MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nS: x\r\n\r\n.\r\nQUIT\r\n";
    let plain = |password: &str| format!("AUTH PLAIN {}\r\n", b64(&format!("\0user\0{password}")));
    let scram = format!("AUTH SCRAM-SHA-256 {FIRST}\r\n{}\r\n\r\n", b64(super::LAST));
    for (login, want) in [
        (plain("secret"), vec![220, 250, 235, 250, 250, 354, 250, 221]),
        (scram, vec![220, 250, 334, 334, 235, 250, 250, 354, 250, 221]),
        // A wrong password opens nothing of what is pipelined behind it: the content is no content, and its lines are no commands.
        (plain("x"), vec![220, 250, 535, 530, 503, 503, 500, 500, 500, 221]),
    ] {
        let wire = format!("EHLO p.example\r\n{login}{mail}");
        let rules = |p: &mut Policy| {
            (p.kind, p.auth, p.auth_clear_loopback) = (Kind::Submission, true, true);
            p.mechanisms = Mechanisms { plain: true, scram: true, external: false };
        };
        let mut quick = World::new(rules);
        quick.say(&wire);
        while !quick.closed {
            quick.jump();
        }
        let mut late = World::new(rules);
        late.slow = true;
        late.say(&wire);
        for _ in 0..20 {
            while late.answer_held() {
                late.at += Duration::from_secs(10);
            }
            if !late.closed {
                late.jump();
            }
        }
        assert!(late.closed);
        assert_eq!(quick.taken.len(), usize::from(want.contains(&354)), "{login}");
        assert_eq!(codes(&quick.replies()), want, "{login}");
        assert_eq!((late.wire, late.taken), (quick.wire, quick.taken), "{login}");
        assert_eq!(late.budget.used(), 0);
    }
}
