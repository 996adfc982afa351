//! CompressedData of STANAG 4406 Annex E: which compression, what kind of content, and the content compressed.
//!
//! Not the CMS type of that name (RFC 3274). The published module does not say how its two choices are tagged, so both ways are in
//! use; both are read, one is written. Reading takes any BER: long and indefinite lengths, octet strings in pieces. Depth is
//! bounded, and memory by the input; [`inflate`] stops at its limit and never reserves for what a stream claims.

use core::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// How the two choices are tagged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tagging {
    /// As the letter of the module has it: `a0 03 02 01 19`.
    #[default]
    Explicit,
    /// As systems of STANAG 4406 do: `80 01 19`.
    Implicit,
}

/// What is in the structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrapped {
    /// Short form of the content type.
    pub content_type: u64,
    /// Still compressed.
    pub content: Vec<u8>,
    /// Octets behind the structure.
    pub junk: usize,
}

/// Why it cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressedError {
    /// Ends before its lengths say.
    Cut,
    /// Not the structure.
    Structure(&'static str),
    /// A length or a depth nobody needs.
    Excess,
    /// Another compression than zlib.
    Algorithm,
    /// A content type by object identifier.
    TypeByName,
    /// The zlib stream is damaged.
    Damaged,
    /// The zlib stream ends early.
    Unfinished,
    /// Unfolds to more than this.
    TooLarge(usize),
}

impl CompressedError {
    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "asn1_cut",
            Self::Structure(_) => "asn1_structure",
            Self::Excess => "asn1_excess",
            Self::Algorithm => "algorithm",
            Self::TypeByName => "type_by_name",
            Self::Damaged => "zlib_damaged",
            Self::Unfinished => "zlib_unfinished",
            Self::TooLarge(_) => "too_large",
        }
    }
}

impl fmt::Display for CompressedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("CompressedData ends before its lengths say"),
            Self::Structure(what) => write!(f, "not CompressedData: no {what}"),
            Self::Excess => f.write_str("CompressedData is nested too deep or names a length beyond any"),
            Self::Algorithm => f.write_str("compressed by something else than zlib"),
            Self::TypeByName => f.write_str("content type by object identifier"),
            Self::Damaged => f.write_str("zlib stream is damaged"),
            Self::Unfinished => f.write_str("zlib stream ends early"),
            Self::TooLarge(most) => write!(f, "unfolds to more than {most} bytes"),
        }
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const CONSTRUCTED: u8 = 0x20;
/// Context tags of the choices, and of the content.
const SHORT: u8 = 0x80;
const BY_NAME: u8 = 0x81;
const MAX_DEPTH: usize = 8;

/// Writes the structure around a zlib stream.
pub fn wrap(content_type: u8, zlib: &[u8], tagging: Tagging) -> Vec<u8> {
    let choice = |value: u8| match tagging {
        Tagging::Explicit => vec![SHORT | CONSTRUCTED, 3, INTEGER, 1, value],
        Tagging::Implicit => vec![SHORT, 1, value],
    };
    let content = element(SHORT | CONSTRUCTED, &element(OCTETS, zlib));
    let info = element(SEQUENCE, &[choice(content_type), content].concat());
    element(SEQUENCE, &[choice(0), info].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if let Ok(short @ 0..0x80) = u8::try_from(content.len()) {
        out.push(short);
    } else {
        let length = content.len().to_be_bytes();
        let skip = length.iter().take_while(|octet| **octet == 0).count();
        out.push(0x80 | (length.len() - skip) as u8);
        out.extend(&length[skip..]);
    }
    out.extend(content);
    out
}

/// Reads the structure in any of its forms.
pub fn unwrap(bytes: &[u8]) -> Result<Wrapped, CompressedError> {
    let (outer, behind) = expect(bytes, SEQUENCE, "sequence")?;
    let (algorithm, rest) = choice(outer)?;
    if algorithm != Some(0) {
        return Err(CompressedError::Algorithm);
    }
    let (info, _) = expect(rest, SEQUENCE, "content information")?;
    let (content_type, rest) = choice(info)?;
    let content_type = content_type.ok_or(CompressedError::TypeByName)?;
    let (tagged, _) = expect(rest, SHORT | CONSTRUCTED, "content")?;
    let mut content = Vec::new();
    octets(tagged, &mut content, 0)?;
    Ok(Wrapped { content_type, content, junk: behind.len() })
}

/// One of the two choices: its number, or `None` where it is an object identifier; and what is behind it.
fn choice(input: &[u8]) -> Result<(Option<u64>, &[u8]), CompressedError> {
    let (tag, content, rest) = read(input, 0)?;
    let number = match tag {
        SHORT => integer(content)?,
        0xa0 => integer(expect(content, INTEGER, "integer")?.0)?,
        BY_NAME | 0xa1 => return Ok((None, rest)),
        _ => return Err(CompressedError::Structure("choice")),
    };
    Ok((Some(number), rest))
}

fn integer(content: &[u8]) -> Result<u64, CompressedError> {
    match content {
        [] | [0x80..=0xff, ..] => Err(CompressedError::Structure("number from 0 on")),
        long if long.len() > 8 => Err(CompressedError::Excess),
        octets => Ok(octets.iter().fold(0, |n, octet| n << 8 | u64::from(*octet))),
    }
}

fn expect<'a>(input: &'a [u8], tag: u8, what: &'static str) -> Result<(&'a [u8], &'a [u8]), CompressedError> {
    match read(input, 0)? {
        (found, content, rest) if found == tag => Ok((content, rest)),
        _ => Err(CompressedError::Structure(what)),
    }
}

/// Adds up an octet string, in one piece or in many.
fn octets(mut input: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), CompressedError> {
    if depth > MAX_DEPTH {
        return Err(CompressedError::Excess);
    }
    let mut pieces = 0;
    while !input.is_empty() {
        let (tag, content, rest) = read(input, depth)?;
        match tag {
            OCTETS => out.extend(content),
            0x24 => octets(content, out, depth + 1)?,
            _ => return Err(CompressedError::Structure("octet string")),
        }
        input = rest;
        pieces += 1;
    }
    // Below a constructed string there may be any number, in the content there is one.
    if depth == 0 && pieces != 1 { Err(CompressedError::Structure("single octet string")) } else { Ok(()) }
}

/// One BER element: tag, content, what is behind it.
fn read(input: &[u8], depth: usize) -> Result<(u8, &[u8], &[u8]), CompressedError> {
    if depth > MAX_DEPTH {
        return Err(CompressedError::Excess);
    }
    let [tag, first, rest @ ..] = input else { return Err(CompressedError::Cut) };
    if tag & 0x1f == 0x1f {
        return Err(CompressedError::Structure("short tag"));
    }
    let (length, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        0x80 if tag & CONSTRUCTED != 0 => {
            let (content, rest) = until_end(rest, depth)?;
            return Ok((*tag, content, rest));
        }
        0x80 => return Err(CompressedError::Structure("definite length")),
        long => {
            let (octets, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(CompressedError::Cut)?;
            let significant: &[u8] = &octets[octets.iter().take_while(|o| **o == 0).count()..];
            if significant.len() > 4 {
                return Err(CompressedError::Excess);
            }
            (significant.iter().fold(0, |n, octet| n << 8 | usize::from(*octet)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length).ok_or(CompressedError::Cut)?;
    Ok((*tag, content, rest))
}

/// The content of an element of indefinite length, and what is behind its end.
fn until_end(input: &[u8], depth: usize) -> Result<(&[u8], &[u8]), CompressedError> {
    let mut rest = input;
    loop {
        if let [0, 0, behind @ ..] = rest {
            return Ok((&input[..input.len() - rest.len()], behind));
        }
        rest = read(rest, depth + 1)?.2;
    }
}

/// A zlib stream (RFC 1950) at its smallest.
pub fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut zlib = Compress::new(Compression::best(), true);
    let mut out = Vec::with_capacity(plain.len() / 2 + 64);
    loop {
        let taken = usize::try_from(zlib.total_in()).expect("no more than there is");
        let done = zlib.compress_vec(&plain[taken..], &mut out, FlushCompress::Finish);
        match done.expect("a stream under construction takes any input") {
            Status::StreamEnd => return out,
            Status::Ok | Status::BufError => out.reserve(plain.len() / 8 + 64),
        }
    }
}

/// Memory taken at a time.
const STEP: usize = 64 * 1024;

/// What a zlib stream unfolds to, and how many octets stand behind it.
pub fn inflate(stream: &[u8], max_bytes: usize) -> Result<(Vec<u8>, usize), CompressedError> {
    let mut zlib = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        let taken = usize::try_from(zlib.total_in()).expect("no more than there is");
        // One octet more than is allowed, to see it.
        out.reserve_exact(STEP.min(max_bytes - out.len() + 1));
        let before = (taken, out.len());
        let status = zlib.decompress_vec(&stream[taken..], &mut out, FlushDecompress::None);
        let status = status.map_err(|_| CompressedError::Damaged)?;
        if out.len() > max_bytes {
            return Err(CompressedError::TooLarge(max_bytes));
        }
        let taken = usize::try_from(zlib.total_in()).expect("no more than there is");
        match status {
            Status::StreamEnd => return Ok((out, stream.len() - taken)),
            _ if (taken, out.len()) == before => return Err(CompressedError::Unfinished),
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let bomb = deflate(&vec![0; 64 << 20]);
        assert!(bomb.len() < 70_000);
        assert_eq!(inflate(&bomb, 100_000), Err(CompressedError::TooLarge(100_000)));
        assert_eq!(inflate(&bomb, 0), Err(CompressedError::TooLarge(0)));
        let exact = deflate(&[7; 100_000]);
        assert_eq!(inflate(&exact, 100_000).map(|(plain, behind)| (plain.len(), behind)), Ok((100_000, 0)));
        assert_eq!(inflate(&exact, 99_999), Err(CompressedError::TooLarge(99_999)));
    }

    #[test]
    fn a_cut_or_damaged_stream_is_named() {
        let stream = deflate(b"as long as it takes, as long as it takes");
        for length in 0..stream.len() {
            assert_eq!(inflate(&stream[..length], 1000), Err(CompressedError::Unfinished), "{length}");
        }
        let mut damaged = stream.clone();
        *damaged.last_mut().expect("a checksum") ^= 1;
        assert_eq!(inflate(&damaged, 1000), Err(CompressedError::Damaged));
        // Raw deflate and gzip are not zlib.
        assert_eq!(inflate(&stream[2..], 1000), Err(CompressedError::Damaged));
        assert_eq!(inflate(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], 1000), Err(CompressedError::Damaged));
    }

    #[test]
    fn every_form_of_ber_is_read() {
        let plain = Wrapped { content_type: 25, content: b"zlib".to_vec(), junk: 0 };
        for tagging in [Tagging::Explicit, Tagging::Implicit] {
            assert_eq!(unwrap(&wrap(25, b"zlib", tagging)), Ok(plain.clone()));
        }
        // Indefinite lengths throughout, the string in three pieces, two of them in one.
        let mut indefinite = b"\x30\x80\xa0\x80\x02\x01\x00\0\0\x30\x80\x80\x01\x19\xa0\x80".to_vec();
        indefinite.extend(b"\x24\x80\x04\x01z\x24\x80\x04\x01l\x04\x81\x01i\0\0\x04\x83\0\0\x01b\0\0\0\0\0\0\0\0junk");
        assert_eq!(unwrap(&indefinite), Ok(Wrapped { junk: 4, ..plain.clone() }));
        for length in 0..indefinite.len() - 4 {
            assert_eq!(unwrap(&indefinite[..length]), Err(CompressedError::Cut), "{length}");
        }
        let long = wrap(25, &[1; 70_000], Tagging::Explicit);
        assert_eq!(unwrap(&long).map(|w| w.content.len()), Ok(70_000));
    }

    #[test]
    fn what_is_not_the_structure_is_named() {
        use CompressedError::{Algorithm, Cut, Excess, Structure, TypeByName};
        for (bytes, error) in [
            (&b""[..], Cut),
            (b"\x31\0", Structure("sequence")),
            (b"\x1f\0", Structure("short tag")),
            (b"\x30\x89\x01\0\0\0\0\0\0\0\0", Excess),
            (b"\x30\x84\xff\xff\xff\xff", Cut),
            (b"\x30\x03\x80\x01\x01", Algorithm),
            (b"\x30\x04\x81\x02\x2a\x03", Algorithm),
            (b"\x30\x03\x80\x01\xff", Structure("number from 0 on")),
            (b"\x30\x03\x82\x01\x00", Structure("choice")),
            (b"\x30\x05\x80\x01\x00\x31\x00", Structure("content information")),
            (b"\x30\x08\x80\x01\x00\x30\x03\x81\x01\x2a", TypeByName),
            (b"\x30\x0a\x80\x01\x00\x30\x05\x80\x01\x19\x04\x00", Structure("content")),
            (b"\x30\x0a\x80\x01\x00\x30\x05\x80\x01\x19\xa0\x00", Structure("single octet string")),
            (b"\x30\x80\x04\x80\0\0\0\0", Structure("definite length")),
        ] {
            assert_eq!(unwrap(bytes), Err(error), "{bytes:02x?}");
            assert!(!error.to_string().is_empty() && !error.name().contains(' '));
        }
        assert_eq!(unwrap(&[0x30, 0x80].repeat(10_000)), Err(Excess));
    }

    proptest! {
        #[test]
        fn any_content_comes_back(content in prop::collection::vec(any::<u8>(), 0..400), kind in 0u8..0x80) {
            for tagging in [Tagging::Explicit, Tagging::Implicit] {
                let wrapped = unwrap(&wrap(kind, &deflate(&content), tagging)).expect("opens");
                prop_assert_eq!(wrapped.content_type, u64::from(kind));
                prop_assert_eq!(inflate(&wrapped.content, 400), Ok((content.clone(), 0)));
            }
        }

        #[test]
        fn any_octets_open_or_are_refused(bytes in prop::collection::vec(prop::sample::select(vec![0, 1, 2, 4, 0x19, 0x24, 0x30, 0x80, 0x81, 0x84, 0xa0, 0xff]), 0..60)) {
            if let Ok(wrapped) = unwrap(&bytes) {
                prop_assert!(wrapped.content.len() + wrapped.junk < bytes.len());
            }
        }
    }
}
