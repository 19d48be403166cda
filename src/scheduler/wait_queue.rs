//! The wait queue: first in, first out, with O(1) push, pop and removal from the middle.
//!
//! Every node is linked twice: into the wait queue as a whole, which is the order of admission, and into
//! the lane of its listener, from which a batch gathers its events. Both lists are made of slab
//! indexes, so that leaving from the middle costs the same as leaving from the front.

use slab::Slab;

const NONE: usize = usize::MAX;

/// Where a value stands. A key outlives its value harmlessly: once the value has left the wait queue,
/// the key finds nothing, even when its place in memory has been taken again.
///
/// Of two keys of one queue, that of the value that came first is the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    seq: u64,
    index: usize,
}

#[derive(Debug)]
struct Node<T> {
    value: T,
    seq: u64,
    lane: usize,
    before: usize,
    after: usize,
    lane_before: usize,
    lane_after: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    front: usize,
    back: usize,
    len: usize,
}

const EMPTY: Ends = Ends { front: NONE, back: NONE, len: 0 };

/// A FIFO queue with one lane a listener.
#[derive(Debug)]
pub(crate) struct WaitQueue<T> {
    nodes: Slab<Node<T>>,
    whole: Ends,
    lanes: Vec<Ends>,
    next_seq: u64,
}

impl<T> WaitQueue<T> {
    pub fn new(lanes: usize) -> Self {
        WaitQueue { nodes: Slab::new(), whole: EMPTY, lanes: vec![EMPTY; lanes], next_seq: 0 }
    }

    /// One more lane, behind the others.
    pub fn add_lane(&mut self) {
        self.lanes.push(EMPTY);
    }

    /// Gives no key that `other` has given.
    pub fn number_from(&mut self, other: &Self) {
        self.next_seq = other.next_seq;
    }

    pub fn len(&self) -> usize {
        self.whole.len
    }

    pub fn is_empty(&self) -> bool {
        self.whole.len == 0
    }

    pub fn lane_len(&self, lane: usize) -> usize {
        self.lanes[lane].len
    }

    /// Appends `value` behind everybody else.
    pub fn push_back(&mut self, lane: usize, value: T) -> Key {
        let seq = self.next_seq;
        self.next_seq += 1;
        let lane_before = self.lanes[lane].back;
        let index = self.nodes.insert(Node {
            value,
            seq,
            lane,
            before: self.whole.back,
            after: NONE,
            lane_before,
            lane_after: NONE,
        });
        match self.whole.back {
            NONE => self.whole.front = index,
            back => self.nodes[back].after = index,
        }
        match lane_before {
            NONE => self.lanes[lane].front = index,
            back => self.nodes[back].lane_after = index,
        }
        self.whole.back = index;
        self.whole.len += 1;
        self.lanes[lane].back = index;
        self.lanes[lane].len += 1;
        Key { index, seq }
    }

    /// Puts a value back where it stood before it was taken out. Costs a step for each value that
    /// stands before it.
    pub fn restore(&mut self, lane: usize, key: Key, value: T) -> Key {
        let Key { seq, .. } = key;
        let after_all = |from: usize, next: fn(&Node<T>) -> usize| {
            let (mut before, mut after) = (NONE, from);
            while let Some(node) = self.nodes.get(after).filter(|node| node.seq < seq) {
                (before, after) = (after, next(node));
            }
            (before, after)
        };
        let (before, after) = after_all(self.whole.front, |node| node.after);
        let (lane_before, lane_after) = after_all(self.lanes[lane].front, |node| node.lane_after);
        let node = Node { value, seq, lane, before, after, lane_before, lane_after };
        let index = self.nodes.insert(node);
        match before {
            NONE => self.whole.front = index,
            before => self.nodes[before].after = index,
        }
        match after {
            NONE => self.whole.back = index,
            after => self.nodes[after].before = index,
        }
        self.whole.len += 1;
        let ends = &mut self.lanes[lane];
        match lane_before {
            NONE => ends.front = index,
            before => self.nodes[before].lane_after = index,
        }
        match lane_after {
            NONE => ends.back = index,
            after => self.nodes[after].lane_before = index,
        }
        ends.len += 1;
        Key { index, seq }
    }

    /// Takes the value at `key` out of the wait queue, wherever it stands.
    pub fn remove(&mut self, key: Key) -> Option<(usize, T)> {
        self.get(key)?;
        let node = self.nodes.remove(key.index);
        match node.before {
            NONE => self.whole.front = node.after,
            before => self.nodes[before].after = node.after,
        }
        match node.after {
            NONE => self.whole.back = node.before,
            after => self.nodes[after].before = node.before,
        }
        self.whole.len -= 1;
        let lane = &mut self.lanes[node.lane];
        match node.lane_before {
            NONE => lane.front = node.lane_after,
            before => self.nodes[before].lane_after = node.lane_after,
        }
        match node.lane_after {
            NONE => lane.back = node.lane_before,
            after => self.nodes[after].lane_before = node.lane_before,
        }
        lane.len -= 1;
        // After a flood has drained, its memory goes back.
        if self.nodes.is_empty() && self.nodes.capacity() > 1024 {
            self.nodes = Slab::new();
        }
        Some((node.lane, node.value))
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let node = self.nodes.get(key.index)?;
        (node.seq == key.seq).then_some(&node.value)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let node = self.nodes.get_mut(key.index)?;
        (node.seq == key.seq).then_some(&mut node.value)
    }

    /// In which lane the value at `key` stands.
    pub fn lane_of(&self, key: Key) -> Option<usize> {
        let node = self.nodes.get(key.index)?;
        (node.seq == key.seq).then_some(node.lane)
    }

    /// The first of the whole queue, with its lane.
    pub fn front(&self) -> Option<(usize, Key)> {
        let node = self.nodes.get(self.whole.front)?;
        Some((node.lane, Key { index: self.whole.front, seq: node.seq }))
    }

    /// The first of one lane.
    pub fn lane_front(&self, lane: usize) -> Option<Key> {
        self.key_at(self.lanes[lane].front)
    }

    /// The last of one lane.
    pub fn lane_back(&self, lane: usize) -> Option<Key> {
        self.key_at(self.lanes[lane].back)
    }

    fn key_at(&self, index: usize) -> Option<Key> {
        let node = self.nodes.get(index)?;
        Some(Key { index, seq: node.seq })
    }

    /// The oldest value among the lanes that `eligible` lets through.
    pub fn front_among(&self, eligible: impl Fn(usize) -> bool) -> Option<(usize, Key)> {
        (0..self.lanes.len())
            .filter(|&lane| eligible(lane))
            .filter_map(|lane| Some((lane, self.lane_front(lane)?)))
            .min_by_key(|(_, key)| key.seq)
    }

    /// Everybody in order, with their lane.
    pub fn iter(&self) -> impl Iterator<Item = (Key, usize, &T)> {
        let mut at = self.whole.front;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at)?;
            let key = Key { index: at, seq: node.seq };
            at = node.after;
            Some((key, node.lane, &node.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(queue: &WaitQueue<u32>) -> Vec<u32> {
        queue.iter().map(|(_, _, v)| *v).collect()
    }

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut queue = WaitQueue::new(1);
        let key = queue.push_back(0, 1);
        queue.remove(key);
        queue.push_back(0, 2);
        assert_eq!(queue.get(key), None);
        assert_eq!(queue.remove(key), None);
        assert_eq!(values(&queue), [2]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Remove(usize),
        PopLane(usize),
        /// Takes some out, and puts them back in another order.
        TakeAndRestore(Vec<usize>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3usize).prop_map(Step::Push),
            1 => (0..64usize).prop_map(Step::Remove),
            1 => (0..3usize).prop_map(Step::PopLane),
            1 => proptest::collection::vec(0..64usize, 1..4).prop_map(Step::TakeAndRestore),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        /// The wait queue behaves as a plain vector of (lane, value) would.
        #[test]
        fn behaves_as_a_vector(steps in proptest::collection::vec(step(), 0..120)) {
            let mut queue = WaitQueue::new(3);
            let mut model: Vec<(usize, u32, Key)> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(lane) => {
                        let key = queue.push_back(lane, n as u32);
                        model.push((lane, n as u32, key));
                    }
                    Step::Remove(at) if !model.is_empty() => {
                        let (lane, value, key) = model.remove(at % model.len());
                        prop_assert_eq!(queue.remove(key), Some((lane, value)));
                    }
                    Step::Remove(_) => prop_assert!(queue.is_empty()),
                    Step::TakeAndRestore(ats) => {
                        let mut taken = Vec::new();
                        for at in ats {
                            let Some(&(lane, value, key)) = model.get(at) else { continue };
                            if queue.remove(key).is_some() {
                                taken.push((at, lane, value, key));
                            }
                        }
                        for (at, lane, value, key) in taken {
                            model[at].2 = queue.restore(lane, key, value);
                        }
                    }
                    Step::PopLane(lane) => {
                        let expected = model.iter().position(|(l, ..)| *l == lane);
                        let key = queue.lane_front(lane);
                        prop_assert_eq!(key, expected.map(|at| model[at].2));
                        if let (Some(key), Some(at)) = (key, expected) {
                            model.remove(at);
                            queue.remove(key);
                        }
                    }
                }
                let expected: Vec<u32> = model.iter().map(|(_, v, _)| *v).collect();
                prop_assert_eq!(values(&queue), expected);
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.front(), model.first().map(|(lane, _, key)| (*lane, *key)));
                for lane in 0..3 {
                    prop_assert_eq!(
                        queue.lane_len(lane),
                        model.iter().filter(|(l, ..)| *l == lane).count()
                    );
                }
                let odd = queue.front_among(|lane| lane == 1).map(|(_, key)| key);
                prop_assert_eq!(odd, model.iter().find(|(l, ..)| *l == 1).map(|(_, _, k)| *k));
            }
        }
    }
}
