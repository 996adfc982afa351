//! Any sealed payload: with a key the fuzzer cannot know it never opens; one sealed here opens, and not as another transfer.
#![no_main]

use aldis::mail::{LinkKey, Protection, TransferId};
use aldis::security::{open, overhead, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let keys = [LinkKey { id: 0, secret: [0x5a; 32] }, LinkKey { id: 1, secret: [0xa5; 32] }];
    let id = TransferId { origin: "ship".into(), epoch: 7, counter: data.len() as u32 };
    let other = TransferId { counter: id.counter.wrapping_add(1), ..id.clone() };
    for protection in [Protection::Off, Protection::Mac, Protection::Aead] {
        let opened = open(protection, &keys, &id, data);
        assert!(protection == Protection::Off || opened.is_err(), "forged");
        let sealed = seal(protection, &keys[1], &id, data.to_vec());
        assert_eq!(sealed.len(), data.len() + overhead(protection));
        assert_eq!(open(protection, &keys, &id, &sealed).as_deref(), Ok(data));
        assert!(open(protection, &keys, &other, &sealed).is_err());
    }
});
