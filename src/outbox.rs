//! The updates that a reader has not read yet: bounded, whatever the reader does.
//!
//! Of estimations and progress only the latest is kept. Yielded values and log messages are kept up
//! to a number, and values up to a size, an event; beyond that a newer one takes the place of the
//! newest unread. The terminal update is never dropped.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use crate::event::EventMap;
use crate::handover::Handover;
use crate::update::Update;

/// What an event may have unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Yielded values, and log messages.
    pub number: u32,
    /// The yielded values' size as JSON, in bytes.
    pub bytes: u32,
}

/// For readers in this process.
pub(crate) const UNREAD: Bounds = Bounds { number: 1024, bytes: u32::MAX };

/// So many unread values of an event are kept unseen: measuring costs as much as writing them.
const UNMEASURED: u32 = 8;

/// A queue of updates with one reader. Writers on any thread.
#[derive(Debug)]
pub(crate) struct Outbox(Handover<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    updates: VecDeque<Update>,
    /// How many have been read: the number of the first in `updates`.
    read: u64,
    /// What each event has unread, by kind.
    unread: EventMap<[Unread; KINDS]>,
}

const KINDS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Unread {
    count: u32,
    /// Of the values beyond [`UNMEASURED`], since there were none unread.
    bytes: u32,
    newest: u64,
}

const VALUES: usize = 3;

/// The kind of an update that gives way to a newer one.
fn kind(update: &Update) -> Option<usize> {
    match update {
        Update::Estimation { .. } => Some(0),
        Update::Progress { .. } => Some(1),
        Update::Log { .. } => Some(2),
        Update::ProcessGenerating { .. } => Some(VALUES),
        Update::ProcessStarts { .. } | Update::ProcessCompleted { .. } => None,
    }
}

impl Outbox {
    pub fn new(bounds: Bounds) -> Self {
        let (updates, unread) = (VecDeque::new(), EventMap::default());
        Outbox(Handover::new(Inner { bounds, updates, read: 0, unread }))
    }

    pub fn push(&self, update: Update) {
        self.0.write(|inner| inner.push(update));
    }

    /// The next unread update, if there is one now.
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    pub fn try_next(&self) -> Option<Update> {
        self.0.lock().pop()
    }

    /// The next unread update. The latest caller is woken when there is one.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Update> {
        self.0.poll(cx, Inner::pop)
    }
}

impl Inner {
    fn push(&mut self, update: Update) {
        let event_id = update.event_id();
        if let Some(kind) = kind(&update) {
            let bounds = self.bounds;
            let unread = &mut self.unread.entry(event_id).or_default()[kind];
            if let Update::ProcessGenerating { output, .. } = &update
                && unread.count >= UNMEASURED
                && bounds.bytes < u32::MAX
            {
                let length = u32::try_from(output.json_len()).unwrap_or(u32::MAX);
                unread.bytes = unread.bytes.saturating_add(length);
            }
            let keep = if kind < 2 { 1 } else { bounds.number };
            if unread.count >= keep || (unread.count > 0 && unread.bytes > bounds.bytes) {
                let at = unread.newest.wrapping_sub(self.read) as usize;
                if let Some(place) = self.updates.get_mut(at) {
                    *place = update;
                    return;
                }
            }
            unread.count += 1;
            unread.newest = self.read + self.updates.len() as u64;
        }
        if self.updates.len() == self.updates.capacity() {
            // A million events that wait have one unread each.
            self.updates.reserve_exact(self.updates.len().max(1));
        }
        self.updates.push_back(update);
    }

    fn pop(&mut self) -> Option<Update> {
        let update = self.updates.pop_front()?;
        self.read += 1;
        let event_id = update.event_id();
        if update.is_terminal() {
            self.unread.remove(&event_id);
        } else if let Some(kind) = kind(&update)
            && let Some(unread) = self.unread.get_mut(&event_id)
        {
            unread[kind].count -= 1;
            if unread[kind].count == 0 {
                unread[kind].bytes = 0;
            }
        }
        Some(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;
    use crate::output::Output;
    use crate::update::Outcome;
    use proptest::prelude::*;

    fn estimation(event: u128, rank: usize) -> Update {
        let event_id = EventId::for_test(event);
        Update::Estimation { event_id, rank, queue_size: 9, rank_eta: None }
    }

    fn item(event: u128, n: usize) -> Update {
        let event_id = EventId::for_test(event);
        Update::ProcessGenerating { event_id, output: Output::new(n), duration: 0.0 }
    }

    fn end(event: u128) -> Update {
        Update::ProcessCompleted {
            event_id: EventId::for_test(event),
            outcome: Outcome::Cancelled,
            duration: 0.0,
            average_duration: None,
        }
    }

    fn drain(outbox: &Outbox) -> Vec<Update> {
        let mut inner = outbox.0.lock();
        std::iter::from_fn(|| inner.pop()).collect()
    }

    #[test]
    fn an_unread_estimation_gives_way_to_a_newer_one_of_its_own_event() {
        let outbox = Outbox::new(UNREAD);
        for update in [estimation(1, 5), estimation(2, 6), estimation(1, 4)] {
            outbox.push(update);
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
            outbox.push(item(1, n));
            outbox.push(estimation(1, n));
        }
        outbox.push(end(1));
        let updates = drain(&outbox);
        assert_eq!(updates.len(), UNREAD.number as usize + 2);
        let Update::ProcessGenerating { output, .. } = &updates[updates.len() - 2] else {
            panic!("the newest item stands last")
        };
        assert_eq!(output.get(), Some(&(3 * UNREAD.number as usize - 1)));
        assert!(outbox.0.lock().unread.is_empty());
    }

    #[test]
    fn large_values_give_way_earlier() {
        let outbox = Outbox::new(Bounds { number: 1024, bytes: 10_000 });
        let push = |n: usize| {
            let (event_id, output) = (EventId::for_test(1), Output::new("x".repeat(n)));
            outbox.push(Update::ProcessGenerating { event_id, output, duration: 0.0 });
        };
        (0..100).for_each(|_| push(3000));
        push(3001);
        let updates = drain(&outbox);
        assert_eq!(updates.len(), UNMEASURED as usize + 3);
        let Update::ProcessGenerating { output, .. } = &updates[updates.len() - 1] else {
            panic!("only values were pushed")
        };
        assert_eq!(output.get::<String>().map(String::len), Some(3001));
        // Who has caught up has room again.
        let push = |n: usize| {
            let (event_id, output) = (EventId::for_test(1), Output::new("x".repeat(n)));
            outbox.push(Update::ProcessGenerating { event_id, output, duration: 0.0 });
        };
        (0..UNMEASURED + 2).for_each(|_| push(10));
        assert_eq!(drain(&outbox).len(), UNMEASURED as usize + 2);
    }

    proptest! {
        /// However reads and writes interleave: every terminal update comes, once, and last.
        #[test]
        fn no_terminal_update_is_lost(steps in proptest::collection::vec((0..4u8, 0..3u128), 0..200)) {
            let outbox = Outbox::new(UNREAD);
            let mut read = Vec::new();
            for (step, event) in steps {
                match step {
                    0 => outbox.push(estimation(event, 1)),
                    1 => outbox.push(item(event, 1)),
                    _ => read.extend(outbox.0.lock().pop()),
                }
            }
            (0..3).for_each(|event| outbox.push(end(event)));
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
