//! Where in a mail the next byte stands: what the contexts of the model are made of.

/// Reads along and remembers what tells most about the next byte.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Place {
    /// Where this line and the one before it begin.
    pub(in super::super) line: usize,
    pub(in super::super) above: usize,
    /// The word being read, and those before it, hashed without regard to case.
    pub(in super::super) word: u32,
    pub(in super::super) words: [u32; 3],
    /// The header field, HTML tag or kind of line.
    pub(in super::super) field: u32,
    /// Name of a field as far as it is read; 0 where this line has none.
    name: u32,
    pub(in super::super) kind: Kind,
    /// Words and marks since the beginning of the field or line.
    pub(in super::super) token: u32,
    /// Letters, digits and marks as classes, newest in the lowest four bits.
    pub(in super::super) shape: u64,
    /// First word of the line.
    pub(in super::super) opening: u32,
    tag: u32,
    /// Letters, digits and marks of base64 since the last other byte: how many and of which sorts, as bits.
    pub(in super::super) run: u32,
    pub(in super::super) sorts: u32,
    /// Whether the latest run was long.
    blob: bool,
    /// Where the latest date begins, and how much of it was repeated up to here.
    date: usize,
    repeated: usize,
}

/// What is being read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in super::super) enum Kind {
    #[default]
    Start,
    Name,
    Value,
    Text,
    Quote,
    Tag,
    Markup,
    Boundary,
}

/// Of a date this is followed: the day of the week to the year.
const DATE_BYTES: usize = 17;

/// How many classes of runs there are.
pub(in super::super) const RUN_CLASSES: usize = 5 * 64;

/// How many kinds there are.
pub(in super::super) const KINDS: usize = 8;

pub(in super::super) fn hash(a: u32, b: u32) -> u32 {
    let h = (a ^ b.wrapping_mul(0x9e37_79b1)).wrapping_mul(0x85eb_ca6b).rotate_left(13);
    h ^ h >> 16
}

/// Sixteen classes of bytes.
pub(in super::super) fn class(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        b'0'..=b'9' => 3,
        b' ' | b'\t' => 4,
        b'\r' | b'\n' => 5,
        b'.' | b',' | b';' | b'!' | b'?' => 6,
        b'<' | b'>' => 7,
        b'@' => 8,
        b'-' | b'_' | b'+' | b'/' => 9,
        b':' => 10,
        b'=' => 11,
        b'"' | b'\'' => 12,
        b'(' | b')' | b'[' | b']' | b'{' | b'}' => 13,
        0x80.. => 14,
        _ => 15,
    }
}

impl Place {
    /// Takes up the byte just added to `seen`.
    pub(in super::super) fn follow(&mut self, seen: &[u8]) {
        let byte = seen[seen.len() - 1];
        let class = class(byte);
        self.shape = self.shape << 4 | u64::from(class);
        self.follow_run(byte);
        self.follow_date(seen);
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => {
                self.word = hash(self.word, u32::from(byte.to_ascii_lowercase()));
            }
            b'0'..=b'9' => {
                self.word = hash(self.word, u32::from(byte));
            }
            _ => {
                if self.word != 0 {
                    self.words = [self.word, self.words[0], self.words[1]];
                    if self.opening == 0 {
                        self.opening = self.word;
                    }
                    self.word = 0;
                    self.token += 1;
                }
            }
        }
        if byte == b'\n' {
            (self.above, self.line) = (self.line, seen.len());
            self.opening = 0;
            self.name = 0;
            if self.kind == Kind::Name {
                self.kind = Kind::Text;
            }
            return;
        }
        let column = seen.len() - 1 - self.line;
        if column == 0 {
            self.begin_line(byte);
            return;
        }
        match self.kind {
            Kind::Name | Kind::Start => match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => self.name = hash(self.name, u32::from(byte)),
                b':' if self.name != 0 => (self.kind, self.field, self.token) = (Kind::Value, self.name, 0),
                _ if self.kind == Kind::Start => self.name = 0,
                _ => (self.kind, self.field) = (Kind::Text, 0),
            },
            Kind::Boundary if column == 1 && byte != b'-' => self.kind = Kind::Text,
            Kind::Text | Kind::Markup if byte == b'<' => (self.kind, self.tag, self.token) = (Kind::Tag, 0, 0),
            Kind::Tag => match byte {
                b'>' => (self.kind, self.field) = (Kind::Markup, self.tag),
                b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'0'..=b'9' if self.token == 0 => {
                    self.tag = hash(self.tag, u32::from(byte));
                    self.field = self.tag;
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// What sort of word without meaning is being read: hex, base64, digits.
    fn follow_run(&mut self, byte: u8) {
        let sort = match byte {
            b'0'..=b'9' => 1,
            b'a'..=b'f' => 2,
            b'g'..=b'z' => 4,
            b'A'..=b'F' => 8,
            b'G'..=b'Z' => 16,
            b'+' | b'/' => 0,
            _ => {
                if self.run > 0 {
                    self.blob = self.run >= 30;
                }
                (self.run, self.sorts) = (0, 0);
                return;
            }
        };
        self.run += 1;
        self.sorts |= sort;
    }

    /// The sorts of the run, its length up to `most`, and whether one before was long: the same for words that look alike.
    pub(in super::super) fn run(&self, most: u32) -> u32 {
        self.run.min(most) << 6 | self.sorts << 1 | u32::from(self.blob)
    }

    /// The same in classes.
    pub(in super::super) fn run_class(&self) -> usize {
        let length = match self.run {
            0 => 0,
            1..=3 => 1,
            4..=7 => 2,
            8..=15 => 3,
            _ => 4,
        };
        length << 6 | (self.sorts as usize) << 1 | usize::from(self.blob)
    }

    /// The byte of the latest date that stands where the next byte does, if a date begins or goes on here.
    pub(in super::super) fn dated(&self, seen: &[u8]) -> u32 {
        let byte = seen.get(self.date + self.repeated).copied().unwrap_or_default();
        u32::from(byte) | (self.repeated.min(7) as u32) << 8
    }

    fn follow_date(&mut self, seen: &[u8]) {
        let end = seen.len();
        self.repeated = match seen.get(self.date + self.repeated) {
            Some(same) if *same == seen[end - 1] && self.repeated < DATE_BYTES => self.repeated + 1,
            _ => 0,
        };
        if let Some([.., a, b, c, b',', b' ']) = seen.get(..end)
            && [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"].contains(&&[*a, *b, *c])
        {
            (self.date, self.repeated) = (end - 5, 5);
        }
    }

    fn begin_line(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' => {}
            b'\r' => (self.kind, self.field, self.token) = (Kind::Text, 0, 0),
            _ if matches!(self.kind, Kind::Tag | Kind::Markup) && byte != b'-' => {}
            b'a'..=b'z' | b'A'..=b'Z' => (self.kind, self.name, self.token) = (Kind::Name, hash(0, u32::from(byte)), 0),
            b'>' => (self.kind, self.field, self.token) = (Kind::Quote, 1, 0),
            b'-' => (self.kind, self.field, self.token) = (Kind::Boundary, 2, 0),
            b'<' => (self.kind, self.tag, self.token) = (Kind::Tag, 0, 0),
            _ => (self.kind, self.field, self.token) = (Kind::Text, 0, 0),
        }
    }
}
