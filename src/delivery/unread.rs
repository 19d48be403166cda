//! What a reader has not read yet, bounded: a pure data structure, without locks or wakers.

use std::collections::VecDeque;

use super::bounds::{Bounds, ByteBounds};
use crate::event::failure::{Failure, UserError};
use crate::event::id::{EventId, EventMap};
use crate::event::output::Output;
use crate::event::update::{Outcome, Update};

/// What was replaced by something newer, or is too much. It holds values of the service's own,
/// whose `Drop` may send updates: so it is dropped where no lock is held.
#[derive(Debug, Default)]
#[must_use = "drop it where no lock is held"]
pub(crate) struct Gone {
    pub updates: Vec<Update>,
    pub outputs: Vec<Output>,
}

#[derive(Debug)]
pub(super) struct UnreadUpdates {
    pub bounds: Bounds,
    updates: VecDeque<Unread>,
    /// The number of the next update.
    next: u64,
    /// What each event has unread, by kind.
    pub events: EventMap<[Count; KINDS]>,
    /// The weight of all updates.
    pub bytes: usize,
    /// The reader waits for the next update.
    pub awaited: bool,
    /// Somebody reads, if perhaps slowly.
    pub attended: bool,
}

/// An update that nobody has read.
#[derive(Debug)]
struct Unread {
    number: u64,
    update: Update,
    /// In bytes; 0 for what is not measured.
    weight: usize,
    /// Some values before it were dropped.
    skipped: bool,
}

/// An update, and what its reader must know of those before it.
#[derive(Debug)]
pub(crate) struct Read {
    pub update: Update,
    /// Its weight in bytes, 0 where it wasn't measured.
    pub weight: usize,
    /// Its event has yielded values that are missing.
    pub skipped: bool,
}

const KINDS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    count: u32,
    pub bytes: usize,
    newest: u64,
    /// Some were dropped, and nothing took their place.
    skipped: bool,
}

const PROGRESS: usize = 1;

const VALUES: usize = 3;

/// The kind of an update that gives way to a newer one.
fn kind(update: &Update) -> Option<usize> {
    match update {
        Update::Estimation { .. } => Some(0),
        Update::Progress { .. } => Some(PROGRESS),
        Update::Log { .. } => Some(2),
        Update::ProcessGenerating { .. } => Some(VALUES),
        Update::ProcessStarts { .. } | Update::ProcessCompleted { .. } => None,
    }
}

/// How an event ends whose result is too much.
pub(crate) fn not_kept() -> Failure {
    UserError::new("The result is not kept any more.").into()
}

impl UnreadUpdates {
    pub fn new(bounds: Bounds) -> Self {
        UnreadUpdates {
            bounds,
            updates: VecDeque::new(),
            next: 0,
            events: EventMap::default(),
            bytes: 0,
            awaited: false,
            attended: false,
        }
    }

    pub fn begin(&mut self, event: EventId) {
        self.events.entry(event).or_default();
    }

    pub fn changing(&mut self, change: impl FnOnce(&mut Self)) -> isize {
        let before = self.bytes;
        change(self);
        self.bytes as isize - before as isize
    }

    pub fn push(&mut self, update: Update, weight: usize, gone: &mut Vec<Update>) {
        let event = update.event_id();
        let measured = self.bounds.bytes;
        if measured.is_some() && !self.events.contains_key(&event) {
            gone.push(update);
            return;
        }
        let number = self.next;
        let mut skipped = false;
        if let Some(kind) = kind(&update) {
            let bytes = measured.map_or(usize::MAX, |bytes| match self.attended {
                true => bytes.attended,
                false => bytes.absent,
            });
            let max = if kind <= PROGRESS { 1 } else { self.bounds.number };
            let count = &mut self.events.entry(event).or_default()[kind];
            let over = count.count > 0 && count.bytes.saturating_add(weight) > bytes;
            if over || count.count >= max {
                let newest = count.newest;
                if let Some(index) = find(&self.updates, newest) {
                    let unread = &mut self.updates[index];
                    gone.push(std::mem::replace(&mut unread.update, update));
                    let before = std::mem::replace(&mut unread.weight, weight);
                    unread.skipped = kind == VALUES;
                    count.bytes = count.bytes - before + weight;
                    self.bytes = self.bytes - before + weight;
                    self.shrink(gone);
                    return;
                }
            }
            count.count += 1;
            count.bytes += weight;
            count.newest = number;
            skipped = std::mem::take(&mut count.skipped);
        } else if update.is_terminal()
            && let Some(counts) = self.events.get_mut(&event)
        {
            skipped = std::mem::take(&mut counts[VALUES].skipped);
        }
        if self.updates.len() == self.updates.capacity() {
            // A million events that wait have one unread each.
            self.updates.reserve_exact(self.updates.len().max(1));
        }
        self.next += 1;
        self.bytes += weight;
        self.updates.push_back(Unread { number, update, weight, skipped });
        self.shrink(gone);
    }

    /// Drops what is too much, but not the last that weighs anything.
    fn shrink(&mut self, gone: &mut Vec<Update>) {
        let Some(ByteBounds { all, .. }) = self.bounds.bytes else { return };
        while self.bytes > all {
            let heavy = self.updates.iter().filter(|unread| unread.weight > 0).take(2).count();
            if heavy < 2 || !self.give_up(gone) {
                return;
            }
        }
    }

    pub fn give_up(&mut self, gone: &mut Vec<Update>) -> bool {
        let heavy = self.updates.iter().enumerate().filter(|(_, unread)| unread.weight > 0);
        // Of several, the oldest.
        let largest = heavy.max_by_key(|(index, unread)| {
            (!unread.update.is_terminal(), unread.weight, std::cmp::Reverse(*index))
        });
        let Some((index, _)) = largest else { return false };
        let unread = &mut self.updates[index];
        self.bytes -= unread.weight;
        if let Update::ProcessCompleted { outcome, event_id, duration, average_duration } =
            &mut unread.update
        {
            let outcome = std::mem::replace(outcome, Outcome::Failed(not_kept()));
            unread.weight = 0;
            let (event_id, duration, average_duration) = (*event_id, *duration, *average_duration);
            gone.push(Update::ProcessCompleted { event_id, outcome, duration, average_duration });
        } else if let Some(unread) = self.updates.remove(index) {
            self.uncount(&unread);
            if let Some(counts) = self.events.get_mut(&unread.update.event_id())
                && kind(&unread.update) == Some(VALUES)
            {
                counts[VALUES].skipped = true;
            }
            gone.push(unread.update);
        }
        true
    }

    pub fn forget(&mut self, event: EventId, gone: &mut Vec<Update>) {
        self.events.remove(&event);
        let mut kept = VecDeque::new();
        for unread in self.updates.drain(..) {
            if unread.update.event_id() == event {
                self.bytes -= unread.weight;
                gone.push(unread.update);
            } else {
                kept.push_back(unread);
            }
        }
        self.updates = kept;
    }

    fn uncount(&mut self, unread: &Unread) {
        if let Some(kind) = kind(&unread.update)
            && let Some(counts) = self.events.get_mut(&unread.update.event_id())
        {
            counts[kind].count -= 1;
            counts[kind].bytes -= unread.weight;
        }
    }

    pub fn pop(&mut self) -> Option<Read> {
        let unread = self.updates.pop_front()?;
        self.bytes -= unread.weight;
        self.uncount(&unread);
        let Unread { update, weight, mut skipped, .. } = unread;
        if update.is_terminal() {
            self.events.remove(&update.event_id());
        } else if kind(&update) == Some(VALUES)
            && let Some(counts) = self.events.get_mut(&update.event_id())
        {
            skipped |= std::mem::take(&mut counts[VALUES].skipped);
        }
        Some(Read { update, weight, skipped })
    }
}

/// Where an update stands.
fn find(updates: &VecDeque<Unread>, number: u64) -> Option<usize> {
    updates.binary_search_by_key(&number, |unread| unread.number).ok()
}
