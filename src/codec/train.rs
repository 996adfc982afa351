//! A dictionary out of a site's own mail, for stations that exchange it by hand (`--dict`).
//!
//! The text model reads it behind the shipped dictionary, so it only needs what is peculiar to the site: names, addresses, signatures, forms.
//! `aldis codec train` calls this. The same messages in the same order give the same dictionary; the work is bounded by [`MOST_BYTES`].

use core::fmt;
use std::collections::BTreeSet;

use super::encode_file_payload;
use super::history::History;
use super::payload::{Choice, Options};

/// Most that is taken of all messages, the newest first.
pub const MOST_BYTES: usize = 16 << 20;
/// Sizes a dictionary may have: every message is coded after reading all of it.
pub const SIZES: std::ops::RangeInclusive<usize> = 4 * 1024..=128 * 1024;
/// Fewer messages than this say nothing about the next.
pub const LEAST_MESSAGES: usize = 30;

/// Every so many messages one is held out.
const HELD_OUT: usize = 10;
/// Most messages that are coded to measure what is saved.
const MOST_MEASURED: usize = 40;
/// Longest message that is measured; and of each message so much is learned from.
const MOST_OF_EACH: usize = 64 * 1024;
/// Of the dictionary this share is whole messages, which show what follows on what.
const WHOLE_SHARE: usize = 4;
/// A line longer than this without a space is an attachment's.
const LONGEST_WORD: usize = 60;
/// Lines up to this length are kept however often they come: the next line follows on them.
const KEPT: usize = 8;

/// A dictionary and what it is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trained {
    /// Its bytes.
    pub dictionary: Vec<u8>,
    /// Messages it was made from.
    pub messages: usize,
    /// Messages held out to measure it; they are in the dictionary, but were not in the one measured.
    pub measured: usize,
    /// What those take in all as they stand.
    pub plain_bytes: usize,
    /// Their payloads with the newest shipped dictionary.
    pub without_bytes: usize,
    /// Their payloads with this one behind it.
    pub with_bytes: usize,
}

/// Why there is no dictionary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TooLittle {
    /// Too few messages: how many there are.
    Messages(usize),
    /// Less new text than the size asked for: how much there is.
    Text {
        /// What there is.
        bytes: usize,
        /// What was asked for.
        wanted: usize,
    },
}

/// Makes a dictionary of `size` bytes from messages, oldest first.
pub fn train(messages: &[Vec<u8>], size: usize) -> Result<Trained, TooLittle> {
    if messages.len() < LEAST_MESSAGES {
        return Err(TooLittle::Messages(messages.len()));
    }
    let size = size.clamp(*SIZES.start(), *SIZES.end());
    let mut room = MOST_BYTES;
    let fits = |message: &&Vec<u8>| {
        let fits = message.len() <= room;
        room = room.saturating_sub(message.len().min(MOST_OF_EACH));
        fits
    };
    let mut texts: Vec<String> = messages.iter().rev().take_while(fits).map(|m| text_of(m)).collect();
    texts.reverse();
    let dictionary = dictionary(&texts.iter().collect::<Vec<_>>(), size);
    if dictionary.len() < size / 2 {
        return Err(TooLittle::Text { bytes: dictionary.len(), wanted: size });
    }
    let (held, kept): (Vec<_>, Vec<_>) = texts.iter().enumerate().partition(|(i, _)| i % HELD_OUT == HELD_OUT / 2);
    let kept: Vec<&String> = kept.into_iter().map(|(_, text)| text).collect();
    let trial = self::dictionary(&kept, size);
    let cost = |text: &str, dictionary| {
        encode_file_payload(text.as_bytes(), &Options { dictionary, history: History::None }).len()
    };
    let every = held.len().div_ceil(MOST_MEASURED).max(1);
    let measured: Vec<&String> = held.into_iter().map(|(_, text)| text).step_by(every).collect();
    let sum = |of: &dyn Fn(&str) -> usize| measured.iter().map(|text| of(text)).sum();
    Ok(Trained {
        messages: texts.len(),
        measured: measured.len(),
        plain_bytes: sum(&str::len),
        without_bytes: sum(&|text| cost(text, Choice::Newest)),
        with_bytes: sum(&|text| cost(text, Choice::Given(&trial))),
        dictionary,
    })
}

/// What a message can teach: its lines with the ends they have on the wire, without attachments.
fn text_of(message: &[u8]) -> String {
    let message = String::from_utf8_lossy(&message[..message.len().min(MOST_OF_EACH)]);
    let lines = message.lines().filter(|line| line.len() <= LONGEST_WORD || line.trim_end().contains([' ', '\t']));
    lines.flat_map(|line| [line.trim_end_matches('\r'), "\r\n"]).collect()
}

/// What is new in each message from the newest back, then the newest messages whole; in the order in which they came.
fn dictionary(texts: &[&String], size: usize) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut room = size;
    let mut known = BTreeSet::new();
    for text in texts.iter().rev() {
        let whole = text.len() <= room && room - text.len() >= size - size / WHOLE_SHARE;
        let new = novel(text, &mut known);
        let piece = if whole { (*text).clone() } else { new };
        let end = if piece.len() <= room {
            piece.len()
        } else {
            piece.as_bytes()[..room].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
        };
        room -= end;
        pieces.push(piece.as_bytes()[..end].to_vec());
        if end < piece.len() {
            break;
        }
    }
    pieces.reverse();
    pieces.concat()
}

/// The lines whose like, figures apart, has not come yet.
fn novel(text: &str, known: &mut BTreeSet<String>) -> String {
    let mut new = String::new();
    for line in text.split_inclusive("\r\n") {
        let like: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        if known.insert(like) || (line.len() <= KEPT && !new.ends_with(line)) {
            new.push_str(line);
        }
    }
    new
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(found) => write!(
                f,
                "{found} messages are too few to learn from: collect at least {LEAST_MESSAGES}, a few hundred are better"
            ),
            Self::Text { bytes, wanted } => write!(
                f,
                "the messages hold {bytes} bytes of text that does not repeat, and a dictionary of {wanted} needs at least half of that: collect \
                 more mail, or ask for less with --size"
            ),
        }
    }
}

impl std::error::Error for TooLittle {}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [&str; 7] =
        ["Corran Narrows", "Inverlochan", "Skerry Bank", "Port Aldwyn", "Thrumster", "Balnakeil", "Orfasay"];
    const WORK: [&str; 5] = [
        "relit after the lens was cleaned",
        "moved forty metres to the north by the gale",
        "inspected, batteries renewed",
        "extinguished since yesterday, boat sent",
        "painted, topmark straightened",
    ];

    /// Reports of an office that no dictionary has heard of.
    fn reports(n: usize) -> Vec<Vec<u8>> {
        let report = |i: usize| {
            let lines: String = (0..6 + i % 5)
                .map(|k| {
                    format!(
                        "{} buoy {}: {}.\n",
                        PLACES[(i * 3 + k) % 7],
                        1 + (i * i + k * 5) % 90,
                        WORK[(i + k * k) % 5]
                    )
                })
                .collect();
            format!(
                "From: Buoyage Section <buoyage{}@lights.example.org>\nSubject: Buoyage return No. {i}\nMessage-ID: <{:x}.{i}@lights.example.org>\n\n\
                 {lines}Weather note {}: {} hours lost.\n\nFor the Engineer-in-Chief, Northern Lights Depot\n",
                i % 4,
                (i + 77).pow(4),
                i * 31 % 1009,
                i % 9,
            )
            .into_bytes()
        };
        (0..n).map(report).collect()
    }

    #[test]
    fn a_site_dictionary_is_the_same_every_time_and_saves_on_mail_it_has_not_seen() {
        let mail = reports(120);
        let trained = train(&mail, 4096).expect("enough");
        assert_eq!(trained, train(&mail, 4096).expect("enough"));
        assert!(trained.dictionary.len() <= 4096);
        assert_eq!((trained.messages, trained.measured), (120, 12));
        assert!(trained.with_bytes * 10 < trained.without_bytes * 8, "{trained:?}");
    }

    #[test]
    fn too_little_mail_is_refused_in_words_that_say_how_much_is_needed() {
        assert_eq!(train(&reports(29), 4096), Err(TooLittle::Messages(29)));
        assert!(TooLittle::Messages(29).to_string().contains("at least 30"));
        let same = vec![b"Subject: hello\n\nhello\n".to_vec(); 100];
        let Err(TooLittle::Text { bytes, wanted: 65_536 }) = train(&same, 65_536) else { panic!("refused") };
        assert!(bytes < 10_000);
    }

    #[test]
    fn attachments_are_not_learned_and_lines_end_as_on_the_wire() {
        let mail = [b"Subject: a\n\nhello\n".as_slice(), &[b'Q'; 76], b"\n"].concat();
        assert_eq!(text_of(&mail), "Subject: a\r\n\r\nhello\r\n");
    }
}
