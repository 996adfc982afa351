//! Any payload: an error or at most the allowed bytes, never a panic; a payload made from the same input comes back.
#![no_main]

use aldis::codec::history::{History, Kept, Name};
use aldis::codec::payload::{Choice, Options, decode, encode, overhead};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 256 * 1024;
const HISTORY: [&[u8]; 2] =
    [b"Subject: one\r\n\r\nThe first message.\r\n", b"Subject: two\r\n\r\nThe second message.\r\n"];

fuzz_target!(|data: &[u8]| {
    let kept = [(0, HISTORY[0]), (1, HISTORY[1])].map(|(n, text)| Kept { name: Name::new(n == 0, n), text });
    let options = [
        Options::default(),
        Options { dictionary: Choice::Given(b"From: To: Subject: "), history: History::None },
        Options { dictionary: Choice::Newest, history: History::Given(&HISTORY) },
        Options { dictionary: Choice::Newest, history: History::Link(&kept) },
    ];
    for options in &options {
        if let Ok((envelope, body)) = decode(data, MOST, options) {
            assert!(envelope.len() + body.len() <= MOST);
        }
    }
    // Encoding is thousands of times dearer than decoding: now and then.
    if let Some((&0, input)) = data.split_first() {
        let (envelope, body) = input.split_at(input.len().min(40));
        let payload = encode(envelope, body, &Options::default());
        assert!(payload.len() <= input.len() + overhead(envelope.len()));
        assert_eq!(decode(&payload, input.len(), &Options::default()), Ok((envelope.to_vec(), body.to_vec())));
    }
});
