//! Known kinds of packet bearer, with where their figures come from.
//!
//! A scenario names one and changes what it knows better. None of the figures was measured here; `source` says how far to trust them.

use aldis::time::Duration;

use super::loss::Fade;

/// The figures of one kind of bearer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Preset {
    /// What a scenario calls it.
    pub name: &'static str,
    /// Bits per second of a node.
    pub rate_bps: u64,
    /// Bytes that may wait at a node.
    pub queue_bytes: u64,
    /// Longest datagram.
    pub mtu_bytes: u64,
    /// Longest datagram the hub sends, where that differs.
    pub mtu_from_hub_bytes: Option<u64>,
    /// One way.
    pub delay: Duration,
    /// Further delay at most.
    pub jitter: Duration,
    /// One sender at a time.
    pub half_duplex: bool,
    /// From one sender to the next.
    pub turnaround: Duration,
    /// Time-division frame.
    pub frame: Duration,
    /// Call or session set-up.
    pub setup: Duration,
    /// Idle time after which a call ends.
    pub hangs_up: Duration,
    /// Outages of a site.
    pub fade: Option<Fade>,
    /// Whether datagrams wait for a contact.
    pub holds: bool,
    /// Where the figures come from.
    pub source: &'static str,
}

const NONE: Duration = Duration::ZERO;

const PLAIN: Preset = Preset {
    name: "",
    rate_bps: 64_000,
    queue_bytes: 64 * 1024,
    mtu_bytes: 1500,
    mtu_from_hub_bytes: None,
    delay: NONE,
    jitter: NONE,
    half_duplex: false,
    turnaround: NONE,
    frame: NONE,
    setup: NONE,
    hangs_up: Duration::from_secs(60),
    fade: None,
    holds: false,
    source: "",
};

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "geo-ip",
        delay: Duration::from_millis(270),
        source: "one hop over a geostationary satellite is 240 to 280 ms by geometry; 64 kbit/s is a choice",
        ..PLAIN
    },
    Preset {
        name: "uhf-dama-25khz",
        rate_bps: 2_400,
        queue_bytes: 16 * 1024,
        delay: Duration::from_millis(270),
        half_duplex: true,
        frame: Duration::from_millis(1_400),
        setup: Duration::from_secs(10),
        hangs_up: Duration::from_secs(120),
        source: "five nets of 2400 bit/s in a 25 kHz channel are published; frame time and set-up are from general knowledge",
        ..PLAIN
    },
    Preset {
        name: "uhf-dama-5khz",
        rate_bps: 2_400,
        queue_bytes: 16 * 1024,
        delay: Duration::from_millis(270),
        half_duplex: true,
        frame: Duration::from_secs(9),
        setup: Duration::from_secs(30),
        hangs_up: Duration::from_secs(120),
        source: "frame time and set-up (seconds to a minute) are from general knowledge",
        ..PLAIN
    },
    Preset {
        name: "bgan",
        rate_bps: 256_000,
        queue_bytes: 256 * 1024,
        delay: Duration::from_millis(400),
        jitter: Duration::from_millis(350),
        setup: Duration::from_secs(5),
        source: "rates are published; a round trip of 0.8 to 1.5 s and the set-up are from general knowledge",
        ..PLAIN
    },
    Preset {
        name: "iridium-dialup",
        rate_bps: 2_400,
        queue_bytes: 16 * 1024,
        delay: Duration::from_millis(600),
        jitter: Duration::from_millis(300),
        setup: Duration::from_secs(22),
        fade: Some(Fade { every: Duration::from_secs(600), lasts: Duration::from_secs(8) }),
        source: "the rate is published; delay, set-up (15 to 30 s) and what a handover costs are from general knowledge",
        ..PLAIN
    },
    Preset {
        name: "sbd",
        // 70 bytes in 5 s and 1960 in 20 s: 4.5 s and the time at 1000 bit/s.
        rate_bps: 1_000,
        queue_bytes: 64 * 1024,
        mtu_bytes: 1_960,
        mtu_from_hub_bytes: Some(1_890),
        delay: Duration::from_millis(4_500),
        source: "sizes (1960 bytes from the mobile, 1890 to it) and 5 to 20 s are published",
        ..PLAIN
    },
    Preset {
        name: "leo-store-and-forward",
        rate_bps: 9_600,
        queue_bytes: 1024 * 1024,
        delay: Duration::from_millis(10),
        holds: true,
        source: "1.2 to 9.6 kbit/s and passes of 8 to 12 minutes, 4 to 6 a day, are from general knowledge; give the passes as contacts",
        ..PLAIN
    },
];

impl Preset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|p| p.name == name)
    }

    /// What a bearer has that names no preset: 64 kbit/s and nothing else.
    pub fn plain() -> &'static Self {
        &PLAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run;
    use crate::scenario::Scenario;
    use crate::trace::Trace;

    #[test]
    fn every_preset_says_where_it_comes_from_and_stands_in_the_manual() {
        let manual = include_str!("../../../docs/sim-scenario.md");
        for preset in PRESETS {
            assert!(!preset.source.is_empty() && manual.contains(&format!("| `{}` |", preset.name)), "{}", preset.name);
        }
    }

    #[test]
    fn presets_have_the_times_they_promise() {
        // The sender's first and second datagram, in seconds from handing in to arrival.
        let times = |preset: &str, size: u64| {
            let satcom =
                format!("[[satcom]]\nname = \"s\"\npreset = \"{preset}\"\nmembers = [\"a\", \"b\"]\njitter = \"0s\"\n");
            let fades = "fade_every = \"300d\"\nfade = \"1ms\"\n";
            let datagrams = |at: u64| {
                format!("[[datagrams]]\nsatcom = \"s\"\nat = \"{at}s\"\nfrom = \"a\"\nto = \"b\"\nsize = \"{size}B\"\n")
            };
            let alone = format!("name = \"x\"\nduration = \"1h\"\n{satcom}{fades}{}", datagrams(0));
            let both = format!("{alone}{}", datagrams(100));
            let mean = |text: &str| {
                let report = run(&Scenario::parse(text).expect("sound"), 1, Trace::hashed());
                report.satcom[0].mean_delay_s.expect("delivered")
            };
            let (first, mean) = (mean(&alone), mean(&both));
            (first, 2.0 * mean - first)
        };
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-6 && (b - d).abs() < 1e-6;
        assert!(near(times("sbd", 70), (5.06, 5.06)));
        assert!(near(times("sbd", 1960), (20.18, 20.18)));
        // 100 ms at 64 kbit/s.
        assert!(near(times("geo-ip", 800), (0.37, 0.37)));
        // Set up anew after a minute of silence.
        assert!(near(times("iridium-dialup", 30), (22.7, 22.7)));
        assert!(near(times("bgan", 320), (5.41, 5.41)));
        // Set up for 10 s, 100 ms at the rate, then the next frame at 11.2 s. The call is still up for the second, which leaves at 100.8 s.
        assert!(near(times("uhf-dama-25khz", 30), (11.47, 1.07)), "{:?}", times("uhf-dama-25khz", 30));
    }
}
