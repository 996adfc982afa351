//! The two checksums found in the field: Fletcher (ISO 8473, ACP 142 annex B) and the internet one (RFC 1071).
//!
//! [`super::wire`] writes one of them and takes either. Both cover the whole PDU, with the checksum's own octets as zero.

/// Which checksum is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// ISO 8473; every known peer reads it.
    #[default]
    Fletcher,
    /// RFC 1071.
    Internet,
}

/// Where the checksum stands.
const AT: usize = 6;

impl Checksum {
    /// Writes it into a PDU of at least eight octets.
    pub(super) fn put(self, pdu: &mut [u8]) {
        pdu[AT..AT + 2].fill(0);
        let sum = match self {
            Self::Internet => (!ones_sum(pdu)).to_be_bytes(),
            Self::Fletcher => {
                let (c0, c1) = fletcher(pdu);
                let after = (pdu.len() - AT - 1) as i64;
                let (c0, c1) = (i64::from(c0), i64::from(c1));
                [(after * c0 - c1).rem_euclid(255) as u8, (c1 - (after + 1) * c0).rem_euclid(255) as u8]
            }
        };
        pdu[AT..AT + 2].copy_from_slice(&sum);
    }

    /// The checksum a PDU fits, if any. Zero and all ones are the same number to both.
    pub(super) fn of(pdu: &[u8]) -> Option<Self> {
        if fletcher(pdu) == (0, 0) {
            return Some(Self::Fletcher);
        }
        (ones_sum(pdu) == u16::MAX).then_some(Self::Internet)
    }
}

/// Ones-complement sum of 16-bit words; an odd octet at the end is the upper half of one.
fn ones_sum(pdu: &[u8]) -> u16 {
    let sum: u64 =
        pdu.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low))).sum();
    // 32767 words of 16 bits: three foldings are enough.
    let fold = |sum: u64| (sum >> 16) + (sum & 0xffff);
    fold(fold(fold(sum))) as u16
}

fn fletcher(pdu: &[u8]) -> (u8, u8) {
    let (c0, c1) = pdu.iter().fold((0u32, 0u32), |(c0, c1), octet| {
        let c0 = (c0 + u32::from(*octet)) % 255;
        (c0, (c1 + c0) % 255)
    });
    (c0 as u8, c1 as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_fits_at_every_length_and_one_changed_bit_does_not() {
        for length in 8..300usize {
            for checksum in [Checksum::Fletcher, Checksum::Internet] {
                let mut pdu: Vec<u8> = (0..length).map(|i| (i * 37 + length) as u8).collect();
                checksum.put(&mut pdu);
                assert_eq!(Checksum::of(&pdu), Some(checksum), "{length}");
                let bit = length * 5 % (length * 8);
                pdu[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Checksum::of(&pdu), None, "{length} bit {bit}");
            }
        }
    }

    #[test]
    fn a_pdu_of_zeros_has_no_checksum_to_fit_by_chance() {
        // All zero fits Fletcher by its nature; such a PDU fails by its length of zero before it is asked.
        assert_eq!(Checksum::of(&[0xff; 8]), Some(Checksum::Fletcher));
        assert_eq!(Checksum::of(&[1, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
