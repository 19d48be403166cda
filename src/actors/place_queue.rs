//! Who gets the next place of the queue-wide capacity: a pure data structure, without threads.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

/// The blocked callers of all concurrency ids in one queue, first come first served, and the places
/// that were granted to them and not fetched yet.
///
/// A member is one concurrency id's supervisor, and `K` is by what it knows its callers: of two that
/// came in the same moment, the lower came first.
#[derive(Debug)]
pub(crate) struct PlaceQueue<K> {
    blocked: BTreeSet<(Instant, usize, K)>,
    granted: Vec<VecDeque<K>>,
}

impl<K: Copy + Ord> PlaceQueue<K> {
    pub fn new() -> Self {
        PlaceQueue { blocked: BTreeSet::new(), granted: Vec::new() }
    }

    /// One more member; gives its number.
    pub fn join(&mut self) -> usize {
        self.granted.push(VecDeque::new());
        self.granted.len() - 1
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.blocked.is_empty()
    }

    /// A caller that has been waiting since then wants a place.
    pub fn request(&mut self, member: usize, since: Instant, key: K) {
        self.blocked.insert((since, member, key));
    }

    /// A caller that requested one doesn't want a place any more. True when it had been granted one, which is
    /// to be given back.
    pub fn withdraw(&mut self, member: usize, since: Instant, key: K) -> bool {
        if self.blocked.remove(&(since, member, key)) {
            return false;
        }
        let granted = &mut self.granted[member];
        let before = granted.len();
        granted.retain(|other| *other != key);
        granted.len() < before
    }

    /// Gives a place to who has been blocked for longest. Gives its member where that must be
    /// notified: it has no other grants that it hasn't fetched.
    pub fn grant(&mut self) -> Option<usize> {
        let (_, member, key) = self.blocked.pop_first()?;
        let granted = &mut self.granted[member];
        granted.push_back(key);
        (granted.len() == 1).then_some(member)
    }

    /// The callers of a member that were granted a place since it last fetched them, in order.
    pub fn fetch(&mut self, member: usize) -> VecDeque<K> {
        std::mem::take(&mut self.granted[member])
    }

    /// Forgets what a member requested. Gives the number of places that it was granted and hasn't
    /// fetched.
    pub fn forget(&mut self, member: usize) -> usize {
        self.blocked.retain(|(_, other, _)| *other != member);
        self.fetch(member).len()
    }
}
