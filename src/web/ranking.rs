//! Who holds most of what is kept.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::holder::Holder;

/// What each holder has, by its sequence numbers, and who has most.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    shares: HashMap<Holder, Share>,
    /// Each share's weight and oldest number: of those that weigh the same, the one with the oldest
    /// stands last.
    order: BTreeSet<(usize, Reverse<u64>)>,
}

#[derive(Debug, Default)]
struct Share {
    /// From the oldest on.
    seqs: VecDeque<u64>,
    weight: usize,
}

impl Share {
    fn rank(&self) -> Option<(usize, Reverse<u64>)> {
        Some((self.weight, Reverse(*self.seqs.front()?)))
    }
}

impl Ranking {
    /// One more is kept; its number is higher than all before.
    pub fn add(&mut self, holder: &Holder, seq: u64, weight: usize) {
        let share = match self.shares.get_mut(holder) {
            Some(share) => share,
            None => self.shares.entry(holder.clone()).or_default(),
        };
        share.rank().map(|rank| self.order.remove(&rank));
        share.seqs.push_back(seq);
        share.weight += weight;
        self.order.extend(share.rank());
    }

    /// One is kept no longer.
    pub fn remove(&mut self, holder: &Holder, seq: u64, weight: usize) {
        let Some(share) = self.shares.get_mut(holder) else { return };
        share.rank().map(|rank| self.order.remove(&rank));
        if let Ok(at) = share.seqs.binary_search(&seq) {
            share.seqs.remove(at);
            share.weight -= weight;
        }
        match share.rank() {
            Some(rank) => drop(self.order.insert(rank)),
            None => drop(self.shares.remove(holder)),
        }
    }

    /// The oldest of whoever has most.
    pub fn surplus(&self) -> Option<u64> {
        self.order.last().map(|(_, Reverse(oldest))| *oldest)
    }

    /// How many are counted, and what they weigh.
    #[cfg(test)]
    pub fn totals(&self) -> (usize, usize) {
        assert_eq!(self.order.len(), self.shares.len());
        let shares = self.shares.values();
        shares.fold((0, 0), |(number, weight), share| {
            (number + share.seqs.len(), weight + share.weight)
        })
    }
}
