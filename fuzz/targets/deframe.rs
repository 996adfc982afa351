//! Any byte stream from a modem, cut anywhere: no panic, bounded, and a good frame behind it is found.
#![no_main]

mod tally;

use aldis::bearer::serial::frame::{Address, Deframer, Found, Frame};
use aldis::bearer::serial::keys::{KeyRing, Seal};
use aldis::mail::{PeerName, Protection};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (own, peer) = (PeerName::from("shore"), PeerName::from("ship"));
    let mut ring = KeyRing::new(0);
    ring.add(&own, &peer, 1, Protection::Off, &[]);
    let address = Address { from: 1, to: 0, key: 0 };
    let good = Frame::Control { address, epoch: 7, counter: 9, items: Vec::new() };
    let mut deframer = Deframer::default();
    let cut = data.first().map_or(0, |b| usize::from(*b)).min(data.len());
    tally::add(data.len());
    for part in [&data[..cut], &data[cut..]] {
        deframer.push(part);
        while deframer.poll(&ring).is_some() {}
        assert!(deframer.held() <= 16 * 1024, "{} bytes held", deframer.held());
    }
    deframer.push(&good.emit(&Seal::checksum()));
    deframer.finish();
    let mut found = false;
    while let Some(next) = deframer.poll(&ring) {
        found |= next == Found::Frame(good.clone());
    }
    assert!(found, "a good frame was hidden by what came before it");
});
