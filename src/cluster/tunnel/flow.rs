//! The numbers of a tunnel's messages: what has come, what may be sent. Pure.

use std::collections::VecDeque;

/// How many messages may be on their way unread.
const MAX_PARTS: usize = 64;

/// How many bytes may be.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// So much is read before it is acknowledged: less than what may be on its way, so that the other end never
/// waits for an acknowledgement that isn't due.
const ACK_PARTS: u64 = 16;

const ACK_BYTES: usize = MAX_BYTES / 4;

/// What a message with a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The one that was expected.
    Next,
    /// One that has come before.
    Again,
    /// One is missing before it.
    Gap,
}

/// Checks that messages come in order and whole: NATS may lose some while a connection is made again.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    next: u64,
}

impl Arrivals {
    pub fn arrive(&mut self, number: u64) -> Arrival {
        if number < self.next {
            return Arrival::Again;
        }
        if number > self.next {
            return Arrival::Gap;
        }
        self.next += 1;
        Arrival::Next
    }

    /// Whether all has come of what the other end has sent before it said this.
    pub fn has_all_before(&self, next: u64) -> bool {
        next <= self.next
    }
}

/// What was sent and isn't acknowledged.
#[derive(Debug, Default)]
pub(super) struct Window {
    acknowledged: u64,
    lengths: VecDeque<usize>,
    bytes: usize,
}

impl Window {
    /// Whether more may be sent. One that is longer than all that may be on its way goes alone.
    pub fn has_room(&self) -> bool {
        self.lengths.len() < MAX_PARTS && self.bytes < MAX_BYTES
    }

    /// The number of a message of this length that is being sent.
    pub fn send(&mut self, length: usize) -> u64 {
        self.lengths.push_back(length);
        self.bytes += length;
        self.acknowledged + self.lengths.len() as u64 - 1
    }

    /// All before this number has been read.
    pub fn acknowledge(&mut self, next: u64) {
        while self.acknowledged < next {
            let Some(length) = self.lengths.pop_front() else { return };
            self.bytes -= length;
            self.acknowledged += 1;
        }
    }
}

/// Says when what was read is to be acknowledged.
#[derive(Debug, Default)]
pub(super) struct Taken {
    next: u64,
    acknowledged: u64,
    bytes: usize,
}

impl Taken {
    /// One more of this length has been read: what is to be acknowledged now.
    pub fn take(&mut self, length: usize) -> Option<u64> {
        self.next += 1;
        self.bytes += length;
        let is_due = self.next - self.acknowledged >= ACK_PARTS || self.bytes >= ACK_BYTES;
        is_due.then(|| {
            self.acknowledged = self.next;
            self.bytes = 0;
            self.next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_missing_or_comes_twice_is_noticed() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.arrive(0), Arrival::Next);
        assert_eq!(arrivals.arrive(0), Arrival::Again);
        assert_eq!(arrivals.arrive(2), Arrival::Gap);
        assert_eq!(arrivals.arrive(1), Arrival::Next);
        assert!(arrivals.has_all_before(2) && !arrivals.has_all_before(3));
        assert_eq!(arrivals.arrive(2), Arrival::Next);
    }

    #[test]
    fn a_slow_reader_stops_its_sender() {
        let mut window = Window::default();
        let mut sent = 0;
        while window.has_room() {
            assert_eq!(window.send(1), sent);
            sent += 1;
        }
        assert_eq!(sent, MAX_PARTS as u64);
        window.acknowledge(1);
        assert!(window.has_room());
        window.send(MAX_BYTES);
        assert!(!window.has_room());
        window.acknowledge(60);
        assert!(!window.has_room(), "the long one is on its way");
        // Too many are as all.
        window.acknowledge(1000);
        assert!(window.has_room());
        assert_eq!(window.send(0), sent + 1);
    }

    proptest! {
        /// Whatever the lengths, a reader that reads on always lets its sender go on.
        #[test]
        fn nobody_waits_for_ever(lengths in prop::collection::vec(0..600_000_usize, 1..500)) {
            let (mut window, mut taken) = (Window::default(), Taken::default());
            let mut on_their_way = VecDeque::new();
            for length in lengths {
                while !window.has_room() {
                    let read = on_their_way.pop_front().expect("something is on its way");
                    if let Some(next) = taken.take(read) {
                        window.acknowledge(next);
                    }
                }
                window.send(length);
                on_their_way.push_back(length);
                prop_assert!(on_their_way.len() <= MAX_PARTS + ACK_PARTS as usize);
            }
        }
    }
}
