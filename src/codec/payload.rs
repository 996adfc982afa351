//! Envelope and body to one compressed payload, and back.
//!
//! The switch freezes what [`encode`] returns before its first symbol leaves (link-rules A1): the result depends on the inputs alone,
//! and the work on their size alone, never on a clock. [`decode`] caps its output and names what it does not know. The first
//! byte says how the rest is coded; `docs/codec.md` has the table.
//!
//! The coded stream is `varint(length of envelope) envelope body`: compressed jointly, because both name the same people.

use core::fmt;
use std::sync::LazyLock;

use super::mixing::first::{self as model, Model};
use super::mixing::{mail, text};
use ring::digest::{Context, SHA256};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, compress_bound, get_error_name};

use super::dictionary::{self, Dictionary};
use super::envelope::beside;
use super::history::{History, Kept, MAX_NAMED, Name};
use super::parts::{self, Allowance};
use super::repertoire::Repertoire;
use super::site::SiteDictionary;
use super::varint;

/// What both ends know beforehand. Decoding needs what encoding had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The dictionary to encode with; decoding finds shipped ones by number.
    pub dictionary: Choice<'a>,
    /// Earlier messages both ends hold.
    pub history: History<'a>,
}

impl Options<'_> {
    /// What a peer can read of which nothing is known.
    pub const fn for_any_peer() -> Self {
        Self::for_peer(Repertoire::LEAST)
    }

    /// What a peer of this repertoire can read, history left aside.
    pub const fn for_peer(repertoire: Repertoire) -> Self {
        Self { dictionary: repertoire.dictionary(), history: History::None }
    }

    /// The same without messages that are named.
    pub(super) fn without_link(&self) -> Self {
        match self.history {
            History::Link(_) => Self { history: History::None, ..*self },
            History::None | History::Given(_) => *self,
        }
    }

    fn has_link(&self) -> bool {
        matches!(self.history, History::Link([_, ..]))
    }
}

/// Which dictionary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The newest one shipped with this program.
    #[default]
    Newest,
    /// A shipped one by number: for a peer that runs an older program.
    Shipped(u8),
    /// One both operators loaded by hand.
    Given(&'a [u8]),
    /// The same where its model is kept.
    Site(&'a SiteDictionary),
    /// The same for a peer that does not know the mail model.
    SiteAsText(&'a SiteDictionary),
    /// None.
    Without,
}

impl<'a> Choice<'a> {
    const fn site(self) -> Option<&'a SiteDictionary> {
        match self {
            Self::Site(site) | Self::SiteAsText(site) => Some(site),
            Self::Newest | Self::Shipped(_) | Self::Given(_) | Self::Without => None,
        }
    }
}

/// Why bytes are not a payload this node can read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Nothing there.
    Empty,
    /// Coded in a way this node does not know: the number of the codec.
    UnknownCodec(u8),
    /// Coded with a shipped dictionary this node does not have: its number.
    UnknownDictionary(u8),
    /// Coded with a dictionary or history that differ between nodes, and this one has none or others.
    OtherReference,
    /// The same, and it is surely the dictionary.
    OtherDictionary,
    /// Larger than allowed once decoded.
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// Damaged.
    Corrupt(&'static str),
}

/// Encodes an envelope and a body; never more than [`overhead`] longer than both together.
pub fn encode(envelope: &[u8], body: &[u8], options: &Options<'_>) -> Vec<u8> {
    let mut allowance = Allowance::whole();
    let payload = encode_within(envelope, body, options, &mut allowance);
    // Pieces are put together by more code than any test has tried: what does not come back is coded whole. What a model coded is
    // not decoded for that: it codes and decodes by one rule.
    let mut comes_back = || {
        let mut allowance = allowance.again();
        let decoded = decode_within(&payload, envelope.len() + body.len(), options, &mut allowance);
        decoded.is_ok_and(|(e, b)| e == envelope && b == body)
    };
    match payload.first().map(|first| first >> 5) == Some(CODEC_PARTS) && !comes_back() {
        true => encode_text(envelope, body, options, &mut Allowance::whole()),
        false => payload,
    }
}

/// The same within an allowance of dear work: in one piece or several, whichever is shorter.
pub(super) fn encode_within(envelope: &[u8], body: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Vec<u8> {
    let pieces = parts::encode(envelope, body, options, allowance);
    // Of what is long and came apart, coding it whole as well is lost time.
    if let Some(pieces) = &pieces
        && body.len() > WHOLE_WORTH_BYTES
        && pieces.len() < body.len() * 3 / 4
    {
        return framed(CODEC_PARTS, pieces);
    }
    let whole = encode_text(envelope, body, options, allowance);
    pieces.filter(|p| p.len() + 1 < whole.len()).map_or(whole, |p| framed(CODEC_PARTS, &p))
}

/// Encodes the content of a part: as a file, too.
pub(super) fn encode_part(content: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Vec<u8> {
    // A file that came apart well is not compared with other codecs: they see what no codec compresses.
    let file = parts::encode_file(content, options, allowance).map(|coded| framed(CODEC_FILE, &coded));
    match file {
        Some(file) if file.len() < content.len() * 7 / 8 => file,
        file => {
            let whole = encode_within(&[], content, options, allowance);
            file.filter(|f| f.len() < whole.len()).unwrap_or(whole)
        }
    }
}

fn framed(codec: u8, coded: &[u8]) -> Vec<u8> {
    [&[first_byte(codec, 0)], coded].concat()
}

/// Encodes in one piece.
pub(super) fn encode_text(envelope: &[u8], body: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Vec<u8> {
    encode_observed(envelope, body, options, allowance, &mut |_, _| {})
}

/// The same; `observe` is told the first byte and the length of every payload that was compared.
pub(super) fn encode_observed(
    envelope: &[u8],
    body: &[u8],
    options: &Options<'_>,
    allowance: &mut Allowance,
    observe: &mut dyn FnMut(u8, usize),
) -> Vec<u8> {
    let mut best = encode_stored(envelope, body);
    let joint = best.get(1..).unwrap_or_default().to_vec();
    let level = level_for(joint.len());
    observe(first_byte(CODEC_STORED, 0), best.len());
    let mut offer = |codec: u8, number: u8, check: &[u8], coded: &[u8]| {
        observe(first_byte(codec, number), 1 + check.len() + coded.len());
        if 1 + check.len() + coded.len() < best.len() {
            best.clear();
            best.push(first_byte(codec, number));
            best.extend_from_slice(check);
            best.extend_from_slice(coded);
        }
    };
    if let Some((codec, coded)) = compressed(&joint, level, &[]) {
        offer(codec, 0, &[], &coded);
    }
    // Beyond this a dictionary saves less than a thousandth and its time is better spent on the level.
    if joint.len() > DICTIONARY_WORTH_BYTES {
        return best;
    }
    let mut references = vec![Reference::for_encoding(options)];
    // Of what is short, named messages may save less than their names cost.
    if options.has_link() && joint.len() <= WITHOUT_LINK_WORTH_BYTES {
        references.push(Reference::for_encoding(&options.without_link()));
    }
    for reference in references.into_iter().flatten() {
        // Peers of which no more is known than the first dictionary have the first model.
        let length = joint.len() + if reference.is_mail() { beside::OVERHEAD } else { 0 };
        if reference.knows_text()
            && length <= reference.most_text()
            && allowance.take_model(model_cost(CODEC_TEXT, &reference, length))
        {
            let coded = texted(envelope, body, &joint, &reference);
            allowance.remember(&coded, &joint);
            offer(CODEC_TEXT, reference.number, &reference.head, &coded);
        } else if let Some((codec, coded)) = compressed(&joint, level, &reference.bytes) {
            offer(codec, reference.number, &reference.head, &coded);
        }
        if !reference.knows_text()
            && joint.len() <= model::MAX_BYTES
            && allowance.take_model(model_cost(CODEC_MODEL, &reference, joint.len()))
        {
            offer(CODEC_MODEL, reference.number, &reference.head, &mixed(&joint, &reference));
        }
    }
    best
}

/// Encodes without compressing.
pub fn encode_stored(envelope: &[u8], body: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(envelope.len() + body.len() + 11);
    stored.push(first_byte(CODEC_STORED, 0));
    varint::put(&mut stored, envelope.len() as u64);
    stored.extend_from_slice(envelope);
    stored.extend_from_slice(body);
    stored
}

/// Decodes a payload of at most `max_bytes` once decoded into envelope and body. `options` gives what was given by hand.
pub fn decode(payload: &[u8], max_bytes: usize, options: &Options<'_>) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    decode_within(payload, max_bytes, options, &mut Allowance::whole())
}

/// The same within an allowance of dear work.
pub(super) fn decode_within(
    payload: &[u8],
    max_bytes: usize,
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    let (&first, mut coded) = payload.split_first().ok_or(DecodeError::Empty)?;
    let (codec, number) = (first >> 5, first & 0x1f);
    match codec {
        CODEC_STORED | CODEC_ZSTD | CODEC_ZSTD_BLOCK | CODEC_MODEL | CODEC_TEXT => {}
        CODEC_PARTS if number == 0 => return parts::decode(coded, max_bytes, options, allowance),
        CODEC_FILE if number == 0 => {
            return Ok((Vec::new(), parts::decode_file(coded, max_bytes, options, allowance)?));
        }
        _ => return Err(DecodeError::UnknownCodec(codec)),
    }
    // Room for the length of the envelope beside both.
    let most = max_bytes.saturating_add(10);
    let joint = if codec == CODEC_STORED {
        if number != 0 {
            return Err(DecodeError::UnknownDictionary(number));
        }
        if coded.len() > most {
            return Err(DecodeError::TooLarge { max_bytes });
        }
        coded.to_vec()
    } else {
        let reference = Reference::for_decoding(number, options, &mut coded)?;
        if codec == CODEC_MODEL || codec == CODEC_TEXT {
            let joint = unmixed(codec, coded, max_bytes, &reference, allowance)?;
            return parted(&joint, max_bytes);
        }
        decompressed(codec, coded, most, &reference).map_err(|e| match e {
            Failure::TooLarge => DecodeError::TooLarge { max_bytes },
            Failure::Corrupt(why) => DecodeError::Corrupt(why),
        })?
    };
    parted(&joint, max_bytes)
}

/// Envelope and body of a decoded stream.
fn parted(joint: &[u8], max_bytes: usize) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    let mut rest = joint;
    let length = varint::take(&mut rest).and_then(|n| usize::try_from(n).ok());
    let (envelope, body) = length
        .and_then(|n| rest.split_at_checked(n))
        .ok_or(DecodeError::Corrupt("the envelope is longer than the payload"))?;
    if rest.len() > max_bytes {
        return Err(DecodeError::TooLarge { max_bytes });
    }
    Ok((envelope.to_vec(), body.to_vec()))
}

/// Whether a payload that begins with this byte is a message in pieces.
pub(super) const fn is_pieces(first: u8) -> bool {
    first == first_byte(CODEC_PARTS, 0)
}

/// Whether it is a file with its pieces undone.
pub(super) const fn is_file(first: u8) -> bool {
    first == first_byte(CODEC_FILE, 0)
}

/// How a payload that begins with this byte is coded, in words.
pub(super) fn coding(first: u8) -> String {
    let codec = match first >> 5 {
        CODEC_STORED => "stored",
        CODEC_ZSTD | CODEC_ZSTD_BLOCK => "zstd",
        CODEC_MODEL => "model",
        CODEC_TEXT => "text model",
        CODEC_PARTS => "pieces",
        CODEC_FILE => "file",
        codec => return format!("codec {codec}"),
    };
    let dictionary = match first & 15 {
        0 => String::new(),
        DICTIONARY_GIVEN => ", dictionary 2 and one given".into(),
        MAIL_GIVEN => ", dictionary given".into(),
        number => format!(", dictionary {number}"),
    };
    let history = if first & WITH_HISTORY != 0 { ", history" } else { "" };
    format!("{codec}{dictionary}{history}")
}

/// What [`encode`] adds at most to incompressible input with an envelope of this length.
pub fn overhead(envelope_bytes: usize) -> usize {
    let mut length = Vec::new();
    varint::put(&mut length, envelope_bytes as u64);
    1 + length.len()
}

/// Top three bits of the first byte.
const CODEC_STORED: u8 = 0;
/// Four bytes of check, and a zstd frame without magic, content size, checksum and dictionary number.
const CODEC_ZSTD: u8 = 1;
/// The same where the frame is one compressed block: its five header bytes follow from the length and are left out, and two bytes of check do.
const CODEC_ZSTD_BLOCK: u8 = 2;
/// Context mixing: length of the stream, two bytes of check, the coded bits.
const CODEC_MODEL: u8 = 3;
/// The same with the second model.
const CODEC_TEXT: u8 = 4;
/// A message in pieces: text, and parts each a payload.
const CODEC_PARTS: u8 = 5;
/// A part's file with what is compressed in it undone.
const CODEC_FILE: u8 = 6;

/// Low bits: the dictionary both operators loaded, rather than a shipped one, behind dictionary 3 and with the mail model.
const MAIL_GIVEN: u8 = 14;
/// Low bits: the same behind dictionary 2 and with the text model.
const DICTIONARY_GIVEN: u8 = 15;
/// Low bits: the dictionary the text model reads once per process; one given by hand is read behind it.
const TEXT_DICTIONARY: u8 = 2;
/// Low bits: the dictionary that stands for the mail model.
const MAIL_DICTIONARY: u8 = 3;
/// Low bits: the dictionary is followed by earlier messages.
const WITH_HISTORY: u8 = 16;
/// Of the SHA-256 of a reference that is not shipped; guards against decoding with another.
const CHECK_BYTES: usize = 4;
/// Where there is history, the last bits of the check say how many messages are named instead; none: they were given by hand.
const COUNT_BITS: u8 = 7;

/// Beyond this a message that came apart well is not coded in one piece for comparison.
const WHOLE_WORTH_BYTES: usize = 16 * 1024;
const DICTIONARY_WORTH_BYTES: usize = 256 * 1024;
/// Up to this a message is coded without the messages it may name as well, for comparison.
const WITHOUT_LINK_WORTH_BYTES: usize = 8 * 1024;
/// Most bytes of history that are used, the newest first.
const MAX_HISTORY_BYTES: usize = 1 << 20;
/// Longest content of one zstd block.
const MAX_BLOCK_BYTES: usize = 128 * 1024;

const fn first_byte(codec: u8, number: u8) -> u8 {
    codec << 5 | number
}

/// The zstd level for an input of this many bytes, so that ten megabytes take under a second on a desktop's core and seconds on a small board's.
const fn level_for(bytes: usize) -> i32 {
    match bytes {
        0..=1_048_576 => 19,
        1_048_577..=4_194_304 => 16,
        _ => 12,
    }
}

/// Bytes both ends hold: a dictionary, and earlier messages after it.
struct Reference<'a> {
    number: u8,
    bytes: std::borrow::Cow<'a, [u8]>,
    /// Where the earlier messages begin.
    history_at: usize,
    /// Where the dictionary is one whose model is kept.
    site: Option<&'a SiteDictionary>,
    /// What of it stands in the payload behind the first byte: a check, and the names of earlier messages.
    head: Vec<u8>,
}

impl<'a> Reference<'a> {
    fn for_encoding(options: &Options<'a>) -> Option<Self> {
        let (number, bytes) = match options.dictionary {
            Choice::Newest => dictionary::NEWEST.parts(),
            Choice::Shipped(number) => dictionary::shipped(number)?.parts(),
            Choice::Given(bytes) => (MAIL_GIVEN, bytes),
            Choice::Site(site) => (MAIL_GIVEN, site.bytes()),
            Choice::SiteAsText(site) => (DICTIONARY_GIVEN, site.bytes()),
            Choice::Without => (0, [].as_slice()),
        };
        let mut reference = match options.history {
            History::None => Self::new(number, bytes, &[], &[]),
            History::Given(messages) => Self::new(number, bytes, &newest(messages), &[]),
            History::Link(kept) => {
                let named = &kept[kept.len().saturating_sub(MAX_NAMED)..];
                let texts: Vec<&[u8]> = named.iter().map(|k| k.text).collect();
                Self::new(number, bytes, &texts, &named.iter().map(|k| k.name).collect::<Vec<_>>())
            }
        };
        reference.site = options.dictionary.site();
        (!reference.bytes.is_empty()).then_some(reference)
    }

    /// The reference a payload names; takes its head off the front of `coded`.
    fn for_decoding(number: u8, options: &Options<'a>, coded: &mut &[u8]) -> Result<Self, DecodeError> {
        let with_history = number & WITH_HISTORY != 0;
        let bytes = match number & !WITH_HISTORY {
            0 => [].as_slice(),
            MAIL_GIVEN | DICTIONARY_GIVEN => match options.dictionary {
                Choice::Given(bytes) => bytes,
                Choice::Site(site) | Choice::SiteAsText(site) => site.bytes(),
                Choice::Newest | Choice::Shipped(_) | Choice::Without => return Err(DecodeError::OtherDictionary),
            },
            shipped => dictionary::shipped(shipped).ok_or(DecodeError::UnknownDictionary(shipped))?.bytes,
        };
        let named = match with_history {
            true => names(coded)?,
            false => Vec::new(),
        };
        let texts = match (with_history, options.history) {
            (false, _) => Vec::new(),
            (true, History::Given(messages)) if named.is_empty() => newest(messages),
            (true, History::Link(kept)) if !named.is_empty() => {
                named.iter().map(|n| kept_as(kept, *n)).collect::<Result<_, _>>()?
            }
            (true, _) => return Err(DecodeError::OtherReference),
        };
        let mut reference = Self::new(number & !WITH_HISTORY, bytes, &texts, &named);
        if number & !WITH_HISTORY >= MAIL_GIVEN {
            reference.site = options.dictionary.site();
        }
        if reference.number != number {
            return Err(DecodeError::OtherReference);
        }
        let (theirs, rest) = coded.split_at_checked(reference.head.len()).ok_or(DecodeError::Corrupt("cut short"))?;
        if theirs != reference.head {
            return Err(match with_history {
                true => DecodeError::OtherReference,
                false => DecodeError::OtherDictionary,
            });
        }
        *coded = rest;
        Ok(reference)
    }

    /// A formatted dictionary is tables followed by content, and so takes more content at its end.
    fn new(number: u8, dictionary: &'a [u8], history: &[&[u8]], names: &[Name]) -> Self {
        let history = history.concat();
        let number = if history.is_empty() { number } else { number | WITH_HISTORY };
        let bytes = if history.is_empty() { dictionary.into() } else { [dictionary, &history].concat().into() };
        let mut reference = Self { number, bytes, history_at: dictionary.len(), site: None, head: Vec::new() };
        if number >= MAIL_GIVEN {
            let mut digest = Context::new(&SHA256);
            digest.update(&reference.bytes);
            reference.head.extend(digest.finish().as_ref().iter().take(CHECK_BYTES));
        }
        if let (true, Some(last)) = (number & WITH_HISTORY != 0, reference.head.last_mut()) {
            *last = *last & !COUNT_BITS | names.len() as u8;
            reference.head.extend(names.iter().flat_map(|name| name.to_bytes()));
        }
        reference
    }

    /// Whether a peer that has it has the second model, which came with dictionary 2.
    fn knows_text(&self) -> bool {
        self.number & !WITH_HISTORY != 1
    }

    /// Whether what is coded with it as text is coded with the mail model.
    fn is_mail(&self) -> bool {
        matches!(self.number & !WITH_HISTORY, MAIL_DICTIONARY | MAIL_GIVEN)
    }

    /// The longest stream that is coded as text.
    fn most_text(&self) -> usize {
        if self.is_mail() { mail::MAX_BYTES } else { text::MAX_BYTES }
    }
}

/// The newest messages that fit, each whole.
fn newest<'a>(messages: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut room = MAX_HISTORY_BYTES;
    let fits = |message: &&&[u8]| {
        let fits = message.len() <= room;
        room = room.saturating_sub(message.len());
        fits
    };
    let mut recent: Vec<&[u8]> = messages.iter().rev().take_while(fits).copied().collect();
    recent.reverse();
    recent
}

/// The names in the head of a payload.
fn names(coded: &[u8]) -> Result<Vec<Name>, DecodeError> {
    const SHORT: DecodeError = DecodeError::Corrupt("cut short");
    let (check, rest) = coded.split_first_chunk::<CHECK_BYTES>().ok_or(SHORT)?;
    let count = usize::from(check[CHECK_BYTES - 1] & COUNT_BITS);
    if count > MAX_NAMED {
        return Err(DecodeError::Corrupt("it names too many messages"));
    }
    let (named, _) = rest.get(..2 * count).ok_or(SHORT)?.as_chunks::<2>();
    Ok(named.iter().map(|bytes| Name::from_bytes(*bytes)).collect())
}

/// What is kept under a name; of two the newer one.
fn kept_as<'a>(kept: &[Kept<'a>], name: Name) -> Result<&'a [u8], DecodeError> {
    kept.iter().rfind(|k| k.name == name).map(|k| k.text).ok_or(DecodeError::OtherReference)
}

/// Of every stream that is not stored as it is, so that no codec can bring another text unseen: a model decodes any bytes to something.
const CHECK: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_IBM_SDLC);
/// The same of what is so long that two bytes more are nothing.
const LONG_CHECK: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Models primed with the shipped dictionaries: the same at every use, and reading a dictionary takes longer than most messages.
static PRIMED: [LazyLock<Model>; 1] = [LazyLock::new(|| Model::primed(dictionary::SHIPPED[0].bytes))];

/// Runs with the model that has read the reference.
fn with_model<T>(reference: &Reference<'_>, run: impl FnOnce(&Model) -> T) -> T {
    let shipped = usize::from(reference.number).checked_sub(1).and_then(|i| PRIMED.get(i));
    match shipped {
        Some(primed) => run(primed),
        None => run(&Model::primed(&reference.bytes)),
    }
}

fn mixed(joint: &[u8], reference: &Reference<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(&mut out, joint.len() as u64);
    out.extend_from_slice(&CHECK.checksum(joint).to_be_bytes());
    out.extend_from_slice(&with_model(reference, |model| model::encode(model, joint)));
    out
}

/// What a model's use costs beside the bytes it codes, in as many of them: a copy of what was read once.
const MODEL_USE_BYTES: usize = 2048;

/// What coding so many bytes with a model costs, in bytes that it reads or codes: a dictionary that is not kept is read anew for each.
fn model_cost(codec: u8, reference: &Reference<'_>, length: usize) -> usize {
    if codec == CODEC_TEXT && reference.is_mail() {
        let coded = if length > mail::LEAN_BYTES { length / mail::LEAN_SPEED } else { length };
        let recalled = if reference.number & WITH_HISTORY != 0 { mail::RECALL_COST_BYTES } else { 0 };
        let given = reference.number & !WITH_HISTORY == MAIL_GIVEN;
        return coded + MODEL_USE_BYTES + recalled + if given { reference.history_at / 3 } else { 0 };
    }
    let kept = if codec == CODEC_TEXT { TEXT_DICTIONARY } else { 1 };
    let with_history = reference.number & WITH_HISTORY != 0;
    let read = match (reference.number & !WITH_HISTORY == kept, codec) {
        (true, CODEC_TEXT) => 0,
        (true, _) if !with_history => 0,
        // Skimming takes a third of the time.
        (false, CODEC_TEXT) => reference.history_at / 3,
        _ => reference.bytes.len(),
    };
    let recalled = if with_history && codec == CODEC_TEXT { text::RECALL_COST_BYTES } else { 0 };
    length + MODEL_USE_BYTES + read + recalled
}

/// The text model primed with dictionary 2.
static PRIMED_TEXT: LazyLock<text::Model> = LazyLock::new(|| text::Model::primed(dictionary::SHIPPED[1].bytes));

/// The mail model primed with dictionary 3.
static PRIMED_MAIL: LazyLock<mail::Model> = LazyLock::new(|| mail::Model::primed(dictionary::SHIPPED[2].bytes));

/// Has the models read their dictionaries, which the first message that needs one would wait for. That of dictionary 2 waits until there
/// is a peer of an older program, or a site's dictionary.
pub fn warm(site: Option<&SiteDictionary>) {
    LazyLock::force(&PRIMED_MAIL);
    if let Some(site) = site {
        site.behind_mail(&PRIMED_MAIL);
    }
    for primed in &PRIMED {
        LazyLock::force(primed);
    }
}

/// The text model that has read the reference: a dictionary given by hand behind the shipped one, since it says what the other cannot.
fn text_model(reference: &Reference<'_>) -> text::Model {
    let (dictionary, history) = reference.bytes.split_at(reference.history_at);
    let mut model = match reference.number & !WITH_HISTORY {
        0 => text::Model::primed(&[]),
        DICTIONARY_GIVEN if reference.site.is_some() => {
            reference.site.map_or_else(|| PRIMED_TEXT.clone(), |site| site.behind(&PRIMED_TEXT).clone())
        }
        DICTIONARY_GIVEN => {
            let mut model = PRIMED_TEXT.clone();
            model.read_on(dictionary);
            model
        }
        TEXT_DICTIONARY => PRIMED_TEXT.clone(),
        _ => text::Model::primed(dictionary),
    };
    model.recall(history);
    model
}

/// The mail model that has read the reference, for a stream of this length.
fn mail_model(reference: &Reference<'_>, length: usize) -> mail::Model {
    let (dictionary, history) = reference.bytes.split_at(reference.history_at);
    let mut model = match (reference.number & !WITH_HISTORY, reference.site) {
        (MAIL_GIVEN, Some(site)) => site.behind_mail(&PRIMED_MAIL).clone(),
        (MAIL_GIVEN, None) => {
            let mut model = PRIMED_MAIL.clone();
            model.read_on(dictionary);
            model
        }
        _ => PRIMED_MAIL.clone(),
    };
    model.recall(history);
    model.for_length(length)
}

/// What stands behind the first byte where the mail or the text model codes a message; `joint` is both.
fn texted(envelope: &[u8], body: &[u8], joint: &[u8], reference: &Reference<'_>) -> Vec<u8> {
    let (length, coded) = match reference.is_mail() {
        true => {
            let stream = beside::join(envelope, body);
            (stream.len(), mail::encode(mail_model(reference, stream.len()), &stream))
        }
        false => (joint.len(), text::encode(text_model(reference), joint)),
    };
    let mut out = Vec::new();
    varint::put(&mut out, length as u64);
    out.extend_from_slice(&CHECK.checksum(joint).to_be_bytes());
    out.extend_from_slice(&coded);
    out
}

fn unmixed(
    codec: u8,
    mut coded: &[u8],
    max_bytes: usize,
    reference: &Reference<'_>,
    allowance: &mut Allowance,
) -> Result<Vec<u8>, DecodeError> {
    let whole = coded;
    let length = varint::take(&mut coded).ok_or(DecodeError::Corrupt("cut short"))?;
    let most = if codec == CODEC_TEXT { reference.most_text() } else { model::MAX_BYTES };
    let length = usize::try_from(length).ok().filter(|n| *n <= most);
    let length = length.ok_or(DecodeError::Corrupt("longer than its codec allows"))?;
    if length > max_bytes.saturating_add(10) {
        return Err(DecodeError::TooLarge { max_bytes });
    }
    if !allowance.take_model(model_cost(codec, reference, length)) {
        return Err(DecodeError::Corrupt("more than one message may ask for"));
    }
    let (check, coded) = coded.split_first_chunk().ok_or(DecodeError::Corrupt("cut short"))?;
    if let Some(joint) = allowance.remembered(whole) {
        return Ok(joint);
    }
    let joint = match codec {
        CODEC_TEXT if reference.is_mail() => {
            let stream = mail::decode(mail_model(reference, length), coded, length);
            let (envelope, body) = beside::part(&stream).map_err(|_| DecodeError::Corrupt("check failed"))?;
            encode_stored(&envelope, body).split_off(1)
        }
        CODEC_TEXT => text::decode(text_model(reference), coded, length),
        _ => with_model(reference, |model| model::decode(model, coded, length)),
    };
    if CHECK.checksum(&joint) == u16::from_be_bytes(*check) {
        Ok(joint)
    } else {
        Err(DecodeError::Corrupt("check failed"))
    }
}

/// One zstd frame in the barest form the format allows; `None` when the library refuses (a dictionary given by hand may be none).
fn compress(joint: &[u8], level: i32, reference: &[u8]) -> Option<Vec<u8>> {
    let mut context = CCtx::try_create()?;
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::Format(FrameFormat::Magicless),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    if !reference.is_empty() {
        context.load_dictionary(reference).ok()?;
    }
    let mut frame = Vec::with_capacity(compress_bound(joint.len()));
    context.compress2(&mut frame, joint).ok()?;
    Some(frame)
}

enum Failure {
    TooLarge,
    Corrupt(&'static str),
}

fn decompress(frame: &[u8], most: usize, reference: &Reference<'_>) -> Result<Vec<u8>, Failure> {
    // Ordinary mail fits the first guess, so that a small payload does not reserve the largest message's memory.
    let guess = frame.len().saturating_mul(20).saturating_add(64 * 1024).min(most);
    let mut joint = Vec::with_capacity(guess);
    match decompress_into(&mut joint, frame, &reference.bytes) {
        Err(Failure::TooLarge) if guess < most => {
            joint = Vec::with_capacity(most);
            decompress_into(&mut joint, frame, &reference.bytes)?;
        }
        other => other?,
    }
    Ok(joint)
}

fn decompress_into(joint: &mut Vec<u8>, frame: &[u8], reference: &[u8]) -> Result<(), Failure> {
    let fail = |code: usize| match get_error_name(code) {
        name if name.contains("too small") => Failure::TooLarge,
        name => Failure::Corrupt(name),
    };
    let mut context = DCtx::try_create().ok_or(Failure::Corrupt("no memory"))?;
    context.set_parameter(DParameter::Format(FrameFormat::Magicless)).map_err(fail)?;
    if !reference.is_empty() {
        context.load_dictionary(reference).map_err(fail)?;
    }
    context.decompress(joint, frame).map_err(fail)?;
    Ok(())
}

/// Frame header descriptor (no flags) and window (2^20, more than one block) of a frame cut down to its block.
const BARE_HEADER: [u8; 2] = [0x00, 0x50];
/// Bits of a block header (RFC 8878, 3.1.1.2): last block, compressed; the size stands above them.
const LAST_COMPRESSED: u32 = 1 | 2 << 1;

/// The block of a frame that is one compressed block and nothing else.
fn bare_block(frame: &[u8]) -> Option<&[u8]> {
    let (header, block) = frame.split_first_chunk::<5>()?;
    let [0x00, _window, a, b, c] = *header else { return None };
    (u32::from_le_bytes([a, b, c, 0]) == LAST_COMPRESSED | (block.len() as u32) << 3).then_some(block)
}

/// A stream as zstd makes it, behind a check of what it was, and the codec of the shortest form.
fn compressed(joint: &[u8], level: i32, reference: &[u8]) -> Option<(u8, Vec<u8>)> {
    let frame = compress(joint, level, reference)?;
    Some(match bare_block(&frame) {
        Some(block) => (CODEC_ZSTD_BLOCK, [&CHECK.checksum(joint).to_be_bytes(), block].concat()),
        None => (CODEC_ZSTD, [&LONG_CHECK.checksum(joint).to_be_bytes(), &*frame].concat()),
    })
}

/// The other way, of at most so many bytes.
fn decompressed(codec: u8, coded: &[u8], most: usize, reference: &Reference<'_>) -> Result<Vec<u8>, Failure> {
    const SHORT: Failure = Failure::Corrupt("cut short");
    let (joint, same) = if codec == CODEC_ZSTD_BLOCK {
        let (check, block) = coded.split_first_chunk().ok_or(SHORT)?;
        let joint = decompress(&restored_frame(block)?, most, reference)?;
        let same = CHECK.checksum(&joint) == u16::from_be_bytes(*check);
        (joint, same)
    } else {
        let (check, frame) = coded.split_first_chunk().ok_or(SHORT)?;
        let joint = decompress(frame, most, reference)?;
        let same = LONG_CHECK.checksum(&joint) == u32::from_be_bytes(*check);
        (joint, same)
    };
    if same { Ok(joint) } else { Err(Failure::Corrupt("check failed")) }
}

fn restored_frame(block: &[u8]) -> Result<Vec<u8>, Failure> {
    if block.len() > MAX_BLOCK_BYTES {
        return Err(Failure::Corrupt("longer than a block can be"));
    }
    let [a, b, c, _] = (LAST_COMPRESSED | (block.len() as u32) << 3).to_le_bytes();
    Ok([&BARE_HEADER, [a, b, c].as_slice(), block].concat())
}

impl Dictionary {
    const fn parts(&self) -> (u8, &'static [u8]) {
        (self.number, self.bytes)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the payload is empty"),
            Self::UnknownCodec(codec) => {
                write!(f, "the payload is coded with codec {codec}, which this node does not know")
            }
            Self::UnknownDictionary(number) => {
                write!(f, "the payload is coded with dictionary {number}, which this node does not have")
            }
            Self::OtherDictionary => {
                f.write_str("the payload is coded with a site's dictionary that this node does not have")
            }
            Self::OtherReference => {
                f.write_str("the payload is coded with a dictionary or earlier messages that this node does not have")
            }
            Self::TooLarge { max_bytes } => write!(f, "the payload decodes to more than {max_bytes} bytes"),
            Self::Corrupt(why) => write!(f, "the payload is damaged: {why}"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::envelope;
    use crate::mail::{Envelope, Mailbox, Precedence, Recipient};
    use crate::time::Wall;

    const MIB: usize = 1 << 20;
    const MAILS: [&[u8]; 6] = [
        include_bytes!("../../tests/data/mail/000.eml"),
        include_bytes!("../../tests/data/mail/018.eml"),
        include_bytes!("../../tests/data/mail/050.eml"),
        include_bytes!("../../tests/data/mail/060.eml"),
        include_bytes!("../../tests/data/mail/077.eml"),
        include_bytes!("../../tests/data/mail/100.eml"),
    ];
    const CHOICES: [Choice<'_>; 5] = [
        Choice::Newest,
        Choice::Shipped(1),
        Choice::Shipped(2),
        Choice::Without,
        Choice::Given(b"From: somebody\r\nTo: somebody else\r\n"),
    ];

    fn an_envelope() -> Vec<u8> {
        envelope::encode(&envelope::AirEnvelope {
            serves: Vec::new(),
            envelope: Envelope::plain(
                Some(Mailbox::new("toc.ops@tf-heron.example.mil")),
                vec![Recipient::plain(Mailbox::new("cp@bcoy.node7.example.mil"))],
                Wall::from_seconds(1_800_000_000),
            ),
            precedence: Precedence::Routine,
            hops: vec!["ship".into()],
        })
        .expect("encodes")
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..bytes)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn mail_comes_back_exactly_and_shrinks_to_an_eighth() {
        let envelope = an_envelope();
        let (mut before, mut after) = (0, 0);
        for body in MAILS {
            let payload = encode(&envelope, body, &Options::default());
            assert_eq!(decode(&payload, MIB, &Options::default()), Ok((envelope.clone(), body.to_vec())));
            before += envelope.len() + body.len();
            after += payload.len();
        }
        assert!(after * 8 < before, "{before} bytes became {after}");
    }

    #[test]
    fn a_short_message_is_mixed_and_a_long_one_is_not() {
        let payload = encode(&an_envelope(), MAILS[0], &Options::default());
        assert_eq!(payload.first(), Some(&first_byte(CODEC_TEXT, 3)));
        for (number, codec) in [(1, CODEC_MODEL), (2, CODEC_TEXT)] {
            let older = Options { dictionary: Choice::Shipped(number), history: History::None };
            assert_eq!(encode(&an_envelope(), MAILS[0], &older).first(), Some(&first_byte(codec, number)));
        }
        let long = MAILS[0].repeat(300);
        let payload = encode(&an_envelope(), &long, &Options::default());
        assert_eq!(payload.first(), Some(&first_byte(CODEC_ZSTD, 0)));
        assert_eq!(decode(&payload, MIB, &Options::default()), Ok((an_envelope(), long)));
    }

    #[test]
    fn every_codec_reads_what_it_wrote() {
        let envelope = an_envelope();
        let joint = &encode_stored(&envelope, MAILS[0])[1..];
        let older = Options { dictionary: Choice::Shipped(1), history: History::None };
        let reference = Reference::for_encoding(&older).expect("shipped");
        let frame = compress(joint, 19, &reference.bytes).expect("compresses");
        let frame = [&LONG_CHECK.checksum(joint).to_be_bytes(), &*frame].concat();
        let (codec, block) = compressed(joint, 19, &reference.bytes).expect("compresses");
        assert_eq!(codec, CODEC_ZSTD_BLOCK, "one block");
        let second = Options { dictionary: Choice::Shipped(2), history: History::None };
        let second = Reference::for_encoding(&second).expect("shipped");
        let newest = Reference::for_encoding(&Options::default()).expect("shipped");
        for (codec, number, coded) in [
            (CODEC_ZSTD, 1, frame.as_slice()),
            (CODEC_ZSTD_BLOCK, 1, &block),
            (CODEC_MODEL, 1, &mixed(joint, &reference)),
            (CODEC_TEXT, 2, &texted(&envelope, MAILS[0], joint, &second)),
            (CODEC_TEXT, 3, &texted(&envelope, MAILS[0], joint, &newest)),
        ] {
            let payload = [&[first_byte(codec, number)], coded].concat();
            assert_eq!(
                decode(&payload, MIB, &Options::default()),
                Ok((an_envelope(), MAILS[0].to_vec())),
                "codec {codec}"
            );
            for cut in (0..payload.len()).step_by(if codec == CODEC_TEXT { 17 } else { 1 }) {
                assert!(decode(&payload[..cut], MIB, &Options::default()).is_err(), "codec {codec} cut at {cut}");
            }
            // Not even where the codec itself sees nothing wrong.
            for bit in (8..payload.len() * 8).step_by(if codec == CODEC_TEXT { 211 } else { 7 }) {
                let mut flipped = payload.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let decoded = decode(&flipped, MIB, &Options::default());
                let harmless = Ok((an_envelope(), MAILS[0].to_vec()));
                assert!(decoded.is_err() || decoded == harmless, "codec {codec} bit {bit} brings another text");
            }
        }
        // A claim of more than is allowed is refused before any work is done for it.
        let claim = [first_byte(CODEC_MODEL, 1), 0xff, 0x7f, 0, 0];
        assert_eq!(decode(&claim, 1000, &Options::default()), Err(DecodeError::TooLarge { max_bytes: 1000 }));
        for claim in [first_byte(CODEC_MODEL, 1), first_byte(CODEC_TEXT, 2), first_byte(CODEC_TEXT, 3)] {
            let claim = [claim, 0xff, 0xff, 0x7f, 0, 0];
            let refused = Err(DecodeError::Corrupt("longer than its codec allows"));
            assert_eq!(decode(&claim, 3 * MIB, &Options::default()), refused);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_payload() {
        let bytes = encode(&an_envelope(), MAILS[1], &Options::default());
        for _ in 0..3 {
            assert_eq!(encode(&an_envelope(), MAILS[1], &Options::default()), bytes);
        }
    }

    #[test]
    fn noise_is_stored_and_grows_by_two_bytes() {
        for size in [0, 1, 100, 5000, 300_000] {
            let body = noise(size);
            let payload = encode(&[], &body, &Options::default());
            assert!(payload.len() <= size + overhead(0), "{size}");
            assert_eq!(decode(&payload, size, &Options::default()), Ok((Vec::new(), body)));
        }
    }

    #[test]
    fn long_bodies_of_many_blocks_come_back() {
        for size in [130_000, 263_000, 1_100_000, 4_300_000] {
            let body: Vec<u8> = MAILS.concat().iter().copied().cycle().take(size).collect();
            let payload = encode(&an_envelope(), &body, &Options::default());
            assert!(payload.len() < size / 10);
            assert_eq!(decode(&payload, 5 * MIB, &Options::default()), Ok((an_envelope(), body)));
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit_and_not_before() {
        let body = vec![b'a'; 3 * MIB];
        let payload = encode(&[], &body, &Options::default());
        assert!(payload.len() < 1000);
        assert_eq!(
            decode(&payload, 3 * MIB - 1, &Options::default()),
            Err(DecodeError::TooLarge { max_bytes: 3 * MIB - 1 })
        );
        assert_eq!(decode(&payload, MIB, &Options::default()), Err(DecodeError::TooLarge { max_bytes: MIB }));
        assert!(decode(&payload, 3 * MIB, &Options::default()).is_ok());
        let stored = encode_stored(&[], &body);
        assert_eq!(decode(&stored, MIB, &Options::default()), Err(DecodeError::TooLarge { max_bytes: MIB }));
    }

    #[test]
    fn reading_a_dictionary_anew_for_every_part_is_beyond_what_a_message_may_ask_for() {
        let cost = |codec, number, history: &[&[u8]]| {
            let bytes = dictionary::shipped(number).expect("shipped").bytes;
            model_cost(codec, &Reference::new(number, bytes, history, &[]), 100)
        };
        assert_eq!(cost(CODEC_TEXT, 2, &[]), 100 + MODEL_USE_BYTES);
        assert_eq!(cost(CODEC_TEXT, 2, &[MAILS[0]]), 100 + MODEL_USE_BYTES + text::RECALL_COST_BYTES);
        assert_eq!(cost(CODEC_TEXT, 3, &[]), 100 + MODEL_USE_BYTES);
        assert_eq!(cost(CODEC_TEXT, 3, &[MAILS[0]]), 100 + MODEL_USE_BYTES + mail::RECALL_COST_BYTES);
        assert_eq!(cost(CODEC_MODEL, 1, &[]), 100 + MODEL_USE_BYTES);
        assert!(cost(CODEC_TEXT, 1, &[]) > 112_640 / 3);
        assert!(cost(CODEC_MODEL, 1, &[MAILS[0]]) > 112_640);
        // Not once: it is not what an encoder sends.
        let coded = [first_byte(CODEC_MODEL, 2), 1, 0, 0, 0];
        let refused = Err(DecodeError::Corrupt("more than one message may ask for"));
        assert_eq!(decode(&coded, MIB, &Options::default()), refused);
    }

    #[test]
    fn what_is_unknown_is_named() {
        let options = Options::default();
        assert_eq!(decode(&[], MIB, &options), Err(DecodeError::Empty));
        assert_eq!(decode(&[first_byte(7, 0), 1, 2], MIB, &options), Err(DecodeError::UnknownCodec(7)));
        for codec in [CODEC_ZSTD, CODEC_ZSTD_BLOCK, CODEC_MODEL, CODEC_TEXT] {
            assert_eq!(decode(&[first_byte(codec, 9), 1, 2], MIB, &options), Err(DecodeError::UnknownDictionary(9)));
        }
        assert_eq!(decode(&[first_byte(CODEC_STORED, 1), 0], MIB, &options), Err(DecodeError::UnknownDictionary(1)));
        assert_eq!(
            decode(&[first_byte(CODEC_STORED, 0), 9, 1], MIB, &options).map_err(|e| e.to_string()),
            Err("the payload is damaged: the envelope is longer than the payload".to_owned())
        );
    }

    #[test]
    fn a_dictionary_or_history_given_by_hand_is_asked_for_and_checked() {
        let given = Options {
            dictionary: Choice::Given(b"Subject: LOGREQ 240729ZAUG, Link on 5061.0 kHz"),
            history: History::None,
        };
        let payload = encode(&[], MAILS[0], &given);
        assert_eq!(decode(&payload, MIB, &given), Ok((Vec::new(), MAILS[0].to_vec())));
        assert_eq!(decode(&payload, MIB, &Options::default()), Err(DecodeError::OtherDictionary));
        let other = Options { dictionary: Choice::Given(b"another"), history: History::None };
        assert_eq!(decode(&payload, MIB, &other), Err(DecodeError::OtherDictionary));

        let earlier =
            b"Quite unlike anything trained on: qzx-7719-vkp, the xylophone fell into 5f3a9c0e71, 17 oboes fled.\r\n";
        let history = [MAILS[0], earlier];
        let with_history = Options { dictionary: Choice::Newest, history: History::Given(&history) };
        let reply = [b"> ".as_slice(), earlier].concat();
        let payload = encode(&[], &reply, &with_history);
        assert!(
            payload.len() * 2 < encode(&[], &reply, &Options::default()).len(),
            "quoting an earlier message is cheap"
        );
        assert_eq!(decode(&payload, MIB, &with_history), Ok((Vec::new(), reply)));
        assert_eq!(decode(&payload, MIB, &Options::default()), Err(DecodeError::OtherReference));
        let shorter = Options { dictionary: Choice::Newest, history: History::Given(&history[..1]) };
        assert_eq!(decode(&payload, MIB, &shorter), Err(DecodeError::OtherReference));
    }

    #[test]
    fn a_dictionary_whose_model_is_kept_codes_as_one_given_by_hand() {
        let text = b"Subject: LOGREQ 240729ZAUG, Link on 5061.0 kHz";
        let site = SiteDictionary::new(text.to_vec()).expect("short");
        let kept = [Kept { name: Name::new(false, 1), text: MAILS[1] }];
        for history in [History::None, History::Link(&kept)] {
            let by_hand = Options { dictionary: Choice::Given(text), history };
            let of_site = Options { dictionary: Choice::Site(&site), history };
            let as_text = Options { dictionary: Choice::SiteAsText(&site), history };
            let older = encode(&[], MAILS[0], &as_text);
            assert_eq!(older[0] & 15, DICTIONARY_GIVEN);
            assert_eq!(decode(&older, MIB, &of_site), Ok((Vec::new(), MAILS[0].to_vec())));
            let payload = encode(&[], MAILS[0], &by_hand);
            for _ in 0..2 {
                assert_eq!(encode(&[], MAILS[0], &of_site), payload);
                assert_eq!(decode(&payload, MIB, &of_site), Ok((Vec::new(), MAILS[0].to_vec())));
            }
            let alone = Options { dictionary: Choice::Newest, history };
            assert_eq!(decode(&payload, MIB, &alone), Err(DecodeError::OtherDictionary));
        }
        assert!(SiteDictionary::new(Vec::new()).is_none() && SiteDictionary::new(vec![b'x'; 256 * 1024 + 1]).is_none());
    }

    #[test]
    fn messages_both_ends_hold_are_named_in_two_bytes_each_and_anything_else_under_the_name_is_noticed() {
        let unlike =
            b"Quite unlike anything trained on: qzx-7719-vkp, the xylophone fell into 5f3a9c0e71, 17 oboes fled.\r\n";
        let texts = [(3, MAILS[0]), (4, MAILS[1]), (9, unlike.as_slice())];
        let kept = texts.map(|(counter, text)| Kept { name: Name::new(counter == 9, counter), text });
        let linked = |kept| Options { dictionary: Choice::Newest, history: History::Link(kept) };
        let reply = [b"> ".as_slice(), unlike].concat();
        let payload = encode(&[], &reply, &linked(&kept[1..]));
        let names: Vec<u8> = [&payload[1..4], &[payload[4] & 7], &payload[5..9]].concat()[3..].to_vec();
        assert_eq!(names, [2, 0, 4, 0x80, 9]);
        let parted = Ok((Vec::new(), reply.clone()));
        assert_eq!(decode(&payload, MIB, &linked(&kept)), parted, "the far end has more, in any order");
        assert!(payload.len() < encode(&[], &reply, &Options::default()).len() / 2);
        for others in [&kept[..2], &kept[2..], &[]] {
            assert_eq!(decode(&payload, MIB, &linked(others)), Err(DecodeError::OtherReference));
        }
        let given = Options { dictionary: Choice::Newest, history: History::Given(&[MAILS[1], unlike]) };
        assert_eq!(decode(&payload, MIB, &given), Err(DecodeError::OtherReference), "named is not given by hand");
        assert_eq!(decode(&payload, MIB, &Options::default()), Err(DecodeError::OtherReference));
        let mut other = kept;
        other[2].text = &unlike[1..];
        assert_eq!(decode(&payload, MIB, &linked(&other)), Err(DecodeError::OtherReference));
        // Where names do not pay, the payload does without them.
        let short = encode(&[], b"x", &linked(&kept));
        assert_eq!(decode(&short, MIB, &Options::default()), Ok((Vec::new(), b"x".to_vec())));
        let many: Vec<u8> = [&payload[..4], &[payload[4] | 7], &payload[5..]].concat();
        assert!(matches!(decode(&many, MIB, &linked(&kept)), Err(DecodeError::Corrupt(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn any_bytes_come_back(
            envelope in proptest::collection::vec(any::<u8>(), 0..300),
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..3000),
                "[a-c \r\n]{0,3000}".prop_map(String::into_bytes),
                Just(MAILS[2].to_vec()),
            ],
            choice in 0..CHOICES.len(),
            history in any::<bool>(),
        ) {
            let options = Options { dictionary: CHOICES[choice], history: if history { History::Given(&MAILS) } else { History::None } };
            let payload = encode(&envelope, &body, &options);
            prop_assert!(payload.len() <= envelope.len() + body.len() + overhead(envelope.len()));
            prop_assert_eq!(decode(&payload, MIB, &options), Ok((envelope, body)));
        }

        #[test]
        fn damaged_and_invented_payloads_never_panic_nor_exceed_the_limit(
            noise in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
        ) {
            let mut payload = encode(&[], MAILS[0], &Options::default());
            let at = at.index(payload.len());
            payload[at] = with;
            for bytes in [payload, noise] {
                if let Ok((envelope, body)) = decode(&bytes, 4000, &Options::default()) {
                    prop_assert!(envelope.len() + body.len() <= 4000);
                }
            }
        }
    }
}
