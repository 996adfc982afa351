//! What a receiver still lacks of a message: the list inside an Ack_PDU, with its ranges and its end-of-list marker.
//!
//! Three or more numbers in a row are written `first, 0, last`. A number that is not above the one before it ends the list early:
//! there is more to name than was named.

use std::fmt;
use std::ops::RangeInclusive;

/// Numbers of Data_PDUs that are missing, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// Disjoint, ascending, none touching the next.
    ranges: Vec<(u16, u16)>,
    more: bool,
}

/// Whether lists are written with ranges; libjpmul cannot read any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ranges {
    /// Wherever they are shorter.
    #[default]
    Written,
    /// Every number by itself, and no more than fit an entry of 255 octets.
    Spelled,
}

/// What is wrong with a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListError {
    /// A zero that is not the middle of a range.
    Zero,
    /// A range that does not ascend.
    Range,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "a zero that is in no range",
            Self::Range => "a range that does not ascend",
        })
    }
}

/// Numbers that fit an entry of 254 octets.
const MOST_SPELLED: usize = 122;

impl Missing {
    /// Takes ascending numbers from 1 on; one that does not ascend is left out.
    pub fn from_ascending(numbers: impl IntoIterator<Item = u16>) -> Self {
        let mut out = Self::default();
        numbers.into_iter().for_each(|n| out.push(n, n));
        out
    }

    /// The numbers of these ranges, which ascend.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut out = Self::default();
        ranges.into_iter().for_each(|r| out.push(*r.start(), *r.end()));
        out
    }

    fn push(&mut self, first: u16, last: u16) {
        if first == 0 || last < first {
            return;
        }
        match self.ranges.last_mut() {
            Some((_, end)) if first <= *end => {}
            Some((_, end)) if first - 1 == *end => *end = last,
            _ => self.ranges.push((first, last)),
        }
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether there is more to name above the last number than was named.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// How many are named.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|(first, last)| usize::from(last - first) + 1).sum()
    }

    /// The highest named.
    pub fn last(&self) -> Option<u16> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.ranges.iter().map(|(first, last)| *first..=*last)
    }

    /// Keeps the lowest `numbers` of it, and at most what `values` 16-bit values can say; what is cut off is owned up to.
    pub fn capped(&self, numbers: usize, values: usize, style: Ranges) -> Self {
        let numbers = if style == Ranges::Spelled { numbers.min(MOST_SPELLED - 1) } else { numbers };
        let mut out = Self { ranges: Vec::new(), more: self.more };
        let (mut left, mut room) = (numbers, values.saturating_sub(1));
        for &(first, last) in &self.ranges {
            let whole = usize::from(last - first) + 1;
            let said = if style == Ranges::Written && room >= 3 { whole } else { whole.min(room) }.min(left);
            let Some(end) = said.checked_sub(1).and_then(|more| u16::try_from(more).ok()).map(|more| first + more)
            else {
                out.more = true;
                break;
            };
            out.ranges.push((first, end));
            left -= said;
            room = room.saturating_sub(values_of(first, end, style));
            if said < whole {
                out.more = true;
                break;
            }
        }
        // A list that names nothing says "complete", which is not so.
        if out.ranges.is_empty() && !self.ranges.is_empty() { self.capped(1, 2, style) } else { out }
    }

    /// The values of the list on the wire.
    pub(super) fn write(&self, style: Ranges) -> Vec<u16> {
        let mut out = Vec::new();
        for &(first, last) in &self.ranges {
            if style == Ranges::Written && last - first >= 3 {
                out.extend([first, 0, last]);
            } else {
                out.extend(first..=last);
            }
        }
        if self.more {
            out.extend(self.ranges.first().map(|(first, _)| *first));
        }
        out
    }

    /// Reads a list; what stands behind the marker says nothing.
    pub(super) fn read(values: &[u16]) -> Result<Self, ListError> {
        let mut out = Self::default();
        let mut at = 0;
        while let Some(&first) = values.get(at) {
            if first == 0 {
                return Err(ListError::Zero);
            }
            if out.last().is_some_and(|last| first <= last) {
                out.more = true;
                break;
            }
            match values.get(at + 1..at + 3) {
                Some(&[0, last]) if first < last => {
                    out.push(first, last);
                    at += 3;
                }
                Some(&[0, _]) => return Err(ListError::Range),
                _ => {
                    out.push(first, first);
                    at += 1;
                }
            }
        }
        Ok(out)
    }
}

fn values_of(first: u16, last: u16, style: Ranges) -> usize {
    let count = usize::from(last - first) + 1;
    if style == Ranges::Written { count.min(3) } else { count }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_written_where_they_are_shorter() {
        let missing = Missing::from_ascending([2, 5, 6, 7, 8, 9, 12, 20, 21, 22]);
        assert_eq!(missing.write(Ranges::Written), [2, 5, 0, 9, 12, 20, 21, 22]);
        assert_eq!(missing.write(Ranges::Spelled), [2, 5, 6, 7, 8, 9, 12, 20, 21, 22]);
        assert_eq!(missing.len(), 10);
    }

    #[test]
    fn a_capped_list_says_that_there_is_more() {
        let missing = Missing::from_ranges([2..=2, 5..=9, 12..=12]);
        let capped = missing.capped(4, 100, Ranges::Written);
        assert_eq!((capped.iter().collect::<Vec<_>>(), capped.has_more()), (vec![2, 5, 6, 7], true));
        assert_eq!(Missing::read(&capped.write(Ranges::Written)), Ok(capped));
        assert_eq!(missing.capped(100, 100, Ranges::Written), missing);
        assert!(Missing::default().capped(0, 0, Ranges::Written).is_empty());
        assert_eq!(missing.capped(0, 0, Ranges::Written).write(Ranges::Written), [2, 2]);
        let all = Missing::from_ranges([1..=u16::MAX]);
        assert_eq!(all.capped(usize::MAX, 100, Ranges::Written), all);
        assert_eq!(all.capped(usize::MAX, 1000, Ranges::Spelled).write(Ranges::Spelled).len(), MOST_SPELLED);
    }

    #[test]
    fn nonsense_is_named() {
        for (values, error) in [
            (&[0][..], ListError::Zero),
            (&[3, 0], ListError::Zero),
            (&[3, 0, 3], ListError::Range),
            (&[9, 0, 4], ListError::Range),
            (&[1, 0, 5, 0, 9], ListError::Zero),
        ] {
            assert_eq!(Missing::read(values), Err(error), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_set_comes_back_in_both_styles(numbers in prop::collection::btree_set(1u16.., 0..200), cap in 1usize..200, values in 2usize..200) {
            let missing = Missing::from_ascending(numbers.iter().copied());
            prop_assert_eq!(missing.iter().collect::<Vec<_>>(), numbers.into_iter().collect::<Vec<_>>());
            for style in [Ranges::Written, Ranges::Spelled] {
                prop_assert_eq!(Missing::read(&missing.write(style)), Ok(missing.clone()));
                let capped = missing.capped(cap, values, style);
                let written = capped.write(style);
                prop_assert!(written.len() <= values && capped.len() <= cap);
                prop_assert_eq!(Missing::read(&written), Ok(capped.clone()));
                prop_assert_eq!(capped.has_more(), capped.len() < missing.len());
                prop_assert!(capped.iter().eq(missing.iter().take(capped.len())));
            }
        }

        #[test]
        fn any_values_are_read_or_refused_and_what_is_read_can_be_written(values in prop::collection::vec(0u16..40, 0..40)) {
            if let Ok(missing) = Missing::read(&values) {
                prop_assert_eq!(Missing::read(&missing.write(Ranges::Written)), Ok(missing));
            }
        }
    }
}
