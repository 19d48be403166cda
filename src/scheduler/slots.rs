//! The slots of one concurrency id: who owns each.
//!
//! Slots are a set of owners, never a bare counter: a slot is freed once, by the run that owns it,
//! and what counts against the limit is how many are filled, not their numbers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::event::EventId;

/// How long a slot without a resource may idle before its worker is let go.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// The events of one run.
#[derive(Clone, Debug)]
pub(crate) enum Riders {
    One(EventId),
    Batch(Vec<EventId>),
}

impl Riders {
    pub fn as_slice(&self) -> &[EventId] {
        match self {
            Riders::One(id) => std::slice::from_ref(id),
            Riders::Batch(ids) => ids,
        }
    }
}

/// What fills a slot: one event, or one batch.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub riders: Riders,
    pub listener: usize,
    /// When the first of its events came into the line.
    pub submitted: Instant,
    pub started: Instant,
    pub deadline: Option<Instant>,
    /// The whole run has been told to stop and hasn't yet.
    pub interrupted: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// No worker stands here.
    Closed,
    /// The worker builds its resource; `trouble` says why the last attempt failed.
    Preparing {
        trouble: Option<String>,
    },
    Free {
        since: Instant,
    },
    Busy(Run),
    /// Its worker has been told to go, and counts until it has: it may run something yet.
    Vacating,
}

#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: BTreeSet<usize>,
    closed: BTreeSet<usize>,
    busy: usize,
    deadlines: BTreeSet<(Instant, usize)>,
    sweep: Option<Instant>,
    /// Workers build something, so that slots open ahead of use and stay open when idle.
    prepared: bool,
}

/// A slot to run on, and whether a worker must be put on it first.
pub(crate) struct Claim {
    pub slot: usize,
    pub open: bool,
}

impl Slots {
    pub fn new(prepared: bool) -> Self {
        Slots {
            slots: Vec::new(),
            free: BTreeSet::new(),
            closed: BTreeSet::new(),
            busy: 0,
            deadlines: BTreeSet::new(),
            sweep: None,
            prepared,
        }
    }

    pub fn busy(&self) -> usize {
        self.busy
    }

    pub fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate()
    }

    pub fn runs(&self) -> impl Iterator<Item = (usize, &Run)> {
        self.iter().filter_map(|(index, slot)| match slot {
            Slot::Busy(run) => Some((index, run)),
            _ => None,
        })
    }

    /// Whether a run may start now: the one place where the limit is held. What counts is how many
    /// slots are filled, since after a change of the limit their numbers say nothing.
    pub fn has_room(&self, limit: usize) -> bool {
        self.busy < limit
            && (!self.free.is_empty() || (!self.prepared && self.next_closed(limit).is_some()))
    }

    /// The slot for the next run, where there is room: a free one, else one to open where slots
    /// need no preparation.
    pub fn claim(&mut self, limit: usize) -> Option<Claim> {
        if let Some(slot) = self.free.pop_first() {
            return Some(Claim { slot, open: false });
        }
        if self.prepared {
            return None;
        }
        let slot = self.next_closed(limit)?;
        self.extend_to(slot);
        self.closed.remove(&slot);
        Some(Claim { slot, open: true })
    }

    fn next_closed(&self, limit: usize) -> Option<usize> {
        let slot = self.closed.first().copied().unwrap_or(self.slots.len());
        (slot < limit).then_some(slot)
    }

    fn extend_to(&mut self, slot: usize) {
        while self.slots.len() <= slot {
            self.closed.insert(self.slots.len());
            self.slots.push(Slot::Closed);
        }
    }

    /// Fills a claimed slot.
    pub fn fill(&mut self, slot: usize, run: Run) {
        if let Some(deadline) = run.deadline {
            self.deadlines.insert((deadline, slot));
        }
        self.slots[slot] = Slot::Busy(run);
        self.busy += 1;
    }

    /// Takes the run out of a busy slot. The slot must be set free or preparing next.
    pub fn vacate(&mut self, slot: usize) -> Option<Run> {
        let state = self.slots.get_mut(slot)?;
        match std::mem::replace(state, Slot::Closed) {
            Slot::Busy(run) => {
                if let Some(deadline) = run.deadline {
                    self.deadlines.remove(&(deadline, slot));
                }
                self.busy -= 1;
                Some(run)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// A slot of a scheduler before this one, whose worker hasn't gone yet.
    pub fn set_vacating(&mut self, slot: usize) {
        self.extend_to(slot);
        self.closed.remove(&slot);
        self.slots[slot] = Slot::Vacating;
        self.busy += 1;
    }

    /// The worker of a vacating slot has gone.
    pub fn vacated(&mut self, slot: usize) {
        self.busy -= 1;
        self.close(slot);
        self.trim();
    }

    /// A busy or preparing slot waits for an event.
    pub fn set_free(&mut self, slot: usize, now: Instant) {
        self.free.insert(slot);
        self.slots[slot] = Slot::Free { since: now };
        if !self.prepared && self.sweep.is_none() {
            self.sweep = Some(now + IDLE);
        }
    }

    pub fn set_preparing(&mut self, slot: usize, trouble: Option<String>) {
        self.closed.remove(&slot);
        self.free.remove(&slot);
        self.slots[slot] = Slot::Preparing { trouble };
    }

    /// Opens every slot below `limit` that has no worker yet, for slots that need preparation.
    pub fn open_prepared(&mut self, limit: usize) -> Vec<usize> {
        if !self.prepared || limit == 0 || limit == usize::MAX {
            return Vec::new();
        }
        self.extend_to(limit - 1);
        let opened: Vec<usize> = self.closed.range(..limit).copied().collect();
        for &slot in &opened {
            self.set_preparing(slot, None);
        }
        opened
    }

    fn close(&mut self, slot: usize) {
        self.free.remove(&slot);
        self.closed.insert(slot);
        self.slots[slot] = Slot::Closed;
    }

    /// Closes every slot from `limit` on that runs nothing; running ones retire as they come free.
    pub fn retire(&mut self, limit: usize) -> Vec<usize> {
        let surplus: Vec<usize> = (limit.min(self.slots.len())..self.slots.len())
            .filter(|&slot| matches!(self.slots[slot], Slot::Free { .. } | Slot::Preparing { .. }))
            .collect();
        for &slot in &surplus {
            self.close(slot);
        }
        self.trim();
        surplus
    }

    fn trim(&mut self) {
        while matches!(self.slots.last(), Some(Slot::Closed)) {
            self.slots.pop();
            self.closed.remove(&self.slots.len());
        }
    }

    /// When [`Slots::sweep`] next has something to do.
    pub fn next_sweep(&self) -> Option<Instant> {
        self.sweep
    }

    /// Closes the slots that have idled for [`IDLE`].
    pub fn sweep(&mut self, now: Instant) -> Vec<usize> {
        if self.sweep.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut idle = Vec::new();
        let mut next: Option<Instant> = None;
        for &slot in &self.free {
            if let Slot::Free { since } = self.slots[slot] {
                let due = since + IDLE;
                if due <= now {
                    idle.push(slot);
                } else {
                    next = Some(next.map_or(due, |n| n.min(due)));
                }
            }
        }
        for &slot in &idle {
            self.close(slot);
        }
        self.trim();
        self.sweep = next;
        idle
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A slot whose run is past its deadline; each is reported once.
    pub fn pop_overdue(&mut self, now: Instant) -> Option<usize> {
        let &(deadline, slot) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        Some(slot)
    }

    /// Marks a whole run as told to stop. False when it was already, or nothing runs there.
    pub fn interrupt(&mut self, slot: usize) -> bool {
        match self.slots.get_mut(slot) {
            Some(Slot::Busy(run)) if !run.interrupted => {
                run.interrupted = true;
                if let Some(deadline) = run.deadline {
                    self.deadlines.remove(&(deadline, slot));
                }
                true
            }
            _ => false,
        }
    }
}
