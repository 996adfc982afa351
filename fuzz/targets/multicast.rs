//! Any datagram of Aldis mode: refused, or what is read can be written and read again.
#![no_main]

mod tally;

use aldis::bearer::multicast::wire::{Datagram, Head, TAG, head};
use aldis::bearer::serial::keys::Seal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tally::add(data.len());
    let Some(head) = head(data) else { return };
    let Some(read) = Datagram::parse(data) else { return };
    let again = read.emit(Head { ..head }, &Seal::checksum());
    assert_eq!(again[..again.len() - TAG], data[..data.len() - TAG]);
    assert_eq!(Datagram::parse(&again), Some(read));
});
