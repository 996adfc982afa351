//! Whole nodes that speak MULE over P_MUL, in virtual time: loss, cuts of power, orders of silence.
//!
//! `ALDIS_SEEDS` sets how many seeds the storm takes.

use aldis::mail::Precedence;
use aldis::time::Duration;
use aldis_sim::fleet::{Fleet, Setup};
use aldis_sim::rng::Stream;

fn storm(seed: u64) -> Fleet {
    let mut chance = Stream::new(seed, "storm", 0);
    let nodes = 3 + chance.below(3) as usize;
    let (loss, twice) = (chance.unit() * 0.3, chance.unit() * 0.05);
    let mut fleet = Fleet::new(Setup { nodes, loss, twice, seed, ..Setup::default() });
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

#[test]
fn storms_lose_nothing_deliver_once_and_keep_every_silence() {
    let seeds: u64 = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    for seed in 1..=seeds {
        let mut fleet = storm(seed);
        let settled = fleet.settle(Duration::from_secs(6 * 3600));
        let problems = fleet.check();
        assert!(settled && problems.is_empty(), "seed {seed}, settled {settled}: {problems:#?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let hash = |seed| storm(seed).trace_hash();
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn one_payload_serves_all_receivers() {
    let bytes = |nodes| {
        let mut fleet = Fleet::new(Setup { nodes, ..Setup::default() });
        let to: Vec<usize> = (1..nodes).collect();
        fleet.submit(0, &to, 50_000, Precedence::Routine);
        assert!(fleet.settle(Duration::from_secs(600)));
        assert_eq!(fleet.check(), Vec::<String>::new());
        fleet.bytes()
    };
    let (two, six) = (bytes(2), bytes(6));
    assert!(six < two + two / 20, "{two} bytes for one receiver, {six} for five");
}
