//! What every radio shows: air time, loss, bursts, half duplex, and that nothing beats the floor or vanishes (V1 to V4, V9, V18).

use aldis::time::{Duration, Instant};

use super::transmission::{A, B, C, Transmission, waveform};
use super::{Finding, three_sigma};
use crate::channel::{Damage, Loss};
use crate::ether::{Ether, EtherConfig, LinkConfig};
use crate::modem::ModemConfig;
use crate::rng::Stream;
use crate::waveform::TABLE;

/// The cases of this file.
pub(super) fn cases(quick: bool) -> Vec<Finding> {
    [first_delivery(), cell_loss(quick), bit_errors(quick), bursts(quick), half_duplex(quick), floor_and_balance(quick)]
        .concat()
}

/// V1: one frame of 1012 bytes arrives one preamble and whole blocks after the key.
fn first_delivery() -> Vec<Finding> {
    [(2400, 9.6), (75, 115.2)]
        .map(|(rate, seconds)| {
            let net = EtherConfig::net(1, 2, &ModemConfig::new(waveform(rate, "L")), LinkConfig::default());
            let heard = Transmission::send(&mut Ether::new(net), Instant::ZERO, A, &[0xA5; 1012]);
            let whole = heard.at(B).filter(|_| heard.bytes(B) == [0xA5; 1012]);
            let measured = whole.map_or(f64::INFINITY, |at| at.since(heard.keyed).as_secs_f64());
            Finding::new(
                "V1",
                format!("{rate} bit/s L, 1012 bytes, seconds from key to delivery"),
                seconds,
                measured,
                1e-3,
            )
            .by("preamble + ceil((8 bytes + 176) / block bits) blocks", 1)
        })
        .to_vec()
}

/// V2: independent losses come at the stated rate.
fn cell_loss(quick: bool) -> Vec<Finding> {
    let (p, n) = (0.05, if quick { 20_000 } else { 100_000 });
    let lost = frames_lost(2, Loss::Cells { bytes: 24, p, damage: Damage::Garbage }, 24, n);
    let share = lost.iter().filter(|&&l| l).count() as f64 / n as f64;
    let what = format!("share of {n} frames lost at p = 0.05");
    vec![Finding::new("V2", what, p, share, three_sigma(p, n)).by("p; 3 sigma = 3 sqrt(p (1 - p) / n)", n as u64)]
}

/// V3: independent bit errors hit frames as the power law says.
fn bit_errors(quick: bool) -> Vec<Finding> {
    let n = if quick { 4_000 } else { 20_000 };
    [(1e-5, 0.0207), (1e-4, 0.1891), (1e-3, 0.8772)]
        .map(|(ber, expected)| {
            let lost = frames_lost(3, Loss::Bits { ber }, 262, n);
            let share = lost.iter().filter(|&&l| l).count() as f64 / n as f64;
            let what = format!("share of {n} frames of 262 bytes hit at BER {ber:e}");
            Finding::new("V3", what, expected, share, three_sigma(expected, n)).by("1 - (1 - BER)^(8 x 262)", n as u64)
        })
        .to_vec()
}

/// V4: bursts have the length, spacing and memory of the two-state chain.
fn bursts(quick: bool) -> Vec<Finding> {
    let n = if quick { 25_000 } else { 100_000 };
    let wider = (100_000.0 / n as f64).sqrt();
    let loss = Loss::Gilbert { bytes: 16, bad: 0.013_889, good: 0.125, damage: Damage::Garbage };
    let lost = frames_lost(4, loss, 16, n);
    let share = lost.iter().filter(|&&l| l).count() as f64 / n as f64;
    let runs = |state: bool| {
        let runs: Vec<usize> = lost.chunk_by(|a, b| a == b).filter(|r| r[0] == state).map(<[bool]>::len).collect();
        runs.iter().sum::<usize>() as f64 / runs.len().max(1) as f64
    };
    let both = lost.windows(2).filter(|w| w[0] && w[1]).count() as f64 / (n - 1) as f64;
    let correlation = (both - share * share) / (share * (1.0 - share));
    let what = format!("share of {n} frames lost in bursts");
    let n = n as u64;
    vec![
        Finding::new("V4", what, 0.1, share, 0.0104 * wider).by("Pgb / (Pgb + Pbg)", n),
        Finding::new("V4", "mean burst in frames", 8.0, runs(true), 0.65 * wider).by("1 / Pbg", n),
        Finding::new("V4", "mean gap in frames", 72.0, runs(false), 6.0 * wider).by("1 / Pgb", n),
        Finding::new("V4", "correlation of neighbours", 0.861, correlation, 0.02 * wider).by("1 - Pgb - Pbg", n),
    ]
}

/// V9: nothing is received while keyed, and carriers that meet leave nothing whole unless 10 dB apart.
fn half_duplex(quick: bool) -> Vec<Finding> {
    let rounds = if quick { 200 } else { 2_000 };
    let (mut while_keyed, mut overlaps, mut good, mut strong_lost, mut weak_good) = (0, 0u64, 0, 0, 0);
    for round in 0..rounds {
        let mut draw = Stream::new(9, "half duplex", round);
        let strong = round % 2 == 1;
        let mut net = EtherConfig::net(round, 3, &ModemConfig::new(waveform(2400, "S")), LinkConfig::default());
        // A and B do not hear each other; C hears both.
        net.links.retain(|ends, _| *ends != (A, B) && *ends != (B, A));
        let level = LinkConfig { level_db: 10.0, ..LinkConfig::default() };
        if strong {
            net.links.insert((B, C), level);
        }
        let mut ether = Ether::new(net);
        // B starts while A is on the air; C answers at some time and is deaf then.
        let starts = [(A, 0), (B, draw.below(2_500)), (C, draw.below(12_000))];
        let heard = Transmission::race(&mut ether, &starts, 500);
        while_keyed += heard.received_while_keyed(&ether);
        let (from_a, from_b) = (ether.link_stats(A, C), ether.link_stats(B, C));
        let (first, second) = (heard.span(&ether, A), heard.span(&ether, B));
        let third = heard.span(&ether, C);
        let meet = |x: &(Instant, Instant), y: &(Instant, Instant)| x.0 < y.1 && y.0 < x.1;
        // Rounds in which C's own transmission decided are counted above only.
        if let (Some(a), Some(b)) = (first, second)
            && meet(&a, &b)
            && third.is_none_or(|c| !meet(&c, &a) && !meet(&c, &b))
        {
            overlaps += 1;
            // Blocks of A that end before B begins are whole; the overlapped ones must not be.
            let clear = whole_blocks_before(a.0, b.0);
            if strong {
                strong_lost += 500 - from_b.good;
                weak_good += from_a.good.saturating_sub(clear);
            } else {
                good += from_b.good + from_a.good.saturating_sub(clear + blocks_after(a, b.1));
            }
        }
    }
    vec![
        Finding::none("V9", format!("bytes received while keyed, {rounds} rounds"), while_keyed)
            .by("a keyed station is deaf", rounds),
        Finding::none("V9", format!("overlapped bytes received whole, {overlaps} overlaps"), good)
            .by("less than 10 dB apart ruin each other", overlaps),
        Finding::none("V9", "bytes of a 10 dB stronger carrier lost", strong_lost)
            .by("10 dB apart the stronger is received", overlaps),
        Finding::none("V9", "bytes received whole under a 10 dB stronger carrier", weak_good)
            .by("10 dB apart the weaker is not", overlaps),
        Finding::new("V9", "share of rounds with an overlap to judge", 0.5, overlaps as f64 / rounds as f64, 0.49)
            .by("between 0.01 and 0.99, or there is nothing to judge", rounds),
    ]
}

/// V18: no delivery beats the floor, and no byte is unaccounted for.
fn floor_and_balance(quick: bool) -> Vec<Finding> {
    let cap = Duration::from_millis(127_500);
    let (mut early, mut unbalanced, mut tried) = (0, 0, 0);
    for (i, &w) in TABLE.iter().enumerate() {
        for round in 0..if quick { 3 } else { 20 } {
            let mut draw = Stream::keyed(18, "floor", &[i as u64, round]);
            // What one transmission holds: the floor would count a second preamble beyond.
            let room = 127.5 - w.preamble().as_secs_f64();
            let most = w.bytes((room / w.block().as_secs_f64()) as u64 - 1).min(16_000);
            let bytes = vec![0x3C; 1 + draw.below(most) as usize];
            let mut modem = ModemConfig::new(w);
            modem.buffer_bytes = 12_000;
            let mut ether = Ether::new(EtherConfig::net(round, 2, &modem, LinkConfig::default()));
            let abort = draw.chance(0.25);
            let heard = if abort {
                Transmission::cut(&mut ether, A, &bytes, Duration::from_millis(draw.below(60_000)))
            } else {
                Transmission::send(&mut ether, Instant::ZERO, A, &bytes)
            };
            tried += 1;
            unbalanced += u64::from(ether.balance().is_err());
            let got = heard.bytes(B).len() as u64;
            if let Some(at) = heard.at(B) {
                // One nanosecond for the rounding of the floor itself.
                early += u64::from(at.since(heard.keyed) + Duration::from_nanos(1) < w.floor(got, 0.0, cap));
            }
            let s = ether.stats(A);
            unbalanced += u64::from(!abort && (got != s.fed - s.overrun || got != s.carried));
        }
    }
    vec![
        Finding::none("V18", format!("deliveries below the floor, {tried} transmissions"), early)
            .by("max(8 bytes / R, whole blocks) + preambles", tried),
        Finding::none("V18", format!("transmissions whose bytes do not add up, {tried} transmissions"), unbalanced)
            .by("in = out + lost + queued", tried),
    ]
}

/// Bytes of a 2400 S transmission that began at `start` in blocks that had ended by `until`.
fn whole_blocks_before(start: Instant, until: Instant) -> u64 {
    let w = waveform(2400, "S");
    let blocks = until.since(start + w.preamble()).as_nanos() / w.block().as_nanos();
    w.bytes(blocks as u64).min(500)
}

/// Bytes of a 2400 S transmission of 500 bytes in blocks that began at or after `from`, when its preamble was not hit.
fn blocks_after(span: (Instant, Instant), from: Instant) -> u64 {
    let w = waveform(2400, "S");
    let begun = from.since(span.0 + w.preamble()).as_nanos().div_ceil(w.block().as_nanos());
    500 - w.bytes(begun as u64).min(500)
}

/// Sends `n` frames of `length` bytes in long transmissions through `loss`; which of them did not come out as they went in.
fn frames_lost(seed: u64, loss: Loss, length: usize, n: usize) -> Vec<bool> {
    let mut modem = ModemConfig::new(waveform(9600, "VL"));
    modem.buffer_bytes = usize::MAX;
    let mut ether = Ether::new(EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() }));
    let heard = Transmission::send(&mut ether, Instant::ZERO, A, &vec![0; length * n]);
    let frames = heard.bytes(B);
    assert_eq!(frames.len(), length * n, "garbage keeps its length");
    frames.chunks(length).map(|f| f.iter().any(|&b| b != 0)).collect()
}
