//! What a model knows of weighing before it has read anything: the weights and refinements that close reading of dictionary 2 led to.
//!
//! A model skims its dictionary, which teaches it words but not what to make of the contexts' voices; this is that, found once and shipped.
//! `examples/train_dictionary` makes the file with [`found_from`]. Another file is another format.

use super::super::coder::Predictor;
use super::Model;

/// A zstd frame of a byte for each weight of both mixers, then one for each point of the refinements.
static FILE: &[u8] = include_bytes!("experience.zst");

/// A weight's byte counts in these.
const WEIGHT_UNIT: i16 = 256;
/// A point's byte counts in these from where the point begins.
const POINT_UNIT: i32 = 2048;

/// 380 thousand weights and 4.3 million points.
const MOST_BYTES: usize = 8 << 20;

fn unpacked() -> Vec<u8> {
    zstd::bulk::decompress(FILE, MOST_BYTES).expect("the file in this program is whole: a test reads it")
}

impl Model {
    /// Takes up what was found.
    pub(super) fn gain_experience(&mut self) {
        let mut bytes = unpacked().into_iter().map(|byte| byte as i8);
        for weight in self.mixer.weights().iter_mut().chain(self.last_mixer.weights()) {
            *weight = i16::from(bytes.next().unwrap_or_default()) * WEIGHT_UNIT;
        }
        for point in self.refinements.iter_mut().flat_map(|r| r.points()) {
            let moved = i32::from(*point) + i32::from(bytes.next().unwrap_or_default()) * POINT_UNIT;
            *point = moved.clamp(0, 65_535) as u16;
        }
    }
}

/// Finds the experience that reading all of `text` closely leads to, as it stands in the file. Sets of weights that were never in use get
/// the mean of those of their selector.
pub fn found_from(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut even = Model::even();
    let mut model = even.clone();
    model.read(text);
    model.mixer.fill_unused();
    model.last_mixer.fill_unused();
    let mut found = Vec::new();
    for weight in model.mixer.weights().iter().chain(model.last_mixer.weights().iter()) {
        found.push((i32::from(*weight) + i32::from(WEIGHT_UNIT / 2)).div_euclid(WEIGHT_UNIT.into()).min(127) as i8 as u8);
    }
    for (read, unread) in model.refinements.iter_mut().zip(&mut even.refinements) {
        for (now, first) in read.points().iter().zip(unread.points().iter()) {
            found.push(((i32::from(*now) - i32::from(*first)) / POINT_UNIT) as i8 as u8);
        }
    }
    zstd::bulk::compress(&found, 19)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_a_byte_for_every_weight_and_point() {
        let mut model = Model::even();
        let weights = model.mixer.weights().len() + model.last_mixer.weights().len();
        let points: usize = model.refinements.iter_mut().map(|r| r.points().len()).sum();
        assert_eq!(unpacked().len(), weights + points);
    }
}
