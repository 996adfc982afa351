//! Any digest of receipts: an error or no more than one payload holds, which codes to the same again; never a panic.
#![no_main]

use aldis::codec::receipts::{MOST, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let digest = [&[7 << 5], data].concat();
    for bytes in [data, &digest] {
        if let Ok(digest) = decode(bytes) {
            assert!(digest.told.len() <= MOST);
            assert_eq!(decode(&encode(&digest)), Ok(digest));
        }
    }
});
