//! Messages in pieces: text apart from attachments, both without their transfer encoding.
//!
//! [`super::payload`] calls [`encode`] beside its other codecs and keeps the shortest. A coded body that is text stays where it was, but
//! decoded, so that one model reads header and text together; any other is a payload of its own, coded as suits it. The
//! far end finds the places again in the text ([`places`]) and makes each body anew by its recipe ([`transfer`]).
//!
//! Nothing is sent that was not put together again first. A payload names no size that memory is reserved for: what each piece
//! may decode to, and how much dear work it may ask for, is counted in [`Allowance`].

mod deflate;
mod file;
mod inflate;
mod jpeg;
mod places;
mod transfer;
mod zlib;

use super::payload::{self, DecodeError, Options};
use super::varint;
use places::{Coding, Place, places};
use transfer::{Base64, Recipe};

/// Payloads within payloads: a message attached to a message attached to a message.
const MAX_DEPTH: usize = 4;
/// Bytes of one message that the model reads, so that no message takes it long.
const MODEL_BYTES: usize = 320 * 1024;
/// A second or two of a desktop's core each; what the encoder kept took the decoder's half.
const SEARCH_STEPS: usize = 1 << 28;
const PIXELS: usize = 1 << 27;
const INFLATED_BYTES: usize = 64 << 20;
/// Text longer than this is a piece of its own.
const MAX_INLINE: usize = 60 * 1024;

/// What a payload and those in it may still ask for.
#[derive(Debug)]
pub(super) struct Allowance {
    pub model_bytes: usize,
    pub depth: usize,
    /// Along chains of possible matches ([`zlib`]).
    pub steps: usize,
    /// Of pictures, once for each pass.
    pub pixels: usize,
    /// Bytes of deflate streams.
    pub inflated: usize,
    /// What models coded, and what of.
    coded: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Allowance {
    pub(super) const fn whole() -> Self {
        Self {
            model_bytes: MODEL_BYTES,
            depth: MAX_DEPTH,
            steps: SEARCH_STEPS,
            pixels: PIXELS,
            inflated: INFLATED_BYTES,
            coded: Vec::new(),
        }
    }

    /// The whole for decoding what was encoded with this one: what models coded is remembered.
    pub(super) fn again(&mut self) -> Self {
        Self { coded: std::mem::take(&mut self.coded), ..Self::whole() }
    }

    /// Remembers what a model made of a stream.
    pub(super) fn remember(&mut self, coded: &[u8], joint: &[u8]) {
        self.coded.push((coded.to_vec(), joint.to_vec()));
    }

    /// The stream that a model made this of, where it was remembered.
    pub(super) fn remembered(&self, coded: &[u8]) -> Option<Vec<u8>> {
        self.coded.iter().find(|(known, _)| known == coded).map(|(_, joint)| joint.clone())
    }

    /// Takes so many bytes of the model's time, if there are as many left.
    pub(super) fn take_model(&mut self, bytes: usize) -> bool {
        self.model_bytes.checked_sub(bytes).map(|left| self.model_bytes = left).is_some()
    }

    /// Runs one level deeper; `None` where that is too deep.
    pub(super) fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.depth = self.depth.checked_sub(1)?;
        let result = run(self);
        self.depth += 1;
        Some(result)
    }
}

/// A body in pieces.
#[derive(Debug, PartialEq, Eq)]
struct Split {
    /// What is read as text.
    text: Vec<u8>,
    /// One for each place in it; verbatim ones at the end are left out.
    recipes: Vec<Recipe>,
    /// Contents of the bodies taken out, in order.
    parts: Vec<Vec<u8>>,
    /// Where in the text the bodies stand or stood.
    places: Vec<Place>,
}

/// The coded stream of a message in pieces and how many recipes it has; `None` where there is nothing to take apart.
pub(super) fn encode(
    envelope: &[u8],
    body: &[u8],
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Option<Vec<u8>> {
    // At the far end text and parts are each a payload one level deeper.
    if allowance.depth == 0 {
        return None;
    }
    let split = split(body)?;
    if join(&split.text, &split.recipes, &split.parts, body.len()).as_deref() != Ok(body) {
        return None;
    }
    let mut out = Vec::new();
    varint::put(&mut out, split.recipes.len() as u64);
    split.recipes.iter().for_each(|recipe| recipe.put(&mut out));
    out.extend_from_slice(&digest(envelope, body, &split.recipes));
    // The text first: it has the first claim on the model.
    let text = payload::encode_text(envelope, &split.text, options, allowance);
    // What is attached has no likeness among texts, and would name them once more.
    let without_link = options.without_link();
    for content in &split.parts {
        let coded = allowance.deeper(|a| payload::encode_part(content, &without_link, a))?;
        varint::put(&mut out, coded.len() as u64);
        out.extend_from_slice(&coded);
    }
    out.extend_from_slice(&text);
    Some(out)
}

/// The header of a message and its bodies that are text, decoded, without what is a part; `None` where there is nothing to take apart.
pub(super) fn text_of(body: &[u8]) -> Option<Vec<u8>> {
    split(body).map(|split| split.text)
}

/// A message in pieces laid open, for those who want to know what costs what.
pub(super) struct Outline {
    /// What is read as text.
    pub text: Vec<u8>,
    /// Where in the text bodies stand or stood, and what was done to them.
    pub marks: Vec<(usize, usize, Mark)>,
    /// Contents taken out, with the payloads they became.
    pub parts: Vec<(Vec<u8>, Vec<u8>)>,
    /// The payload of the text.
    pub coded_text: Vec<u8>,
}

/// What was done to a coded body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    Verbatim,
    /// Decoded, it stands in the text.
    Base64,
    /// The same.
    Quoted,
    /// It is a part.
    Part,
}

/// Lays open what [`encode`] made of a body.
pub(super) fn outline(body: &[u8], mut coded: &[u8]) -> Option<Outline> {
    let split = split(body)?;
    let number = |bytes: &mut &[u8]| varint::take(bytes).and_then(|n| usize::try_from(n).ok());
    for _ in 0..number(&mut coded)? {
        Recipe::take(&mut coded)?;
    }
    coded = coded.get(digest_bytes(&split.recipes)..)?;
    let mut parts = Vec::new();
    for content in split.parts {
        let length = number(&mut coded)?;
        let (part, rest) = coded.split_at_checked(length)?;
        parts.push((content, part.to_vec()));
        coded = rest;
    }
    let mark = |recipe: &Recipe| match recipe {
        Recipe::Verbatim => Mark::Verbatim,
        Recipe::Quoted(_) => Mark::Quoted,
        recipe if recipe.takes_out() => Mark::Part,
        _ => Mark::Base64,
    };
    let marks = split.recipes.iter().map(mark).chain(std::iter::repeat(Mark::Verbatim));
    let marks = split.places.iter().zip(marks).map(|(place, mark)| (place.start, place.end, mark)).collect();
    Some(Outline { text: split.text, marks, parts, coded_text: coded.to_vec() })
}

/// How long deflate makes bytes at its usual level; `None` where there are too many.
pub(super) fn deflated_bytes(bytes: &[u8]) -> Option<usize> {
    deflate::as_zlib(bytes).map(|stream| stream.len())
}

/// How many streams and pictures a file's payload has undone.
pub(super) fn count_pieces(coded: &[u8]) -> Option<(usize, usize)> {
    file::count(coded)
}

/// A file with what is compressed in it undone; `None` where nothing is.
pub(super) fn encode_file(content: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Option<Vec<u8>> {
    file::code(content, options, allowance)
}

/// Undoes [`encode_file`].
pub(super) fn decode_file(
    coded: &[u8],
    max_bytes: usize,
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Result<Vec<u8>, DecodeError> {
    file::restore(coded, max_bytes, options, allowance).ok_or(DecodeError::Corrupt("a file in it cannot be restored"))
}

/// Undoes [`encode`]; `max_bytes` bounds envelope and body together.
pub(super) fn decode(
    mut coded: &[u8],
    max_bytes: usize,
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    const SHORT: DecodeError = DecodeError::Corrupt("cut short");
    let count = varint::take(&mut coded).and_then(|n| usize::try_from(n).ok()).ok_or(SHORT)?;
    if count > places::MAX_PLACES {
        return Err(DecodeError::Corrupt("too many parts"));
    }
    let recipes: Option<Vec<Recipe>> = (0..count).map(|_| Recipe::take(&mut coded)).collect();
    let recipes = recipes.ok_or(DecodeError::Corrupt("a part's recipe is not sound"))?;
    let (theirs, rest) = coded.split_at_checked(digest_bytes(&recipes)).ok_or(SHORT)?;
    coded = rest;
    let mut parts = Vec::new();
    let mut room = max_bytes;
    for _ in 0..recipes.iter().filter(|r| r.takes_out()).count() {
        let length = varint::take(&mut coded).and_then(|n| usize::try_from(n).ok()).ok_or(SHORT)?;
        let (part, rest) = coded.split_at_checked(length).ok_or(SHORT)?;
        coded = rest;
        let decoded = allowance.deeper(|a| payload::decode_within(part, room, options, a));
        let (envelope, content) = decoded.ok_or(DecodeError::Corrupt("nested too deep"))??;
        if !envelope.is_empty() {
            return Err(DecodeError::Corrupt("a part has an envelope"));
        }
        room = room.checked_sub(content.len()).ok_or(DecodeError::TooLarge { max_bytes })?;
        parts.push(content);
    }
    let decoded = allowance.deeper(|a| payload::decode_within(coded, max_bytes, options, a));
    let (envelope, text) = decoded.ok_or(DecodeError::Corrupt("nested too deep"))??;
    let most = max_bytes.saturating_sub(envelope.len());
    let body = join(&text, &recipes, &parts, most).map_err(|e| match e {
        Misfit::TooLarge => DecodeError::TooLarge { max_bytes },
        Misfit::Unlike => DecodeError::Corrupt("the text has no place for its parts"),
    })?;
    match digest(&envelope, &body, &recipes) == theirs {
        true => Ok((envelope, body)),
        false => Err(DecodeError::Corrupt("check failed")),
    }
}

impl Recipe {
    /// Whether the content is sent as a part.
    fn takes_out(&self) -> bool {
        matches!(self, Self::Binary | Self::Base64(Base64 { inline: None, .. }))
    }
}

const SHORT_DIGEST: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_IBM_SDLC);
const LONG_DIGEST: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

fn digest_bytes(recipes: &[Recipe]) -> usize {
    if recipes.iter().any(Recipe::takes_out) { 4 } else { 2 }
}

/// Of envelope and body: two bytes where our own code alone decodes them, four where other crates take part.
fn digest(envelope: &[u8], body: &[u8], recipes: &[Recipe]) -> Vec<u8> {
    if digest_bytes(recipes) == 2 {
        let mut digest = SHORT_DIGEST.digest();
        digest.update(envelope);
        digest.update(body);
        return digest.finalize().to_be_bytes().to_vec();
    }
    let mut digest = LONG_DIGEST.digest();
    digest.update(envelope);
    digest.update(body);
    digest.finalize().to_be_bytes().to_vec()
}

/// A coded body, decoded.
struct Taken {
    recipe: Recipe,
    content: Vec<u8>,
    /// What of the body follows the content.
    tail: usize,
}

fn split(body: &[u8]) -> Option<Split> {
    let places = places(body);
    let mut taken: Vec<Option<Taken>> =
        places.iter().map(|place| take(&body[place.start..place.end], place.coding)).collect();
    if taken.iter().all(Option::is_none) {
        return None;
    }
    // Text in base64 stays in place while the model can read it all.
    let mut room = MAX_INLINE.saturating_sub(plan(body, &places, &taken).text.len());
    for body in taken.iter_mut().flatten() {
        let Taken { recipe: Recipe::Base64(base64), content, tail } = body else { continue };
        if content.len() <= room && is_text(content) {
            base64.inline = Some(*tail);
            room -= content.len();
        }
    }
    let split = plan(body, &places, &taken);
    if split.is_found_again() {
        return Some(split);
    }
    // Decoded, some text holds what looks like a boundary line: whatever could stays as it is.
    for body in &mut taken {
        let risky = |t: &Taken| t.content.split(|b| *b == b'\n').any(|line| line.starts_with(b"--"));
        match body {
            Some(Taken { recipe: Recipe::Base64(base64), .. }) => base64.inline = None,
            Some(quoted) if matches!(quoted.recipe, Recipe::Quoted(_)) && risky(quoted) => *body = None,
            _ => {}
        }
    }
    let split = plan(body, &places, &taken);
    (split.is_found_again() && !split.recipes.is_empty()).then_some(split)
}

impl Split {
    /// Whether the far end finds the places where they are.
    fn is_found_again(&self) -> bool {
        places(&self.text) == self.places
    }
}

fn take(body: &[u8], coding: Coding) -> Option<Taken> {
    match coding {
        Coding::Base64 => {
            let (recipe, content, used) = Recipe::of_base64(body)?;
            Some(Taken { recipe: Recipe::Base64(recipe), content, tail: body.len() - used })
        }
        Coding::QuotedPrintable => {
            let (recipe, content) = Recipe::of_quoted(body)?;
            let tail = recipe.tail;
            Some(Taken { recipe: Recipe::Quoted(recipe), content, tail })
        }
        Coding::Binary => {
            let content = body.strip_suffix(b"\n")?;
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            (!content.is_empty()).then(|| Taken {
                recipe: Recipe::Binary,
                content: content.to_vec(),
                tail: body.len() - content.len(),
            })
        }
    }
}

fn plan(body: &[u8], places: &[Place], taken: &[Option<Taken>]) -> Split {
    let mut split =
        Split { text: Vec::with_capacity(body.len()), recipes: Vec::new(), parts: Vec::new(), places: Vec::new() };
    let mut at = 0;
    for (place, taken) in places.iter().zip(taken) {
        split.text.extend_from_slice(&body[at..place.start]);
        let start = split.text.len();
        at = place.start;
        match taken {
            None => split.recipes.push(Recipe::Verbatim),
            Some(taken) => {
                if taken.recipe.takes_out() {
                    split.parts.push(taken.content.clone());
                } else {
                    split.text.extend_from_slice(&taken.content);
                }
                split.recipes.push(taken.recipe.clone());
                at = place.end - taken.tail;
            }
        }
        split.text.extend_from_slice(&body[at..place.end]);
        at = place.end;
        split.places.push(Place { start, end: split.text.len(), coding: place.coding });
    }
    split.text.extend_from_slice(&body[at..]);
    let used = split.recipes.iter().rposition(|r| *r != Recipe::Verbatim).map_or(0, |last| last + 1);
    split.recipes.truncate(used);
    split
}

/// Text in some 8-bit or 7-bit character set: no control characters but white space.
fn is_text(content: &[u8]) -> bool {
    content.iter().all(|b| !matches!(b, 0..=8 | 11 | 14..=0x1a | 0x1c..=0x1f | 0x7f))
}

/// Why text and parts make no message.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    TooLarge,
    Unlike,
}

/// The body again, of at most `most` bytes.
fn join(text: &[u8], recipes: &[Recipe], parts: &[Vec<u8>], most: usize) -> Result<Vec<u8>, Misfit> {
    let places = places(text);
    if recipes.len() > places.len() {
        return Err(Misfit::Unlike);
    }
    let mut parts = parts.iter();
    let mut body = Vec::with_capacity(text.len().min(most));
    let mut at = 0;
    for (place, recipe) in places.iter().zip(recipes) {
        body.extend_from_slice(&text[at..place.start]);
        at = place.start;
        let standing = &text[place.start..place.end];
        let content = match recipe {
            Recipe::Verbatim => continue,
            Recipe::Binary | Recipe::Base64(Base64 { inline: None, .. }) => parts.next().ok_or(Misfit::Unlike)?,
            Recipe::Base64(Base64 { inline: Some(tail), .. }) | Recipe::Quoted(transfer::Quoted { tail, .. }) => {
                let length = standing.len().checked_sub(*tail).ok_or(Misfit::Unlike)?;
                at += length;
                &standing[..length]
            }
        };
        let room = most.checked_sub(body.len()).ok_or(Misfit::TooLarge)?;
        body.extend_from_slice(&recipe.encode(content, room).ok_or(Misfit::TooLarge)?);
    }
    body.extend_from_slice(&text[at..]);
    if body.len() <= most { Ok(body) } else { Err(Misfit::TooLarge) }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use proptest::prelude::*;

    use super::*;

    fn multipart(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut message = String::from(
            "Subject: parts\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n",
        );
        for (header, body) in parts {
            message += &format!("--b\r\n{header}\r\n\r\n{body}\r\n");
        }
        (message + "--b--\r\n").into_bytes()
    }

    fn lines(content: &[u8], length: usize, ending: &str) -> String {
        let digits = BASE64.encode(content);
        let lines: Vec<&str> =
            digits.as_bytes().chunks(length).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
        lines.join(ending)
    }

    /// Encodes, decodes, and says how many recipes it took.
    fn comes_back(body: &[u8]) -> usize {
        let payload = payload::encode(b"envelope", body, &Options::default());
        assert_eq!(
            payload::decode(&payload, body.len() + 8, &Options::default()),
            Ok((b"envelope".to_vec(), body.to_vec()))
        );
        assert!(payload::decode(&payload, body.len() + 7, &Options::default()).is_err(), "one byte too many");
        split(body).map_or(0, |split| split.recipes.len())
    }

    const BASE64_TEXT: &str = "Content-Type: text/csv\r\nContent-Transfer-Encoding: base64";
    const BASE64_FILE: &str = "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64";
    const QUOTED: &str = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable";

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..bytes).map(next).collect()
    }

    #[test]
    fn an_attachment_costs_its_own_bytes_and_not_those_of_base64() {
        let file = noise(6000);
        let body =
            multipart(&[("Content-Type: text/plain", "See the file."), (BASE64_FILE, &lines(&file, 76, "\r\n"))]);
        assert_eq!(comes_back(&body), 1);
        let payload = payload::encode(&[], &body, &Options::default());
        assert!(payload.len() < 6000 + 300, "{} bytes", payload.len());
    }

    #[test]
    fn text_in_base64_is_read_as_text() {
        let csv: String = (0..200).map(|i| format!("{i};Stavanger;{}.{};knots\r\n", i * 7 % 31, i % 10)).collect();
        let coded = multipart(&[(BASE64_TEXT, &lines(csv.as_bytes(), 76, "\r\n"))]);
        let plain = multipart(&[(BASE64_TEXT, &csv)]);
        assert_eq!(comes_back(&coded), 1);
        let size = |body: &[u8]| payload::encode(&[], body, &Options::default()).len();
        assert!(size(&coded) < size(&plain) + 10, "{} and {}", size(&coded), size(&plain));
    }

    #[test]
    fn quoted_text_is_read_as_text_unless_it_would_pass_for_a_boundary() {
        let body =
            multipart(&[(QUOTED, "Gr=C3=BC=C3=9Fe aus K=C3=B6ln\r\n--=20\r\nJ=C3=BCrgen"), (BASE64_TEXT, "LS0NCg==")]);
        assert_eq!(comes_back(&body), 2);
        let split_body = split(&body).expect("apart");
        assert!(String::from_utf8_lossy(&split_body.text).contains("Grüße aus Köln\r\n-- \r\nJürgen\r\n--b"));
        // The boundary itself, escaped in one part and in base64 in the other.
        let body = multipart(&[
            (QUOTED, "x\r\n=2D-b\r\ny"),
            (BASE64_TEXT, &lines(b"a\r\n--b--\r\nc", 76, "\r\n")),
            (QUOTED, "=C3=A9"),
        ]);
        assert_eq!(comes_back(&body), 3);
        let split_body = split(&body).expect("apart");
        assert_eq!(split_body.recipes[0], Recipe::Verbatim);
        assert_eq!(split_body.parts, [b"a\r\n--b--\r\nc".to_vec()]);
        assert!(matches!(split_body.recipes[2], Recipe::Quoted(_)));
    }

    #[test]
    fn a_message_attached_in_base64_comes_apart_in_its_turn() {
        let file = noise(2000);
        let mut body = multipart(&[(BASE64_FILE, &lines(&file, 76, "\r\n"))]);
        for _ in 0..6 {
            body.extend_from_slice(&[0; 3]);
            body = multipart(&[(BASE64_FILE, &lines(&body, 76, "\r\n"))]);
        }
        comes_back(&body);
        let twice =
            multipart(&[(BASE64_FILE, &lines(&multipart(&[(BASE64_FILE, &lines(&file, 60, "\n"))]), 76, "\r\n"))]);
        let payload = payload::encode(&[], &[twice.as_slice(), &[0]].concat(), &Options::default());
        assert!(payload.len() < 2600, "{} bytes", payload.len());
    }

    #[test]
    fn quoted_text_at_the_deepest_level_comes_back() {
        let mut body = multipart(&[(QUOTED, "Gr=C3=BC=C3=9Fe aus K=C3=B6ln")]);
        for _ in 0..6 {
            body.push(0);
            body = multipart(&[(BASE64_FILE, &lines(&body, 76, "\r\n"))]);
            comes_back(&body);
        }
    }

    #[test]
    fn binary_parts_are_taken_out_as_they_are() {
        let mut body = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n".to_vec();
        body.extend_from_slice(&noise(3000));
        body.extend_from_slice(b"\r\n--b--\r\n");
        assert_eq!(comes_back(&body), 1);
    }

    #[test]
    fn every_damage_to_a_payload_is_told() {
        let body = multipart(&[(QUOTED, "=C3=A9 and so on"), (BASE64_FILE, &lines(&noise(300), 76, "\r\n"))]);
        let payload = payload::encode(b"envelope", &body, &Options::default());
        assert_eq!(payload[0] >> 5, 5);
        for cut in 0..payload.len() {
            assert!(payload::decode(&payload[..cut], 1 << 20, &Options::default()).is_err(), "cut at {cut}");
        }
        for at in 0..payload.len() {
            let mut damaged = payload.clone();
            damaged[at] ^= 1 << (at % 8);
            // Codecs pad their last byte; the same message out of other bytes is no harm.
            if let Ok(decoded) = payload::decode(&damaged, 1 << 20, &Options::default()) {
                assert_eq!(decoded, (b"envelope".to_vec(), body.clone()), "in byte {at}");
            }
        }
    }

    #[test]
    fn a_payload_that_nests_too_deep_or_asks_for_too_much_is_refused() {
        let mut payload = payload::encode_stored(&[], b"x");
        for _ in 0..100 {
            payload = [&[5 << 5, 0, 0, 0], payload.as_slice()].concat();
        }
        assert_eq!(payload::decode(&payload, 1000, &Options::default()), Err(DecodeError::Corrupt("nested too deep")));
        assert_eq!(
            payload::decode(&[5 << 5, 0xff, 0x7f], 1000, &Options::default()),
            Err(DecodeError::Corrupt("too many parts"))
        );
    }

    fn body() -> impl Strategy<Value = (String, Vec<u8>)> {
        let ending = prop_oneof![4 => Just("\r\n"), 1 => Just("\n")];
        let base64 = (
            proptest::collection::vec(any::<u8>(), 0..400),
            prop_oneof![Just(76usize), 4usize..90],
            ending,
            "(\r\n|--b|=|footer){0,2}",
        )
            .prop_map(|(content, length, ending, tail)| {
                ("base64".to_owned(), format!("{}{tail}", lines(&content, length, ending)).into_bytes())
            });
        let text =
            ("[ -~\r\n]{0,300}", prop_oneof![Just(76usize), 5usize..90], "(\r\n|=20|--b|=2D-b--\r\n|=C3=A9){0,3}")
                .prop_map(|(text, line, more)| {
                    let quoted =
                        transfer::Quoted { line, bare: false, tail: 0, escaped: Vec::new(), exceptions: Vec::new() };
                    let body = Recipe::Quoted(quoted).encode(text.as_bytes(), 100_000).expect("fits");
                    ("quoted-printable".to_owned(), [body, more.into_bytes()].concat())
                });
        let any = ("(base64|quoted-printable|binary|8bit)", proptest::collection::vec(any::<u8>(), 0..200));
        prop_oneof![base64, text, any]
    }

    fn tree() -> impl Strategy<Value = Vec<u8>> {
        let leaf = body().prop_map(|(coding, body)| {
            [format!("Content-Type: application/x\r\nContent-Transfer-Encoding: {coding}\r\n\r\n").as_bytes(), &body]
                .concat()
        });
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                ("[ab]{1,2}", proptest::collection::vec(inner.clone(), 0..4), any::<bool>()).prop_map(
                    |(boundary, parts, closed)| {
                        let mut out = format!("Content-Type: multipart/x; boundary={boundary}\r\n\r\n").into_bytes();
                        for part in parts {
                            out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                            out.extend_from_slice(&part);
                            out.extend_from_slice(b"\r\n");
                        }
                        if closed {
                            out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
                        }
                        out
                    }
                ),
                inner.clone().prop_map(|m| [b"Content-Type: message/rfc822\r\n\r\n", m.as_slice()].concat()),
                inner.prop_map(|m| [
                    b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n",
                    lines(&m, 76, "\r\n").as_bytes()
                ]
                .concat()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn any_tree_in_any_coding_is_put_together_again(body in tree()) {
            if let Some(Split { text, recipes, parts, .. }) = split(&body) {
                prop_assert_eq!(join(&text, &recipes, &parts, body.len()), Ok(body.clone()));
                prop_assert_eq!(join(&text, &recipes, &parts, body.len() - 1), Err(Misfit::TooLarge));
            }
        }

        #[test]
        fn text_and_parts_that_do_not_fit_are_told(
            text in tree(),
            recipes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..6), 0..6),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..3),
            most in 0usize..2000,
        ) {
            let recipes: Vec<Recipe> = recipes.iter().filter_map(|bytes| Recipe::take(&mut bytes.as_slice())).collect();
            if let Ok(body) = join(&text, &recipes, &parts, most) {
                prop_assert!(body.len() <= most);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_tree_decodes_to_itself(body in tree()) {
            comes_back(&body);
        }

        #[test]
        fn any_pieces_decode_to_an_error_or_to_what_is_allowed(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let payload = [&[5 << 5], bytes.as_slice()].concat();
            if let Ok((envelope, body)) = payload::decode(&payload, 5000, &Options::default()) {
                prop_assert!(envelope.len() + body.len() <= 5000);
            }
        }
    }
}
