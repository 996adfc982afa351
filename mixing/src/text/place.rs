//! Where in a mail the next byte stands: what the contexts of the model are made of.

/// Reads along and remembers what tells most about the next byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Where this line and the one before it begin.
    pub(super) line: usize,
    pub(super) above: usize,
    /// The word being read, and those before it, hashed without regard to case.
    pub(super) word: u32,
    pub(super) words: [u32; 3],
    /// The header field, HTML tag or kind of line.
    pub(super) field: u32,
    /// Name of a field as far as it is read; 0 where this line has none.
    name: u32,
    pub(super) kind: Kind,
    /// Words and marks since the beginning of the field or line.
    pub(super) token: u32,
    /// Letters, digits and marks as classes, newest in the lowest four bits.
    pub(super) shape: u64,
    /// First word of the line.
    pub(super) opening: u32,
    tag: u32,
    /// Letters and digits since the last other byte.
    pub(super) run: u32,
}

/// What is being read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Kind {
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

/// How many kinds there are.
pub(super) const KINDS: usize = 8;

pub(super) fn hash(a: u32, b: u32) -> u32 {
    let h = (a ^ b.wrapping_mul(0x9e37_79b1)).wrapping_mul(0x85eb_ca6b).rotate_left(13);
    h ^ h >> 16
}

/// Sixteen classes of bytes.
pub(super) fn class(byte: u8) -> u8 {
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
    pub(super) fn follow(&mut self, seen: &[u8]) {
        let byte = seen[seen.len() - 1];
        let class = class(byte);
        self.shape = self.shape << 4 | u64::from(class);
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => {
                self.word = hash(self.word, u32::from(byte.to_ascii_lowercase()));
                self.run += 1;
            }
            b'0'..=b'9' => {
                self.word = hash(self.word, u32::from(byte));
                self.run += 1;
            }
            _ => {
                self.run = 0;
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
