//! What a node can read, as it tells its peers in four bits of every hello, and what a payload relies on.
//!
//! The switch codes a message for the least that all who take it can read; towards those of whom nothing was heard that is what every
//! node reads. `docs/codec.md`, "What a peer reads", has the table.

use super::payload::Choice;
use super::site::SiteDictionary;
use crate::mail::Reliance;

/// What a node can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Repertoire {
    level: u8,
    history: bool,
}

/// What came with dictionary 2.
const TEXT: u8 = 1;
/// Receipts as a digest.
const RECEIPTS: u8 = 2;
/// What came with dictionary 3.
const MAIL: u8 = 3;
/// The highest level of this program.
const HIGHEST: u8 = MAIL;
const LEVEL_BITS: u8 = 7;
const HISTORY_BIT: u8 = 8;

impl Repertoire {
    /// What every node reads.
    pub const LEAST: Self = Self { level: 0, history: false };

    /// What this program reads, with or without a list of the messages that both ends hold.
    pub const fn own(history: bool) -> Self {
        Self { level: HIGHEST, history }
    }

    /// What four bits of a hello say.
    pub const fn from_bits(bits: u8) -> Self {
        Self { level: bits & LEVEL_BITS, history: bits & HISTORY_BIT != 0 }
    }

    /// The four bits.
    pub const fn bits(self) -> u8 {
        self.level | if self.history { HISTORY_BIT } else { 0 }
    }

    /// What both read.
    pub fn shared(self, other: Self) -> Self {
        Self { level: self.level.min(other.level), history: self.history && other.history }
    }

    /// The same without messages that both ends hold.
    pub const fn without_history(self) -> Self {
        Self { history: false, ..self }
    }

    /// Whether it knows the messages that both ends hold.
    pub const fn has_history(self) -> bool {
        self.history
    }

    /// What a payload for such a peer relies on, history left aside.
    pub const fn reliance(self) -> Reliance {
        if self.level > Self::LEAST.level { Reliance::Word } else { Reliance::Nothing }
    }

    /// As much of it as relies on no more than this.
    pub const fn within(self, bound: Reliance) -> Self {
        match bound {
            Reliance::Nothing => Self::LEAST,
            Reliance::Word => self.without_history(),
            Reliance::History | Reliance::Site => self,
        }
    }

    /// The newest shipped dictionary it has, which stands for the models that came with it.
    pub const fn dictionary(self) -> Choice<'static> {
        Choice::Shipped(match self.level {
            MAIL.. => 3,
            TEXT.. => 2,
            _ => 1,
        })
    }

    /// A site's own dictionary, behind that one.
    pub const fn behind(self, site: &SiteDictionary) -> Choice<'_> {
        if self.level >= MAIL { Choice::Site(site) } else { Choice::SiteAsText(site) }
    }

    /// Whether it reads receipts as a digest.
    pub const fn reads_receipts(self) -> bool {
        self.level >= RECEIPTS
    }

    /// In words, for operators.
    pub const fn words(self) -> &'static str {
        match (self.level, self.history) {
            (0, false) => "dictionary 1",
            (0, true) => "dictionary 1, history",
            (1, false) => "dictionary 2",
            (1, true) => "dictionary 2, history",
            (2, false) => "dictionary 2, receipts",
            (2, true) => "dictionary 2, history, receipts",
            (_, false) => "dictionary 3, receipts",
            (_, true) => "dictionary 3, history, receipts",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_program_says_is_cut_to_what_this_one_knows() {
        let own = Repertoire::own(true);
        assert_eq!(Repertoire::from_bits(own.bits()), own);
        assert_eq!(Repertoire::from_bits(0), Repertoire::LEAST, "programs of before it was said");
        for bits in 0..16 {
            let theirs = Repertoire::from_bits(bits);
            assert_eq!(theirs.bits(), bits);
            let both = own.shared(theirs);
            assert!(both.level <= own.level && both == theirs.shared(own));
            assert_eq!(both.has_history(), theirs.has_history());
        }
        assert_eq!(own.shared(Repertoire::from_bits(15)), own);
        assert_eq!(own.shared(Repertoire::LEAST).dictionary(), Choice::Shipped(1));
        assert_eq!(own.dictionary(), Choice::Shipped(super::super::dictionary::NEWEST.number));
    }

    #[test]
    fn a_bound_leaves_no_more_than_it_names() {
        let own = Repertoire::own(true);
        assert_eq!(own.within(Reliance::Nothing), Repertoire::LEAST);
        assert_eq!(own.within(Reliance::Word), Repertoire::own(false));
        assert_eq!(own.within(Reliance::History), own);
        assert_eq!(own.reliance(), Reliance::Word);
        assert_eq!(Repertoire::LEAST.reliance(), Reliance::Nothing);
        assert!(Reliance::Nothing < Reliance::Word && Reliance::Word < Reliance::History);
    }
}
