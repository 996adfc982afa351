//! Files that hold compressed pieces: pictures, and deflate streams of PNG, ZIP (office documents, too), PDF and gzip.
//!
//! [`super::super::payload`] calls [`code`] on the content of a part and [`restore`] at the far end. Each piece is undone ([`jpeg`], [`deflate`]); what is
//! left, with the plain bytes of streams in their places, is coded as one text, since the parts of a document resemble each other. Pieces are found
//! by looking for their first bytes anywhere, whatever the file is. [`code`] restores before anything is sent.

use super::super::payload::{self, Options};
use super::super::varint;
use super::deflate::{self, Undone};
use super::{Allowance, jpeg};

/// Plain bytes of all streams of one file.
const MAX_PLAIN: usize = 16 << 20;
const MAX_PIECES: usize = 4096;
/// Beginnings whose ends are looked for far away and that turn out to be nothing; streams count in [`Allowance`].
const MAX_FALSE: usize = 16;
/// Shorter streams cost more than they bring.
const MIN_STREAM: usize = 24;

/// What a piece is: the low bits of its first number.
const RAW: u64 = 0;
const ZLIB: u64 = 1;
const PNG: u64 = 2;
const JPEG: u64 = 3;
const KIND_BITS: u32 = 2;

/// A piece that was found and undone.
struct Piece {
    start: usize,
    end: usize,
    what: What,
}

enum What {
    Jpeg(Vec<u8>),
    /// With its checksum where it is a zlib stream.
    Stream {
        undone: Undone,
        zlib: bool,
    },
    /// A zlib stream cut into chunks of this length.
    Png {
        undone: Undone,
        start: [u8; 2],
        chunk: usize,
    },
}

/// Codes a file with its pieces undone; `None` where there are none, or to no use.
pub(super) fn code(content: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Option<Vec<u8>> {
    let pieces = pieces(content, options, allowance);
    if pieces.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    varint::put(&mut out, pieces.len() as u64);
    let mut plain = Vec::with_capacity(content.len());
    let mut recipes = Vec::new();
    let mut at = 0;
    let mut last: &[u8] = &[];
    for piece in &pieces {
        let gap = (piece.start - at) as u64;
        plain.extend_from_slice(&content[at..piece.start]);
        at = piece.end;
        let mut put = |kind: u64, bytes: usize| {
            varint::put(&mut out, gap << KIND_BITS | kind);
            varint::put(&mut out, bytes as u64);
        };
        let undone = match &piece.what {
            What::Jpeg(coded) => {
                put(JPEG, coded.len());
                out.extend_from_slice(coded);
                continue;
            }
            What::Stream { undone, zlib } => {
                put(if *zlib { ZLIB } else { RAW }, undone.plain.len());
                undone
            }
            What::Png { undone, start, chunk } => {
                put(PNG, undone.plain.len());
                out.extend_from_slice(start);
                varint::put(&mut out, *chunk as u64);
                undone
            }
        };
        plain.extend_from_slice(&undone.plain);
        // The streams of one file were mostly written by one program.
        if undone.recipe == last {
            out.push(0);
        } else {
            varint::put(&mut out, undone.recipe.len() as u64);
            recipes.extend_from_slice(&undone.recipe);
        }
        last = &undone.recipe;
    }
    plain.extend_from_slice(&content[at..]);
    let plain = [recipes, plain].concat();
    let coded = out.clone();
    let restored = rebuilt(&read(&mut coded.as_slice())?, &plain, content.len(), options, &mut Allowance::whole())?;
    if restored != content {
        return None;
    }
    out.extend_from_slice(&payload::encode_text(&[], &plain, options, allowance));
    Some(out)
}

/// Restores a file of at most `most` bytes.
pub(super) fn restore(
    mut coded: &[u8],
    most: usize,
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Option<Vec<u8>> {
    let pieces = read(&mut coded)?;
    let (envelope, plain) = payload::decode_within(coded, most.saturating_add(MAX_PLAIN), options, allowance).ok()?;
    if !envelope.is_empty() {
        return None;
    }
    rebuilt(&pieces, &plain, most, options, allowance)
}

/// Takes what is sent of the pieces off the front.
fn read<'a>(coded: &mut &'a [u8]) -> Option<Vec<Coded<'a>>> {
    let count = number(coded)?;
    if count > MAX_PIECES {
        return None;
    }
    let mut pieces = Vec::new();
    let mut room = MAX_PLAIN;
    for _ in 0..count {
        let first = varint::take(coded)?;
        let gap = usize::try_from(first >> KIND_BITS).ok()?;
        let length = number(coded)?;
        let kind = first & ((1 << KIND_BITS) - 1);
        if kind == JPEG {
            let bytes = split(coded, length)?;
            pieces.push(Coded { kind, gap, length: 0, start: [0; 2], chunk: 0, recipe: 0, picture: bytes });
            continue;
        }
        room = room.checked_sub(length)?;
        let (start, chunk) = match kind {
            PNG => (*split(coded, 2)?.first_chunk()?, number(coded)?),
            _ => ([0; 2], 0),
        };
        let recipe = number(coded)?;
        pieces.push(Coded { kind, gap, length, start, chunk, recipe, picture: &[] });
    }
    Some(pieces)
}

/// How many streams and how many pictures there are.
pub(super) fn count(mut coded: &[u8]) -> Option<(usize, usize)> {
    let pieces = read(&mut coded)?;
    let pictures = pieces.iter().filter(|piece| piece.kind == JPEG).count();
    Some((pieces.len() - pictures, pictures))
}

/// The file of its pieces and what stands between and in them.
fn rebuilt(
    pieces: &[Coded<'_>],
    mut plain: &[u8],
    most: usize,
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Option<Vec<u8>> {
    let mut recipes = Vec::with_capacity(pieces.len());
    let mut last: &[u8] = &[];
    for piece in pieces {
        if piece.recipe > 0 {
            last = split(&mut plain, piece.recipe)?;
        }
        recipes.push(last);
    }
    let mut out = Vec::new();
    let append =
        |out: &mut Vec<u8>, bytes: &[u8]| (bytes.len() <= most - out.len()).then(|| out.extend_from_slice(bytes));
    for (piece, recipe) in pieces.iter().zip(recipes) {
        append(&mut out, split(&mut plain, piece.gap)?)?;
        let left = most - out.len();
        if piece.kind == JPEG {
            append(&mut out, &jpeg::restore(piece.picture, left, options, allowance)?)?;
            continue;
        }
        let inflated = split(&mut plain, piece.length)?;
        let stream = deflate::redo(inflated, recipe, left, &mut allowance.steps)?;
        let checksum = adler32(inflated).to_be_bytes();
        match piece.kind {
            PNG => append(&mut out, &chunks(&[&piece.start, stream.as_slice(), &checksum].concat(), piece.chunk)?)?,
            ZLIB => append(&mut out, &[stream.as_slice(), &checksum].concat())?,
            _ => append(&mut out, &stream)?,
        }
    }
    append(&mut out, plain)?;
    Some(out)
}

/// What is sent of a piece.
struct Coded<'a> {
    kind: u64,
    /// From the end of the piece before.
    gap: usize,
    /// Of its plain bytes.
    length: usize,
    start: [u8; 2],
    chunk: usize,
    /// Length of its recipe; 0 where it is that of the stream before.
    recipe: usize,
    picture: &'a [u8],
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    varint::take(bytes).and_then(|n| usize::try_from(n).ok())
}

fn split<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(front)
}

/// The pieces of a file, in order.
fn pieces(content: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Vec<Piece> {
    let mut found = Vec::new();
    let (mut at, mut room, mut failed) = (0, MAX_PLAIN, 0);
    while at + MIN_STREAM < content.len() && found.len() < MAX_PIECES && allowance.inflated > 0 {
        let mut far = failed < MAX_FALSE;
        let piece = match content[at..] {
            [0xff, 0xd8, 0xff, ..] if far => picture(content, at, options, allowance),
            [0x1f, 0x8b, 8, flags, ..] if far => gzip(content, at, flags, room, allowance),
            [_, _, _, _, b'I', b'D', b'A', b'T', ..] if far => png(content, at, room, allowance),
            [b'P', b'K', 3, 4, ..] => {
                far = false;
                zip_entry(content, at, room, allowance)
            }
            [cmf, flg, ..] if is_zlib(cmf, flg) => {
                far = false;
                zlib(content, at, room, allowance)
            }
            _ => {
                at += 1;
                continue;
            }
        };
        match piece {
            Some(piece) => {
                at = piece.end;
                room -= match &piece.what {
                    What::Jpeg(_) => 0,
                    What::Stream { undone, .. } | What::Png { undone, .. } => undone.plain.len(),
                };
                found.push(piece);
            }
            None => {
                failed += usize::from(far);
                at += 1;
            }
        }
    }
    found
}

/// The first bytes of a zlib stream as encoders write them: window and level, divisible by 31, no dictionary.
fn is_zlib(cmf: u8, flg: u8) -> bool {
    cmf & 15 == 8
        && (1..=7).contains(&(cmf >> 4))
        && flg & 0x20 == 0
        && (u16::from(cmf) << 8 | u16::from(flg)) % 31 == 0
}

fn picture(content: &[u8], at: usize, options: &Options<'_>, allowance: &mut Allowance) -> Option<Piece> {
    let end = at + picture_length(&content[at..])?;
    Some(Piece { start: at, end, what: What::Jpeg(jpeg::code(&content[at..end], options, allowance)?) })
}

/// The length of a JPEG file by its markers.
fn picture_length(jpeg: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        let [0xff, marker] = *jpeg.get(at..at + 2)? else { return None };
        at += 2;
        match marker {
            0xd9 => return Some(at),
            0xff => at -= 1,
            0x01 | 0xd0..=0xd7 => {}
            _ => {
                at += usize::from(u16::from_be_bytes(*jpeg.get(at..)?.first_chunk()?));
                if marker == 0xda {
                    // The scan: to the next marker that is none of its own.
                    let own = |w: &[u8]| w[0] != 0xff || matches!(w[1], 0 | 0xd0..=0xd7);
                    at += jpeg.get(at..)?.windows(2).position(|w| !own(w))?;
                }
            }
        }
    }
}

fn stream(content: &[u8], start: usize, window: u8, room: usize, allowance: &mut Allowance) -> Option<Piece> {
    let undone = deflate::undo(content.get(start..)?, window, room, allowance)?;
    let end = start + undone.used;
    (undone.used >= MIN_STREAM).then_some(Piece { start, end, what: What::Stream { undone, zlib: false } })
}

fn zip_entry(content: &[u8], at: usize, room: usize, allowance: &mut Allowance) -> Option<Piece> {
    let field = |offset: usize| Some(u16::from_le_bytes(*content.get(at + offset..)?.first_chunk()?));
    if field(8)? != 8 {
        return None;
    }
    stream(content, at + 30 + usize::from(field(26)?) + usize::from(field(28)?), 15, room, allowance)
}

fn gzip(content: &[u8], at: usize, flags: u8, room: usize, allowance: &mut Allowance) -> Option<Piece> {
    let mut start = at + 10;
    if flags & 4 != 0 {
        start += 2 + usize::from(u16::from_le_bytes(*content.get(start..)?.first_chunk()?));
    }
    // Name and comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            start += content.get(start..)?.iter().position(|b| *b == 0)? + 1;
        }
    }
    start += if flags & 2 != 0 { 2 } else { 0 };
    stream(content, start, 15, room, allowance)
}

fn zlib(content: &[u8], at: usize, room: usize, allowance: &mut Allowance) -> Option<Piece> {
    let mut piece = stream(content, at + 2, (content[at] >> 4) + 8, room, allowance)?;
    if let What::Stream { undone, zlib } = &mut piece.what
        && content.get(piece.end..)?.starts_with(&adler32(&undone.plain).to_be_bytes())
    {
        *zlib = true;
        piece.end += 4;
    }
    Some(piece)
}

/// The image data of a PNG, from the length of its first chunk on.
fn png(content: &[u8], at: usize, room: usize, allowance: &mut Allowance) -> Option<Piece> {
    let mut data = Vec::new();
    let (mut end, mut chunk) = (at, 0);
    while content.get(end + 4..end + 8) == Some(b"IDAT") {
        let length = u32::from_be_bytes(*content[end..].first_chunk()?) as usize;
        data.extend_from_slice(content.get(end + 8..)?.get(..length)?);
        chunk = chunk.max(length);
        end += length + 12;
    }
    let (start, rest) = data.split_first_chunk::<2>()?;
    if !is_zlib(start[0], start[1]) {
        return None;
    }
    let undone = deflate::undo(rest, (start[0] >> 4) + 8, room, allowance)?;
    let whole = [start.as_slice(), &rest[..undone.used], &adler32(&undone.plain).to_be_bytes()].concat();
    (chunks(&whole, chunk)? == content.get(at..end)?).then_some(Piece {
        start: at,
        end,
        what: What::Png { undone, start: *start, chunk },
    })
}

const PNG_CHECK: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Image data in chunks of a length.
fn chunks(data: &[u8], length: usize) -> Option<Vec<u8>> {
    // A chunk costs twelve bytes: of no use shorter than that.
    if length < 12 {
        return None;
    }
    let mut out = Vec::with_capacity(data.len() * 2);
    for chunk in data.chunks(length) {
        out.extend_from_slice(&(chunk.len() as u32).to_be_bytes());
        let start = out.len();
        out.extend_from_slice(b"IDAT");
        out.extend_from_slice(chunk);
        let check = PNG_CHECK.checksum(&out[start..]);
        out.extend_from_slice(&check.to_be_bytes());
    }
    Some(out)
}

/// The checksum of zlib streams (RFC 1950).
pub(super) fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            a += u32::from(*byte);
            b += a;
        }
        (a, b) = (a % 65_521, b % 65_521);
    }
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deflate::tests::{deflated, text};
    use super::*;

    const SCENE: &[u8] = include_bytes!("../../../tests/data/parts/scene.jpg");

    fn zlib_stream(plain: &[u8], level: u8) -> Vec<u8> {
        [&[0x78, 0x9c], deflated(plain, level, 8, 15).as_slice(), &adler32(plain).to_be_bytes()].concat()
    }

    fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, plain) in entries {
            let (method, data) =
                if name.ends_with(".jpg") { (0, plain.to_vec()) } else { (8, deflated(plain, 6, 8, 15)) };
            out.extend_from_slice(b"PK\x03\x04\x14\0\0\0");
            out.extend_from_slice(&[method, 0, 0, 0, 0, 0]);
            out.extend_from_slice(&PNG_CHECK.checksum(plain).to_le_bytes());
            out.extend_from_slice(&(data.len() as u32).to_le_bytes());
            out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
            out.extend_from_slice(&[name.len() as u8, 0, 0, 0]);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&data);
        }
        out
    }

    fn png(plain: &[u8], chunk: usize) -> Vec<u8> {
        let data = chunks(&zlib_stream(plain, 9), chunk).expect("chunks");
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR and so on".as_slice(), &data, b"\0\0\0\0IEND\xae\x42\x60\x82"].concat()
    }

    fn gzip_file(plain: &[u8]) -> Vec<u8> {
        [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name.txt\0".as_slice(), &deflated(plain, 6, 8, 15), &[1, 2, 3, 4, 0, 0, 0, 0]]
            .concat()
    }

    fn pdf(pages: &[&[u8]]) -> Vec<u8> {
        let mut out = b"%PDF-1.4\n".to_vec();
        for page in pages {
            out.extend_from_slice(b"1 0 obj\n<< /Filter /FlateDecode >>\nstream\n");
            out.extend_from_slice(&zlib_stream(page, 6));
            out.extend_from_slice(b"\nendstream\nendobj\n");
        }
        out.extend_from_slice(SCENE);
        out
    }

    /// How many pieces a file had; it comes back from them.
    fn comes_back(content: &[u8]) -> usize {
        let options = Options::default();
        let pieces = pieces(content, &options, &mut Allowance::whole()).len();
        let coded = code(content, &options, &mut Allowance::whole());
        assert_eq!(coded.is_some(), pieces > 0);
        if let Some(coded) = coded {
            assert_eq!(restore(&coded, content.len(), &options, &mut Allowance::whole()).as_deref(), Some(content));
            assert_eq!(
                restore(&coded, content.len() - 1, &options, &mut Allowance::whole()),
                None,
                "one byte too many"
            );
        }
        pieces
    }

    #[test]
    fn pieces_of_every_kind_of_file_are_found_and_come_back() {
        let text = text(9000);
        assert_eq!(
            comes_back(&zip(&[("a.xml", &text[..3000]), ("b.xml", &text[2000..5000]), ("c.jpg", SCENE), ("d", &text)])),
            4
        );
        assert_eq!(comes_back(&png(&text, 1000)), 1);
        assert_eq!(comes_back(&png(&text, 100_000)), 1);
        assert_eq!(comes_back(&gzip_file(&text)), 1);
        assert_eq!(comes_back(&pdf(&[&text[..4000], &text[4000..], b"short"])), 3);
        assert_eq!(comes_back(SCENE), 1);
        assert_eq!(comes_back(&[SCENE, SCENE, b"x"].concat()), 2);
        assert_eq!(comes_back(&text), 0);
        // A zlib stream whose checksum is wrong is one without.
        let mut wrong = zlib_stream(&text, 6);
        *wrong.last_mut().expect("there") ^= 1;
        assert_eq!(comes_back(&wrong), 1);
    }

    #[test]
    fn a_document_costs_less_than_its_deflated_parts() {
        let text = text(30_000);
        let document = zip(&[("document.xml", &text), ("copy.xml", &text)]);
        let coded = code(&document, &Options::default(), &mut Allowance::whole()).expect("pieces");
        assert!(coded.len() * 5 < document.len() * 2, "{} of {}", coded.len(), document.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn damaged_files_come_back(at in any::<prop::sample::Index>(), with in any::<u8>(), which in 0usize..3) {
            let text = text(2000);
            let mut file = [zip(&[("a.xml", &text), ("b.jpg", SCENE)]), png(&text, 300), pdf(&[&text])][which].clone();
            let at = at.index(file.len());
            file[at] = with;
            comes_back(&file);
        }

        #[test]
        fn damaged_pieces_are_an_error_or_bounded(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let file = zip(&[("a.xml", &text(2000)), ("b.jpg", SCENE)]);
            let mut coded = code(&file, &Options::default(), &mut Allowance::whole()).expect("pieces");
            let at = at.index(coded.len());
            coded[at] = with;
            if let Some(restored) = restore(&coded, file.len(), &Options::default(), &mut Allowance::whole()) {
                prop_assert!(restored.len() <= file.len());
            }
        }
    }
}
