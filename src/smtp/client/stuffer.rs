//! Content on the wire.

use super::BLOCK;

/// Puts content on the wire block by block: dots stuffed, every line end CRLF, the final dot.
#[derive(Debug)]
pub struct Stuffer {
    at: usize,
    line_start: bool,
    pub done: bool,
    /// Only the dot.
    empty: bool,
    /// Octet for octet, without a dot: the hop counts.
    verbatim: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { at: 0, line_start: true, done: false, empty: false, verbatim: false }
    }
}

impl Stuffer {
    /// Only the dot.
    pub fn lone_dot() -> Self {
        Self { empty: true, ..Self::default() }
    }

    /// Octet for octet.
    pub fn verbatim() -> Self {
        Self { verbatim: true, ..Self::default() }
    }

    /// The next block; `None` at the end.
    pub fn block(&mut self, content: &[u8]) -> Option<Vec<u8>> {
        if self.done {
            return None;
        }
        if self.verbatim {
            let rest = content.get(self.at..).unwrap_or_default();
            let block = rest.get(..rest.len().min(BLOCK)).unwrap_or_default();
            self.at += block.len();
            self.done = self.at >= content.len();
            return (!block.is_empty()).then(|| block.to_vec());
        }
        let content = if self.empty { &[][..] } else { content };
        let mut out = Vec::with_capacity(BLOCK + 8);
        while out.len() < BLOCK {
            let rest = content.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                if !self.line_start {
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b".\r\n");
                self.done = true;
                break;
            }
            if self.line_start && rest.first() == Some(&b'.') {
                out.push(b'.');
            }
            let run = rest.iter().take(BLOCK).position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len().min(BLOCK));
            out.extend_from_slice(rest.get(..run).unwrap_or_default());
            self.at += run;
            self.line_start = self.line_start && run == 0;
            let end = match rest.get(run..).unwrap_or_default() {
                [b'\r', b'\n', ..] => 2,
                [b'\r' | b'\n', ..] => 1,
                _ => continue,
            };
            out.extend_from_slice(b"\r\n");
            self.at += end;
            self.line_start = true;
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_never_carries_a_bare_line_end_or_a_naked_dot() {
        for (content, want) in [
            (&b".a\n.b\r.c\r\n..d"[..], &b"..a\r\n..b\r\n..c\r\n...d\r\n.\r\n"[..]),
            (b"", b".\r\n"),
            (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
            (b"x\r", b"x\r\n.\r\n"),
        ] {
            let mut stuffer = Stuffer::default();
            let mut out = Vec::new();
            while let Some(block) = stuffer.block(content) {
                out.extend(block);
            }
            assert_eq!(out, want);
        }
        // A dot at the very start of a block but in the middle of a line stays single.
        let long = [vec![b'x'; BLOCK], b".".to_vec(), vec![b'y'; BLOCK]].concat();
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        while let Some(block) = stuffer.block(&long) {
            assert!(block.len() <= 2 * BLOCK + 8);
            out.extend(block);
        }
        assert_eq!(out, [&long[..], b"\r\n.\r\n"].concat());
    }
}
