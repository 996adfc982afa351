//! Messages in pieces: mail, and files that hold compressed pieces, come back exactly; forged pieces are an error or bounded, never a panic.
#![no_main]

use std::sync::Once;

use aldis::codec::history::History;
use aldis::codec::payload::{Choice, Options, decode, encode};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 16 * 1024;
/// Codecs of pieces and of files.
const PIECES: u8 = 5 << 5;
const FILE: u8 = 6 << 5;

fuzz_target!(|data: &[u8]| {
    // A panic of a picture's decoder is caught, which libFuzzer's hook would not allow; any other is still an error of the target.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Some((&how, input)) = data.split_first() else { return };
    match how % 4 {
        0 => decoded(&[&[PIECES], input].concat()),
        1 => decoded(&[&[FILE], input].concat()),
        // One part, so that what is mutated stands in front.
        2 => {
            let length = input.len().min(127) as u8;
            decoded(&[&[PIECES, 1, 2, 0, 0, 0, 0, length], &input[..usize::from(length)], &[0, 0]].concat());
        }
        // Without a dictionary no model is tried: it is as slow as all else together, and payload_decode has it.
        _ => {
            let options = Options { dictionary: Choice::Without, history: History::None };
            let mail = [&b"Content-Transfer-Encoding: base64\r\n\r\n"[..], &base64(input)].concat();
            for body in [input, &mail] {
                let payload = encode(&[], body, &options);
                assert_eq!(decode(&payload, body.len(), &options), Ok((Vec::new(), body.to_vec())));
            }
        }
    }
});

fn decoded(payload: &[u8]) {
    if let Ok((envelope, body)) = decode(payload, MOST, &Options::default()) {
        assert!(envelope.len() + body.len() <= MOST);
    }
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= chunk.len() { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] } else { b'=' });
        }
        if out.len() % 78 == 76 {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}
