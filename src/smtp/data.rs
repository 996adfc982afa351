//! Receivers of message content: [`Dots`] for DATA, [`Chunk`] for one BDAT, both resumable at any octet, both feeding a [`Store`].
//!
//! The end of DATA is CRLF.CRLF and nothing else (RFC 5321 4.1.1.4). A bare CR or LF never ends a line here, so no other
//! program's idea of a line end can smuggle a second message through us: the content is read to its real end, then refused, or
//! where the profile says so of a peer, kept with each bare CR and LF made a line end. What stands there is content either way.

use std::sync::Arc;

use memchr::{memchr3, memmem};

use super::policy::{Budget, Claim};

/// What was wrong with content, gathered while it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flaws {
    /// A CR that no LF follows.
    pub bare_cr: bool,
    /// A LF that no CR precedes.
    pub bare_lf: bool,
    /// A NUL.
    pub nul: bool,
    /// A line beyond the bound.
    pub long_line: bool,
    /// More octets than one message may have.
    pub too_big: bool,
    /// The budget of all sessions ran out.
    pub no_room: bool,
}

impl Flaws {
    /// Whether the content may be kept.
    pub const fn none(self) -> bool {
        !(self.bare_cr || self.bare_lf || self.nul || self.long_line || self.too_big || self.no_room)
    }
}

/// Bounds of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Octets of a message.
    pub message: u64,
    /// Octets of a line, its end not counted.
    pub line: usize,
}

/// Message content as it gathers: unstuffed, line ends as they came, checked octet by octet.
#[derive(Debug)]
pub struct Store {
    bounds: Bounds,
    bytes: Vec<u8>,
    claim: Claim,
    flaws: Flaws,
    received: u64,
    line: usize,
    after_cr: bool,
    /// Octets are octets (BODY=BINARYMIME): no line ends are looked for, and none is added.
    binary: bool,
    /// Bare CR and LF become line ends.
    mending: Option<Mender>,
}

/// Makes each bare CR and LF a line end, in whatever pieces they come.
#[derive(Debug, Default)]
struct Mender {
    after_cr: bool,
}

impl Mender {
    fn mend(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut mended = Vec::with_capacity(bytes.len() + 2);
        for octet in bytes {
            match (core::mem::take(&mut self.after_cr), octet) {
                (true, b'\r') => {
                    mended.extend_from_slice(b"\r\n");
                    self.after_cr = true;
                }
                (_, b'\n') => mended.extend_from_slice(b"\r\n"),
                (false, b'\r') => self.after_cr = true,
                (true, other) => mended.extend_from_slice(&[b'\r', b'\n', *other]),
                (false, other) => mended.push(*other),
            }
        }
        mended
    }

    /// What is left at the end.
    const fn rest(&self) -> &'static [u8] {
        if self.after_cr { b"\r\n" } else { b"" }
    }
}

/// Memory is claimed from the budget in steps of this size.
const CLAIM_STEP: u64 = 64 * 1024;

impl Store {
    /// An empty store that draws on `budget`.
    pub fn new(bounds: Bounds, budget: &Arc<Budget>) -> Self {
        Self {
            bounds,
            bytes: Vec::new(),
            claim: Claim::new(budget),
            flaws: Flaws::default(),
            received: 0,
            line: 0,
            after_cr: false,
            binary: false,
            mending: None,
        }
    }

    /// The same, with bare CR and LF made line ends. Octets that are no lines stay as they are.
    pub fn mending(self) -> Self {
        let mending = (!self.binary).then(Mender::default);
        Self { mending, ..self }
    }

    /// The same for content that need not have lines (RFC 3030).
    pub fn binary(bounds: Bounds, budget: &Arc<Budget>) -> Self {
        Self { binary: true, ..Self::new(bounds, budget) }
    }

    /// Octets taken in, kept or not.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Octets held in memory.
    pub fn held(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What is wrong so far.
    pub const fn flaws(&self) -> Flaws {
        self.flaws
    }

    /// Gives up the content and its memory; counting goes on.
    pub fn spoil(&mut self, mark: impl FnOnce(&mut Flaws)) {
        mark(&mut self.flaws);
        self.bytes = Vec::new();
        self.claim.release();
    }

    /// Takes content octets.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.mending {
            None => self.take(bytes),
            Some(mender) => {
                let mended = mender.mend(bytes);
                self.take(&mended);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if !self.binary {
            self.inspect(bytes);
        }
        if self.received > self.bounds.message {
            self.spoil(|f| f.too_big = true);
        }
        if !self.flaws.none() {
            if !self.bytes.is_empty() {
                self.spoil(|_| {});
            }
            return;
        }
        if !self.claim.cover(self.bytes.len() as u64 + bytes.len() as u64, CLAIM_STEP) {
            self.spoil(|f| f.no_room = true);
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Looks at line ends, NULs and line length.
    fn inspect(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                if let Some((b'\n', tail)) = rest.split_first() {
                    self.line = 0;
                    rest = tail;
                    continue;
                }
                self.flaws.bare_cr = true;
            }
            let plain = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            self.line = self.line.saturating_add(plain);
            if self.line > self.bounds.line {
                self.flaws.long_line = true;
            }
            let Some(special) = rest.get(plain) else { return };
            match special {
                b'\r' => self.after_cr = true,
                b'\n' => self.flaws.bare_lf = true,
                _ => {
                    self.flaws.nul = true;
                    self.line = self.line.saturating_add(1);
                }
            }
            rest = rest.get(plain + 1..).unwrap_or_default();
        }
    }

    /// Ends the content: a missing final CRLF is added (BDAT may leave it out, DATA onward needs it).
    pub fn finish(mut self) -> (Flaws, Vec<u8>, Claim) {
        let rest = self.mending.take().map_or(&b""[..], |mender| mender.rest());
        self.take(rest);
        if self.after_cr {
            self.spoil(|f| f.bare_cr = true);
        } else if self.flaws.none() && !self.bytes.is_empty() && self.line > 0 {
            self.bytes.extend_from_slice(b"\r\n");
        }
        (self.flaws, self.bytes, self.claim)
    }
}

/// Where [`Dots`] stands between two octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// After CRLF, or at the very start.
    LineStart,
    /// After the dot of a line start.
    Dot,
    /// After dot and CR of a line start.
    DotCr,
    /// Inside a line.
    Mid,
    /// After a CR inside a line.
    MidCr,
}

/// Takes DATA content off the wire: finds the end and undoes dot stuffing.
#[derive(Debug)]
pub struct Dots {
    at: At,
    store: Store,
    wire: u64,
}

impl Dots {
    /// A receiver right after 354.
    pub const fn new(store: Store) -> Self {
        Self { at: At::LineStart, store, wire: 0 }
    }

    /// What has been gathered.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Octets of this message seen on the wire.
    pub const fn wire(&self) -> u64 {
        self.wire
    }

    /// Takes octets; returns how many belong to the message and whether its end was among them.
    pub fn push(&mut self, input: &[u8]) -> (usize, bool) {
        let mut i = 0;
        let mut ended = false;
        while let Some(b) = input.get(i) {
            match (self.at, b) {
                (At::LineStart, b'.') => {
                    self.at = At::Dot;
                    i += 1;
                }
                (At::Dot, b'\r') => {
                    self.at = At::DotCr;
                    i += 1;
                }
                (At::DotCr, b'\n') => {
                    i += 1;
                    ended = true;
                    break;
                }
                // The dot was stuffing, the CR after it is content.
                (At::DotCr, _) => {
                    self.store.push(b"\r");
                    self.at = At::MidCr;
                }
                (At::MidCr, b'\n') => {
                    self.store.push(b"\n");
                    self.at = At::LineStart;
                    i += 1;
                }
                (At::LineStart | At::Dot | At::Mid | At::MidCr, _) => {
                    let rest = input.get(i..).unwrap_or_default();
                    // Only a dot at the start of a line is of interest; its line end is content.
                    let run = memmem::find(rest, b"\r\n.").map_or(rest, |at| rest.get(..at + 2).unwrap_or_default());
                    self.store.push(run);
                    self.at = match run {
                        [.., b'\r', b'\n'] => At::LineStart,
                        [.., b'\r'] => At::MidCr,
                        _ => At::Mid,
                    };
                    i += run.len();
                }
            }
        }
        self.wire = self.wire.saturating_add(i as u64);
        (i, ended)
    }

    /// Hands out the content after its end.
    pub fn into_store(self) -> Store {
        self.store
    }
}

/// Octets of one BDAT still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    left: u64,
    /// LAST was given.
    pub last: bool,
}

impl Chunk {
    /// A chunk of `size` octets.
    pub const fn new(size: u64, last: bool) -> Self {
        Self { left: size, last }
    }

    /// Takes what belongs to the chunk from the front of `input`; true when it is complete.
    pub fn take<'a>(&mut self, input: &'a [u8]) -> (&'a [u8], bool) {
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        self.left -= n as u64;
        (input.get(..n).unwrap_or_default(), self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { message: 1000, line: 100 };

    fn store() -> Store {
        Store::new(BOUNDS, &Arc::new(Budget::new(10_000)))
    }

    fn receive(parts: &[&[u8]]) -> Option<(Flaws, Vec<u8>, usize)> {
        let mut dots = Dots::new(store());
        for (n, part) in parts.iter().enumerate() {
            let (used, ended) = dots.push(part);
            if ended {
                let left = part.len() - used + parts[n + 1..].iter().map(|p| p.len()).sum::<usize>();
                let (flaws, bytes, _) = dots.into_store().finish();
                return Some((flaws, bytes, left));
            }
            assert_eq!(used, part.len());
        }
        None
    }

    #[test]
    fn dots_are_unstuffed_and_the_rest_is_left_for_later() {
        let (flaws, bytes, left) = receive(&[b"..x\r\n.y\r\n..\r\na.b\r\n.\r\nQUIT\r\n"]).expect("ends");
        assert!(flaws.none());
        assert_eq!(bytes, b".x\r\ny\r\n.\r\na.b\r\n");
        assert_eq!(left, 6);
        assert_eq!(receive(&[b".\r\n"]).map(|r| r.1), Some(Vec::new()));
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_content() {
        for seq in [
            &b"\n.\n"[..],
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\n",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\n.\r",
            b"\n\n.\r\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n.\r\r\n",
            b"\r\n.\n\r",
        ] {
            let wire = [b"first", seq, b"MAIL FROM:<x@y>\r\n.\r\n"].concat();
            let (flaws, bytes, left) = receive(&[&wire]).expect("ends at the real end");
            assert_eq!(left, 0, "{seq:?} ended the content");
            assert!(!flaws.none() && bytes.is_empty(), "{seq:?} was taken as clean");
        }
        for seq in
            [&b"\r\n. \r\n"[..], b"\r\n.\t\r\n", b"\r\n.\x0b\r\n", b"\xc2\x85.\xc2\x85", b"\xe2\x80\xa8.\xe2\x80\xa8"]
        {
            let wire = [b"first", seq, b"MAIL FROM:<x@y>\r\n.\r\n"].concat();
            let (flaws, _, left) = receive(&[&wire]).expect("ends at the real end");
            assert!(left == 0 && flaws.none(), "{seq:?}");
        }
    }

    #[test]
    fn bare_line_ends_are_mended_and_still_end_nothing() {
        let mend = |parts: &[&[u8]]| {
            let mut dots = Dots::new(store().mending());
            let mut used = 0;
            for part in parts {
                let (n, ended) = dots.push(part);
                used += n;
                if ended {
                    break;
                }
            }
            let (flaws, bytes, _) = dots.into_store().finish();
            (flaws, bytes, used)
        };
        for (wire, content) in [
            (&b"a\nb\rc\r\n.\r\n"[..], &b"a\r\nb\r\nc\r\n"[..]),
            (b"a\n.\nMAIL FROM:<x@y>\r\n.\r\n", b"a\r\n.\r\nMAIL FROM:<x@y>\r\n"),
            (b"a\n.\r\nMAIL FROM:<x@y>\r\n.\r\n", b"a\r\n.\r\nMAIL FROM:<x@y>\r\n"),
            (b"a\r\n.\nMAIL FROM:<x@y>\r\n.\r\n", b"a\r\n\r\nMAIL FROM:<x@y>\r\n"),
            (b"a\r.\r\nMAIL FROM:<x@y>\r\n.\r\n", b"a\r\n.\r\nMAIL FROM:<x@y>\r\n"),
            (b"a\r\n.\rMAIL FROM:<x@y>\r\n.\r\n", b"a\r\n\r\nMAIL FROM:<x@y>\r\n"),
            (b"a\r\r\n\n\r\n.\r\n", b"a\r\n\r\n\r\n\r\n"),
        ] {
            let (flaws, bytes, used) = mend(&[wire]);
            assert!(flaws.none() && used == wire.len(), "{wire:?}: {used}");
            assert_eq!(bytes, content, "{wire:?}");
            for cut in 0..wire.len() {
                assert_eq!(mend(&[&wire[..cut], &wire[cut..]]).1, content, "{wire:?} cut at {cut}");
            }
        }
        // A NUL is none, and content of octets is left alone.
        assert!(mend(&[b"a\0\n\r\n.\r\n"]).0.nul);
        let mut s = Store::binary(BOUNDS, &Arc::new(Budget::new(10_000))).mending();
        s.push(b"a\n\r");
        assert_eq!(s.finish().1, b"a\n\r");
        let mut s = store().mending();
        s.push(b"a\r\n\r");
        assert_eq!(s.finish().1, b"a\r\n\r\n");
    }

    #[test]
    fn every_split_gives_the_same_content() {
        let wire = b"a\r\n..\r\n.\rb\r\n\r\n.c\n\r\r\n.\r\n";
        let whole = receive(&[wire]).expect("ends");
        for cut in 0..wire.len() {
            assert_eq!(receive(&[&wire[..cut], &wire[cut..]]).as_ref(), Some(&whole), "cut at {cut}");
        }
        let octets: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(receive(&octets), Some(whole));
    }

    #[test]
    fn bounds_are_kept_while_receiving() {
        let budget = Arc::new(Budget::new(10_000_000));
        let mut s = Store::new(BOUNDS, &budget);
        for _ in 0..30 {
            s.push(&[b'x'; 48]);
            s.push(b"\r\n");
            assert!(s.held() <= BOUNDS.message);
        }
        assert!(s.flaws().too_big && s.held() == 0 && budget.used() == 0);
        assert_eq!(s.received(), 1500);
        let mut s = store();
        s.push(&[b'x'; 101]);
        assert!(s.flaws().long_line);
        let tight = Arc::new(Budget::new(10));
        let mut s = Store::new(BOUNDS, &tight);
        s.push(b"twelve octets");
        assert!(s.flaws().no_room && tight.used() == 0);
    }

    #[test]
    fn binary_content_stays_as_it_is() {
        let mut s = Store::binary(BOUNDS, &Arc::new(Budget::new(10_000)));
        s.push(b"a\n\0\r");
        s.push(&[b'x'; 200]);
        let (flaws, bytes, _) = s.finish();
        assert!(flaws.none() && bytes.len() == 204 && bytes.starts_with(b"a\n\0\rx"));
        let mut s = Store::binary(BOUNDS, &Arc::new(Budget::new(10_000)));
        s.push(&[0; 1001]);
        assert!(s.flaws().too_big);
    }

    #[test]
    fn chunk_content_gets_its_final_line_end_and_cr_lf_may_straddle_chunks() {
        let mut s = store();
        s.push(b"a\r");
        s.push(b"\nb");
        let (flaws, bytes, _) = s.finish();
        assert!(flaws.none());
        assert_eq!(bytes, b"a\r\nb\r\n");
        let mut s = store();
        s.push(b"a\r");
        assert!(s.finish().0.bare_cr);
    }
}
