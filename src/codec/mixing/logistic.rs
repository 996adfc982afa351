//! Chances in 65536ths and in the logistic domain, where predictions are weighed.

/// `65536 / (1 + e^(-x/256))`, by interpolation between exact values.
pub(super) const fn squash(x: i32) -> i32 {
    const AT: [i32; 33] = [
        22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911,
        53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
    ];
    let x = if x > 2047 {
        4095
    } else if x < -2047 {
        1
    } else {
        x + 2048
    };
    let (place, part) = ((x >> 7) as usize, x & 127);
    (AT[place] * (128 - part) + AT[place + 1] * part) >> 7
}

/// The inverse of [`squash`].
pub(super) fn stretch(chance: u16) -> i16 {
    STRETCHED[usize::from(chance >> 4)]
}

static STRETCHED: [i16; 4096] = {
    let mut table = [2047; 4096];
    let mut from = 0;
    let mut x = -2047;
    while x <= 2047 {
        let to = (squash(x as i32) >> 4) as usize;
        while from <= to {
            table[from] = x;
            from += 1;
        }
        x += 1;
    }
    table
};

/// The chance of the other bit where `bit` is one: so that to learn either is to take from what was wrong, without a branch.
#[inline]
pub(super) const fn flipped(chance: u16, bit: bool) -> u16 {
    chance ^ (bit as u16).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_convert_both_ways_and_are_never_certain() {
        for x in (-2047..=2047).step_by(89) {
            assert!((i32::from(stretch(squash(x) as u16)) - x).abs() < 160, "{x}");
        }
        assert!(squash(-2047) > 0 && squash(2047) < 65_536);
        assert!((1..4096u16).all(|i| stretch(i << 4) >= stretch((i - 1) << 4)));
    }
}
