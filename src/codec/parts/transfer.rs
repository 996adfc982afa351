//! Base64 and quoted-printable undone so that the very same bytes can be made again.
//!
//! [`super`] calls [`Recipe::of_base64`] and [`Recipe::of_quoted`] on the body of a part and sends the recipe with what they decode to;
//! [`Recipe::encode`] makes the body again. A recipe is one byte for what nearly every program writes. What it cannot describe is
//! no recipe: the body then stays as it is. Nothing here trusts that a recipe fits its content; [`super`] decodes before it sends.

use data_encoding::BASE64;

use super::super::varint;

/// How to make a body of its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Recipe {
    /// As it is.
    Verbatim,
    /// The content itself, sent as a part.
    Binary,
    Base64(Base64),
    Quoted(Quoted),
}

/// Lines of one length, the last shorter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Base64 {
    /// Characters to a line; 0 where all stand in one.
    pub line: usize,
    /// Lines end in a line feed alone.
    pub bare: bool,
    /// The decoded text stands in place, followed by so many bytes as they were; otherwise it is sent as a part.
    pub inline: Option<usize>,
}

/// What a quoted-printable encoder chose where RFC 2045 leaves a choice, and where it did not do so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Quoted {
    /// Longest line, the soft break's `=` included.
    pub line: usize,
    pub bare: bool,
    /// Bytes after the content that are kept as they were.
    pub tail: usize,
    /// Printable characters that are escaped, in order.
    pub escaped: Vec<u8>,
    /// Numbers of choices that fell out the other way.
    pub exceptions: Vec<usize>,
}

const LINE: usize = 76;
const MAX_LINE: usize = 1000;
/// Longer quoted-printable stays as it is: nobody writes it, and it takes memory several times over.
const MAX_QUOTED: usize = 4 << 20;
/// Exceptions beyond this many of a content's bytes cost more than they bring.
const EXCEPTIONS_PER: usize = 12;

/// Low three bits of a recipe's first byte.
const VERBATIM: u8 = 0;
const BINARY: u8 = 1;
const BASE64_PART: u8 = 2;
const BASE64_INLINE: u8 = 3;
const QUOTED: u8 = 4;
/// The line length follows.
const HAS_LINE: u8 = 8;
const IS_BARE: u8 = 16;
/// The length of the tail follows.
const HAS_TAIL: u8 = 32;
const HAS_ESCAPED: u8 = 64;
const HAS_EXCEPTIONS: u8 = 128;

impl Recipe {
    /// Appends the recipe.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.push(VERBATIM);
        let (kind, line, bare, tail) = match self {
            Self::Verbatim => return,
            Self::Binary => {
                out[at] = BINARY;
                return;
            }
            Self::Base64(b) if b.inline.is_none() => (BASE64_PART, b.line, b.bare, line_feed(b.bare).len()),
            Self::Base64(b) => (BASE64_INLINE, b.line, b.bare, b.inline.unwrap_or_default()),
            Self::Quoted(q) => (QUOTED, q.line, q.bare, q.tail),
        };
        out[at] = kind;
        if line != LINE {
            out[at] |= HAS_LINE;
            varint::put(out, line as u64);
        }
        if bare {
            out[at] |= IS_BARE;
        }
        if tail != line_feed(bare).len() {
            out[at] |= HAS_TAIL;
            varint::put(out, tail as u64);
        }
        let Self::Quoted(quoted) = self else { return };
        if !quoted.escaped.is_empty() {
            out[at] |= HAS_ESCAPED;
            varint::put(out, quoted.escaped.len() as u64);
            out.extend_from_slice(&quoted.escaped);
        }
        if !quoted.exceptions.is_empty() {
            out[at] |= HAS_EXCEPTIONS;
            varint::put(out, quoted.exceptions.len() as u64);
            let mut from = 0;
            for exception in &quoted.exceptions {
                varint::put(out, (exception - from) as u64);
                from = exception + 1;
            }
        }
    }

    /// Takes a recipe off the front.
    pub(super) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        let mut number = |flag, default| match first & flag {
            0 => Some(default),
            _ => varint::take(bytes).and_then(|n| usize::try_from(n).ok()),
        };
        let line = number(HAS_LINE, LINE)?;
        let bare = first & IS_BARE != 0;
        let tail = number(HAS_TAIL, line_feed(bare).len())?;
        match first & 7 {
            VERBATIM if first == VERBATIM => Some(Self::Verbatim),
            BINARY if first == BINARY => Some(Self::Binary),
            BASE64_PART if first & !(7 | HAS_LINE | IS_BARE) == 0 => {
                Some(Self::Base64(Base64 { line, bare, inline: None }))
            }
            BASE64_INLINE if first & (HAS_ESCAPED | HAS_EXCEPTIONS) == 0 => {
                Some(Self::Base64(Base64 { line, bare, inline: Some(tail) }))
            }
            QUOTED if (4..=MAX_LINE).contains(&line) => {
                let escaped = match number(HAS_ESCAPED, 0)? {
                    n if n > 256 => return None,
                    n => {
                        let (escaped, rest) = bytes.split_at_checked(n)?;
                        *bytes = rest;
                        escaped.to_vec()
                    }
                };
                let count = match first & HAS_EXCEPTIONS {
                    0 => 0,
                    _ => varint::take(bytes).and_then(|n| usize::try_from(n).ok())?,
                };
                // Each takes a byte at least.
                if count > bytes.len() {
                    return None;
                }
                let mut exceptions = Vec::with_capacity(count);
                let mut from = 0usize;
                for _ in 0..count {
                    let gap = varint::take(bytes).and_then(|n| usize::try_from(n).ok())?;
                    let exception = from.checked_add(gap)?;
                    from = exception.checked_add(1)?;
                    exceptions.push(exception);
                }
                Some(Self::Quoted(Quoted { line, bare, tail, escaped, exceptions }))
            }
            _ => None,
        }
    }

    /// Undoes base64: the recipe, the content, and how many bytes of the body it stands for.
    pub(super) fn of_base64(body: &[u8]) -> Option<(Base64, Vec<u8>, usize)> {
        let first = body.iter().position(|b| !is_base64(*b)).unwrap_or(body.len());
        let bare = body.get(first) == Some(&b'\n');
        let ending = line_feed(bare);
        // Lines of the first one's length, as long as they are nothing but base64; one shorter ends them.
        let mut digits = Vec::with_capacity(body.len());
        let (mut at, mut lines, mut end) = (0, 0, 0);
        loop {
            let line = &body[at..];
            let digits_end = line.iter().take(first).position(|b| !is_base64(*b) || *b == b'=');
            let length = digits_end.unwrap_or(first.min(line.len()));
            let padding = line[length..].iter().take(2.min(first - length)).take_while(|b| **b == b'=').count();
            let length = length + padding;
            let after = &line[length..];
            if length == 0 || !(after.is_empty() || after.starts_with(ending)) {
                break;
            }
            digits.extend_from_slice(&line[..length]);
            (lines, end) = (lines + 1, at + length);
            at = end + ending.len();
            if length < first || padding > 0 || at > body.len() {
                break;
            }
        }
        let content = BASE64.decode(&digits).ok()?;
        let line = match lines {
            0 => return None,
            1 if first <= LINE => LINE,
            1 => 0,
            _ => first,
        };
        Some((Base64 { line, bare, inline: None }, content, end))
    }

    /// Undoes quoted-printable up to the last `tail` bytes of the body.
    pub(super) fn of_quoted(body: &[u8]) -> Option<(Quoted, Vec<u8>)> {
        if body.len() > MAX_QUOTED {
            return None;
        }
        let bare = !body.windows(2).any(|w| w == b"\r\n") && body.contains(&b'\n');
        let tail = if body.ends_with(line_feed(bare)) { line_feed(bare).len() } else { 0 };
        let coded = &body[..body.len() - tail];
        let (content, written) = unquoted(coded, bare)?;
        let escaped = usually_escaped(&written);
        // The longest line ending in a soft break tells the limit, where there is one.
        let soft = coded.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let longest = soft.filter(|line| line.ends_with(b"=")).map(<[u8]>::len).max().unwrap_or(LINE);
        let mut best: Option<Quoted> = None;
        for line in [longest, LINE] {
            let mut quoted = Quoted { line, bare, tail, escaped: escaped.clone(), exceptions: Vec::new() };
            if !(4..=MAX_LINE).contains(&line) {
                continue;
            }
            quoted.exceptions = exceptions(&quoted, &content, &written);
            if best.as_ref().is_none_or(|b| quoted.exceptions.len() < b.exceptions.len()) {
                best = Some(quoted);
            }
        }
        best.filter(|q| q.exceptions.len() * EXCEPTIONS_PER <= content.len() + 100).map(|q| (q, content))
    }

    /// Makes the body of its content, without the bytes after it; `None` where it would exceed `most` bytes.
    pub(super) fn encode(&self, content: &[u8], most: usize) -> Option<Vec<u8>> {
        match self {
            Self::Verbatim | Self::Binary => (content.len() <= most).then(|| content.to_vec()),
            Self::Base64(base64) => {
                let ending = line_feed(base64.bare);
                let length = content.len().div_ceil(3).checked_mul(4)?;
                let breaks = length.saturating_sub(1).checked_div(base64.line).unwrap_or(0);
                if length.checked_add(breaks.checked_mul(ending.len())?)? > most {
                    return None;
                }
                let digits = BASE64.encode(content).into_bytes();
                let line = if base64.line == 0 { digits.len().max(1) } else { base64.line };
                Some(digits.chunks(line).collect::<Vec<_>>().join(ending))
            }
            Self::Quoted(quoted) => quote(quoted, content, most),
        }
    }
}

fn line_feed(bare: bool) -> &'static [u8] {
    if bare { b"\n" } else { b"\r\n" }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// How one byte of a content was written, in the order of the choices an encoder makes for it.
struct Written {
    byte: u8,
    /// A soft line break came before.
    broken: bool,
    escaped: bool,
    /// This and, with CRLF, the next byte end a line as such.
    line_end: bool,
}

/// Reads quoted-printable as encoders write it; `None` for what this cannot say exactly (lower-case digits, stray `=`, trailing spaces after a soft break).
fn unquoted(coded: &[u8], bare: bool) -> Option<(Vec<u8>, Vec<Written>)> {
    let ending = line_feed(bare);
    let (mut content, mut written) = (Vec::with_capacity(coded.len()), Vec::with_capacity(coded.len()));
    let (mut at, mut broken) = (0, false);
    while let Some(&byte) = coded.get(at) {
        let rest = &coded[at..];
        if rest.starts_with(ending) {
            content.extend_from_slice(ending);
            written.push(Written { byte, broken, escaped: false, line_end: true });
            at += ending.len();
            broken = false;
        } else if byte == b'=' && rest[1..].starts_with(ending) {
            // Two in a row, or one at the end, belong to no byte.
            if broken || rest.len() == 1 + ending.len() {
                return None;
            }
            broken = true;
            at += 1 + ending.len();
        } else if byte == b'=' {
            let digits = [*rest.get(1)?, *rest.get(2)?];
            let value = digits.map(|d| match d {
                b'0'..=b'9' => Some(d - b'0'),
                b'A'..=b'F' => Some(d - b'A' + 10),
                _ => None,
            });
            let byte = value[0]? << 4 | value[1]?;
            content.push(byte);
            written.push(Written { byte, broken, escaped: true, line_end: false });
            at += 3;
            broken = false;
        } else {
            content.push(byte);
            written.push(Written { byte, broken, escaped: false, line_end: false });
            at += 1;
            broken = false;
        }
    }
    Some((content, written))
}

/// Printable characters that stand escaped more often than not.
fn usually_escaped(written: &[Written]) -> Vec<u8> {
    let mut balance = [0i64; 256];
    for w in written {
        balance[usize::from(w.byte)] += if w.escaped { 1 } else { -1 };
    }
    (0x20..0x7f).filter(|b| *b != b'=' && *b != b' ' && balance[usize::from(*b)] > 0).collect()
}

/// The choices an encoder has, in order; the same walk writes and finds exceptions.
struct Choices<'a> {
    quoted: &'a Quoted,
    set: [bool; 256],
    column: usize,
}

impl<'a> Choices<'a> {
    fn new(quoted: &'a Quoted) -> Self {
        let mut set = [false; 256];
        for byte in 0..=255u8 {
            set[usize::from(byte)] =
                !matches!(byte, b'\t' | b' '..=b'~') || byte == b'=' || quoted.escaped.contains(&byte);
        }
        Self { quoted, set, column: 0 }
    }

    /// Whether a byte followed by `next` is escaped.
    fn escapes(&self, byte: u8, next: &[u8]) -> bool {
        self.set[usize::from(byte)]
            || matches!(byte, b' ' | b'\t') && (next.is_empty() || next.starts_with(line_feed(self.quoted.bare)))
    }

    /// Whether a line is broken before a byte of this width followed by `next`.
    fn breaks(&self, width: usize, next: &[u8]) -> bool {
        let ends = next.is_empty() || next.starts_with(line_feed(self.quoted.bare));
        self.column + width + usize::from(!ends) > self.quoted.line
    }

    fn wrote(&mut self, width: usize, broken: bool) {
        self.column = if broken { width } else { self.column + width };
    }
}

fn exceptions(quoted: &Quoted, content: &[u8], written: &[Written]) -> Vec<usize> {
    let mut choices = Choices::new(quoted);
    let ending = line_feed(quoted.bare);
    let mut found = Vec::new();
    let (mut at, mut number) = (0, 0);
    let mut choose = |guess: bool, choice: bool| {
        if guess != choice {
            found.push(number);
        }
        number += 1;
    };
    for w in written {
        let ends = content[at..].starts_with(ending);
        if ends {
            choose(true, w.line_end);
        }
        if w.line_end {
            choose(false, w.broken);
            choices.column = 0;
            at += ending.len();
            continue;
        }
        let next = &content[at + 1..];
        choose(choices.escapes(w.byte, next), w.escaped);
        let width = if w.escaped { 3 } else { 1 };
        choose(choices.breaks(width, next), w.broken);
        choices.wrote(width, w.broken);
        at += 1;
    }
    found
}

fn quote(quoted: &Quoted, content: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut choices = Choices::new(quoted);
    let ending = line_feed(quoted.bare);
    let mut exceptions = quoted.exceptions.iter().copied().peekable();
    let mut number = 0;
    let mut choose = |guess: bool| {
        let turned = exceptions.next_if_eq(&number).is_some();
        number += 1;
        guess != turned
    };
    let mut out = Vec::with_capacity(content.len().min(most));
    let mut at = 0;
    while let Some(&byte) = content.get(at) {
        if out.len() > most {
            return None;
        }
        let line_end = content[at..].starts_with(ending) && choose(true);
        if line_end {
            if choose(false) {
                out.push(b'=');
                out.extend_from_slice(ending);
            }
            out.extend_from_slice(ending);
            choices.column = 0;
            at += ending.len();
            continue;
        }
        let next = &content[at + 1..];
        let escaped = choose(choices.escapes(byte, next));
        let width = if escaped { 3 } else { 1 };
        let broken = choose(choices.breaks(width, next));
        if broken {
            out.push(b'=');
            out.extend_from_slice(ending);
        }
        choices.wrote(width, broken);
        if escaped {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'=', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
        at += 1;
    }
    (out.len() <= most).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base64(body: &str) -> Option<(Base64, Vec<u8>, usize)> {
        Recipe::of_base64(body.as_bytes())
    }

    #[test]
    fn base64_of_any_line_length_and_line_end_comes_back() {
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for (line, bare, length) in
            [(76, false, 1000), (76, true, 999), (64, false, 998), (61, true, 57), (4, false, 3), (76, false, 57)]
        {
            let recipe = Recipe::Base64(Base64 { line, bare, inline: None });
            let body = recipe.encode(&content[..length], usize::MAX >> 1).expect("fits");
            let (found, decoded, used) = Recipe::of_base64(&body).expect("plain");
            assert_eq!((decoded.as_slice(), used), (&content[..length], body.len()));
            assert_eq!(Recipe::Base64(found).encode(&decoded, body.len()), Some(body));
        }
        let one_line = BASE64.encode(&content);
        let (found, decoded, _) = base64(&one_line).expect("plain");
        assert_eq!((found.line, decoded), (0, content));
    }

    #[test]
    fn what_follows_base64_is_left_and_what_is_none_is_refused() {
        let (found, content, used) = base64("QUJD\r\n\r\nfooter\r\n").expect("plain");
        assert_eq!((found.line, content.as_slice(), used), (LINE, b"ABC".as_slice(), 4));
        assert_eq!(base64("QUJDQUJD\nQUI=\nQUJD\n").map(|(_, _, used)| used), Some(13), "ends where the padding is");
        for bad in ["", "\r\n", "QUJ", "QU=D", "QUK=", "not base64", "QUJD\rQUJD"] {
            let used = base64(bad).map(|(_, content, _)| content);
            assert!(used.is_none() || bad.starts_with("QUJD\r"), "{bad:?} gave {used:?}");
        }
    }

    fn quoted_comes_back(body: &str) -> Quoted {
        let (quoted, content) = Recipe::of_quoted(body.as_bytes()).unwrap_or_else(|| panic!("{body:?} is described"));
        let made = Recipe::Quoted(quoted.clone()).encode(&content, body.len()).expect("fits");
        assert_eq!(String::from_utf8(made).expect("text"), body[..body.len() - quoted.tail]);
        quoted
    }

    #[test]
    fn quoted_printable_of_the_usual_kind_needs_one_byte() {
        let text = "Caf=C3=A9 =3D 1=\r\n2\r\ntrailing=20\r\n"
            .replace("1=\r\n2", &format!("{}=\r\n{}", "x".repeat(61), "y".repeat(76)));
        let quoted = quoted_comes_back(&text);
        assert_eq!(quoted, Quoted { line: 76, bare: false, tail: 2, escaped: Vec::new(), exceptions: Vec::new() });
        let mut coded = Vec::new();
        Recipe::Quoted(quoted).put(&mut coded);
        assert_eq!(coded.len(), 1);
        assert_eq!(quoted_comes_back("=21a=21\nb\n").escaped, b"!");
        assert_eq!(quoted_comes_back("a =\r\nb=0D=0Ac").exceptions.len(), 2, "an early break and an escaped line end");
    }

    #[test]
    fn quoted_printable_that_no_recipe_describes_is_refused() {
        for bad in ["=c3", "=", "=\r\n=\r\n", "a=\r\n", "= \r\n", "=4"] {
            assert_eq!(Recipe::of_quoted(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_has_a_recipe_comes_back_from_it(
            body in prop_oneof![
                "[ab =\t.A-F0-9]{0,5}(=\r\n|\r\n|=0D=0A|=3D|=E4|=20\r\n|[a-d ]{0,30}){0,30}(\r\n)?",
                "[ab =\n]{0,200}",
                "([A-Za-z0-9+/]{4}){0,40}(==|=)?\r?\n?",
                "(([A-Za-z0-9+/]{8}\r\n){0,9}[A-Za-z0-9+/]{0,7}=?(\r\n){0,2})",
            ],
        ) {
            let body = body.as_bytes();
            if let Some((recipe, content, used)) = Recipe::of_base64(body) {
                let recipe = Recipe::Base64(recipe);
                // Bits beyond the end that are not zero are told by decoding before sending, here by strictness.
                prop_assert_eq!(recipe.encode(&content, body.len()), Some(body[..used].to_vec()));
            }
            if let Some((quoted, content)) = Recipe::of_quoted(body) {
                let tail = quoted.tail;
                let recipe = Recipe::Quoted(quoted);
                let made = recipe.encode(&content, body.len()).expect("fits");
                prop_assert_eq!(&made, &body[..body.len() - tail]);
                let mut coded = Vec::new();
                recipe.put(&mut coded);
                prop_assert_eq!(Recipe::take(&mut coded.as_slice()), Some(recipe));
                for cut in 0..coded.len() {
                    prop_assert_eq!(Recipe::take(&mut &coded[..cut]), None);
                }
            }
        }

        #[test]
        fn no_recipe_makes_more_than_is_allowed(
            coded in proptest::collection::vec(any::<u8>(), 0..40),
            content in proptest::collection::vec(any::<u8>(), 0..200),
            most in 0usize..300,
        ) {
            if let Some(recipe) = Recipe::take(&mut coded.as_slice()) {
                prop_assert!(recipe.encode(&content, most).is_none_or(|out| out.len() <= most));
            }
        }
    }
}
