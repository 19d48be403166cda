//! A set of slot numbers as a bitmap.
//!
//! Slots are numbered densely and reused from the lowest, so that a bit a slot is smaller and faster
//! than a tree: a single slot's set is one word.

use std::ops::RangeFrom;

const BITS: usize = u64::BITS as usize;

/// Words that an empty set keeps, at most.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct SlotSet {
    words: Vec<u64>,
    len: usize,
    /// No word before this one has a bit set.
    lowest: usize,
}

impl SlotSet {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn insert(&mut self, slot: usize) {
        let (word, bit) = (slot / BITS, 1 << (slot % BITS));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.len += 1;
            self.lowest = self.lowest.min(word);
        }
    }

    pub fn remove(&mut self, slot: usize) {
        let (word, bit) = (slot / BITS, 1 << (slot % BITS));
        if let Some(bits) = self.words.get_mut(word)
            && *bits & bit != 0
        {
            *bits &= !bit;
            self.len -= 1;
            // After many slots were open, their memory goes back.
            if self.len == 0 && self.words.len() > KEPT {
                self.words = Vec::new();
                self.lowest = 0;
            }
        }
    }

    /// The lowest slot in the set.
    pub fn first(&self) -> Option<usize> {
        self.range(self.lowest * BITS..).next()
    }

    /// Takes the lowest slot out of the set.
    pub fn pop_first(&mut self) -> Option<usize> {
        let slot = self.first()?;
        // Before the removal, which may start over.
        self.lowest = slot / BITS;
        self.remove(slot);
        Some(slot)
    }

    /// The slots from `range.start` on, in order.
    pub fn range(&self, range: RangeFrom<usize>) -> impl Iterator<Item = usize> {
        let (first, skipped) = (range.start / BITS, range.start % BITS);
        let words = self.words.iter().enumerate().skip(first);
        words.flat_map(move |(word, &bits)| {
            let mut left = if word == first { bits & (u64::MAX << skipped) } else { bits };
            std::iter::from_fn(move || {
                let bit = (left != 0).then_some(left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(word * BITS + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize),
        Remove(usize),
        PopFirst,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..300usize).prop_map(Step::Insert),
            2 => (0..300usize).prop_map(Step::Remove),
            2 => Just(Step::PopFirst),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn behaves_as_a_sorted_set(
            steps in proptest::collection::vec(step(), 0..200),
            from in 0..300usize,
        ) {
            let mut set = SlotSet::default();
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(slot) => {
                        set.insert(slot);
                        model.insert(slot);
                    }
                    Step::Remove(slot) => {
                        set.remove(slot);
                        model.remove(&slot);
                    }
                    Step::PopFirst => prop_assert_eq!(set.pop_first(), model.pop_first()),
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.first(), model.first().copied());
                let (here, there) = (set.range(from..), model.range(from..).copied());
                prop_assert!(here.eq(there));
            }
        }
    }
}
