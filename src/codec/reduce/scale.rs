//! A picture with fewer pixels: JPEG stays JPEG, PNG stays PNG, so that no header field changes.
//!
//! The files are anybody's, so the decoder works within bounds of pixels and memory, and what it cannot read stays as it is.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

/// Pictures of more pixels are left alone: decoding them takes seconds and hundreds of megabytes.
const MAX_PIXELS: u64 = 40_000_000;
/// What the decoder may allocate.
const MAX_MEMORY: u64 = 256 << 20;
/// JPEG quality of what goes out.
const QUALITY: u8 = 70;

/// A picture that fits into a square of so many pixels a side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scaled {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its width and height.
    pub size: (u32, u32),
}

/// The picture in `file` with its longer side at most `longest`; `None` where it has no more already, would not be smaller by a quarter
/// at least, or cannot be read.
pub(super) fn scale(file: &[u8], media: &str, longest: u32) -> Option<Scaled> {
    // The decoders are others' work.
    catch_unwind(AssertUnwindSafe(|| scale_file(file, media, longest))).ok().flatten()
}

fn scale_file(file: &[u8], media: &str, longest: u32) -> Option<Scaled> {
    let format = match media {
        "image/jpeg" | "image/jpg" | "image/pjpeg" => ImageFormat::Jpeg,
        "image/png" => ImageFormat::Png,
        _ => return None,
    };
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    if width.max(height) <= longest || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return None;
    }
    let upright = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).ok()?;
    // What turns a picture for the viewer stands in what is not kept of it.
    picture.apply_orientation(upright);
    let picture = picture.resize(longest, longest, FilterType::Triangle);
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpeg => {
            let picture = DynamicImage::ImageRgb8(picture.to_rgb8());
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY)).ok()?;
        }
        _ => {
            let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, PngFilter::Adaptive);
            picture.write_with_encoder(encoder).ok()?;
        }
    }
    let size = (picture.width(), picture.height());
    (bytes.len() <= file.len() / 4 * 3).then_some(Scaled { bytes, size })
}

#[cfg(test)]
pub(super) mod tests {
    use image::{ImageBuffer, Rgb};

    use super::*;

    /// A picture with something in it, as a file.
    pub fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut noise = 1_u32;
        let pixels = ImageBuffer::from_fn(width, height, |x, y| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, (noise >> 27) as u8])
        });
        let mut file = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(pixels).write_to(&mut file, format).expect("written");
        file.into_inner()
    }

    #[test]
    fn a_picture_becomes_one_of_the_same_kind_and_shape_with_fewer_pixels() {
        for (format, media) in [(ImageFormat::Jpeg, "image/jpeg"), (ImageFormat::Png, "image/png")] {
            let file = picture(900, 600, format);
            let scaled = scale(&file, media, 300).expect("smaller");
            assert_eq!(scaled.size, (300, 200));
            assert!(scaled.bytes.len() * 2 < file.len(), "{} of {}", scaled.bytes.len(), file.len());
            let again = image::load_from_memory_with_format(&scaled.bytes, format).expect("a picture");
            assert_eq!((again.width(), again.height()), (300, 200));
            assert_eq!(scale(&file, media, 300), Some(scaled), "the same file gives the same bytes");
            assert_eq!(scale(&file, media, 900), None, "it has no more");
        }
    }

    #[test]
    fn what_is_no_picture_or_too_large_a_one_is_left_alone() {
        let file = picture(400, 300, ImageFormat::Png);
        assert_eq!(scale(&file, "image/jpeg", 100), None);
        assert_eq!(scale(&file, "image/webp", 100), None);
        for end in [0, 1, 20, 40, file.len() / 2] {
            assert_eq!(scale(&file[..end], "image/png", 100), None, "{end}");
        }
        // A header that promises ten thousand million pixels.
        let mut vast = file.clone();
        vast[16..24].copy_from_slice(&[0, 1, 0x86, 0xA0, 0, 1, 0x86, 0xA0]);
        assert_eq!(scale(&vast, "image/png", 100), None);
    }
}
