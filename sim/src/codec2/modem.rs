//! One FreeDV raw-data modem as a safe type: payloads in, samples out, and back.
//!
//! A frame goes out as a burst of its own: preamble, frame, postamble. Each burst is found and synchronised anew, which costs 5 to 7 %
//! of the air and lets the next frame live when a fade takes the beginning of this one. Called by [`sweep`](super::sweep) and
//! [`air`](super::air).

use aldis::time::Duration;

use super::library::Handle;
use crate::rng::Stream;
use crate::waveform::{Family, SYMBOL_RATE, Waveform};

/// Samples a second of every mode and of the audio channel.
pub const SAMPLE_RATE: u64 = 8000;

/// How often in a row a receiver may take no samples; a frame takes 38 at most.
const MOST_LOOKS_BACK: u32 = 100;

/// A FreeDV raw-data mode of libcodec2 1.0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// 14 bytes in a frame, QPSK, half-rate LDPC code, 9 carriers.
    Datac0,
    /// 126 bytes in a frame, QPSK, half-rate LDPC code, 9 carriers.
    Datac3,
    /// 510 bytes in a frame, QPSK, half-rate LDPC code, 27 carriers.
    Datac1,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Datac0, Self::Datac3, Self::Datac1];

    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Its name at FreeDV.
    pub fn name(self) -> &'static str {
        match self {
            Self::Datac0 => "datac0",
            Self::Datac3 => "datac3",
            Self::Datac1 => "datac1",
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Datac1 => 10,
            Self::Datac3 => 12,
            Self::Datac0 => 14,
        }
    }

    /// Samples of one burst: preamble, frame, postamble.
    pub fn burst_samples(self) -> usize {
        2 * 880
            + match self {
                Self::Datac0 => 3520,
                Self::Datac3 => 25_520,
                Self::Datac1 => 33_440,
            }
    }

    /// Time of one burst on the air.
    pub fn burst(self) -> Duration {
        Duration::from_nanos(self.burst_samples() as u64 * 1_000_000_000 / SAMPLE_RATE)
    }

    /// Payload bytes of a frame, its checksum not counted.
    pub fn payload(self) -> usize {
        match self {
            Self::Datac0 => 14,
            Self::Datac3 => 126,
            Self::Datac1 => 510,
        }
    }

    /// The mode in the figures of the simulated waveforms: a burst is a block, and the silence before the first is the preamble.
    pub fn waveform(self) -> Waveform {
        let bits = super::air::frame_bytes(self) as u64 * 8;
        let burst = self.burst_samples() as u64;
        Waveform {
            family: Family::FreeDv,
            khz: 3,
            delay_symbols: 0,
            rate: u32::try_from((bits * SAMPLE_RATE).div_ceil(burst)).unwrap_or(u32::MAX),
            interleaver: self.name(),
            preamble_symbols: super::air::LEAD as u64 * SYMBOL_RATE / SAMPLE_RATE,
            block_symbols: burst * SYMBOL_RATE / SAMPLE_RATE,
        }
    }

    /// Carriers of its OFDM signal, 62.5 Hz apart.
    pub fn carriers(self) -> u32 {
        match self {
            Self::Datac0 | Self::Datac3 => 9,
            Self::Datac1 => 27,
        }
    }
}

/// Transmitter and receiver of one station.
#[derive(Debug)]
pub struct Modem {
    mode: Mode,
    handle: Handle,
    /// Heard samples that do not fill what the receiver takes at a time.
    heard: Vec<i16>,
}

impl Modem {
    /// Opens a modem. The error names the Debian package when the library is missing.
    pub fn open(mode: Mode) -> Result<Self, String> {
        let mut handle = Handle::open(mode.number())?;
        let mut samples = Vec::new();
        let payload = mode.payload();
        if handle.frame_bytes() != payload + 2 {
            return Err(format!("this libcodec2 puts {} bytes in a {} frame", handle.frame_bytes(), mode.name()));
        }
        handle.burst(&vec![0; payload], &mut samples);
        if samples.len() != mode.burst_samples() {
            return Err(format!("this libcodec2 makes {} samples of a {} burst", samples.len(), mode.name()));
        }
        Ok(Self { mode, handle, heard: Vec::new() })
    }

    /// What it sends.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The samples of one burst that carries `payload`, cut or filled up with zeros to the length of a frame.
    pub fn burst(&mut self, payload: &[u8]) -> Vec<i16> {
        let mut payload = payload.to_vec();
        payload.resize(self.mode.payload(), 0);
        let mut samples = Vec::with_capacity(self.mode.burst_samples());
        self.handle.burst(&payload, &mut samples);
        samples
    }

    /// Takes what comes out of the receiver's audio; gives the payloads of the frames that ended in it and whose checksum held.
    pub fn listen(&mut self, samples: impl IntoIterator<Item = i16>) -> Vec<Vec<u8>> {
        self.heard.extend(samples);
        let mut frames = Vec::new();
        let (mut at, mut looks_back) = (0, 0);
        loop {
            // It takes none when it goes back over what it holds, having found a postamble whose preamble it missed.
            let n = self.handle.wanted();
            looks_back = if n == 0 { looks_back + 1 } else { 0 };
            if at + n > self.heard.len() || looks_back > MOST_LOOKS_BACK {
                break;
            }
            frames.extend(self.handle.receive(&mut self.heard[at..at + n]));
            at += n;
        }
        self.heard.drain(..at);
        frames
    }

    /// Forgets what it is synchronised to and what it has heard: the receiver was switched off and on again.
    ///
    /// The library's own way back gets stuck when the receiver is going back over what it holds, and a new one takes a fifth of a
    /// second to make; so the receiver hears faint noise until it has given up by itself.
    pub fn forget(&mut self) {
        self.heard.clear();
        let mut noise = Stream::new(0, "codec2 forget", 0);
        for _ in 0..2 * MOST_LOOKS_BACK {
            let n = self.handle.wanted();
            if n > 0 && !self.handle.synchronised() {
                return;
            }
            let mut samples: Vec<i16> = (0..n).map(|_| noise.below(201) as i16 - 100).collect();
            let _ = self.handle.receive(&mut samples);
        }
    }
}

/// Mean power of a mode's bursts, in squared sample units: what the channel's signal-to-noise ratio refers to.
pub fn power(modem: &mut Modem) -> f64 {
    let payload: Vec<u8> = (0..=255).cycle().take(modem.mode().payload()).collect();
    let samples = modem.burst(&payload);
    samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum::<f64>() / samples.len() as f64
}
