//! The arithmetic coder under both models: bits and their chances to bytes, and back.

/// A carry-less binary arithmetic coder.
pub(crate) struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

fn split(low: u32, high: u32, chance: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(chance)) >> 16) as u32
}

impl Encoder {
    /// An empty coder with room for about so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self { low: 0, high: u32::MAX, out: Vec::with_capacity(bytes) }
    }

    /// Codes one bit, given the chance of a one in 65536ths.
    pub(crate) fn encode(&mut self, bit: bool, chance: u32) {
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
    pub(crate) fn finish(mut self) -> Vec<u8> {
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
pub(crate) struct Decoder<'a> {
    low: u32,
    high: u32,
    value: u32,
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> Decoder<'a> {
    /// A decoder of what [`Encoder::finish`] returned.
    pub(crate) fn new(coded: &'a [u8]) -> Self {
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
    pub(crate) fn decode(&mut self, chance: u32) -> bool {
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
