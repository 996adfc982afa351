//! Addresses that say a name once more: `Wiebke Petersen <w.petersen@...>`.

/// Longest name that is followed.
const MOST: usize = 64;

/// Reads along in the fields of a header, and says which letter of a name an address goes on with.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// Letters of the name before the address, small; a 0 parts words.
    name: Vec<u8>,
    /// Which of them comes next, where an address is being read.
    at: Option<usize>,
}

impl Named {
    /// Takes up a byte of a header field's value.
    pub(super) fn follow(&mut self, byte: u8) {
        let small = byte.to_ascii_lowercase();
        match (self.at, byte) {
            (None, b'<') => self.at = Some(0),
            (None, b':' | b',' | b'>') => self.name.clear(),
            (None, b'A'..=b'Z' | b'a'..=b'z') if self.name.len() < MOST => self.name.push(small),
            (None, b' ') if self.name.last().is_some_and(|last| *last != 0) => self.name.push(0),
            (None, _) => {}
            (Some(_), b'@' | b'>' | b' ' | b'\r') => self.forget(),
            (Some(at), b'.' | b'_' | b'-') => self.at = Some(self.word_after(at)),
            (Some(at), _) if self.name.get(at) == Some(&small) => self.at = Some(at + 1),
            // An initial, and then the next word.
            (Some(at), _) => {
                let next = self.word_after(at);
                self.at = Some(if self.name.get(next) == Some(&small) { next + 1 } else { self.name.len() });
            }
        }
    }

    /// Outside of fields there is no name.
    pub(super) fn forget(&mut self) {
        self.name.clear();
        self.at = None;
    }

    /// The letter that comes next and the first of the word after: 0 where nothing is known.
    pub(super) fn expected(&self) -> u32 {
        let letter = |at: usize| u32::from(self.name.get(at).copied().unwrap_or_default());
        self.at.map_or(0, |at| 1 << 16 | letter(at) << 8 | letter(self.word_after(at)))
    }

    /// Where the word behind the one at this place begins.
    fn word_after(&self, at: usize) -> usize {
        let rest = self.name.get(at..).unwrap_or_default();
        rest.iter().position(|letter| *letter == 0).map_or(self.name.len(), |blank| at + blank + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was expected before each letter of the address.
    fn expected(field: &str) -> String {
        let mut named = Named::default();
        let mut out = String::new();
        for byte in field.bytes() {
            if named.at.is_some() {
                out.push(char::from((named.expected() >> 8) as u8));
            }
            named.follow(byte);
        }
        out
    }

    #[test]
    fn an_address_goes_on_as_the_name_before_it() {
        assert_eq!(expected(" Ann Lee <ann.lee@x>"), "ann\0lee\0");
        assert_eq!(expected(" Ann Lee <a.lee@x>"), "anlee\0");
        assert_eq!(expected(" Ann Lee <alee@x>"), "anee\0");
        assert_eq!(expected(" Bo <bo@x>, \"Ann Lee\" <lee@x>").trim_matches('\0'), "bo\0aee");
        assert_eq!(expected(" <x@y>"), "\0\0");
    }
}
