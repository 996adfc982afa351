//! Any envelope from the air: an error, or one that encodes again to the same and cannot break an SMTP command.
#![no_main]

use aldis::codec::envelope::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(air) = decode(data) else { return };
    let addresses = air.envelope.recipients.iter().map(|r| r.address.as_str());
    for text in addresses.chain(air.envelope.from.as_ref().map(|f| f.as_str())).chain(air.envelope.envid.as_deref()) {
        assert!(!text.contains(['\r', '\n', '\0']));
    }
    let again = encode(&air).expect("what decodes encodes");
    assert_eq!(decode(&again), Ok(air));
});
