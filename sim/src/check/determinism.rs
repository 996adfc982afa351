//! One seed is one run, and a silent newcomer shifts nothing (V16).

use super::Finding;
use super::transmission::{A, B, C, Transmission};
use crate::channel::{Damage, Loss};
use crate::ether::{Ether, EtherConfig, LinkConfig, StationId};
use crate::modem::ModemConfig;
use crate::rng::Stream;
use crate::trace::Trace;

/// V16: one seed is one run, and a silent newcomer shifts nothing.
pub(super) fn cases() -> Vec<Finding> {
    let (first, again, other) = (busy_net(1, 3), busy_net(1, 3), busy_net(2, 3));
    let joined = busy_net(1, 4);
    vec![
        Finding::none(
            "V16",
            format!("differences between two runs of one seed ({})", &first.0[..16]),
            u64::from(first != again),
        ),
        Finding::none("V16", "agreements between two seeds", u64::from(first.0 == other.0)),
        Finding::none("V16", "links changed by a silent newcomer", u64::from(first.1 != joined.1)),
    ]
}

/// Three stations that talk at seeded times over lossy links, and as many silent ones as asked for beyond them: the hash of
/// everything said, and what the three received.
fn busy_net(seed: u64, stations: u16) -> (String, Vec<Vec<u8>>) {
    let loss = Loss::Cells { bytes: 50, p: 0.1, damage: Damage::Garbage };
    let link = LinkConfig { loss, preamble_miss: 0.05, ..LinkConfig::default() };
    let mut ether =
        Ether::new(EtherConfig::net(seed, stations, &ModemConfig::new(super::transmission::waveform(1200, "S")), link));
    let starts: Vec<(StationId, u64)> = (0..60)
        .map(|i| (StationId(i % 3), u64::from(i) * 12_000 + Stream::new(seed, "talk", i.into()).below(9_000)))
        .collect();
    let heard = Transmission::race(&mut ether, &starts, 400);
    let mut trace = Trace::hashed();
    for (at, id, output) in &heard.said {
        trace.modem(*at, *id, output);
    }
    (trace.hash(), [A, B, C].map(|id| heard.bytes(id)).to_vec())
}
