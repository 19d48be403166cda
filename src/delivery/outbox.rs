//! The updates that a reader has not read yet: bounded, whatever the reader does.
//!
//! Of estimations and progress only the latest is kept. Yielded values and log messages are kept up
//! to a number or a size, an event; beyond that a newer one takes the place of the newest unread, and
//! whoever reads it learns that some are missing. The terminal update is never dropped; where all that
//! is unread is too much, the largest results are, and their events end with an error that says so.

use std::task::{Context, Poll};

use super::bounds::{Bounds, weight};
use super::unread::{Gone, Read, UnreadUpdates};
use super::wake_cell::WakeCell;
use crate::event::id::EventId;
use crate::event::update::Update;

/// A queue of updates with one reader. Writers on any thread.
#[derive(Debug)]
pub(crate) struct Outbox(WakeCell<UnreadUpdates>);

impl Outbox {
    pub fn new(bounds: Bounds) -> Self {
        Outbox(WakeCell::new(UnreadUpdates::new(bounds)))
    }

    /// Takes an update for the reader. Gives by how many bytes it holds more, or less.
    pub fn push(&self, update: Update, gone: &mut Gone) -> isize {
        // What is read at once is never too much; measured without the lock.
        let awaited = {
            let mut inner = self.0.lock();
            inner.bounds.bytes.is_none() || std::mem::take(&mut inner.awaited)
        };
        let weight = if awaited { 0 } else { weight(&update) };
        let mut change = 0;
        let gone = &mut gone.updates;
        self.0.write(|inner| change = inner.changing(|inner| inner.push(update, weight, gone)));
        change
    }

    /// An event begins. Where bytes are bounded, updates of others are dropped.
    pub fn begin(&self, event: EventId) {
        self.0.lock().begin(event);
    }

    /// Drops what there is of an event, and what still comes.
    pub fn forget(&self, event: EventId) -> isize {
        let mut gone = Vec::new();
        let change = self.0.lock().changing(|inner| inner.forget(event, &mut gone));
        drop(gone);
        change
    }

    /// Somebody reads from now on, or nobody does.
    pub fn attend(&self, attended: bool) {
        let mut inner = self.0.lock();
        inner.attended = attended;
        inner.awaited = false;
    }

    /// Drops the largest of what is unread: values first, then results.
    pub fn give_up(&self, gone: &mut Gone) -> isize {
        self.0.lock().changing(|inner| {
            inner.give_up(&mut gone.updates);
        })
    }

    /// The weight of what is unread, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// Wakes the reader, though there is no other update.
    pub fn wake(&self) {
        self.0.write(|_| ());
    }

    /// The next unread update, if there is one now.
    pub fn try_next(&self) -> Option<Read> {
        self.0.lock().pop()
    }

    /// The next unread update. The latest caller is woken when there is one.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Read> {
        self.0.poll(cx, |inner| {
            let read = inner.pop();
            inner.awaited = read.is_none();
            read
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::{ByteBounds, OVERHEAD, UNREAD};
    use super::*;
    use crate::event::output::Output;
    use crate::event::update::Outcome;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        number: u32::MAX,
        bytes: Some(ByteBounds { attended: 2_000, absent: 20_000, all: 50_000 }),
    };

    fn estimation(event: u128, rank: usize) -> Update {
        let event_id = EventId::for_test(event);
        Update::Estimation { event_id, rank, queue_size: 9, rank_eta: None }
    }

    fn item(event: u128, n: usize) -> Update {
        let event_id = EventId::for_test(event);
        Update::ProcessGenerating { event_id, output: Output::new(n), duration: 0.0 }
    }

    fn text(event: u128, bytes: usize) -> Update {
        let (event_id, output) = (EventId::for_test(event), Output::new("x".repeat(bytes)));
        Update::ProcessGenerating { event_id, output, duration: 0.0 }
    }

    fn ended(event: u128, outcome: Outcome) -> Update {
        let event_id = EventId::for_test(event);
        Update::ProcessCompleted { event_id, outcome, duration: 0.0, average_duration: None }
    }

    fn end(event: u128) -> Update {
        ended(event, Outcome::Cancelled)
    }

    fn result(event: u128, bytes: usize) -> Update {
        ended(event, Outcome::Completed(Some(Output::new("x".repeat(bytes)))))
    }

    fn measured(events: std::ops::Range<u128>) -> Outbox {
        let outbox = Outbox::new(BOUNDS);
        events.for_each(|event| outbox.begin(EventId::for_test(event)));
        outbox
    }

    fn push(outbox: &Outbox, update: Update) -> isize {
        outbox.push(update, &mut Gone::default())
    }

    fn drain(outbox: &Outbox) -> Vec<Update> {
        let mut inner = outbox.0.lock();
        std::iter::from_fn(|| inner.pop()).map(|read| read.update).collect()
    }

    /// The lengths of all values and results, with whether some before were skipped; none for a
    /// result that isn't kept.
    fn lengths(outbox: &Outbox) -> Vec<(Option<usize>, bool)> {
        let mut inner = outbox.0.lock();
        let read = std::iter::from_fn(|| inner.pop());
        read.map(|Read { update, skipped, .. }| {
            let output = match &update {
                Update::ProcessGenerating { output, .. } => Some(output),
                Update::ProcessCompleted { outcome: Outcome::Completed(output), .. } => {
                    output.as_ref()
                }
                _ => None,
            };
            (output.and_then(|output| output.get::<String>()).map(String::len), skipped)
        })
        .collect()
    }

    #[test]
    fn an_unread_estimation_gives_way_to_a_newer_one_of_its_own_event() {
        let outbox = Outbox::new(UNREAD);
        for update in [estimation(1, 5), estimation(2, 6), estimation(1, 4)] {
            push(&outbox, update);
        }
        let ranks: Vec<_> = drain(&outbox)
            .into_iter()
            .map(|u| match u {
                Update::Estimation { event_id, rank, .. } => (event_id, rank),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ranks, [(EventId::for_test(1), 4), (EventId::for_test(2), 6)]);
    }

    #[test]
    fn a_reader_that_never_reads_costs_a_bounded_number() {
        let outbox = Outbox::new(UNREAD);
        for n in 0..3 * UNREAD.number as usize {
            push(&outbox, item(1, n));
            push(&outbox, estimation(1, n));
        }
        push(&outbox, end(1));
        let updates = drain(&outbox);
        assert_eq!(updates.len(), UNREAD.number as usize + 2);
        let Update::ProcessGenerating { output, .. } = &updates[updates.len() - 2] else {
            panic!("the newest item stands last")
        };
        assert_eq!(output.get(), Some(&(3 * UNREAD.number as usize - 1)));
        assert!(outbox.0.lock().events.is_empty());
    }

    #[test]
    fn values_are_bounded_by_bytes_less_while_somebody_reads() {
        for (attended, fit) in [(true, 2), (false, 20)] {
            let outbox = measured(1..2);
            outbox.attend(attended);
            // With what each takes beside, 1,000 bytes.
            (0..100).for_each(|_| {
                push(&outbox, text(1, 998 - OVERHEAD));
            });
            let mut expected = vec![(Some(998 - OVERHEAD), false); fit];
            expected[fit - 1].1 = true;
            assert_eq!(lengths(&outbox), expected);
            // Who has caught up has room again.
            push(&outbox, text(1, 10));
            assert_eq!(lengths(&outbox), [(Some(10), false)]);
        }
    }

    #[test]
    fn what_is_read_at_once_is_not_measured() {
        let outbox = measured(1..2);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(outbox.poll_next(cx).is_pending());
        assert_eq!(push(&outbox, text(1, 1_000)), 0);
        assert!(push(&outbox, text(1, 1_000)) > 1_000);
        assert!(outbox.poll_next(cx).is_ready());
        assert!(outbox.bytes() > 1_000);
        assert!(outbox.poll_next(cx).is_ready());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn results_that_are_too_much_end_their_events_all_the_same() {
        let outbox = measured(0..10);
        push(&outbox, text(9, 100));
        (0..4).for_each(|event| {
            push(&outbox, result(event, 19_998));
        });
        push(&outbox, result(4, 98));
        push(&outbox, result(9, 98));
        // Values first, then the oldest of the largest.
        let whole = |bytes| (Some(bytes), false);
        let gone = (None, false);
        let all = [gone, gone, whole(19_998), whole(19_998), whole(98), (Some(98), true)];
        assert_eq!(lengths(&outbox), all);
        // A single one may be larger.
        let outbox = measured(0..2);
        push(&outbox, result(0, 99_998));
        assert_eq!(outbox.bytes(), 100_000);
        assert_eq!(push(&outbox, result(1, 8)), 10 - 100_000);
        assert_eq!(lengths(&outbox), [gone, whole(8)]);
    }

    #[test]
    fn an_event_that_is_forgotten_leaves_nothing() {
        let outbox = measured(0..2);
        for event in [0, 1, 0] {
            push(&outbox, text(event, 10));
        }
        assert!(outbox.forget(EventId::for_test(0)) < -20);
        push(&outbox, estimation(0, 1));
        push(&outbox, result(0, 1_000));
        push(&outbox, end(1));
        assert_eq!(lengths(&outbox), [(Some(10), false), (None, false)]);
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.0.lock().events.is_empty());
    }

    proptest! {
        /// However reads and writes interleave: every terminal update comes, once, and last; and the
        /// books balance.
        #[test]
        fn no_terminal_update_is_lost(
            steps in proptest::collection::vec((0..6u8, 0..3u128, 0..30_000usize), 0..200),
            attended: bool,
        ) {
            let outbox = measured(0..3);
            outbox.attend(attended);
            let mut read = Vec::new();
            let mut bytes = 0;
            for (step, event, size) in steps {
                match step {
                    0 => bytes += push(&outbox, estimation(event, 1)),
                    1 | 2 => bytes += push(&outbox, text(event, size)),
                    3 => bytes += outbox.give_up(&mut Gone::default()),
                    _ => {
                        let popped = outbox.0.lock().pop();
                        bytes -= popped.as_ref().map_or(0, |read| read.weight) as isize;
                        read.extend(popped.map(|read| read.update));
                    }
                }
                prop_assert_eq!(bytes, outbox.bytes() as isize);
                let inner = outbox.0.lock();
                let counted: usize = inner.events.values().flatten().map(|c| c.bytes).sum();
                prop_assert_eq!(counted, inner.bytes);
                prop_assert!(inner.bytes <= 50_000 + 30_000 + OVERHEAD);
            }
            (0..3).for_each(|event| { push(&outbox, result(event, 20_000)); });
            prop_assert!(outbox.bytes() <= 50_000);
            read.extend(drain(&outbox));
            for event in 0..3 {
                let own: Vec<_> = read
                    .iter()
                    .filter(|u| u.event_id() == EventId::for_test(event))
                    .map(Update::is_terminal)
                    .collect();
                prop_assert_eq!(own.iter().filter(|t| **t).count(), 1);
                prop_assert_eq!(own.last(), Some(&true));
            }
        }
    }
}
