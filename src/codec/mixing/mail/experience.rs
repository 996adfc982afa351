//! What the model knows of weighing before it reads a message: found once and shipped, another file is another format.
//!
//! The dictionary is cut into eighths, and each piece of it is read as if it were a message, by a model that has skimmed the other seven: so the
//! weights learn what to make of a message that is new behind a dictionary that is known. `examples/train_dictionary` makes the file with
//! [`found_from`].

use super::super::coder::Predictor;
use super::Model;

/// A zstd frame of a byte for each weight of both mixers, each point of the refinements, and each chance that is learned.
static FILE: &[u8] = include_bytes!("experience.zst");

/// A weight's byte counts in these.
const WEIGHT_UNIT: i32 = 256;
/// A point's byte counts in these from where the point begins.
const POINT_UNIT: i32 = 1024;

const MOST_BYTES: usize = 8 << 20;

const FOLDS: usize = 8;
const ROUNDS: usize = 3;
/// About so long is a piece.
const PIECE_BYTES: usize = 2500;

fn unpacked() -> Vec<u8> {
    zstd::bulk::decompress(FILE, MOST_BYTES).expect("the file in this program is whole: a test reads it")
}

impl Model {
    /// Takes up what was found. A model that has refined or learned already takes the file's word instead.
    pub(super) fn gain_experience(&mut self) {
        self.take_up(&unpacked());
    }

    fn take_up(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.iter().copied();
        let mut next = || bytes.next().unwrap_or_default();
        for weight in self.mixer.weights().iter_mut().chain(self.last_mixer.weights()) {
            *weight = (i32::from(next() as i8) * WEIGHT_UNIT) as i16;
        }
        for (points, unmoved) in self.refinements.iter_mut().zip(super::refinements().iter_mut()) {
            for (point, first) in points.points().iter_mut().zip(unmoved.points().iter()) {
                *point = (i32::from(*first) + i32::from(next() as i8) * POINT_UNIT).clamp(0, 65_535) as u16;
            }
        }
        for chance in self.chances() {
            *chance = u16::from(next()) << 8 | 0x80;
        }
    }

    /// The chances that are learned beside weights and refinements.
    fn chances(&mut self) -> impl Iterator<Item = &mut u16> {
        let states = self.learned.iter_mut().chain(&mut self.values).flatten();
        let matches = self.matches.iter_mut().chain([&mut self.plain_match]).flat_map(|m| m.holds());
        states.chain(matches).chain(self.hints.iter_mut().flatten())
    }

    /// As it stands in the file.
    fn experience(&mut self) -> Vec<u8> {
        let mut found = Vec::new();
        self.mixer.fill_unused();
        self.last_mixer.fill_unused();
        for weight in self.mixer.weights().iter().chain(self.last_mixer.weights().iter()) {
            found.push((i32::from(*weight) + WEIGHT_UNIT / 2).div_euclid(WEIGHT_UNIT).min(127) as i8 as u8);
        }
        for (points, unmoved) in self.refinements.iter_mut().zip(super::refinements().iter_mut()) {
            for (now, first) in points.points().iter().zip(unmoved.points().iter()) {
                found.push(((i32::from(*now) - i32::from(*first)) / POINT_UNIT).clamp(-128, 127) as i8 as u8);
            }
        }
        found.extend(self.chances().map(|chance| (*chance >> 8) as u8));
        found
    }

    /// Takes over all that experience is made of.
    fn take_experience(&mut self, from: &Self) {
        self.mixer = from.mixer.clone();
        self.last_mixer = from.last_mixer.clone();
        self.refinements = from.refinements.clone();
        let mut from = from.clone();
        self.chances().zip(from.chances()).for_each(|(to, from)| *to = *from);
    }
}

/// Finds the experience that a dictionary leads to, as it stands in the file.
pub fn found_from(dictionary: &[u8]) -> std::io::Result<Vec<u8>> {
    let pieces = pieces(dictionary);
    let fold = |piece: usize| piece * FOLDS / pieces.len();
    let models: Vec<Model> = (0..FOLDS)
        .map(|held| {
            let mut model = Model::even();
            pieces.iter().enumerate().filter(|(i, _)| fold(*i) != held).for_each(|(_, piece)| model.skim(piece));
            model
        })
        .collect();
    let mut weigher = Model::even();
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    let mut chance = 0x5eed_u64;
    for _ in 0..ROUNDS {
        for i in (1..order.len()).rev() {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(i, (chance >> 33) as usize % (i + 1));
        }
        for &piece in &order {
            let mut model = models[fold(piece)].clone();
            model.take_experience(&weigher);
            model.read(pieces[piece]);
            weigher.take_experience(&model);
        }
    }
    zstd::bulk::compress(&weigher.experience(), 19)
}

/// A text cut at blank lines.
fn pieces(text: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.get(PIECE_BYTES..).and_then(|tail| tail.windows(4).position(|w| w == b"\r\n\r\n")) {
        let (piece, after) = rest.split_at(PIECE_BYTES + end + 4);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_a_byte_for_all_that_is_found() {
        let mut model = Model::even();
        let found = model.experience();
        assert_eq!(unpacked().len(), found.len());
        let mut other = Model::even();
        other.take_up(&unpacked());
        assert_eq!(other.experience(), unpacked(), "what is taken up is what was found");
    }

    #[test]
    fn a_text_is_cut_at_blank_lines_and_nothing_is_lost() {
        let text = b"one line of a paragraph\r\n\r\n".repeat(400);
        assert_eq!(pieces(&text).concat(), text);
        assert!(pieces(&text).len() > 3 && pieces(&text).iter().all(|p| p.ends_with(b"\r\n\r\n")));
        assert_eq!(pieces(b"short"), [b"short"]);
    }
}
