//! LZHUF as radio mail uses it, to compare with: a window of 2048 bytes and an adaptive Huffman code, in one block. Length only.

const WINDOW: usize = 2048;
const LOOKAHEAD: usize = 60;
const THRESHOLD: usize = 2;
const SYMBOLS: usize = 256 - THRESHOLD + LOOKAHEAD;
const TABLE: usize = SYMBOLS * 2 - 1;
const ROOT: usize = TABLE - 1;

/// Bytes of the coded form: a check of two, the length of four, and the bits.
pub fn coded_len(input: &[u8]) -> usize {
    let mut tree = Tree::new();
    let mut bits = 0;
    let mut at = 0;
    while at < input.len() {
        let (length, distance) = longest(input, at);
        if length > THRESHOLD {
            bits += tree.cost(length + 255 - THRESHOLD);
            bits += position_bits((distance - 1) >> 6) + 6;
            at += length;
        } else {
            bits += tree.cost(usize::from(input[at]));
            at += 1;
        }
    }
    6 + bits.div_ceil(8)
}

/// The longest match and how far back; the window begins as spaces.
fn longest(input: &[u8], at: usize) -> (usize, usize) {
    let byte = |i: isize| if i < 0 { b' ' } else { input[i as usize] };
    let most = LOOKAHEAD.min(input.len() - at);
    let mut best = (0, 0);
    for distance in 1..=(WINDOW - LOOKAHEAD) {
        let mut length = 0;
        while length < most && byte(at as isize + length as isize - distance as isize) == input[at + length] {
            length += 1;
        }
        if length > best.0 {
            best = (length, distance);
            if length == most {
                break;
            }
        }
    }
    best
}

/// Length of the static code of a position's upper part.
fn position_bits(upper: usize) -> usize {
    match upper {
        0 => 3,
        1..=3 => 4,
        4..=11 => 5,
        12..=23 => 6,
        24..=47 => 7,
        _ => 8,
    }
}

struct Tree {
    frequency: [usize; TABLE + 1],
    parent: [usize; TABLE + SYMBOLS],
    son: [usize; TABLE],
}

impl Tree {
    fn new() -> Self {
        let mut tree = Self { frequency: [0; TABLE + 1], parent: [0; TABLE + SYMBOLS], son: [0; TABLE] };
        for leaf in 0..SYMBOLS {
            tree.frequency[leaf] = 1;
            tree.son[leaf] = leaf + TABLE;
            tree.parent[leaf + TABLE] = leaf;
        }
        for (pair, node) in (SYMBOLS..=ROOT).enumerate() {
            let left = pair * 2;
            tree.frequency[node] = tree.frequency[left] + tree.frequency[left + 1];
            tree.son[node] = left;
            tree.parent[left] = node;
            tree.parent[left + 1] = node;
        }
        tree.frequency[TABLE] = 0xffff;
        tree
    }

    /// Bits of a symbol's code, which the tree then learns.
    fn cost(&mut self, symbol: usize) -> usize {
        let mut bits = 0;
        let mut node = self.parent[symbol + TABLE];
        while node != ROOT {
            bits += 1;
            node = self.parent[node];
        }
        self.learn(symbol);
        bits
    }

    fn learn(&mut self, symbol: usize) {
        // No message here is long enough for the rebuild at 0x8000.
        assert!(self.frequency[ROOT] < 0x8000, "messages of the bench are short");
        let mut node = self.parent[symbol + TABLE];
        loop {
            self.frequency[node] += 1;
            let now = self.frequency[node];
            let mut other = node;
            while self.frequency[other + 1] < now {
                other += 1;
            }
            if other != node {
                self.frequency.swap(node, other);
                self.son.swap(node, other);
                for n in [node, other] {
                    let son = self.son[n];
                    self.parent[son] = n;
                    if son < TABLE {
                        self.parent[son + 1] = n;
                    }
                }
                node = other;
            }
            if node == ROOT {
                return;
            }
            node = self.parent[node];
        }
    }
}
