//! Any MULE payload: bounded, refused by name or a letter that can be written and read again. The same for its text alone.
#![no_main]

mod tally;

use aldis::codec::mule::{Letter, Tagging, decode, encode};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    tally::add(data.len());
    if let Ok(opened) = decode(data, MOST) {
        assert!(opened.content.len() <= MOST);
        let again = encode(&opened.letter, &opened.content, Tagging::Implicit).expect("what was read can be written");
        let again = decode(&again, usize::MAX - 1).expect("and opened");
        assert_eq!((again.letter, again.content), (opened.letter, opened.content));
    }
    if let Ok((letter, length)) = Letter::read(data) {
        let text = letter.write().expect("what was read can be written");
        assert_eq!(Letter::read(&text), Ok((letter, text.len())));
        assert!(length <= data.len());
        assert_eq!(text.iter().filter(|b| **b == b'\n').count(), data[..length].iter().filter(|b| **b == b'\n').count());
    }
});
