//! Chains: transmissions that no answer is wanted to yet.

use super::*;

/// Two stations at 75 bit/s that have heard each other for long enough to go without some answers, and a long message on its way.
fn chained(seed: u64, loss: f64) -> Pair {
    let mut configs = [config(0, Duration::from_secs(30)), config(1, Duration::from_secs(30))];
    for c in &mut configs {
        (c.waveform.rate, c.waveform.frame_bytes) = (Bps(75), 76);
        c.waveform.turnaround = Duration::from_secs(2);
    }
    let mut pair = Pair::with(seed, loss, configs);
    pair.send(0, 16_000, Precedence::Routine);
    assert!(pair.run(HOUR, |p| keyed(p, 0) == 10 || in_gap(p)));
    assert!(!in_gap(&pair), "a stranger is asked every time");
    assert!(loss > 0.0 || keyed(&pair, 1) >= 9, "and answers");
    assert!(pair.run(HOUR * 2, Pair::all_confirmed), "{:?}", pair.nodes[0].alarms);
    pair.run(Duration::from_secs(30), |_| false);
    pair.send(0, 30_000, Precedence::Routine);
    pair
}

/// Runs until the sender has just ended a transmission after which it goes on, and gives how many have left.
fn into_gap(pair: &mut Pair) -> usize {
    assert!(pair.run(HOUR * 2, in_gap), "no chain");
    pair.nodes[0].keyed.len()
}

fn in_gap(pair: &Pair) -> bool {
    pair.nodes[0].station.as_ref().expect("on").chain_over().is_some()
}

fn keyed(pair: &Pair, who: usize) -> usize {
    pair.nodes[who].keyed.len()
}

#[test]
fn answers_are_asked_for_every_third_time_once_the_peer_was_heard_for_long() {
    for (seed, loss) in [(1, 0.0), (2, 0.05), (3, 0.2)] {
        let mut pair = chained(seed, loss);
        let (before, answers) = (keyed(&pair, 0), keyed(&pair, 1));
        assert!(pair.run(HOUR * 3, Pair::all_confirmed), "{:?}", pair.nodes[0].alarms);
        let (sent, answered) = (keyed(&pair, 0) - before, keyed(&pair, 1) - answers);
        assert!(sent >= 28 && answered * 2 <= sent, "{answered} answers to {sent} transmissions at {loss}");
        assert_eq!(pair.nodes[1].whole[&2].1.len(), 30_000);
        assert_eq!(pair.collisions, 0);
        let learnt = pair.nodes[0].station.as_ref().expect("on").loss(1).expect("a peer");
        assert!((learnt - loss).abs() < 0.06, "loss {learnt} learnt of {loss}");
        assert_no_symbol_twice(&pair, 0, &format!("loss {loss}"));
    }
}

#[test]
fn d4_flash_at_the_listener_takes_the_gap_and_brings_its_report() {
    for after in [0, 700, 40_000, 100_000] {
        let mut pair = chained(4, 0.0);
        let sent = into_gap(&mut pair);
        pair.run(Duration::from_millis(after), |_| false);
        let progress = pair.nodes[0].progress.len();
        let flash = pair.send(1, 60, Precedence::Flash);
        let from = pair.now;
        assert!(pair.run(HOUR, |p| p.nodes[1].keyed.last().is_some_and(|(_, p)| *p == Precedence::Flash)));
        let end = pair.nodes[1].modem.free_at.max(from);
        let waited = pair.nodes[1].keyed.last().expect("keyed").0.since(end);
        assert!(waited <= Duration::from_millis(100), "{waited:?} after the turnaround, {after} ms into the gap");
        assert!(keyed(&pair, 0) <= sent + 1, "it waits for the present transmission alone");
        assert!(pair.run(Duration::from_secs(120), |p| p.nodes[0].whole.contains_key(&flash.counter)));
        assert!(pair.nodes[0].progress.len() > progress, "its report goes with it");
        assert!(pair.run(HOUR * 3, Pair::all_confirmed), "{:?}", pair.nodes[0].alarms);
        assert_eq!(pair.collisions, 0);
        assert_no_symbol_twice(&pair, 0, "flash");
    }
}

#[test]
fn d4_flash_at_the_sender_makes_the_transmission_ask() {
    let mut pair = chained(8, 0.0);
    let (sent, answers) = (into_gap(&mut pair), keyed(&pair, 1));
    assert!(pair.run(HOUR, |p| keyed(p, 0) > sent));
    pair.run(Duration::from_secs(60), |_| false);
    let flash = pair.send(0, 60, Precedence::Flash);
    assert!(pair.run(Duration::from_secs(200), |p| p.nodes[0].confirmed.iter().any(|(id, _)| *id == flash)));
    assert_eq!((keyed(&pair, 0), keyed(&pair, 1)), (sent + 1, answers + 1));
    assert!(pair.run(HOUR * 3, Pair::all_confirmed));
    assert_no_symbol_twice(&pair, 0, "flash");
}

#[test]
fn routine_at_the_listener_waits_until_it_is_asked_and_no_longer() {
    let mut pair = chained(5, 0.0);
    let (sent, answers) = (into_gap(&mut pair), keyed(&pair, 1));
    let id = pair.send(1, 200, Precedence::Routine);
    assert!(pair.run(HOUR, |p| keyed(p, 1) > answers));
    assert!((sent + 1..=sent + 2).contains(&keyed(&pair, 0)), "asked after three at the latest");
    assert!(pair.run(HOUR, |p| p.nodes[0].whole.contains_key(&id.counter)));
    assert!(pair.run(HOUR * 3, Pair::all_confirmed));
    assert_eq!(pair.collisions, 0);
}

#[test]
fn d2_no_death_in_a_chain_makes_a_symbol_leave_twice() {
    for seed in 0..24 {
        let who = seed as usize % 2;
        let mut pair = chained(seed, [0.0, 0.1][seed as usize / 2 % 2]);
        into_gap(&mut pair);
        pair.run(Duration::from_millis(seed * 17_311 % 300_000), |_| false);
        pair.restart(who, None);
        assert!(pair.run(HOUR * 4, Pair::all_confirmed), "seed {seed}: {:?}", pair.nodes[0].alarms);
        assert_eq!(pair.nodes[1].whole[&2].1.len(), 30_000);
        assert_no_symbol_twice(&pair, 0, &format!("seed {seed}"));
    }
}

#[test]
fn a6_whatever_of_a_chain_is_lost_it_goes_on() {
    for lost in 1..=4 {
        let mut pair = chained(6, 0.0);
        into_gap(&mut pair);
        // The next of the chain, the last that asks, its answer, or what follows that.
        pair.doomed.insert(pair.transmissions + lost);
        let from = pair.now;
        assert!(pair.run(HOUR * 3, Pair::all_confirmed), "{lost}: {:?}", pair.nodes[0].alarms);
        assert!(pair.now.since(from) < Duration::from_secs(4600), "{lost}: {:?}", pair.now.since(from));
        assert_eq!(pair.nodes[1].whole[&2].1.len(), 30_000);
        assert_no_symbol_twice(&pair, 0, &format!("{lost} lost"));
    }
}

#[test]
fn a_sender_silenced_in_a_chain_is_told_what_was_heard_and_asks_when_it_may() {
    let mut pair = chained(7, 0.0);
    let (sent, answers, progress) = (into_gap(&mut pair), keyed(&pair, 1), pair.nodes[0].progress.len());
    pair.gate.set(&BearerId::from("m0"), Some(order(State::Silent)));
    pair.run(HOUR, |_| false);
    assert_eq!((keyed(&pair, 0), keyed(&pair, 1)), (sent, answers + 1), "nothing followed, so the report goes unasked");
    assert!(pair.nodes[0].progress.len() > progress);
    pair.gate.set(&BearerId::from("m0"), Some(order(State::Open)));
    let now = pair.now;
    pair.with_station(0, |s| s.resume_air(now));
    pair.drain();
    assert!(pair.run(HOUR * 3, Pair::all_confirmed));
    assert_no_symbol_twice(&pair, 0, "silenced");
}
