//! One seed is one run on any machine, and a silent newcomer shifts nothing (V16).

use std::sync::Arc;

use aldis::time::Duration;

use super::Finding;
use super::transmission::{A, B, C, Transmission, waveform};
use crate::channel::{Damage, Fading, Interference, Loss, Mean, Script, Sky, Wander, Wreck};
use crate::ether::{Ether, EtherConfig, LinkConfig, StationId};
use crate::modem::ModemConfig;
use crate::rng::Stream;
use crate::trace::Trace;
use crate::waveform::{Family, Waveform};

/// The hash of [`busy_sky`] with seed 1 on every machine. A change that is meant to alter what happens on the air alters this too:
/// run `aldis-sim check --quick`, see that the figure moved for that reason alone, and put in what its V16 line prints. A machine
/// that prints another hash for the same source does its arithmetic differently, and none of its results can be compared.
const GOLDEN: &str = "79817dd67d75724659baa97a63fd1bd0c5f8eaa28f97e658e287b458b4e29341";

/// V16: one seed is one run, here and elsewhere, and a silent newcomer shifts nothing.
pub(super) fn cases() -> Vec<Finding> {
    let (first, again, other) = (busy_net(1, 3), busy_net(1, 3), busy_net(2, 3));
    let joined = busy_net(1, 4);
    let (sky, sky_again, sky_joined) = (busy_sky(1, 3), busy_sky(1, 3), busy_sky(1, 4));
    let differing = u64::from(first != again) + u64::from(sky != sky_again);
    let moved = u64::from(first.1 != joined.1) + u64::from(sky.1 != sky_joined.1);
    vec![
        Finding::none("V16", format!("differences between two runs of one seed ({})", &first.0[..16]), differing)
            .by("SHA-256 of every line said", 2),
        Finding::none("V16", "agreements between two seeds", u64::from(first.0 == other.0))
            .by("SHA-256 of every line said", 2),
        Finding::none("V16", "links changed by a silent newcomer", moved).by("bytes received by the others", 2),
        Finding::none("V16", format!("differences from the run of record ({})", sky.0), u64::from(sky.0 != GOLDEN))
            .by("SHA-256 of every line said, against the one in the source", 1),
    ]
}

/// Three stations that talk at seeded times over lossy links, and as many silent ones as asked for beyond them: the hash of
/// everything said, and what the three received.
fn busy_net(seed: u64, stations: u16) -> (String, Vec<Vec<u8>>) {
    let loss = Loss::Cells { bytes: 50, p: 0.1, damage: Damage::Garbage };
    let link = LinkConfig { loss, preamble_miss: 0.05, ..LinkConfig::default() };
    talk(EtherConfig::net(seed, stations, &ModemConfig::new(waveform(1200, "S")), link))
}

/// The same with everything a path and a modem can do: three families, fading, wander, gates, interference, a script, clocked
/// output, detection by energy.
fn busy_sky(seed: u64, stations: u16) -> (String, Vec<Vec<u8>>) {
    let sky = Sky {
        mean: Mean::Daily(vec![(0, 18.0), (300, 8.0), (600, 22.0)]),
        clock: 0,
        dead: vec![(420, 450)],
        itv: Some(Wander { sigma_db: 4.0, correlation: Duration::from_secs(10) }),
        ltv: Some(Wander { sigma_db: 3.0, correlation: Duration::from_secs(1800) }),
        fading: Some(Fading { delay: Duration::from_millis(2), doppler_hz: 1.0 }),
        interference: Some(Interference { every: Duration::from_secs(60), last: Duration::from_secs(5), db: 15.0 }),
    };
    let wreck = Wreck { ber: 0.05, truncated: 0.2 };
    let link =
        LinkConfig { loss: Loss::Sky { sky: Arc::new(sky), wreck }, preamble_miss: 0.02, ..LinkConfig::default() };
    let mut net = EtherConfig::net(seed, stations, &ModemConfig::new(waveform(1200, "S")), link);
    let script = Script::parse(["0 snr 12", "90 loss 0.3", "140 dead", "150 snr 4", "200 repeat"]).expect("sound");
    net.links
        .insert((C, A), LinkConfig { loss: Loss::Script { script: Arc::new(script), wreck }, ..LinkConfig::default() });
    net.stations[1].waveform = waveform(4800, "VS");
    net.stations[1].clocked_output = true;
    net.stations[2].waveform = Waveform::choose(Family::Stanag4285, 3, 600, "S").expect("known");
    net.stations[2].energy_detect = true;
    talk(net)
}

/// Sixty messages at seeded times among the first three stations.
fn talk(net: EtherConfig) -> (String, Vec<Vec<u8>>) {
    let seed = net.seed;
    let mut ether = Ether::new(net);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_net_under_a_sky_has_the_hash_of_record() {
        assert_eq!(busy_sky(1, 3).0, GOLDEN, "see GOLDEN on how and when to renew it");
    }
}
