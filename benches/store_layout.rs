//! Where bodies should live: messages per second and bytes on disk by layout, and what the finished store does.
//!
//! `cargo bench --bench store_layout` prints the table of docs/store.md. `ALDIS_BENCH_DIR` names the disk to measure.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aldis::mail::{BodyRef, Envelope, Mailbox, MessageId, Precedence, Recipient, RecipientState, Source, TransferId};
use aldis::queue::{
    Batch, Change, Engine, MessageRecord, MessageState, Options, RealDisk, RecipientRecord, StoreCall, StoreResult,
};
use aldis::time::Wall;
use redb::{Database, TableDefinition};

const BODY_BYTES: usize = 10 * 1024;
const RECORD_BYTES: usize = 300;
const CHUNK_BYTES: usize = 4000;
const PER_COMMIT: [usize; 3] = [1, 10, 100];

const MESSAGE: TableDefinition<u64, &[u8]> = TableDefinition::new("message");
const DUE: TableDefinition<(u8, i64, u64), ()> = TableDefinition::new("due");
const BODY: TableDefinition<u64, &[u8]> = TableDefinition::new("body");
const CHUNK: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("chunk");

#[derive(Clone, Copy)]
enum Layout {
    Chunks,
    Whole,
    Files,
}

fn main() {
    let place = std::env::var_os("ALDIS_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let seconds = std::env::var("ALDIS_BENCH_S").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    println!("{BODY_BYTES} B bodies; messages/s at 1 / 10 / 100 per commit; disk bytes per message at 100");
    println!("{:<44}{:>8}{:>8}{:>8}{:>10}", "layout (bare: message, due, body rows)", 1, 10, 100, "bytes");
    let bare = [
        ("a. redb, bodies in rows of 4000 B", Layout::Chunks),
        ("b. redb, whole bodies", Layout::Whole),
        ("c. redb index, one file per body", Layout::Files),
    ];
    for (name, layout) in bare {
        report(name, |n| {
            let dir = tempfile::tempdir_in(&place).expect("a directory");
            let (rate, count) = prototype(dir.path(), layout, n, seconds);
            (rate, occupied(dir.path()) / count)
        });
    }
    report("the store (every table, checks)", |n| {
        let dir = tempfile::tempdir_in(&place).expect("a directory");
        let (rate, count) = store(dir.path(), n, seconds);
        (rate, occupied(dir.path()) / count)
    });
}

fn report(name: &str, run: impl Fn(usize) -> (f64, u64)) {
    let [one, ten, hundred] = PER_COMMIT.map(run);
    println!("{name:<44}{:>8.0}{:>8.0}{:>8.0}{:>10}", one.0, ten.0, hundred.0, hundred.1);
}

fn prototype(dir: &Path, layout: Layout, per_commit: usize, seconds: f64) -> (f64, u64) {
    let database = redb::Builder::new().set_cache_size(16 << 20).create(dir.join("bench.redb")).expect("creates");
    let body: Vec<u8> = (0..BODY_BYTES).map(|n| (n * 31) as u8).collect();
    measure(per_commit, seconds, |ids| commit(&database, dir, layout, &body, ids))
}

fn commit(database: &Database, dir: &Path, layout: Layout, body: &[u8], ids: std::ops::Range<u64>) {
    if matches!(layout, Layout::Files) {
        for id in ids.clone() {
            let mut file = File::create(dir.join(id.to_string())).expect("creates");
            file.write_all(body).expect("writes");
            file.sync_all().expect("syncs");
        }
        File::open(dir).expect("opens").sync_all().expect("syncs");
    }
    let mut transaction = database.begin_write().expect("begins");
    transaction.set_quick_repair(true);
    {
        let mut message = transaction.open_table(MESSAGE).expect("table");
        let mut due = transaction.open_table(DUE).expect("table");
        let mut whole = transaction.open_table(BODY).expect("table");
        let mut chunk = transaction.open_table(CHUNK).expect("table");
        for id in ids {
            message.insert(id, &[7; RECORD_BYTES][..]).expect("inserts");
            due.insert((4, 0, id), ()).expect("inserts");
            match layout {
                Layout::Chunks => {
                    for (n, part) in (0..).zip(body.chunks(CHUNK_BYTES)) {
                        chunk.insert((id, n), part).expect("inserts");
                    }
                }
                Layout::Whole => drop(whole.insert(id, body).expect("inserts")),
                Layout::Files => {}
            }
        }
    }
    transaction.commit().expect("commits");
}

fn store(dir: &Path, per_commit: usize, seconds: f64) -> (f64, u64) {
    let disk = RealDisk::open(dir).expect("opens");
    let (mut engine, _) = Engine::open(Arc::new(disk), Options::default()).expect("opens");
    let body: Arc<[u8]> = (0..BODY_BYTES).map(|n| (n * 31) as u8).collect();
    measure(per_commit, seconds, |ids| {
        let calls = ids.map(|id| {
            let changes = vec![Change::Body(BodyRef(id), body.clone()), Change::Message(Box::new(record(id)))];
            StoreCall::Commit(Batch { conditions: vec![], changes })
        });
        let results = engine.execute(calls.collect());
        assert!(results.iter().all(|result| *result == StoreResult::Committed(Ok(()))), "{results:?}");
    })
}

/// Commits until `seconds` are over: messages per second, and how many.
#[expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
fn measure(per_commit: usize, seconds: f64, mut commit: impl FnMut(std::ops::Range<u64>)) -> (f64, u64) {
    let mut next = 0;
    let mut take = |commit: &mut dyn FnMut(std::ops::Range<u64>)| {
        commit(next..next + per_commit as u64);
        next += per_commit as u64;
        next
    };
    take(&mut commit);
    let start = Instant::now();
    loop {
        let count = take(&mut commit);
        let elapsed = start.elapsed().as_secs_f64();
        if elapsed >= seconds {
            return ((count - per_commit as u64) as f64 / elapsed, count);
        }
    }
}

/// Bytes the files under `dir` occupy, not their lengths: redb grows its file ahead of use.
fn occupied(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::read_dir(dir).expect("lists").map(|entry| entry.expect("entry").metadata().expect("there").blocks() * 512).sum()
}

fn record(id: u64) -> MessageRecord {
    let recipient = RecipientRecord {
        state: RecipientState::Due { next_at: Wall(1) },
        body: BodyRef(id),
        attempts: 0,
        last_error: None,
        delay_reported: false,
    };
    MessageRecord {
        id: MessageId(id),
        parent: None,
        envelope: Envelope::plain(
            Some(Mailbox::new("bridge@ship.example")),
            vec![Recipient::plain(Mailbox::new("watch@shore.example"))],
            Wall(1 << 40),
        ),
        precedence: Precedence::Routine,
        source: Source::Bearer {
            peer: "far".into(),
            transfer: TransferId { origin: "far".into(), epoch: 1, counter: 1 },
            hops: Vec::new(),
        },
        state: MessageState::Queued,
        recipients: vec![recipient],
        message_id: Some(format!("<{id}.20261123@ship.example>")),
        size_bytes: BODY_BYTES as u64,
        accepted: Wall(1),
        lease: None,
        reduced: Vec::new(),
        release: None,
        tracking: None,
        expanded: false,
    }
}
