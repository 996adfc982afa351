//! Normal draws from counter-based streams, with the same bits on every machine.

use crate::rng::Stream;

/// Two independent draws of mean 0 and variance 1 (Box and Muller).
pub(crate) fn pair(stream: &mut Stream) -> (f64, f64) {
    // `1 - unit` lies in (0, 1].
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - stream.unit()));
    let (sine, cosine) = libm::sincos(std::f64::consts::TAU * stream.unit());
    (radius * cosine, radius * sine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_the_normal_distribution() {
        let n = 100_000;
        let (mut sum, mut squares, mut fourth, mut cross) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..n {
            let (a, b) = pair(&mut Stream::new(1, "normal", i));
            sum += a + b;
            squares += a * a + b * b;
            fourth += a * a * a * a + b * b * b * b;
            cross += a * b;
        }
        let count = 2.0 * n as f64;
        // Four sigma: 1/sqrt(n) for the mean, sqrt(2/n), sqrt(96/n).
        assert!((sum / count).abs() < 0.009 && (squares / count - 1.0).abs() < 0.0127, "{sum} {squares}");
        assert!((fourth / count - 3.0).abs() < 0.088 && (cross / n as f64).abs() < 0.0127, "{fourth} {cross}");
    }
}
