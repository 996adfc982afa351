//! The store under power cuts, failing disks and full disks, against a model kept outside.
//!
//! `ALDIS_CUTS` sets how many seeded power cuts are tried.

#[path = "common/store_model.rs"]
mod store_model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aldis::queue::{CommitError, Engine, Opened, Options, Staged, StoreCall, StoreResult};
use aldis_sim::disk::{At, Fault, SimDisk};
use aldis_sim::rng::Stream;
use store_model::{Model, Work};

const CUTS: u64 = 10_000;
const CUTS_PER_STORE: u64 = 25;
/// Messages among which a fault strikes: most are one sync.
const MESSAGES: u64 = 50;

fn options(fresh_epoch: u32) -> Options {
    Options { cache_bytes: 1 << 20, floor_bytes: 0, fresh_epoch, ..Options::default() }
}

fn open(disk: &SimDisk, fresh_epoch: u32) -> Result<(Engine, Opened), aldis::queue::OpenError> {
    Engine::open(Arc::new(disk.clone()), options(fresh_epoch))
}

/// The same with a log that is often full, sometimes of another length than before, sometimes none.
fn open_any(disk: &SimDisk, chance: &mut Stream) -> Result<(Engine, Opened), aldis::queue::OpenError> {
    let log_bytes = [0, 96, 96, 256, 256, 1024].map(|kib| kib << 10)[chance.below(6) as usize];
    Engine::open(Arc::new(disk.clone()), Options { log_bytes, ..options(chance.next_u64() as u32) })
}

fn failed(result: &StoreResult) -> bool {
    let failed = |e: &CommitError| matches!(e, CommitError::Failed(_));
    match result {
        StoreResult::Committed(r) => r.as_ref().is_err_and(failed),
        StoreResult::Claimed(r) => r.as_ref().is_err_and(failed),
        StoreResult::Looked(r) => r.as_ref().is_err_and(failed),
        StoreResult::Ended(r) => r.as_ref().is_err_and(failed),
        StoreResult::Loaded(r) => r.as_ref().is_err_and(failed),
        StoreResult::Read(r) => r.as_ref().is_err_and(failed),
    }
}

/// Executes calls on both; true when the engine failed. Then `before` and `model` are the two states the disk may hold.
fn step(engine: &mut Engine, model: &mut Model, calls: Vec<StoreCall>, seed: u64) -> bool {
    let results = engine.execute(calls.clone());
    let broken = engine.failure().is_some();
    for (call, result) in calls.iter().zip(results) {
        let expected = model.execute(call);
        if broken {
            assert!(failed(&result), "seed {seed}: {result:?} from an engine that failed");
        } else if let Some(expected) = expected {
            assert_eq!(result, expected, "seed {seed}: {call:?}");
        } else {
            assert!(failed(&result), "seed {seed}: {result:?} for what is not there");
        }
    }
    broken
}

#[test]
fn what_was_reported_survives_every_power_cut_and_nothing_is_ever_half_there() {
    let wanted = std::env::var("ALDIS_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(CUTS);
    let (cuts, landed, batches) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while cuts.load(Ordering::Relaxed) < wanted {
                    let run = life(next.fetch_add(1, Ordering::Relaxed));
                    cuts.fetch_add(run.cuts, Ordering::Relaxed);
                    landed.fetch_add(run.landed, Ordering::Relaxed);
                    batches.fetch_add(run.calls, Ordering::Relaxed);
                }
            });
        }
    });
    let [cuts, landed, calls] = [cuts, landed, batches].map(AtomicU64::into_inner);
    println!("{cuts} power cuts, {calls} calls, {landed} unreported transactions found whole");
    assert!(cuts >= wanted);
    // Otherwise the cuts fall where nothing is in doubt, and the test shows nothing.
    assert!(landed * 200 > cuts && landed < cuts, "{landed} of {cuts}");
}

#[test]
fn what_was_settled_survives_every_power_cut_and_of_what_was_staged_only_a_beginning_is_there() {
    let wanted = std::env::var("ALDIS_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(CUTS) / 4;
    let (cuts, landed) = (AtomicU64::new(0), AtomicU64::new(0));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while cuts.load(Ordering::Relaxed) < wanted {
                    let run = life_ahead(next.fetch_add(1, Ordering::Relaxed));
                    cuts.fetch_add(run.cuts, Ordering::Relaxed);
                    landed.fetch_add(run.landed, Ordering::Relaxed);
                }
            });
        }
    });
    let [cuts, landed] = [cuts, landed].map(AtomicU64::into_inner);
    println!("{cuts} power cuts, {landed} times something unsettled was there");
    assert!(cuts >= wanted && landed * 100 > cuts && landed < cuts, "{landed} of {cuts}");
}

/// A store whose writer goes on while what it did waits for a sync, through many cuts.
fn life_ahead(seed: u64) -> Run {
    let disk = SimDisk::new(seed);
    let mut chance = Stream::new(seed, "life ahead", 0);
    let mut work = Work::new(seed);
    let mut run = Run { cuts: 0, landed: 0, calls: 0 };
    // What is settled, then that and each group staged after it.
    let mut states = vec![Model::default()];
    while run.cuts < CUTS_PER_STORE {
        let cut = At::Operation([4, 40, 400].map(|reach| chance.below(reach))[chance.below(3) as usize]);
        if chance.chance(0.2) {
            disk.fail(cut, Fault::PowerLoss);
        }
        if let Ok((mut engine, opened)) = open_any(&disk, &mut chance) {
            disk.heal();
            let differences: Vec<_> = states.iter().map(|state| state.difference(&engine, &opened)).collect();
            let Some(at) = differences.iter().position(Option::is_none) else {
                panic!("seed {seed}, cut {}: {differences:?}", run.cuts);
            };
            run.landed += u64::from(at > 0);
            states = vec![states.swap_remove(at)];
            disk.fail(cut, Fault::PowerLoss);
            ahead(&mut engine, &mut states, &mut work, &mut chance, seed);
        }
        disk.restart(chance.next_u64());
        run.cuts += 1;
    }
    run
}

/// Stages and settles until something fails, or for a while.
fn ahead(engine: &mut Engine, states: &mut Vec<Model>, work: &mut Work, chance: &mut Stream, seed: u64) {
    let mut owed: Vec<(Vec<Option<StoreResult>>, Staged)> = Vec::new();
    for _ in 0..chance.below(60) {
        if !owed.is_empty() && (owed.len() > 4 || chance.chance(0.4)) {
            let groups = 1 + chance.below(owed.len() as u64) as usize;
            let (mut expected, mut staged) = (Vec::new(), Staged::default());
            for (answers, group) in owed.drain(..groups) {
                expected.extend(answers);
                staged.append(group);
            }
            let settled = staged.settle();
            if settled.failure.is_some() {
                assert!(settled.results.iter().all(failed), "seed {seed}: an answer from a sync that failed");
                return;
            }
            for (result, expected) in settled.results.iter().zip(&expected) {
                match expected {
                    Some(expected) => assert_eq!(result, expected, "seed {seed}"),
                    None => assert!(failed(result), "seed {seed}: {result:?} for what is not there"),
                }
            }
            states.drain(..groups);
            continue;
        }
        let mut model = states.last().expect("one at least").clone();
        let calls = work.calls(&model);
        let expected = calls.iter().map(|call| model.execute(call)).collect();
        let staged = engine.stage(calls);
        states.push(model);
        if engine.failure().is_some() {
            return;
        }
        owed.push((expected, staged));
    }
}

/// Of two records that were staged together a power cut may leave the second. It must not follow the one that takes the first one's place.
#[test]
fn a_record_behind_a_lost_one_never_comes_back() {
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let (mut work, mut model) = (Work::new(seed), Model::default());
        let first = StoreCall::Commit(work.accept(&model));
        {
            let (mut engine, _) = open(&disk, 5).expect("opens");
            let mut ahead = model.clone();
            let mut staged = engine.stage(vec![first.clone()]);
            ahead.execute(&first);
            let second = StoreCall::Commit(work.accept(&ahead));
            staged.append(engine.stage(vec![second]));
            disk.power_cut(seed);
            drop(staged);
        }
        let (mut engine, opened) = open(&disk, 5).expect("opens");
        if model.difference(&engine, &opened).is_some() {
            // The first came through.
            continue;
        }
        // As long as what was lost, and another message.
        let other = StoreCall::Commit(Work::new(seed + 1000).accept(&model));
        engine.execute(vec![other.clone()]);
        model.execute(&other);
        disk.power_cut(seed + 1);
        drop(engine);
        let (engine, opened) = open(&disk, 5).expect("opens");
        assert_eq!(model.difference(&engine, &opened), None, "seed {seed}");
    }
}

struct Run {
    cuts: u64,
    landed: u64,
    calls: u64,
}

/// One store through many cuts, each at a random operation of the disk, openings included.
fn life(seed: u64) -> Run {
    let disk = SimDisk::new(seed);
    let mut chance = Stream::new(seed, "life", 0);
    let mut work = Work::new(seed);
    let mut run = Run { cuts: 0, landed: 0, calls: 0 };
    let (mut model, mut doubtful): (Model, Option<Model>) = (Model::default(), None);
    let mut epoch = None;
    while run.cuts < CUTS_PER_STORE {
        let cut = At::Operation([4, 40, 400].map(|reach| chance.below(reach))[chance.below(3) as usize]);
        let early = chance.chance(0.2);
        if early {
            disk.fail(cut, Fault::PowerLoss);
        }
        if let Ok((mut engine, opened)) = open_any(&disk, &mut chance) {
            // Looking must not be cut: a look writes too, where the cache is full of pages not written yet.
            disk.heal();
            let difference = model.difference(&engine, &opened);
            match (&difference, doubtful.take()) {
                (None, _) => {}
                (Some(_), Some(other)) if other.difference(&engine, &opened).is_none() => {
                    run.landed += 1;
                    model = other;
                }
                (Some(what), other) => panic!(
                    "seed {seed}, cut {}: {what}; other: {:?}",
                    run.cuts,
                    other.map(|other| other.difference(&engine, &opened))
                ),
            }
            assert_eq!(*epoch.get_or_insert(opened.epoch), opened.epoch, "seed {seed}");
            disk.fail(cut, Fault::PowerLoss);
            for _ in 0..chance.below(30) {
                let calls = work.calls(&model);
                run.calls += calls.len() as u64;
                let before = model.clone();
                if step(&mut engine, &mut model, calls, seed) {
                    doubtful = Some(std::mem::replace(&mut model, before));
                    break;
                }
            }
        }
        disk.restart(chance.next_u64());
        run.cuts += 1;
    }
    run
}

/// Takes in messages, meets one fault, and says what must hold after it.
fn messages_and_a_fault(seed: u64, at: At, fault: Fault) -> bool {
    let disk = SimDisk::new(seed);
    let (mut engine, _) = open(&disk, 5).expect("opens");
    let (mut work, mut model) = (Work::new(seed), Model::default());
    let first = work.calls(&model);
    assert!(!step(&mut engine, &mut model, first, seed));
    disk.fail(at, fault);
    let what = format!("seed {seed}, {at:?}, {fault:?}");
    for round in 0..MESSAGES {
        let before = model.clone();
        let calls = vec![StoreCall::Commit(work.accept(&model))];
        let results = engine.execute(calls.clone());
        let after = {
            calls.iter().for_each(|call| drop(model.execute(call)));
            std::mem::replace(&mut model, before)
        };
        match results.as_slice() {
            [StoreResult::Committed(Ok(()))] => model = after,
            [StoreResult::Committed(Err(CommitError::Conflict(0)))] => assert_eq!(model, after, "{what}"),
            [StoreResult::Committed(Err(CommitError::Full))] => {
                assert_eq!(fault, Fault::NoSpace, "{what}");
                assert!(engine.failure().is_none(), "{what}");
            }
            [StoreResult::Committed(Err(CommitError::Failed(_)))] => {
                assert!(fault == Fault::Io || matches!(at, At::Sync(_)) || engine.failure().is_some(), "{what}");
                let again = engine.execute(vec![StoreCall::Load(aldis::mail::MessageId(0))]);
                assert!(failed(&again[0]), "{what}: answers after a failure");
                assert!(!engine.health().healthy, "{what}");
                let opened = engine.reopen().unwrap_or_else(|e| panic!("{what}, round {round}: {e}"));
                if let Some(difference) = model.difference(&engine, &opened) {
                    assert_eq!(after.difference(&engine, &opened), None, "{what}: {difference}");
                    model = after;
                }
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    let struck = !disk.fault_pending();
    // What was shown after the failure must be as durable as anything: dropped pages must not come back as losses.
    disk.power_cut(seed);
    drop(engine);
    let (engine, opened) = open(&disk, 6).expect("opens");
    assert_eq!(model.difference(&engine, &opened), None, "{what}");
    assert!(!opened.fresh);
    struck
}

#[test]
fn an_io_error_or_a_full_disk_at_any_operation_loses_nothing_that_was_reported() {
    let mut struck = 0;
    for n in 0..40 {
        for seed in 0..4 {
            for fault in [Fault::Io, Fault::NoSpace] {
                struck += u32::from(messages_and_a_fault(100 * n + seed, At::Operation(n), fault));
                struck += u32::from(messages_and_a_fault(100 * n + seed, At::Sync(n), fault));
            }
        }
    }
    // The last syncs are not reached where messages were refused as seen before.
    assert!(struck >= 560, "only {struck} of 640 faults struck");
}

#[test]
fn a_disk_that_fills_refuses_mail_and_goes_on() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, 5).expect("opens");
    let (mut work, mut model) = (Work::new(1), Model::default());
    disk.set_capacity(Some(disk.used_bytes() + 400_000));
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..200 {
        let call = StoreCall::Commit(work.accept(&model));
        match engine.execute(vec![call.clone()]).as_slice() {
            [StoreResult::Committed(Ok(()))] => {
                model.execute(&call);
                taken += 1;
            }
            [StoreResult::Committed(Err(CommitError::Full))] => refused += 1,
            [StoreResult::Committed(Err(CommitError::Conflict(0)))] => {}
            other => panic!("{other:?}"),
        }
    }
    println!("{taken} messages taken, {refused} refused");
    assert!(taken > 10 && refused > 10);
    disk.set_capacity(None);
    let call = StoreCall::Commit(work.accept(&model));
    model.execute(&call);
    engine.execute(vec![call]);
    disk.power_cut(3);
    drop(engine);
    let (engine, opened) = open(&disk, 6).expect("opens");
    assert_eq!(model.difference(&engine, &opened), None);
}
