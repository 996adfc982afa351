//! Payloads the laboratory has coded before, so that the same mail in the next trial costs a hash and a copy.
//!
//! Coding is a pure function of its input and by far the dearest work of a trial on one message. [`code`] and [`read`] do what
//! `aldis::codec::payload` does, and remember the results of small inputs under their SHA-256, for the whole process. Called by
//! [`crate::node`]; what a trial says and does is the same whether something was remembered or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aldis::codec::history::History;
use aldis::codec::payload::{self, Choice, Options};
use aldis::switch::work::Parted;
use ring::digest::{Context, SHA256};

/// Bytes remembered at most, inputs and results of the other direction not counted; then everything is forgotten.
const MOST_BYTES: usize = 64 << 20;

type Name = [u8; 32];
/// An envelope and a body.
type Parts = (Vec<u8>, Vec<u8>);

#[derive(Default)]
struct Memo {
    coded: BTreeMap<Name, Arc<[u8]>>,
    read: BTreeMap<Name, Arc<Parts>>,
    bytes: usize,
}

impl Memo {
    fn make_room(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > MOST_BYTES {
            (self.coded, self.read, self.bytes) = (BTreeMap::new(), BTreeMap::new(), bytes);
        }
    }
}

fn memo() -> MutexGuard<'static, Memo> {
    static MEMO: OnceLock<Mutex<Memo>> = OnceLock::new();
    // A trial that panicked elsewhere leaves whole entries behind.
    MEMO.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Encodes an envelope and a body without a dictionary, which is cheaper than to remember it.
pub fn plainly(envelope: &[u8], body: &[u8]) -> Vec<u8> {
    payload::encode(envelope, body, &Options { dictionary: Choice::Without, history: History::None })
}

/// Encodes an envelope and a body as a node does.
pub fn code(envelope: &[u8], body: &[u8], options: &Options<'_>) -> Vec<u8> {
    let name = name(&[envelope, body], options);
    if let Some(known) = memo().coded.get(&name).cloned() {
        return known.to_vec();
    }
    let coded = payload::encode(envelope, body, options);
    let mut memo = memo();
    memo.make_room(coded.len());
    memo.coded.insert(name, coded.as_slice().into());
    coded
}

/// Decodes a payload of at most `max_bytes` once decoded. Failures are not remembered.
pub fn read(bytes: &[u8], max_bytes: usize, options: &Options<'_>) -> Parted {
    let name = name(&[bytes, &(max_bytes as u64).to_be_bytes()], options);
    if let Some(known) = memo().read.get(&name).cloned() {
        return Ok((known.0.clone(), known.1.clone()));
    }
    let parted = payload::decode(bytes, max_bytes, options)?;
    let mut memo = memo();
    memo.make_room(parted.0.len() + parted.1.len());
    memo.read.insert(name, Arc::new(parted.clone()));
    Ok(parted)
}

/// The digest of two parts and of what is known beside them, lengths included.
fn name(parts: &[&[u8]; 2], options: &Options<'_>) -> Name {
    let mut context = Context::new(&SHA256);
    let mut take = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    parts.iter().for_each(|part| take(part));
    take(format!("{:?}", options.dictionary).as_bytes());
    match options.history {
        History::None => {}
        History::Given(messages) => messages.iter().for_each(|message| take(message)),
        History::Link(kept) => kept.iter().for_each(|k| {
            take(&k.name.to_bytes());
            take(k.text);
        }),
    }
    let mut name = [0; 32];
    name.copy_from_slice(context.finish().as_ref());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use aldis::codec::history::{Kept, Name};

    #[test]
    fn what_is_remembered_is_what_would_be_made() {
        for (envelope, body) in
            [(&b"envelope"[..], &b"Subject: one\r\n\r\nbody\r\n"[..]), (b"env", b"elopeSubject: one"), (b"", b"x")]
        {
            let made = payload::encode(envelope, body, &Options::for_any_peer());
            let parted = payload::decode(&made, 1000, &Options::default());
            for _ in 0..3 {
                assert_eq!(code(envelope, body, &Options::for_any_peer()), made);
                assert_eq!(read(&made, 1000, &Options::default()), parted);
            }
            assert!(read(&made, 0, &Options::default()).is_err(), "another limit is another question");
        }
        assert!(read(&[0xff, 1, 2], 1000, &Options::default()).is_err());
    }

    #[test]
    fn what_one_node_knows_is_not_known_to_another() {
        let earlier = b"Quite unlike anything trained on: the xylophone fell into the quagmire, 17 oboes fled.\r\n";
        let kept = [Kept { name: Name::new(false, 3), text: earlier }];
        let knows = Options { history: History::Link(&kept), ..Options::default() };
        let named = code(&[], earlier, &knows);
        assert!(named.len() < code(&[], earlier, &Options::default()).len());
        assert_eq!(read(&named, 1000, &knows), Ok((Vec::new(), earlier.to_vec())));
        assert!(read(&named, 1000, &Options::default()).is_err());
    }
}
