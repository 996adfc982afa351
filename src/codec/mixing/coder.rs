//! The arithmetic coder under both models: bits and their chances to bytes, and back.

/// A model: says of each bit what to expect, and is told what it was.
pub trait Predictor {
    /// Chance that the next bit is a one, in 65536ths, never certain.
    fn predict(&mut self) -> u32;

    /// Learns what the bit was.
    fn update(&mut self, bit: bool);

    /// Reads what both ends have, as if it were coded.
    fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            for shift in (0..8).rev() {
                self.predict();
                self.update(byte >> shift & 1 == 1);
            }
        }
    }
}

/// Codes `input`, whose length the decoder must know, with a model that both ends have primed alike.
pub fn encode(mut model: impl Predictor, input: &[u8]) -> Vec<u8> {
    let mut coder = Encoder::with_room(input.len() / 4);
    for &byte in input {
        for shift in (0..8).rev() {
            let bit = byte >> shift & 1 == 1;
            coder.encode(bit, model.predict());
            model.update(bit);
        }
    }
    coder.finish()
}

/// Decodes `length` bytes. Any input decodes to something: what was coded is known to be intact by the seal.
pub fn decode(mut model: impl Predictor, coded: &[u8], length: usize) -> Vec<u8> {
    let mut coder = Decoder::new(coded);
    let mut out = Vec::with_capacity(length);
    for _ in 0..length {
        let mut byte = 0;
        for _ in 0..8 {
            let bit = coder.decode(model.predict());
            model.update(bit);
            byte = byte << 1 | u8::from(bit);
        }
        out.push(byte);
    }
    out
}

/// A carry-less binary arithmetic coder.
struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

fn split(low: u32, high: u32, chance: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(chance)) >> 16) as u32
}

impl Encoder {
    /// An empty coder with room for about so many bytes.
    fn with_room(bytes: usize) -> Self {
        Self { low: 0, high: u32::MAX, out: Vec::with_capacity(bytes) }
    }

    /// Codes one bit, given the chance of a one in 65536ths.
    fn encode(&mut self, bit: bool, chance: u32) {
        let middle = split(self.low, self.high, chance);
        if bit {
            self.high = middle
        } else {
            self.low = middle + 1
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
        }
    }

    /// The fewest bytes that, with zeros after them, lie in the last interval.
    fn finish(mut self) -> Vec<u8> {
        for bytes in 0..=4u32 {
            let mask = u32::MAX.checked_shr(8 * bytes).unwrap_or(0);
            let value = self.low.checked_add(mask).map(|v| v & !mask);
            if let Some(value) = value.filter(|v| (self.low..=self.high).contains(v)) {
                self.out.extend(value.to_be_bytes().iter().take(bytes as usize));
                break;
            }
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

/// The other end of [`Encoder`].
struct Decoder<'a> {
    low: u32,
    high: u32,
    value: u32,
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> Decoder<'a> {
    /// A decoder of what [`Encoder::finish`] returned.
    fn new(coded: &'a [u8]) -> Self {
        let mut decoder = Self { low: 0, high: u32::MAX, value: 0, rest: coded.iter() };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        self.value = self.value << 8 | u32::from(self.rest.next().copied().unwrap_or(0));
    }

    /// The next bit, given the chance of a one in 65536ths.
    fn decode(&mut self, chance: u32) -> bool {
        let middle = split(self.low, self.high, chance);
        let bit = self.value <= middle;
        if bit {
            self.high = middle
        } else {
            self.low = middle + 1
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            self.shift();
        }
        bit
    }
}
