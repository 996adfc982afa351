//! Fills a store with messages that wait, as if each had come in by SMTP, and says how long it takes to pick from it.
//!
//! ```text
//! cargo run --release --example fill_queue -- STATE_DIR [MESSAGES] [BYTES] [RECIPIENT]
//! ```
//!
//! Every message is ROUTINE, due now and goes to RECIPIENT (`b@dest.test`). A pick leases one message as the switch does and makes that durable;
//! its time is measured at 1000, 10 000 and so on, and at the end. `benches/depth.sh` starts a node on the result.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aldis::mail::{Envelope, Mailbox, MessageId, Precedence, Recipient, Source, Submission};
use aldis::queue::retry::Table;
use aldis::queue::{Authority, Decision, Engine, Ids, Options, Policy, RealDisk, StoreCall, StoreResult, accept};
use aldis::time::{Instant, Now, Wall};

/// Messages that become durable together.
const TOGETHER: u64 = 256;
/// Picks whose time is measured at one depth.
const PICKS: usize = 50;
/// Messages a switch has in hand at most: a pick passes over them.
const IN_HAND: u64 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(place) = arguments.next().map(PathBuf::from) else {
        return Err("usage: fill_queue STATE_DIR [MESSAGES] [BYTES] [RECIPIENT]".into());
    };
    let mut word = || arguments.next().and_then(|word| word.into_string().ok());
    let messages: u64 = word().map_or(Ok(1_000_000), |n| n.parse())?;
    let bytes: usize = word().map_or(Ok(1024), |n| n.parse())?;
    let recipient = word().unwrap_or_else(|| "b@dest.test".into());

    let (mut engine, opened) = Engine::open(Arc::new(RealDisk::open(&place)?), Options::default())?;
    let mut ids = Ids::open(&opened);
    let keep_done = Duration::from_secs(86_400);
    let policy = Policy { retry: Table::shipped(), default: Precedence::Routine, mmhs: true, keep_done };
    let body = body(bytes);
    let mut depth = 0;
    while depth < messages {
        let now = now()?;
        let mut calls = Vec::new();
        for _ in 0..TOGETHER.min(messages - depth) {
            let authority = Authority { trusted: true, ceiling: Precedence::Flash };
            let decisions = vec![Decision::Due { over_air: false }];
            let accepted = accept(now, &policy, authority, &mut ids, submission(&recipient, &body), decisions)?;
            ids.committed(&accepted.batch);
            calls.push(StoreCall::Commit(accepted.batch));
            depth += 1;
            if depth == messages || depth >= 1000 && depth.checked_ilog10().is_some_and(|n| depth == 10_u64.pow(n)) {
                commit(&mut engine, std::mem::take(&mut calls))?;
                report(&mut engine, depth)?;
            }
        }
        commit(&mut engine, calls)?;
    }
    Ok(())
}

fn commit(engine: &mut Engine, calls: Vec<StoreCall>) -> Result<(), Box<dyn Error>> {
    match engine.execute(calls).into_iter().find(|result| *result != StoreResult::Committed(Ok(()))) {
        Some(refused) => Err(format!("{refused:?}").into()),
        None => Ok(()),
    }
}

/// Prints how long a pick takes now: the median, with what makes it durable.
fn report(engine: &mut Engine, depth: u64) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..PICKS {
        let begin = since_epoch()?;
        let call = StoreCall::Claim {
            owner: "fill".into(),
            now: Wall::NEVER,
            beyond: Wall::NEVER,
            until: Wall(0),
            classes: Precedence::DESCENDING.to_vec(),
            limit: 1,
            except: (1..=IN_HAND.min(depth - 1)).map(MessageId).collect(),
        };
        match engine.execute(vec![call]).pop() {
            Some(StoreResult::Claimed(Ok(found))) if found.len() == 1 => {
                times.push(since_epoch()?.saturating_sub(begin))
            }
            other => return Err(format!("nothing to pick: {other:?}").into()),
        }
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("{depth} messages: {:.2} ms to pick one past {IN_HAND} in hand", median.as_secs_f64() * 1e3);
    Ok(())
}

fn submission(recipient: &str, body: &Arc<[u8]>) -> Submission {
    Submission {
        envelope: Envelope::plain(
            Some(Mailbox::new("a@src.test")),
            vec![Recipient::plain(Mailbox::new(recipient))],
            Wall::NEVER,
        ),
        precedence: Precedence::Routine,
        source: Source::Smtp { listener: "relay".into(), address: None, user: None },
        body: body.clone(),
    }
}

fn body(bytes: usize) -> Arc<[u8]> {
    let mut text =
        b"From: a@src.test\r\nTo: b@dest.test\r\nSubject: depth\r\nMessage-ID: <fill@src.test>\r\n\r\n".to_vec();
    while text.len() < bytes {
        text.extend_from_slice(b"The quick brown fox jumps over the lazy dog 0123456789.\r\n");
    }
    text.into()
}

fn now() -> Result<Now, Box<dyn Error>> {
    Ok(Now { at: Instant::ZERO, wall: Wall(i64::try_from(since_epoch()?.as_millis())?), set: true })
}

#[expect(clippy::disallowed_methods, reason = "a bench lives in the machine's time")]
fn since_epoch() -> Result<Duration, Box<dyn Error>> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}
