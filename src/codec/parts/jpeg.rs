//! JPEG pictures coded again without loss, a fifth smaller: Lepton, by the `lepton_jpeg` crate.
//!
//! [`super::file`] calls [`code`] for a picture it found and [`restore`] at the far end. Of the crate's file only what says something is sent: its
//! fixed fields are known or follow, and its header, which is the picture's own, goes through the text codec instead of zlib.
//!
//! Neither a hostile picture nor a hostile peer gets more than a bounded amount of memory and work: sizes the crate would reserve
//! memory for are checked before it sees them, the picture's area and the number of scans have limits, nothing runs in
//! another thread, and a panic of the crate is an error like any other.

use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use lepton_jpeg::{EnabledFeatures, SingleThreadPool, decode_lepton, encode_lepton};

use super::super::payload::{self, Options};
use super::super::varint;
use super::{Allowance, inflate};

/// Smaller pictures are mostly header.
const MIN_BYTES: usize = 256;
const MAX_BYTES: usize = 64 << 20;
/// Header of a picture: tables, metadata, thumbnails.
const MAX_HEADER: usize = 1 << 20;
/// Passes over a progressive picture.
const MAX_SCANS: usize = 32;
/// Widest and highest a picture of the largest area may be; its coefficients take 6 bytes to a pixel at most.
const MAX_SIDE: u32 = 4900;

/// Lengths in the crate's file.
const FIXED_BYTES: usize = 28;
const TRAILER_BYTES: usize = 4;
const COMPLETE: &[u8; 3] = b"CMP";

/// Codes the picture that `jpeg` is; `None` where that does not work or does not pay.
pub(super) fn code(jpeg: &[u8], options: &Options<'_>, allowance: &mut Allowance) -> Option<Vec<u8>> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&jpeg.len()) || scans(jpeg) > MAX_SCANS {
        return None;
    }
    // Twice: once to code, once to see that it comes back.
    let pixels = area(jpeg.get(2..)?)?.checked_mul(scans(jpeg))?.checked_mul(2)?;
    allowance.pixels = allowance.pixels.checked_sub(pixels)?;
    let file = guarded(|| {
        let mut file = Vec::new();
        encode_lepton(&mut Cursor::new(jpeg), &mut Cursor::new(&mut file), &features(jpeg.len()), &SingleThreadPool {})
            .ok()?;
        Some(file)
    })?;
    let (fixed, rest) = file.split_at_checked(FIXED_BYTES)?;
    let zlib_length = u32::from_le_bytes(*fixed.last_chunk()?) as usize;
    let (zlib, rest) = rest.split_at_checked(zlib_length)?;
    let scan = rest.strip_prefix(COMPLETE)?;
    let scan = scan.get(..scan.len().checked_sub(TRAILER_BYTES)?)?;
    let header = inflate::inflate(zlib.get(2..)?, MAX_HEADER)?.plain;
    let header = payload::encode_text(&[], &header, options, allowance);
    let mut out = vec![*fixed.get(3)?];
    varint::put(&mut out, jpeg.len() as u64);
    varint::put(&mut out, header.len() as u64);
    out.extend_from_slice(&header);
    out.extend_from_slice(scan);
    if out.len() >= jpeg.len() {
        return None;
    }
    // What the far end will do, with an allowance of its own.
    let restored = restore(&out, jpeg.len(), options, &mut Allowance::whole())?;
    (restored == jpeg).then_some(out)
}

/// Restores a picture of at most `most` bytes.
pub(super) fn restore(
    mut coded: &[u8],
    most: usize,
    options: &Options<'_>,
    allowance: &mut Allowance,
) -> Option<Vec<u8>> {
    let (&kind, rest) = coded.split_first()?;
    coded = rest;
    let mut number = || varint::take(&mut coded).and_then(|n| usize::try_from(n).ok());
    let (length, header_length) = (number()?, number()?);
    if length > most.min(MAX_BYTES) {
        return None;
    }
    let (header, scan) = coded.split_at_checked(header_length)?;
    let (envelope, header) = payload::decode_within(header, MAX_HEADER, options, allowance).ok()?;
    if !envelope.is_empty() || !is_sound(&header, length) {
        return None;
    }
    let raw = header.get(7..)?;
    allowance.pixels = allowance.pixels.checked_sub(area(raw)?.checked_mul(scans(raw))?)?;
    let zlib = stored_zlib(&header);
    let mut file = vec![0xcf, 0x84, 1, kind, 1, 0, 0, 0, b'M', b'S'];
    file.extend_from_slice(&(header.len() as u32).to_le_bytes());
    // Arithmetic of 16 bits where the format leaves a choice; by whom and by which version, nobody.
    file.extend_from_slice(&[0x80 | 3, 0, 0, 0, 0, 0]);
    file.extend_from_slice(&(length as u32).to_le_bytes());
    file.extend_from_slice(&(zlib.len() as u32).to_le_bytes());
    file.extend_from_slice(&zlib);
    file.extend_from_slice(COMPLETE);
    file.extend_from_slice(scan);
    let whole = (file.len() + TRAILER_BYTES) as u32;
    file.extend_from_slice(&whole.to_le_bytes());
    guarded(|| {
        let mut out = Capped { bytes: Vec::new(), most: length };
        decode_lepton(&mut file.as_slice(), &mut out, &features(length), &SingleThreadPool {}).ok()?;
        (out.bytes.len() == length).then_some(out.bytes)
    })
}

/// Runs code of another crate; its panic is an error.
fn guarded<T>(run: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok().flatten()
}

/// The same at both ends and on every machine: one partition, no threads, an area in proportion to the file.
fn features(jpeg_bytes: usize) -> EnabledFeatures {
    let side = (jpeg_bytes.saturating_mul(128).max(1 << 22)).isqrt().min(MAX_SIDE as usize) as u32;
    EnabledFeatures {
        max_jpeg_width: side,
        max_jpeg_height: side,
        max_partitions: 1,
        max_processor_threads: 1,
        max_jpeg_file_size: MAX_BYTES as u32,
        ..EnabledFeatures::compat_lepton_vector_write()
    }
}

/// Width by height as the frame header says, among the segments behind the start of a picture.
fn area(segments: &[u8]) -> Option<usize> {
    let mut rest = segments;
    loop {
        let (&[0xff, marker, high, low], _) = rest.split_first_chunk::<4>()? else { return None };
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let size = rest.get(5..9)?;
            let side = |i: usize| usize::from(u16::from_be_bytes([size[i], size[i + 1]]));
            return Some(side(0) * side(2));
        }
        rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?;
    }
}

/// How often a pass over the picture begins.
fn scans(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|w| *w == [0xff, 0xda]).count()
}

/// Whether the crate would reserve memory for nothing but what is there.
fn is_sound(header: &[u8], length: usize) -> bool {
    fn sections(mut rest: &[u8], length: usize) -> Option<()> {
        while !rest.is_empty() {
            let (marker, after) = rest.split_first_chunk::<3>()?;
            let sized = |unit: usize| {
                let (count, data) = after.split_first_chunk::<4>()?;
                data.get((u32::from_le_bytes(*count) as usize).checked_mul(unit)?..)
            };
            rest = match marker {
                b"HDR" => {
                    let rest = sized(1)?;
                    (scans(after) <= MAX_SCANS).then_some(rest)?
                }
                b"FRS" => sized(1)?,
                b"GRB" => {
                    let rest = sized(1)?;
                    (after.len() - rest.len() <= length).then_some(rest)?
                }
                b"CRS" => sized(4)?,
                b"P0D" => after.get(1..)?,
                b"HH\x01" => {
                    let segment = u32::from_le_bytes(*after.get(2..)?.first_chunk()?);
                    (segment as usize <= length).then_some(after.get(16..)?)?
                }
                b"EEE" => after.get(28..)?,
                _ => return None,
            };
        }
        Some(())
    }
    header.starts_with(b"HDR") && sections(header, length).is_some()
}

/// A zlib stream that says `bytes` without compressing.
fn stored_zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut chunks = bytes.chunks(0xffff).peekable();
    while let Some(chunk) = chunks.next() {
        let length = chunk.len() as u16;
        out.push(u8::from(chunks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out.extend_from_slice(&super::file::adler32(bytes).to_be_bytes());
    out
}

/// Takes so many bytes and no more.
struct Capped {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.most - self.bytes.len() {
            return Err(std::io::Error::other("longer than it says"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCENE: &[u8] = include_bytes!("../../../tests/data/parts/scene.jpg");

    fn coded(jpeg: &[u8]) -> Option<Vec<u8>> {
        code(jpeg, &Options::default(), &mut Allowance::whole())
    }

    fn restored(coded: &[u8], most: usize) -> Option<Vec<u8>> {
        restore(coded, most, &Options::default(), &mut Allowance::whole())
    }

    #[test]
    fn a_picture_comes_back_from_less() {
        let bytes = coded(SCENE).expect("a picture");
        assert!(bytes.len() * 10 < SCENE.len() * 9, "{} of {}", bytes.len(), SCENE.len());
        assert_eq!(restored(&bytes, SCENE.len()).as_deref(), Some(SCENE));
        assert_eq!(restored(&bytes, SCENE.len() - 1), None, "one byte too many");
        assert_eq!(coded(SCENE), Some(bytes), "and always the same");
        // Cut short, or with something behind its end.
        for jpeg in [&SCENE[..SCENE.len() / 2], &[SCENE, b"behind it"].concat()] {
            if let Some(bytes) = coded(jpeg) {
                assert_eq!(restored(&bytes, jpeg.len()).as_deref(), Some(jpeg));
            }
        }
    }

    #[test]
    fn what_a_picture_may_ask_for_is_counted() {
        let mut small = Allowance { pixels: 96 * 64 * 2 - 1, ..Allowance::whole() };
        assert_eq!(code(SCENE, &Options::default(), &mut small), None);
        let bytes = coded(SCENE).expect("a picture");
        let mut none = Allowance { pixels: 96 * 64 - 1, ..Allowance::whole() };
        assert_eq!(restore(&bytes, SCENE.len(), &Options::default(), &mut none), None);
        // A frame header that says 60 000 by 60 000.
        let at = SCENE.windows(2).position(|w| w == [0xff, 0xc0]).expect("a frame header");
        let mut huge = SCENE.to_vec();
        huge[at + 5..at + 9].fill(0xea);
        assert_eq!(coded(&huge), None);
        let scans = [SCENE, [0xff, 0xda].repeat(MAX_SCANS).as_slice()].concat();
        assert_eq!(coded(&scans), None);
    }

    #[test]
    fn a_header_that_would_reserve_memory_is_refused() {
        let header =
            |sections: &[(&[u8], &[u8])]| sections.iter().flat_map(|(a, b)| [*a, *b].concat()).collect::<Vec<u8>>();
        let start = (&b"HDR"[..], &[2, 0, 0, 0, 9, 9][..]);
        assert!(is_sound(&header(&[start, (b"P0D", &[1]), (b"HH\x01", &[0; 16])]), 100));
        for lie in [
            &[(&b"HDR"[..], &[0xff, 0xff, 0xff, 0xff, 9][..])][..],
            &[start, (b"FRS", &[0, 0, 0, 0x80])],
            &[start, (b"CRS", &[2, 0, 0, 0, 1, 1, 1, 1])],
            &[start, (b"GRB", &[200, 0, 0, 0])],
            &[start, (b"HH\x02", &[0; 32])],
            &[start, (b"HH\x01", &[0xff; 16])],
            &[start, (b"XXX", &[])],
            &[(b"P0D", &[1])],
        ] {
            assert!(!is_sound(&header(lie), 100), "{lie:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn damage_is_an_error_or_another_picture_of_that_length(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let whole = coded(SCENE).expect("a picture");
            let mut bytes = whole.clone();
            let at = at.index(bytes.len());
            bytes[at] = with;
            for bytes in [&bytes[..], &whole[..cut.index(whole.len())]] {
                if let Some(jpeg) = restored(bytes, SCENE.len()) {
                    prop_assert!(jpeg.len() <= SCENE.len());
                }
            }
        }

        #[test]
        fn a_damaged_picture_comes_back_or_is_left_alone(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let mut jpeg = SCENE.to_vec();
            let at = at.index(jpeg.len());
            jpeg[at] = with;
            if let Some(bytes) = coded(&jpeg) {
                prop_assert_eq!(restored(&bytes, jpeg.len()), Some(jpeg));
            }
        }
    }
}
