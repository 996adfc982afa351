//! The real modem: that it loses what it should, and that bytes cross between two of them.
//!
//! Without libcodec2 each test prints a skip; with CI=true it fails.

use aldis::time::{Duration, Instant};
use aldis_sim::bridge::Frequency;
use aldis_sim::codec2::air::{Air, Setup, airtime, frame_bytes};
use aldis_sim::codec2::audio;
use aldis_sim::codec2::modem::Mode;
use aldis_sim::codec2::{available, sweep};
use aldis_sim::ether::StationId;
use aldis_sim::modem::{ModemConfig, ModemOutput};
use aldis_sim::waveform::TABLE;

const A: StationId = StationId(0);
const B: StationId = StationId(1);

/// Whether the library is here.
fn have() -> bool {
    let Err(why) = available() else { return true };
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    println!("skip: {why}");
    false
}

#[test]
fn a_few_packets_are_lost_below_the_knee_and_none_above_on_either_path() {
    if !have() {
        return;
    }
    for (mode, below, above, fading) in [(Mode::Datac1, -2.0, 4.0, 14.0), (Mode::Datac3, -6.0, 2.0, 12.0)] {
        let spread = audio::path("mpp").expect("known");
        let options = sweep::Options {
            frames: 3,
            still_db: vec![below, above],
            fading_db: vec![below, fading],
            ..sweep::Options::new(mode, spread)
        };
        let report = sweep::run(&options, |_| {}).expect("the library is here");
        let lost: Vec<u64> = report.still.iter().chain(&report.fading).map(|p| p.lost).collect();
        assert_eq!(lost[..3], [3, 0, 3], "{report:?}");
        assert!(lost[3] <= 1, "{report:?}");
        assert_eq!(report.wrong, 0);
        assert!(report.svg().starts_with("<svg") && report.svg().trim_end().ends_with("</svg>"));
    }
}

/// Runs an air until nothing is due; everything said, with the time.
fn run(
    air: &mut Air,
    mut act: impl FnMut(&mut Air, Instant, StationId, &ModemOutput),
) -> Vec<(Instant, StationId, ModemOutput)> {
    let mut said = Vec::new();
    while let Some(at) = air.next_timeout() {
        air.handle_timeout(at);
        while let Some((id, output)) = air.poll() {
            act(air, at, id, &output);
            said.push((at, id, output));
        }
    }
    said
}

fn pair(mode: Mode, path: &str, snr_db: f64) -> Air {
    let setup = Setup { mode, spread: audio::path(path).expect("known"), snr_db };
    Air::new(setup, 1, &vec![ModemConfig::new(TABLE[0]); 2]).expect("the library is here")
}

fn received(said: &[(Instant, StationId, ModemOutput)], id: StationId) -> Vec<u8> {
    let bytes = said.iter().filter(|s| s.1 == id).filter_map(|(_, _, output)| match output {
        ModemOutput::Received(bytes) => Some(bytes.clone()),
        _ => None,
    });
    bytes.flatten().collect()
}

#[test]
fn what_is_fed_comes_out_in_the_time_the_bursts_take_and_under_the_carrier() {
    if !have() {
        return;
    }
    for mode in [Mode::Datac3, Mode::Datac1] {
        let mut air = pair(mode, "awgn", 12.0);
        // Two frames and a bit; all byte values.
        let sent: Vec<u8> = (0..=255).cycle().take(2 * frame_bytes(mode) + 3).collect();
        air.key(Instant::ZERO, A);
        let fed = sent.clone();
        let said = run(&mut air, move |air, at, id, output| {
            if matches!(output, ModemOutput::Keyed { .. }) {
                air.feed(at, id, &fed);
                air.unkey(at, id);
            }
        });
        assert_eq!(received(&said, B), sent, "{mode:?}");
        let edge = |up: bool| {
            said.iter().find_map(|(_, id, o)| match o {
                ModemOutput::Antenna { on, at } if *on == up && *id == A => Some(*at),
                _ => None,
            })
        };
        let on_air = edge(false).expect("off").since(edge(true).expect("on"));
        let due = airtime(mode, sent.len());
        // Keys move on ticks of 20 ms.
        assert!(on_air >= due && on_air < due + Duration::from_millis(41), "{on_air:?} for {due:?}");
        let heard: Vec<&ModemOutput> = said.iter().filter(|s| s.1 == B).map(|s| &s.2).collect();
        assert_eq!(heard.first(), Some(&&ModemOutput::Carrier(true)));
        assert_eq!(heard.last(), Some(&&ModemOutput::Carrier(false)));
        assert_eq!((air.tally(A).sent, air.tally(B).heard), (3, 3));
    }
}

#[test]
fn a_keyed_station_is_deaf_and_an_abort_ends_the_sound() {
    if !have() {
        return;
    }
    let mut air = pair(Mode::Datac3, "awgn", 12.0);
    for id in [A, B] {
        air.key(Instant::ZERO, id);
        air.feed(Instant::ZERO, id, &[7; 300]);
        air.unkey(Instant::ZERO, id);
    }
    let said = run(&mut air, |_, _, _, _| {});
    assert!(received(&said, A).is_empty() && received(&said, B).is_empty());

    let mut air = pair(Mode::Datac3, "awgn", 12.0);
    air.key(Instant::ZERO, A);
    air.feed(Instant::ZERO, A, &[7; 300]);
    air.handle_timeout(Instant::from_millis(1500));
    air.abort(Instant::from_millis(1500), A);
    let said = run(&mut air, |_, _, _, _| {});
    let off = said.iter().find(|s| s.2 == ModemOutput::Unkeyed).expect("silent").0;
    assert!(off <= Instant::from_millis(1600), "{off:?}");
    assert!(received(&said, B).is_empty());
}

#[test]
fn a_path_that_is_gone_brings_nothing_and_comes_back() {
    if !have() {
        return;
    }
    let mut air = pair(Mode::Datac3, "awgn", 12.0);
    for (round, up) in [(0u64, false), (1, true)] {
        let at = Instant::from_millis(60_000 * round);
        air.set_link(at, A, B, up);
        air.key(at, A);
        air.feed(at, A, b"is anybody there?");
        air.unkey(at, A);
        let said = run(&mut air, |_, _, _, _| {});
        assert_eq!(!received(&said, B).is_empty(), up);
        assert_eq!(said.iter().any(|s| s.1 == B && s.2 == ModemOutput::Carrier(true)), up);
    }
}
