//! The store as files: made, lost, restored, damaged, from an earlier version, shared by threads, on a real disk.

#[path = "common/store_model.rs"]
mod store_model;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use aldis::mail::{BodyRef, MessageId, Outcome, Precedence, RecipientState, Source, TransferId};
use aldis::queue::{
    Batch, Change, CommitError, Condition, Disk, Engine, Ids, LOG_FILE, MessageRecord, MessageState, OpenError, Opened,
    Options, RealDisk, STORE_FILE, SeenKey, StoreCall, StoreResult, TrackEntry, UNDATED,
};
use aldis::time::Wall;
use aldis_sim::disk::SimDisk;
use aldis_sim::rng::Stream;
use store_model::{Model, Work, message};

const SMALL: Options =
    Options { cache_bytes: 1 << 20, floor_bytes: 0, fresh_epoch: 5, quick_repair: true, log_bytes: 256 << 10 };

fn open(disk: &SimDisk, options: Options) -> (Engine, Opened) {
    Engine::open(Arc::new(disk.clone()), options).expect("opens")
}

fn commit(engine: &mut Engine, changes: Vec<Change>) -> Result<(), CommitError> {
    let call = StoreCall::Commit(Batch { conditions: vec![], changes });
    match engine.execute(vec![call]).pop() {
        Some(StoreResult::Committed(result)) => result,
        other => panic!("{other:?}"),
    }
}

fn record(id: u64) -> MessageRecord {
    let transfer = TransferId { origin: "far".into(), epoch: 7, counter: id as u32 };
    let mut record =
        message(MessageId(id), BodyRef(id), b"body", Wall(1000), &mut Stream::new(id, "record", 0), transfer);
    record.state = MessageState::Queued;
    record.precedence = Precedence::Routine;
    record
}

fn done(id: u64, at: i64) -> MessageRecord {
    let mut record = record(id);
    record.state = MessageState::Done;
    for recipient in &mut record.recipients {
        recipient.state = RecipientState::Final { outcome: Outcome::Expired, at: Wall(at) };
    }
    record
}

fn put(record: MessageRecord) -> Change {
    Change::Message(Box::new(record))
}

fn claim(engine: &mut Engine, owner: &str, now: i64, limit: usize, except: Vec<MessageId>) -> Vec<u64> {
    let call = StoreCall::Claim {
        owner: owner.into(),
        now: Wall(now),
        beyond: Wall(now + 1_000_000),
        until: Wall(now + 100),
        classes: Precedence::DESCENDING.to_vec(),
        limit,
        except,
    };
    match engine.execute(vec![call]).pop() {
        Some(StoreResult::Claimed(Ok(taken))) => taken.iter().map(|m| m.id.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_store_has_a_fresh_epoch_and_keeps_it() {
    let disk = SimDisk::new(1);
    let (engine, opened) = open(&disk, SMALL);
    assert_eq!((opened.epoch, opened.fresh, opened.damaged.len()), (5, true, 0));
    drop(engine);
    let (_, opened) = open(&disk, Options { fresh_epoch: 6, ..SMALL });
    assert_eq!((opened.epoch, opened.fresh), (5, false));
}

#[test]
fn a_restored_copy_and_a_lost_store_get_another_epoch() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    commit(&mut engine, vec![put(record(3))]).expect("commits");
    let backup = disk.backup();
    drop(engine);
    disk.restore(&backup);
    // Even when chance offers the very epoch the copy had.
    let (engine, opened) = open(&disk, SMALL);
    assert_eq!((opened.epoch, opened.fresh, opened.next_message), (4, true, 4));
    drop(engine);
    let (engine, opened) = open(&disk, SMALL);
    assert_eq!((opened.epoch, opened.fresh), (4, false));
    drop(engine);
    disk.remove(STORE_FILE).expect("removes");
    let (_, opened) = open(&disk, Options { fresh_epoch: 77, ..SMALL });
    assert_eq!((opened.epoch, opened.fresh, opened.next_message), (77, true, 0));
}

#[test]
fn a_store_that_lost_count_of_its_numbers_gets_another_epoch() {
    for damage in [None, Some(b"\x02not what it was".to_vec())] {
        let disk = SimDisk::new(1);
        let (mut engine, first) = open(&disk, SMALL);
        commit(&mut engine, vec![put(record(3)), Change::Setting(Ids::SETTING.into(), damage)]).expect("commits");
        drop(engine);
        let (engine, opened) = open(&disk, Options { fresh_epoch: 9, ..SMALL });
        assert_eq!((first.epoch, opened.epoch, opened.fresh), (5, 9, true));
        assert!(opened.renewed.as_ref().is_some_and(|why| why.contains("numbers already used")), "{opened:?}");
        let mut ids = Ids::open(&opened);
        assert_eq!((ids.upcoming(), ids.transfer()), (MessageId(4), Some(0)));
        drop(engine);
        let (_, opened) = open(&disk, Options { fresh_epoch: 7, ..SMALL });
        assert_eq!((opened.epoch, opened.fresh, opened.renewed), (9, false, None), "once");
    }
}

fn next_message(disk: &SimDisk, options: Options) -> u64 {
    open(disk, options).1.next_message
}

#[test]
fn what_only_the_log_has_is_done_again() {
    let disk = SimDisk::new(1);
    let (mut engine, first) = open(&disk, SMALL);
    for id in 1..5 {
        let body = Change::Body(BodyRef(id), vec![id as u8; 9000].into());
        commit(&mut engine, vec![body, put(record(id))]).expect("commits");
    }
    assert_eq!(claim(&mut engine, "node-a", 2000, 1, vec![]).len(), 1);
    disk.kill();
    drop(engine);
    let alone = SimDisk::new(2);
    alone.put(STORE_FILE, &disk.bytes(STORE_FILE).expect("there"));
    assert_eq!(next_message(&alone, SMALL), 0, "no commit has them yet");
    // Also by one that will not go on with a log.
    let (mut engine, opened) = open(&disk, Options { log_bytes: 0, ..SMALL });
    assert_eq!((opened.epoch, opened.fresh, opened.next_message, opened.next_body), (first.epoch, false, 5, 5));
    let snapshot = engine.snapshot().expect("a snapshot");
    for id in 1..5 {
        assert_eq!(snapshot.read(BodyRef(id), 0, u64::MAX).expect("reads")[..], [id as u8; 9000]);
    }
    assert_eq!(claim(&mut engine, "node-b", 2000, 9, vec![]).len(), 3, "a lease is among it");
}

#[test]
fn a_full_log_starts_again_and_is_never_taken_for_something_new() {
    let disk = SimDisk::new(1);
    let options = Options { log_bytes: 64 << 10, ..SMALL };
    for round in 0..20 {
        let (mut engine, opened) = open(&disk, options);
        assert_eq!(opened.next_message, if round == 0 { 0 } else { 10 * round + 1 }, "round {round}");
        for id in 10 * round + 1..=10 * round + 10 {
            commit(&mut engine, vec![Change::Body(BodyRef(id), vec![7; 6000].into()), put(record(id))])
                .expect("commits");
        }
        disk.kill();
    }
}

#[test]
fn a_log_of_another_store_is_put_aside_and_the_store_gets_another_epoch() {
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    for (disk, fresh_epoch, messages) in [(&disk, 5, 2), (&other, 6, 9)] {
        let (mut engine, _) = open(disk, Options { fresh_epoch, ..SMALL });
        for id in 1..=messages {
            commit(&mut engine, vec![put(record(id))]).expect("commits");
        }
    }
    disk.put(LOG_FILE, &other.bytes(LOG_FILE).expect("there"));
    let (engine, opened) = open(&disk, Options { fresh_epoch: 9, ..SMALL });
    assert_eq!((opened.epoch, opened.fresh, opened.next_message), (9, true, 3));
    assert!(opened.damaged.iter().any(|what| what.contains("store.log.aside")), "{opened:?}");
    assert!(opened.renewed.as_ref().is_some_and(|why| why.contains("another store's")), "{opened:?}");
    drop(engine);
    let (_, opened) = open(&disk, SMALL);
    assert_eq!((opened.epoch, opened.fresh, opened.damaged.len()), (9, false, 0), "once");
}

#[test]
fn mail_whose_life_is_over_is_found_wherever_it_waits() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let until = |id, expires, state| {
        let mut m = record(id);
        (m.envelope.expires, m.state) = (Wall(expires), state);
        put(m)
    };
    let all = vec![
        until(1, 50, MessageState::Held),
        until(2, 40, MessageState::Queued),
        until(3, 30, MessageState::Done),
        until(4, 60, MessageState::Held),
        until(5, 90, MessageState::Held),
    ];
    commit(&mut engine, all).expect("commits");
    let mut ended = |now, limit, except: &[u64]| {
        let except = except.iter().map(|id| MessageId(*id)).collect();
        match engine.execute(vec![StoreCall::Ended { now: Wall(now), limit, except }]).pop() {
            Some(StoreResult::Ended(Ok(ids))) => ids.into_iter().map(|id| id.0).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ended(39, 9, &[]), [0_u64; 0]);
    assert_eq!(ended(60, 9, &[]), [2, 1, 4]);
    assert_eq!(ended(60, 1, &[2]), [1]);
    commit(&mut engine, vec![until(1, 50, MessageState::Done), until(4, 99, MessageState::Held)]).expect("commits");
    let left = engine.execute(vec![StoreCall::Ended { now: Wall(60), limit: 9, except: Vec::new() }]);
    assert_eq!(left, [StoreResult::Ended(Ok(vec![MessageId(2)]))]);
}

#[test]
fn an_epoch_ordered_from_above_is_kept() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    commit(&mut engine, vec![Change::Epoch(0xABC)]).expect("commits");
    drop(engine);
    let (_, opened) = open(&disk, Options { fresh_epoch: 9, ..SMALL });
    assert_eq!((opened.epoch, opened.fresh), (0xABC, false));
}

#[test]
fn an_empty_file_is_kept_and_told_and_anything_else_is_refused() {
    let disk = SimDisk::new(1);
    disk.put(STORE_FILE, b"");
    let (engine, opened) = open(&disk, SMALL);
    assert!(opened.fresh && opened.damaged[0].contains("was empty"), "{:?}", opened.damaged);
    drop(engine);
    disk.put(STORE_FILE, &[b'x'; 9000]);
    let error = Engine::open(Arc::new(disk.clone()), SMALL).expect_err("not a store");
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    assert_eq!(disk.bytes(STORE_FILE).expect("still there").len(), 9000);
}

#[test]
fn a_store_of_a_later_version_is_refused_by_name() {
    let disk = SimDisk::new(1);
    drop(open(&disk, SMALL));
    let later = later_version(&disk.bytes(STORE_FILE).expect("there"));
    disk.put(STORE_FILE, &later);
    let error = Engine::open(Arc::new(disk), SMALL).expect_err("later");
    assert!(matches!(error, OpenError::NewerFormat { found: 99, known: 4 }), "{error}");
    assert!(error.to_string().contains("later version"));
}

/// The same store with a higher format number, made by redb itself.
fn later_version(bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("later");
    std::fs::write(&path, bytes).expect("writes");
    let database = redb::Database::create(&path).expect("opens");
    let transaction = database.begin_write().expect("begins");
    {
        let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
        transaction.open_table(meta).expect("table").insert("format", &99u32.to_le_bytes()[..]).expect("inserts");
    }
    transaction.commit().expect("commits");
    drop(database);
    std::fs::read(&path).expect("reads")
}

#[test]
fn a_damaged_record_is_set_aside_and_told_and_the_rest_goes_on() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let mut bad = record(0);
    bad.recipients[0].last_error = Some("ROT-THIS-MESSAGE".into());
    let setting = Change::Setting("emcon/hf".into(), Some(b"ROT-THIS-SETTING".to_vec()));
    commit(&mut engine, vec![put(bad), put(record(1)), setting, Change::Setting("kept".into(), Some(vec![1]))])
        .expect("commits");
    drop(engine);
    rot(&disk, b"ROT-THIS-MESSAGE");
    rot(&disk, b"ROT-THIS-SETTING");
    for opening in 0..2 {
        let (mut engine, opened) = open(&disk, SMALL);
        let told = opened.damaged.join("\n");
        assert_eq!(opened.damaged.len(), 2, "opening {opening}: {told}");
        assert!(told.contains("message 00000000") && told.contains("setting emcon/hf"), "{told}");
        assert!(opened.settings.contains(&("kept".to_owned(), vec![1])));
        assert_eq!(engine.health().depth[1].0, 1);
        assert_eq!(claim(&mut engine, "a", 5000, 9, vec![]), [1]);
    }
}

#[test]
fn in_a_deep_queue_a_damaged_record_is_found_and_set_aside_when_its_turn_comes() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    for start in (0..20_000).step_by(2000) {
        commit(&mut engine, (start..start + 2000).map(|id| put(record(id))).collect()).expect("commits");
    }
    let mut bad = record(20_000);
    bad.accepted = Wall(1001);
    bad.recipients[0].state = RecipientState::Due { next_at: Wall(0) };
    bad.recipients[0].last_error = Some("ROT-THIS-MESSAGE".into());
    commit(&mut engine, vec![put(bad)]).expect("commits");
    drop(engine);
    rot(&disk, b"ROT-THIS-MESSAGE");
    let (mut engine, opened) = open(&disk, SMALL);
    assert_eq!(opened.damaged, [""; 0]);
    let loaded = engine.execute(vec![StoreCall::Load(MessageId(20_000))]);
    assert!(matches!(loaded.as_slice(), [StoreResult::Loaded(Err(CommitError::Failed(_)))]));
    assert_eq!(claim(&mut engine, "a", 5000, 2, vec![]), [0, 1]);
    assert_eq!(engine.health().depth[1].0, 20_000);
    assert_eq!(engine.execute(vec![StoreCall::Load(MessageId(20_000))]), [StoreResult::Loaded(Ok(None))]);
    drop(engine);
    assert_eq!(open(&disk, SMALL).1.damaged, ["message 00004E20 could not be read and was set aside"]);
}

#[test]
fn a_damaged_body_is_an_error_value() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let mut bytes = vec![b'a'; 9000];
    bytes[5000..5008].copy_from_slice(b"ROT-THIS");
    commit(&mut engine, vec![Change::Body(BodyRef(0), bytes.clone().into())]).expect("commits");
    drop(engine);
    rot(&disk, b"ROT-THIS");
    let (mut engine, _) = open(&disk, SMALL);
    // Rows of 8000 and of 1000 bytes.
    let reads = [(0, u64::MAX), (4500, 10), (0, 4000), (8000, 5000), (8500, 100)];
    let results = engine.execute(reads.iter().map(|(from, n)| StoreCall::Read(BodyRef(0), *from, *n)).collect());
    assert!(matches!(&results[0], StoreResult::Read(Err(CommitError::Failed(why))) if why.contains("damaged")));
    assert!(matches!(&results[1], StoreResult::Read(Err(_))));
    assert!(matches!(&results[2], StoreResult::Read(Err(_))), "a row is whole or not there");
    assert_eq!(results[3], StoreResult::Read(Ok(bytes[8000..].into())));
    assert_eq!(results[4], StoreResult::Read(Ok(bytes[8500..8600].into())));
    assert!(engine.failure().is_none(), "a damaged body is no failure of the engine");
}

fn rot(disk: &SimDisk, mark: &[u8]) {
    let bytes = disk.bytes(STORE_FILE).expect("there");
    let found: Vec<usize> = (0..bytes.len() - mark.len()).filter(|at| bytes[*at..].starts_with(mark)).collect();
    assert!(!found.is_empty());
    found.iter().for_each(|at| disk.rot(STORE_FILE, *at as u64, 0x20));
}

#[test]
fn a_body_is_stored_once_and_the_refusal_disturbs_nobody() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let body = |n: u64| Change::Body(BodyRef(n), vec![n as u8; 10].into());
    let batch = |changes| StoreCall::Commit(Batch { conditions: vec![], changes });
    let results =
        engine.execute(vec![batch(vec![body(1)]), batch(vec![put(record(1)), body(1)]), batch(vec![body(2)])]);
    assert!(matches!(
        results.as_slice(),
        [
            StoreResult::Committed(Ok(())),
            StoreResult::Committed(Err(CommitError::Failed(_))),
            StoreResult::Committed(Ok(()))
        ]
    ));
    assert!(engine.failure().is_none());
    assert_eq!(engine.snapshot().expect("reads").load(MessageId(1)), Ok(None));
}

/// Storm 273157719974234: a try put down while an unset clock showed 2041 waited for 2041 after the clock was right.
#[test]
fn a_try_put_down_by_a_clock_that_was_put_back_has_come() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let next = |id, at| {
        let mut later = record(id);
        later.recipients.iter_mut().for_each(|r| r.state = RecipientState::Due { next_at: Wall(at) });
        put(later)
    };
    commit(&mut engine, vec![next(0, 900), next(1, 900_000), next(2, 2_253_000_000_000)]).expect("commits");
    assert_eq!(claim(&mut engine, "a", 1000, 9, vec![]), [0, 2]);
}

#[test]
fn leases_bind_others_until_they_end_and_never_their_owner() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    commit(&mut engine, (0..4).map(|id| put(record(id))).collect()).expect("commits");
    assert_eq!(claim(&mut engine, "a", 1000, 2, vec![]), [0, 1]);
    assert_eq!(claim(&mut engine, "a", 1000, 9, vec![MessageId(0), MessageId(1)]), [2, 3]);
    assert_eq!(claim(&mut engine, "b", 1100, 9, vec![]), [0u64; 0]);
    drop(engine);
    let (mut engine, _) = open(&disk, SMALL);
    assert_eq!(claim(&mut engine, "a", 1050, 9, vec![]), [0, 1, 2, 3], "a restarted owner has its work back at once");
    assert_eq!(claim(&mut engine, "b", 1151, 9, vec![]), [0, 1, 2, 3]);
    assert_eq!(claim(&mut engine, "a", 999, 9, vec![]), [0u64; 0], "not due yet");
}

#[test]
fn below_the_floor_mail_is_refused_and_outcomes_pass() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, Options { floor_bytes: 10 << 20, ..SMALL });
    commit(&mut engine, vec![Change::Body(BodyRef(0), vec![0; 100].into()), put(record(0))]).expect("commits");
    disk.set_capacity(Some(disk.used_bytes() + (9 << 20)));
    let mail = |id: u64| vec![Change::Body(BodyRef(id), vec![0; 100].into()), put(record(id))];
    assert_eq!(commit(&mut engine, mail(1)), Err(CommitError::Full));
    let health = engine.health();
    assert!(!health.healthy && health.public_text.contains("storage"));
    assert_eq!(commit(&mut engine, vec![put(done(0, 2000))]), Ok(()));
    let mut dsn = record(2);
    dsn.source = Source::Switch;
    assert_eq!(commit(&mut engine, vec![Change::Body(BodyRef(2), vec![0; 100].into()), put(dsn)]), Ok(()));
    disk.set_capacity(None);
    assert_eq!(commit(&mut engine, mail(3)), Ok(()));
    assert!(engine.health().healthy);
}

#[test]
fn names_and_history_outlive_the_message_until_purged() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let line = |id, at| {
        let (event, none) = ("accepted".to_owned(), None);
        let entry = TrackEntry {
            at: Wall(at),
            event,
            recipient: none.clone(),
            bearer: none.clone(),
            bytes_on_air: 0,
            air_s: 0.0,
            detail: none,
        };
        Change::Track(MessageId(id), entry)
    };
    let mut records = [done(0, 2000), done(1, 9000), record(2), record(3)];
    for (n, record) in records.iter_mut().enumerate() {
        record.message_id = Some(format!("<id-{n}@ship.example>"));
        record.envelope.envid = Some(format!("env-{n}"));
    }
    let body = |n: u64| Change::Body(BodyRef(n), vec![1; 9000].into());
    commit(&mut engine, (0..4).map(body).chain(records.into_iter().map(put)).collect()).expect("commits");
    commit(&mut engine, (0..4).map(|id| line(id, 1500)).collect()).expect("commits");
    commit(&mut engine, vec![Change::DropBody(BodyRef(2)), Change::DropMessage(MessageId(2))]).expect("commits");
    let seen = |n: u32| SeenKey::Transfer(TransferId { origin: "far".into(), epoch: 1, counter: n });
    let keys = [(0, Wall(4999)), (1, Wall(5000)), (2, UNDATED)];
    commit(&mut engine, keys.map(|(n, until)| Change::Seen(seen(n), until)).to_vec()).expect("commits");

    let all = |engine: &Engine| {
        let snapshot = engine.snapshot().expect("reads");
        (0..4)
            .filter(|n| {
                let id = MessageId(*n);
                let by_id = snapshot.find(&id.to_string()).expect("finds") == [id];
                let by_name = snapshot.find(&format!("id-{n}@ship.example")).expect("finds") == [id];
                let by_envid = snapshot.find(&format!("env-{n}")).expect("finds") == [id];
                let track = !snapshot.track(id).expect("reads").is_empty();
                assert!([by_id, by_name, by_envid].iter().all(|found| *found == track), "message {n}");
                track
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(all(&engine), [0, 1, 2, 3]);
    let purge = |before| Change::Purge {
        done_before: Wall(before),
        seen_before: Wall(5000),
        undated_until: Wall(7000),
        limit: 100,
    };
    commit(&mut engine, vec![purge(1500)]).expect("purges");
    assert_eq!(all(&engine), [0, 1, 2, 3]);
    commit(&mut engine, vec![purge(1501)]).expect("purges");
    assert_eq!(all(&engine), [0, 1, 3], "a dropped message goes with its last line");
    commit(&mut engine, vec![purge(2001)]).expect("purges");
    assert_eq!(all(&engine), [1, 3]);
    commit(&mut engine, vec![purge(i64::MAX)]).expect("purges");
    assert_eq!(all(&engine), [3], "a message that is not done stays");
    let bodies = (0..4).filter(|n| engine.snapshot().expect("reads").read(BodyRef(*n), 0, 1).is_ok());
    assert_eq!(bodies.collect::<Vec<_>>(), [3], "bodies of purged messages go with them");

    let absent = |n| StoreCall::Commit(Batch { conditions: vec![Condition::SeenAbsent(seen(n))], changes: vec![] });
    let results = engine.execute(vec![absent(0), absent(1), absent(2)]);
    assert_eq!(results[0], StoreResult::Committed(Ok(())), "remembered until before the purge");
    assert_eq!(results[1], StoreResult::Committed(Err(CommitError::Conflict(0))));
    assert_eq!(results[2], StoreResult::Committed(Err(CommitError::Conflict(0))), "of no date, and dated by the purge");
    let later = Change::Purge { done_before: Wall(0), seen_before: Wall(7001), undated_until: Wall(9000), limit: 100 };
    commit(&mut engine, vec![later]).expect("purges");
    assert_eq!(engine.execute(vec![absent(2)]), [StoreResult::Committed(Ok(()))]);
}

#[test]
fn claiming_costs_the_same_however_deep_the_queue_is() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let mut cost = Vec::new();
    let mut next = 0;
    for depth in [200, 20_000] {
        while next < depth {
            let end = (next + 2000).min(depth);
            commit(&mut engine, (next..end).map(|id| put(record(id))).collect()).expect("commits");
            next = end;
        }
        let before = disk.operations();
        assert_eq!(claim(&mut engine, "a", 5000, 5, vec![]).len(), 5);
        cost.push(disk.operations() - before);
    }
    assert!(cost[1] < 3 * cost[0], "{cost:?} disk operations");
    let snapshot = engine.snapshot().expect("reads");
    assert_eq!(snapshot.list(7, |_| true).expect("lists").len(), 7);
    assert_eq!(snapshot.in_state(MessageState::Held, 7).expect("lists").len(), 0);
}

#[test]
fn readers_on_other_threads_see_whole_batches_while_the_writer_writes() {
    let disk = SimDisk::new(1);
    let (mut engine, _) = open(&disk, SMALL);
    let snapshots = engine.snapshots();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let snapshot = snapshots.take().expect("the store is open");
                let listed = snapshot.list(usize::MAX, |_| true).expect("lists").len();
                let depth: u64 = snapshot.depth().expect("counts").iter().map(|(n, _)| n).sum();
                assert!(listed % 3 == 0 && listed as u64 == depth && listed >= last, "{listed} {depth} {last}");
                last = listed;
            }
        });
        for n in 0..200 {
            commit(&mut engine, (3 * n..3 * n + 3).map(|id| put(record(id))).collect()).expect("commits");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(engine);
    assert!(snapshots.take().is_err(), "the store is closed");
}

#[test]
fn a_real_directory_is_private_locked_and_holds_a_store_that_reopens() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("a/state");
    let disk = RealDisk::open(&root).expect("makes it");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    let error = RealDisk::open(&root).expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("in use by another node") && error.to_string().contains("state/lock"));

    let (mut work, mut model) = (Work::new(3), Model::default());
    let (mut engine, first) = Engine::open(Arc::new(disk), SMALL).expect("opens");
    assert_eq!(mode(&root.join(STORE_FILE)), 0o600);
    for _ in 0..20 {
        let calls = work.calls(&model);
        let results = engine.execute(calls.clone());
        for (call, result) in calls.iter().zip(results) {
            if let Some(expected) = model.execute(call) {
                assert_eq!(result, expected);
            }
        }
    }
    assert!(engine.health().free_bytes > 0);
    drop(engine);
    let disk = RealDisk::open(&root).expect("the lock went with the engine");
    let (engine, opened) = Engine::open(Arc::new(disk), Options { fresh_epoch: 9, ..SMALL }).expect("opens");
    assert_eq!(model.difference(&engine, &opened), None);
    assert_eq!((opened.epoch, opened.fresh), (first.epoch, false));
    drop(engine);
    std::fs::copy(root.join(STORE_FILE), root.join("backup")).expect("copies");
    std::fs::rename(root.join("backup"), root.join(STORE_FILE)).expect("restores");
    let disk = RealDisk::open(&root).expect("opens");
    let (engine, opened) = Engine::open(Arc::new(disk), Options { fresh_epoch: 9, ..SMALL }).expect("opens");
    assert_eq!((opened.epoch, opened.fresh), (9, true));
    assert_eq!(model.difference(&engine, &opened), None);
}

#[test]
fn a_real_disk_keeps_to_its_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::open(dir.path()).expect("opens");
    for bad in ["../x", "/etc/passwd", "a/../b", "", "a//b", "."] {
        assert!(disk.open(bad, true).is_err(), "{bad}");
    }
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).expect("links");
    assert!(disk.open("link", false).is_err(), "a symbolic link");
    disk.create_dir("b/c").expect("makes");
    let file = disk.open("b/c/f", true).expect("opens");
    file.write_at(10, b"xyz").expect("writes");
    file.sync().expect("syncs");
    let mut out = [1; 13];
    file.read_at(0, &mut out).expect("reads");
    assert_eq!((&out[..10], &out[10..]), (&[0; 10][..], &b"xyz"[..]));
    assert_eq!(file.read_at(1, &mut out).map_err(|e| e.kind()), Err(ErrorKind::UnexpectedEof));
    disk.rename("b/c/f", "b/g").expect("renames");
    disk.sync_dir("b").expect("syncs");
    assert_eq!(disk.list("b").expect("lists"), ["c", "g"]);
    disk.remove("b/g").expect("removes");
    assert_eq!(disk.list("b").expect("lists"), ["c"]);
    assert!(disk.list("missing").is_err());
}

/// Everything a store holds, in words that do not change with the program's types.
fn summary(engine: &Engine, opened: &Opened) -> String {
    let snapshot = engine.snapshot().expect("reads");
    let mut out = format!("next {} {}\n", opened.next_message, opened.next_body);
    for id in 0..opened.next_message {
        let Some(m) = snapshot.load(MessageId(id)).expect("loads") else { continue };
        let states: Vec<_> = m.recipients.iter().map(|r| serde_json::to_string(&r.state).expect("prints")).collect();
        let name = m.message_id.unwrap_or_default();
        let track = snapshot.track(MessageId(id)).expect("tracks").len();
        out += &format!("message {id} {} {name} {} {track} {}\n", m.precedence, m.accepted, states.join(" "));
    }
    for body in 0..opened.next_body {
        let Ok(bytes) = snapshot.read(BodyRef(body), 0, u64::MAX) else { continue };
        let sum = bytes.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
        out += &format!("body {body} {} {sum:016x}\n", bytes.len());
    }
    for (key, value) in &opened.links {
        out += &format!("link {} {}\n", key.escape_ascii(), value.len());
    }
    for (name, value) in opened.settings.iter().filter(|(name, _)| name != Ids::SETTING) {
        out += &format!("setting {name} {value:?}\n");
    }
    for t in &opened.transfers {
        out += &format!("transfer {} {} {} {}\n", t.id, t.message, t.payload.0, t.payload_bytes);
    }
    out
}

#[test]
fn a_store_written_by_the_first_version_opens_whole() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/store-v1");
    let (packed, words) = (format!("{path}.redb.zst"), format!("{path}.txt"));
    // Only for a new format: the files of earlier ones stay as they were written.
    if std::env::var_os("ALDIS_WRITE_STORE").is_some() {
        let (mut work, mut model) = (Work::new(4), Model::default());
        let disk = SimDisk::new(1);
        let (mut engine, _) = open(&disk, SMALL);
        for _ in 0..8 {
            let calls = work.calls(&model);
            calls.iter().for_each(|call| drop(model.execute(call)));
            engine.execute(calls);
        }
        let opened = engine.reopen().expect("reopens");
        std::fs::write(&words, summary(&engine, &opened)).expect("writes");
        drop(engine);
        let bytes = disk.bytes(STORE_FILE).expect("there");
        std::fs::write(&packed, zstd::bulk::compress(&bytes, 19).expect("packs")).expect("writes");
    }
    let bytes = zstd::bulk::decompress(&std::fs::read(packed).expect("is there"), 64 << 20).expect("unpacks");
    let disk = SimDisk::new(2);
    disk.put(STORE_FILE, &bytes);
    let (mut engine, opened) = open(&disk, Options { fresh_epoch: 8, ..SMALL });
    assert_eq!(summary(&engine, &opened), std::fs::read_to_string(words).expect("is there"));
    assert_eq!((opened.epoch, opened.fresh), (8, true), "it is a copy");
    commit(&mut engine, vec![put(record(opened.next_message))]).expect("and takes more");
}
