//! What a session's stream has handed out, numbered, so that a client that comes back after its
//! stream broke off gets what it has missed, once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::event::id::EventId;

/// The maximum of kept ends.
const MAX_ENDS: usize = 1024;

/// The maximum of bytes of kept values, with [`OVERHEAD`] for each.
const MAX_BYTES: usize = 1024 * 1024;

/// The same for a session while all together keep more than [`ALL_BYTES`].
const CROWDED_BYTES: usize = 16 * 1024;

/// The bytes of values that all sessions may keep.
pub(crate) const ALL_BYTES: usize = 64 * 1024 * 1024;

/// What a value takes beside its text, in bytes.
const OVERHEAD: usize = 128;

/// Numbers every message; keeps yielded values as they were written, and the position of each end.
/// Estimations and progress are not kept: what holds now counts.
#[derive(Debug, Default)]
pub(crate) struct ReplayLog {
    /// The bytes of all sessions. A sum, in which the order doesn't matter.
    all: Arc<AtomicUsize>,
    last: u64,
    entries: VecDeque<Entry>,
    /// The values among them, and their bytes.
    values: usize,
    bytes: usize,
    /// Values up to and with this number are not all here.
    lost: u64,
    /// Up to and with this number, all has been handed to a stream.
    handed: u64,
    /// Up to and with this number, the client has got what it was handed.
    settled: u64,
}

/// A yielded value, or an event's end.
#[derive(Debug)]
pub(crate) struct Entry {
    pub number: u64,
    pub event: EventId,
    /// The value as it was written; `None` for an end, which is found among the results.
    pub value: Option<Bytes>,
}

impl ReplayLog {
    /// One of several that count their bytes together.
    pub fn new(all: Arc<AtomicUsize>) -> Self {
        let mut log = ReplayLog::default();
        log.all = all;
        log
    }

    /// Its numbers begin after those of all that other nodes of a cluster have kept for the same client before: by
    /// the clock, in steps that a script's numbers hold. So what a client has read there counts as before all
    /// that is kept here, and nothing is taken for read that wasn't.
    #[cfg(feature = "cluster")]
    pub fn number_by_clock(&mut self, unix_millis: u64) {
        self.last = self.last.max(unix_millis.saturating_mul(1024));
    }

    /// The number of the next message.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A value was written.
    pub fn value(&mut self, number: u64, event: EventId, text: Bytes) {
        self.bytes += text.len() + OVERHEAD;
        self.all.fetch_add(text.len() + OVERHEAD, Relaxed);
        self.values += 1;
        self.push(Entry { number, event, value: Some(text) });
    }

    /// A value was written for a client that will not fetch it again.
    pub fn forget_value(&mut self, number: u64) {
        self.lost = self.lost.max(number);
    }

    /// An event has ended.
    pub fn end(&mut self, number: u64, event: EventId) {
        self.push(Entry { number, event, value: None });
    }

    fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        let crowded = self.all.load(Relaxed) > ALL_BYTES;
        let max = if crowded { CROWDED_BYTES } else { MAX_BYTES };
        // Ends cost next to nothing, and are not to be lost for others' values.
        while self.bytes > max {
            let Some(oldest) = self.entries.iter().position(|entry| entry.value.is_some()) else {
                break;
            };
            if let Some(Entry { number, value: Some(text), .. }) = self.entries.remove(oldest) {
                self.bytes -= text.len() + OVERHEAD;
                self.all.fetch_sub(text.len() + OVERHEAD, Relaxed);
                self.values -= 1;
                // Something newer may have been lost before it.
                self.lost = self.lost.max(number);
            }
        }
        if self.entries.len() - self.values > MAX_ENDS
            && let Some(oldest) = self.entries.iter().position(|entry| entry.value.is_none())
        {
            self.entries.remove(oldest);
        }
    }

    /// The number of the last message.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Everything kept from after a number on.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.number <= number);
        self.entries.range(first..)
    }

    /// Whether every value from after a number on is still here.
    pub fn has_values_after(&self, number: u64) -> bool {
        self.lost <= number
    }

    /// A stream has been handed all there is.
    pub fn hand_out(&mut self) {
        self.handed = self.last;
    }

    /// What was handed out so far has arrived: the client has taken more since. What was put aside
    /// without a stream has not.
    pub fn settle(&mut self) {
        self.settled = self.handed;
    }

    /// Ends that may not have arrived, or were not handed to anybody.
    pub fn unsettled_ends(&self) -> impl Iterator<Item = &Entry> {
        self.after(self.settled).filter(|entry| entry.value.is_none())
    }

    /// The bytes of the values that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all values.
    pub fn clear_values(&mut self) {
        self.entries.retain(|entry| entry.value.is_none());
        self.entries.shrink_to_fit();
        self.all.fetch_sub(self.bytes, Relaxed);
        (self.values, self.bytes) = (0, 0);
        self.lost = self.last;
    }
}

impl Drop for ReplayLog {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventId {
        EventId::for_test(1)
    }

    fn values(log: &ReplayLog, after: u64) -> Vec<u64> {
        log.after(after).map(|entry| entry.number).collect()
    }

    #[test]
    fn what_came_after_a_number_is_found() {
        let mut log = ReplayLog::default();
        for n in 1..=5 {
            let number = log.number();
            assert_eq!(number, n);
            if n % 2 == 1 {
                log.value(number, event(), Bytes::from_static(b"x"));
            }
        }
        let number = log.number();
        log.end(number, event());
        assert_eq!(values(&log, 0), [1, 3, 5, 6]);
        assert_eq!(values(&log, 3), [5, 6]);
        assert_eq!(values(&log, 99), [0; 0]);
        assert!(log.has_values_after(0));
        log.clear_values();
        assert_eq!(values(&log, 0), [6]);
        assert!(!log.has_values_after(5) && log.has_values_after(6));
    }

    fn add(log: &mut ReplayLog, bytes: usize) -> u64 {
        let number = log.number();
        log.value(number, event(), Bytes::from(vec![0; bytes]));
        number
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn what_was_read_on_another_node_is_before_all() {
        let (mut there, mut here) = (ReplayLog::default(), ReplayLog::default());
        there.number_by_clock(1_700_000_000_000);
        let read = add(&mut there, 1);
        here.number_by_clock(1_700_000_000_001);
        let kept = [add(&mut here, 1), add(&mut here, 1)];
        assert!(here.has_values_after(read) && read <= here.last());
        assert_eq!(values(&here, read), kept);
        assert!(kept[1] < 1 << 53);
    }

    #[test]
    fn it_is_bounded_in_bytes() {
        let mut log = ReplayLog::default();
        let fit = MAX_BYTES / (OVERHEAD + 128);
        for _ in 0..2 * fit {
            add(&mut log, 128);
        }
        assert_eq!(values(&log, 0).len(), fit);
        assert!(!log.has_values_after(fit as u64 - 1) && log.has_values_after(fit as u64));
        let number = add(&mut log, MAX_BYTES - OVERHEAD);
        assert_eq!(values(&log, 0), [number]);
        add(&mut log, MAX_BYTES);
        assert_eq!(values(&log, 0), [0; 0]);
        assert_eq!(log.bytes, 0);
    }

    #[test]
    fn all_together_are_bounded() {
        let all = Arc::new(AtomicUsize::new(0));
        let mut logs = Vec::new();
        for _ in 0..100 {
            let mut log = ReplayLog::new(all.clone());
            for _ in 0..20 {
                add(&mut log, 100_000);
            }
            add(&mut log, 1_000);
            logs.push(log);
        }
        let sum: usize = logs.iter().map(|log| log.bytes).sum();
        assert_eq!(sum, all.load(Relaxed));
        assert!(sum <= ALL_BYTES + MAX_BYTES + 100 * CROWDED_BYTES, "{sum}");
        drop(logs);
        assert_eq!(all.load(Relaxed), 0);
    }

    #[test]
    fn what_was_lost_stays_lost_when_something_older_goes() {
        let mut log = ReplayLog::default();
        let kept = add(&mut log, 10);
        // Sent to a client without numbers, and not kept.
        let lost = log.number();
        log.forget_value(lost);
        let number = add(&mut log, MAX_BYTES - OVERHEAD);
        assert_eq!(values(&log, 0), [number], "there was no room for the first");
        assert!(!log.has_values_after(kept) && log.has_values_after(lost));
    }

    #[test]
    fn an_end_outlasts_values() {
        let mut log = ReplayLog::default();
        let end = log.number();
        log.end(end, event());
        for _ in 0..2000 {
            add(&mut log, MAX_BYTES / 100);
        }
        assert!(values(&log, 0).contains(&end));
        assert!(log.bytes <= MAX_BYTES);
    }

    #[test]
    fn an_end_is_unsettled_until_more_is_taken() {
        let mut log = ReplayLog::default();
        let end = |log: &mut ReplayLog, n| {
            let number = log.number();
            log.end(number, EventId::for_test(n));
        };
        let handed = |log: &mut ReplayLog| log.hand_out();
        let unsettled =
            |log: &ReplayLog| log.unsettled_ends().map(|entry| entry.number).collect::<Vec<_>>();
        end(&mut log, 1);
        handed(&mut log);
        log.settle();
        end(&mut log, 2);
        assert_eq!(unsettled(&log), [2]);
        handed(&mut log);
        assert_eq!(unsettled(&log), [2]);
        log.settle();
        end(&mut log, 3);
        // No stream was open to be handed it.
        log.settle();
        assert_eq!(unsettled(&log), [3]);
        handed(&mut log);
        log.settle();
        assert_eq!(unsettled(&log), [0; 0]);
    }
}
