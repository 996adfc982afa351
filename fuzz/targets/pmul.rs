//! Any datagram, and any with a good length and checksum: refused by name, or what is read can be written and read again.
#![no_main]

mod tally;

use aldis::bearer::pmul::{Checksum, Pdu, Ranges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tally::add(data.len());
    let _ = Pdu::parse(data);
    let Some(length) = u16::try_from(data.len()).ok().filter(|l| *l >= 12) else { return };
    let mut pdu = data.to_vec();
    pdu[..2].copy_from_slice(&length.to_be_bytes());
    pdu[6..8].fill(0);
    let sum: u64 = pdu.chunks(2).map(|p| u64::from(p[0]) << 8 | u64::from(*p.get(1).unwrap_or(&0))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    pdu[6..8].copy_from_slice(&sum.to_be_bytes());
    let Ok(read) = Pdu::parse(&pdu) else { return };
    for checksum in [Checksum::Fletcher, Checksum::Internet] {
        for style in [Ranges::Written, Ranges::Spelled] {
            // Spelled, a list of ranges may be longer than a PDU can be.
            let Ok(bytes) = read.emit(checksum, style) else {
                assert!(style == Ranges::Spelled && matches!(read, Pdu::Ack(_)), "cannot be written");
                continue;
            };
            assert_eq!(Pdu::parse(&bytes).as_ref(), Ok(&read));
        }
    }
});
