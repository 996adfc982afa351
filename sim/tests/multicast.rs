//! Whole nodes on a multicast net in virtual time, MULE over P_MUL and Aldis mode: loss, cuts of power, orders of silence, windows, stores
//! put back from backups, receivers that never answer.
//!
//! `ALDIS_SEEDS` sets how many seeds each storm takes.

use aldis::mail::Precedence;
use aldis::time::Duration;
use aldis::units::Bps;
use aldis_sim::fleet::{Fleet, Mode, Setup};
use aldis_sim::rng::Stream;

fn seeds() -> u64 {
    std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

fn storm(mode: Mode, seed: u64) -> Fleet {
    storm_over(Setup { mode, seed, ..Setup::default() })
}

/// With so few dynamic groups that senders meet.
fn storm_of_groups(always: bool, seed: u64) -> Fleet {
    storm_over(Setup { pool: 2, always, seed, ..Setup::default() })
}

fn storm_over(setup: Setup) -> Fleet {
    let mut chance = Stream::new(setup.seed, "storm", 0);
    let nodes = 3 + chance.below(3) as usize;
    let (loss, twice) = (chance.unit() * 0.3, chance.unit() * 0.05);
    let mut fleet = Fleet::new(Setup { nodes, loss, twice, ..setup });
    for _ in 0..24 {
        let node = chance.below(nodes as u64) as usize;
        match chance.below(10) {
            0..=4 => {
                let others: Vec<usize> = (0..nodes).filter(|to| *to != node && chance.chance(0.7)).collect();
                if !others.is_empty() {
                    let level = Precedence::from_rank(chance.below(6) as u8).unwrap_or(Precedence::Routine);
                    fleet.submit(node, &others, 200 + chance.below(30_000), level);
                }
            }
            5 | 6 => fleet.crash(node, chance.chance(0.5), Duration::from_secs(1 + chance.below(60))),
            7 | 8 => fleet.order(node, true),
            _ => fleet.order(node, false),
        }
        fleet.run(Duration::from_millis(chance.below(20_000)));
    }
    fleet.run(Duration::from_secs(120));
    fleet.set_loss(0.05);
    (0..nodes).for_each(|node| fleet.order(node, false));
    fleet
}

/// What only Aldis mode does: stores come back from backups, operators say who is silent, windows open and close.
fn storm_of_backups(seed: u64) -> Fleet {
    let mut chance = Stream::new(seed, "storm of backups", 0);
    let nodes = 3 + chance.below(3) as usize;
    let loss = chance.unit() * 0.3;
    let mut fleet = Fleet::new(Setup { mode: Mode::Aldis, nodes, loss, seed, ..Setup::default() });
    for _ in 0..24 {
        let node = chance.below(nodes as u64) as usize;
        let other = (node + 1 + chance.below(nodes as u64 - 1) as usize) % nodes;
        match chance.below(12) {
            0..=4 => fleet.submit(
                node,
                &[other, (0..nodes).find(|n| ![node, other].contains(n)).unwrap_or(other)],
                200 + chance.below(20_000),
                Precedence::Routine,
            ),
            5 => fleet.crash(node, chance.chance(0.5), Duration::from_secs(1 + chance.below(60))),
            6 | 7 => fleet.back_up(node),
            8 => fleet.put_back(node, chance.chance(0.5), Duration::from_secs(1 + chance.below(20))),
            9 => fleet.mark(node, other, true),
            10 => fleet.mark(node, other, false),
            _ => fleet.window(node, 5, 5 + chance.below(60)),
        }
        fleet.run(Duration::from_millis(chance.below(20_000)));
    }
    fleet.run(Duration::from_secs(120));
    fleet.set_loss(0.05);
    for node in 0..nodes {
        fleet.order(node, false);
        (0..nodes).filter(|other| *other != node).for_each(|other| fleet.mark(node, other, false));
    }
    fleet
}

fn sound(mut fleet: Fleet, what: &str) {
    let settled = fleet.settle(Duration::from_secs(6 * 3600));
    let problems = fleet.check();
    assert!(settled && problems.is_empty(), "{what}, settled {settled}: {problems:#?}");
}

#[test]
fn storms_lose_nothing_deliver_once_and_keep_every_silence() {
    (1..=seeds()).for_each(|seed| sound(storm(Mode::Mule, seed), &format!("MULE, seed {seed}")));
}

#[test]
fn storms_of_aldis_mode_lose_nothing_deliver_once_and_keep_every_silence() {
    (1..=seeds()).for_each(|seed| sound(storm(Mode::Aldis, seed), &format!("Aldis, seed {seed}")));
}

/// Groups come and go with the messages: nothing is lost, nobody tells the network anything in silence, and in the end nobody is a member.
#[test]
fn storms_of_dynamic_groups_lose_nothing_and_leave_every_group() {
    for always in [false, true] {
        for seed in 1..=seeds() {
            let mut fleet = storm_of_groups(always, seed);
            let settled = fleet.settle(Duration::from_secs(6 * 3600));
            let what = format!("always {always}, seed {seed}");
            assert!(settled && fleet.check().is_empty(), "{what}, settled {settled}: {:#?}", fleet.check());
            let used: u64 = fleet.to_groups().iter().filter(|(group, _)| group.octets()[1] == 2).map(|(_, n)| n).sum();
            assert!(used > 0, "{what}: no group of the pool was used");
            // What is left over, because a release was lost, ends when nothing more is heard of it.
            fleet.run(Duration::from_secs(2000));
            for i in 0..fleet.nodes() {
                assert!(fleet.joined(i).is_empty(), "{what}: {i} is still in {:?}", fleet.joined(i));
            }
        }
    }
}

/// Two megabytes and more go to the whole group, over a crash of the sender; what no payload can be comes back to its sender, who reads how large
/// it was and what the bearer takes.
#[test]
fn two_megabytes_are_carried_and_what_is_beyond_is_returned() {
    let setup = Setup { mode: Mode::Aldis, rate: Bps(4_000_000), loss: 0.02, seed: 2, ..Setup::default() };
    let mut fleet = Fleet::new(setup);
    fleet.submit(0, &[1, 2], 2_900_000, Precedence::Routine);
    fleet.run(Duration::from_secs(3));
    assert_eq!((fleet.mailbox(1), fleet.mailbox(2)), (0, 0));
    fleet.crash(0, true, Duration::from_secs(5));
    assert!(fleet.settle(Duration::from_secs(3600)) && fleet.check().is_empty(), "{:#?}", fleet.check());
    let (before, sent) = (fleet.bytes(), fleet.sent(0));
    assert!(before < 5_000_000, "{before} bytes for a payload of 2.2 MB");
    fleet.submit(0, &[1, 2], 4_000_000, Precedence::Routine);
    assert!(fleet.settle(Duration::from_secs(3600)));
    assert_eq!((fleet.sent(0), fleet.mailbox(1), fleet.mailbox(2)), (sent, 1, 1), "nothing of it left");
    let reports = fleet.letters(0).concat();
    let report = String::from_utf8_lossy(&reports);
    for words in
        ["Status: 5.3.4", "bytes when encoded; sat takes 2457600 of routine", "desk@n1.example", "desk@n2.example"]
    {
        assert!(report.contains(words), "{words}: {report:.3000}");
    }
}

/// How many datagrams went to groups of the pool, and to the agreed one.
fn by_kind(fleet: &Fleet) -> (u64, u64) {
    let of = |pool: bool| {
        let groups =
            fleet.to_groups().iter().filter(|(g, _)| (g.octets()[1] == 2) == pool && g.octets() != [239, 1, 1, 1]);
        groups.map(|(_, n)| n).sum()
    };
    (of(true), of(false))
}

#[test]
fn who_is_known_to_be_silent_and_what_cannot_wait_go_by_the_agreed_group() {
    let setup = Setup { pool: 4, always: true, nodes: 4, loss: 0.05, seed: 3, ..Setup::default() };
    let mut fleet = Fleet::new(setup.clone());
    fleet.run(Duration::from_secs(5));
    fleet.order(2, true);
    [0, 1, 3].into_iter().for_each(|i| fleet.mark(i, 2, true));
    fleet.submit(0, &[1, 2, 3], 20_000, Precedence::Routine);
    fleet.run(Duration::from_secs(200));
    let (made, agreed) = by_kind(&fleet);
    assert!(
        made > 14 && agreed > 14,
        "{made} and {agreed}: one group for the two who speak, the agreed one for who does not"
    );
    assert!((1..4).all(|i| fleet.mailbox(i) == 1));
    assert_eq!(fleet.unfinished(0), 1, "one has not confirmed");
    fleet.order(2, false);
    [0, 1, 3].into_iter().for_each(|i| fleet.mark(i, 2, false));
    assert!(fleet.settle(Duration::from_secs(3600)) && fleet.check().is_empty(), "{:#?}", fleet.check());

    for (level, by_made) in [(Precedence::Flash, false), (Precedence::Immediate, true)] {
        let mut fleet = Fleet::new(setup.clone());
        fleet.run(Duration::from_secs(5));
        fleet.submit(0, &[1, 2, 3], 2000, level);
        assert!(fleet.settle(Duration::from_secs(3600)) && fleet.check().is_empty(), "{:#?}", fleet.check());
        let (made, agreed) = by_kind(&fleet);
        assert_eq!((made > 0, agreed > 0), (by_made, !by_made), "{level}: {made} and {agreed}");
    }
}

/// Nothing but dynamic groups, and a receiver that nobody knows to be silent: it hears nothing of the message, says so, and has it afterwards.
#[test]
fn a_receiver_in_silence_is_no_member_until_its_silence_ends() {
    let mut fleet = Fleet::new(Setup { pool: 4, nodes: 3, seed: 5, ..Setup::default() });
    fleet.run(Duration::from_secs(5));
    fleet.order(2, true);
    fleet.run(Duration::from_secs(1));
    fleet.submit(0, &[1, 2], 20_000, Precedence::Routine);
    fleet.run(Duration::from_secs(300));
    assert_eq!((fleet.mailbox(1), fleet.mailbox(2)), (1, 0));
    assert!(fleet.joined(2).is_empty() && fleet.joined(1).is_empty(), "the one who has it has left");
    let told = fleet.log(2).events.iter().filter(|(_, event)| event.name() == "group-not-joined").count();
    assert_eq!(told, 1, "once for the group, however often it is announced");
    fleet.order(2, false);
    assert!(fleet.settle(Duration::from_secs(3600)) && fleet.check().is_empty(), "{:#?}", fleet.check());
    assert_eq!(fleet.mailbox(2), 1);
    fleet.run(Duration::from_secs(2000));
    assert!((0..3).all(|i| fleet.joined(i).is_empty()));
}

#[test]
fn a2_stores_put_back_stop_no_later_mail() {
    (1..=seeds()).for_each(|seed| sound(storm_of_backups(seed), &format!("backups, seed {seed}")));
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    for mode in [Mode::Mule, Mode::Aldis] {
        let hash = |seed| storm(mode, seed).trace_hash();
        assert_eq!(hash(3), hash(3));
        assert_ne!(hash(3), hash(4));
    }
}

#[test]
fn one_payload_serves_all_receivers() {
    for mode in [Mode::Mule, Mode::Aldis] {
        let bytes = |nodes| {
            let mut fleet = Fleet::new(Setup { mode, nodes, ..Setup::default() });
            let to: Vec<usize> = (1..nodes).collect();
            fleet.submit(0, &to, 50_000, Precedence::Routine);
            assert!(fleet.settle(Duration::from_secs(600)));
            assert_eq!(fleet.check(), Vec::<String>::new());
            fleet.bytes()
        };
        let (two, six) = (bytes(2), bytes(6));
        assert!(six < two + two / 10, "{mode:?}: {two} bytes for one receiver, {six} for five");
    }
}

/// Addresses are rewritten on the way to several receivers as to one: where a rule is for all of them by one payload, and where it tells them
/// apart by one for each.
#[test]
fn addresses_are_rewritten_towards_peers_that_share_a_payload() {
    const ALIKE: &str =
        "[[rewrite]]\nname = \"outside\"\ndirection = \"out\"\nmatch = \"n0.example\"\nto = \"ship.test\"\n";
    const APART: &str = "[[rewrite]]\nname = \"outside\"\ndirection = \"out\"\nmatch = \"n0.example\"\nto = \"ship.test\"\nat = [\"peer:n1\"]\n";
    for mode in [Mode::Mule, Mode::Aldis] {
        let run = |tables, wanted: [bool; 2]| {
            let mut fleet = Fleet::new(Setup { mode, tables, ..Setup::default() });
            fleet.submit(0, &[1, 2], 20_000, Precedence::Routine);
            assert!(fleet.settle(Duration::from_secs(600)), "{mode:?}");
            for (node, rewritten) in [1, 2].into_iter().zip(wanted) {
                let [letter] = &fleet.letters(node)[..] else { panic!("{mode:?}: one letter for {node}") };
                let letter = String::from_utf8_lossy(letter).into_owned();
                let address = if rewritten { "op@ship.test" } else { "op@n0.example" };
                for field in ["From: ".to_owned() + address, format!("Return-Path: <{address}>")] {
                    assert!(letter.contains(&format!("{field}\r\n")), "{mode:?}: {field}? {}", &letter[..900]);
                }
            }
            fleet.bytes()
        };
        let (plain, alike, apart) = (run("", [false; 2]), run(ALIKE, [true; 2]), run(APART, [true, false]));
        assert!(alike < plain + plain / 10 && apart > plain + plain / 2, "{mode:?}: {plain} {alike} {apart}");
    }
}

/// Mail that asks for protection goes to a group over a bearer that is marked protected alone; P_MUL protects nothing.
#[test]
fn mail_that_asks_for_protection_goes_to_no_group_without_it() {
    for (mode, protected, arrives) in [(Mode::Mule, false, 0), (Mode::Aldis, false, 0), (Mode::Aldis, true, 1)] {
        let mut fleet = Fleet::new(Setup { mode, protected, asks_protection: true, ..Setup::default() });
        fleet.submit(0, &[1, 2], 2000, Precedence::Routine);
        assert!(fleet.settle(Duration::from_secs(600)), "{mode:?}");
        assert_eq!((fleet.mailbox(1), fleet.mailbox(2)), (arrives, arrives), "{mode:?} {protected}");
        let told = fleet.letters(0).concat();
        assert_eq!(String::from_utf8_lossy(&told).contains("Status: 5.7.30"), arrives == 0, "{mode:?} {protected}");
    }
}

/// Fifty receivers lose a fifth of all datagrams, each its own: what they say stays little, and the payload leaves once with its parity.
#[test]
fn fifty_receivers_make_no_storm_of_acknowledgements() {
    for receivers in [10, 50] {
        let mut fleet =
            Fleet::new(Setup { mode: Mode::Aldis, nodes: receivers + 1, loss: 0.2, seed: 7, ..Setup::default() });
        let to: Vec<usize> = (1..=receivers).collect();
        fleet.submit(0, &to, 50_000, Precedence::Routine);
        assert!(fleet.settle(Duration::from_secs(1200)), "{receivers}: {:#?}", fleet.check());
        assert_eq!(fleet.check(), Vec::<String>::new());
        let reports: u64 = to.iter().map(|i| fleet.sent(*i)).sum();
        let most = to.iter().map(|i| fleet.sent(*i)).max().unwrap_or(0);
        println!("{receivers} receivers: {} datagrams of the sender, {reports} of all receivers", fleet.sent(0));
        assert!(most <= 16, "{receivers}: one receiver spoke {most} times");
        assert!(fleet.sent(0) < 120, "{receivers}: {} datagrams for a payload of 40", fleet.sent(0));
    }
}

/// Six receivers keep silence for a day. What comes meanwhile they have; released together they say so in one cycle, and nothing is sent to
/// bring their word about.
#[test]
fn a_day_of_silence_ends_with_one_word_of_each() {
    let nodes = 7;
    let mut fleet = Fleet::new(Setup { mode: Mode::Aldis, nodes, loss: 0.05, seed: 11, ..Setup::default() });
    let to: Vec<usize> = (1..nodes).collect();
    for i in &to {
        fleet.order(*i, true);
        fleet.mark(0, *i, true);
    }
    fleet.submit(0, &to, 20_000, Precedence::Routine);
    fleet.submit(0, &to, 500, Precedence::Immediate);
    fleet.run(Duration::from_secs(24 * 3600));
    assert!(to.iter().all(|i| fleet.sent(*i) == 0), "not a datagram in silence");
    assert!(to.iter().all(|i| fleet.mailbox(*i) == 2), "all of it is there");
    assert_eq!(fleet.unfinished(0), 2, "nothing is confirmed");
    // Power goes at the sender and at some receivers: what is owed is not forgotten.
    [0, 1, 2].into_iter().for_each(|i| fleet.crash(i, true, Duration::from_secs(5)));
    fleet.run(Duration::from_secs(60));
    fleet.set_loss(0.0);
    let before = fleet.sent(0);
    to.iter().for_each(|i| fleet.order(*i, false));
    fleet.run(Duration::from_secs(3));
    assert_eq!(fleet.unfinished(0), 0, "{:#?}", fleet.check());
    assert_eq!(fleet.sent(0), before, "nothing was aimed at their word");
    assert!(to.iter().all(|i| fleet.sent(*i) <= 2), "{:?}", to.iter().map(|i| fleet.sent(*i)).collect::<Vec<_>>());
    to.iter().for_each(|i| fleet.mark(0, *i, false));
    fleet.run(Duration::from_secs(60));
    assert_eq!(fleet.check(), Vec::<String>::new());
}

/// A receiver without a transmitter: it has the mail, nobody ever hears of it, and the sender asks nothing.
#[test]
fn a_receiver_that_only_hears_is_sent_its_windows_and_asked_nothing() {
    let deaf_ears = vec![2];
    let mut fleet =
        Fleet::new(Setup { mode: Mode::Aldis, nodes: 3, deaf_ears, loss: 0.05, seed: 5, ..Setup::default() });
    fleet.submit(0, &[1, 2], 30_000, Precedence::Routine);
    fleet.order(2, false);
    fleet.run(Duration::from_secs(6 * 3600));
    assert_eq!((fleet.sent(2), fleet.mailbox(2), fleet.mailbox(1)), (0, 1, 1));
    let sent = fleet.sent(0);
    fleet.run(Duration::from_secs(12 * 3600));
    assert_eq!(fleet.sent(0), sent, "after its windows nothing more leaves");
    assert_eq!(fleet.unfinished(0), 1);
}
