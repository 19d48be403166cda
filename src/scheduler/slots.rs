//! The slots of one concurrency id: who owns each.
//!
//! Slots are a set of owners, never a bare counter: a slot is freed once, by the run that owns it,
//! and what counts against the limit is how many are filled, not their numbers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::run::Run;
use super::slot_set::SlotSet;
use crate::event::id::EventId;

/// How long a slot without a resource may idle before its worker is dropped.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// The same for a slot that owns a resource and was opened because events needed it.
pub(crate) const IDLE_RESOURCE: Duration = Duration::from_secs(60);

/// How many slots of an id are opened before anybody needs them, at most.
pub(crate) const WARM: usize = 64;

/// How many slots of an id may be at work on a resource before another one is opened.
pub(crate) const OPENING: usize = 16;

/// How many slots may fail to build theirs before no more are tried for the events that wait.
pub(crate) const FAILING: usize = 16;

#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// No worker stands here.
    Closed,
    /// The worker closes its resource and goes.
    Closing,
    /// The worker builds its resource, or makes it clean again; `trouble` says why the last attempt
    /// failed.
    Preparing {
        trouble: Option<String>,
    },
    Free {
        since: Instant,
    },
    Busy(Run),
    /// Its worker was made to leave, and counts until it has: it may run something yet.
    Vacating,
}

#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: SlotSet,
    closed: SlotSet,
    busy: usize,
    /// Those in preparation that haven't failed yet, and those that have.
    building: usize,
    failing: usize,
    closing: usize,
    deadlines: BTreeSet<(Instant, usize)>,
    sweep: Option<Instant>,
    /// Slots own a resource; this many are opened ahead of use, and stay open when idle.
    warm: Option<usize>,
    unavailable: Option<Unavailable>,
}

/// No slot can run anything, because their resources can't be built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unavailable {
    pub since: Instant,
    /// When the slot that failed last tries again.
    pub next_attempt: Instant,
}

/// A slot to run on, and whether a worker must be put on it first.
pub(crate) struct Claim {
    pub slot: usize,
    pub open: bool,
}

impl Slots {
    /// `warm` is given where slots own a resource: as many are opened ahead of use.
    pub fn new(warm: Option<usize>) -> Self {
        Slots {
            slots: Vec::new(),
            free: SlotSet::default(),
            closed: SlotSet::default(),
            busy: 0,
            building: 0,
            failing: 0,
            closing: 0,
            deadlines: BTreeSet::new(),
            sweep: None,
            warm,
            unavailable: None,
        }
    }

    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Slots whose resource could not be built at the last attempt.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// Slots that close their resource.
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// Set while no slot can run anything because none could be built.
    pub fn unavailable(&self) -> Option<Unavailable> {
        self.unavailable
    }

    fn own_a_resource(&self) -> bool {
        self.warm.is_some()
    }

    pub fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    /// What runs on `slot`.
    pub fn run(&self, slot: usize) -> Option<&Run> {
        match self.slots.get(slot)? {
            Slot::Busy(run) => Some(run),
            _ => None,
        }
    }

    pub fn run_mut(&mut self, slot: usize) -> Option<&mut Run> {
        match self.slots.get_mut(slot)? {
            Slot::Busy(run) => Some(run),
            _ => None,
        }
    }

    /// How many have a worker.
    pub fn open(&self) -> usize {
        self.slots.len() - self.closed.len()
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
            && (!self.free.is_empty()
                || (!self.own_a_resource() && self.next_closed(limit).is_some()))
    }

    /// The slot for the next run, where there is room: a free one, else one to open where slots
    /// need no preparation.
    #[inline]
    pub fn claim(&mut self, limit: usize) -> Option<Claim> {
        if let Some(slot) = self.free.pop_first() {
            return Some(Claim { slot, open: false });
        }
        if self.own_a_resource() {
            return None;
        }
        let slot = self.next_closed(limit)?;
        self.extend_to(slot);
        self.closed.remove(slot);
        Some(Claim { slot, open: true })
    }

    fn next_closed(&self, limit: usize) -> Option<usize> {
        let slot = self.closed.first().unwrap_or(self.slots.len());
        (slot < limit).then_some(slot)
    }

    fn extend_to(&mut self, slot: usize) {
        while self.slots.len() <= slot {
            self.closed.insert(self.slots.len());
            self.slots.push(Slot::Closed);
        }
    }

    /// Fills a claimed slot.
    #[inline]
    pub fn fill(&mut self, slot: usize, run: Run) {
        if let Some(deadline) = run.deadline {
            self.deadlines.insert((deadline, slot));
        }
        self.slots[slot] = Slot::Busy(run);
        self.busy += 1;
    }

    /// Takes the run out of a busy slot. The slot must be set free or preparing next.
    #[inline]
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
        self.take_out(slot);
        self.slots[slot] = Slot::Vacating;
        self.busy += 1;
    }

    /// Takes a slot out of whatever it was, a run excepted. It must be given a state next.
    fn take_out(&mut self, slot: usize) {
        match &self.slots[slot] {
            Slot::Closed => self.closed.remove(slot),
            Slot::Closing => self.closing -= 1,
            Slot::Preparing { trouble: None } => self.building -= 1,
            Slot::Preparing { trouble: Some(_) } => self.failing -= 1,
            Slot::Free { .. } => self.free.remove(slot),
            Slot::Vacating => self.busy -= 1,
            Slot::Busy(_) => {}
        }
    }

    /// A vacated or preparing slot waits for an event.
    #[inline]
    pub fn set_free(&mut self, slot: usize, now: Instant) {
        self.take_out(slot);
        self.free.insert(slot);
        self.slots[slot] = Slot::Free { since: now };
        self.unavailable = None;
        if self.sweep.is_none() && slot >= self.warm.unwrap_or(0) {
            self.sweep = Some(now + self.idle());
        }
    }

    /// The worker on `slot` builds its resource, or makes it clean again.
    pub fn set_preparing(&mut self, slot: usize) {
        self.take_out(slot);
        self.slots[slot] = Slot::Preparing { trouble: None };
        self.building += 1;
    }

    /// The worker on a preparing slot has failed to build its resource.
    pub fn set_failing(&mut self, slot: usize, trouble: String, now: Instant, pause: Duration) {
        self.take_out(slot);
        self.slots[slot] = Slot::Preparing { trouble: Some(trouble) };
        self.failing += 1;
        if self.busy == 0 && self.free.is_empty() {
            let since = self.unavailable.map_or(now, |unavailable| unavailable.since);
            self.unavailable = Some(Unavailable { since, next_attempt: now + pause });
        }
    }

    /// Whether one more slot that owns a resource may be opened.
    pub fn may_open(&self, limit: usize) -> bool {
        let open = self.busy + self.free.len() + self.building + self.failing;
        self.own_a_resource() && open < limit && self.building < OPENING
    }

    /// Opens one more slot, where that may be: one of those that are kept warm, or one that the
    /// `wanted` runs in the wait queue need.
    pub fn open_next(&mut self, limit: usize, wanted: usize) -> Option<usize> {
        let slot = self.next_closed(limit)?;
        let is_warm = slot < self.warm.unwrap_or(0);
        let is_needed = self.free.is_empty() && self.failing < FAILING && wanted > self.building;
        if !(is_warm || is_needed) {
            return None;
        }
        self.extend_to(slot);
        self.set_preparing(slot);
        Some(slot)
    }

    /// Nobody stands on this slot any more; it may be opened again.
    pub fn set_closed(&mut self, slot: usize) {
        self.take_out(slot);
        self.closed.insert(slot);
        self.slots[slot] = Slot::Closed;
        self.trim();
        self.forget_trouble();
    }

    /// Closes a slot that runs nothing. What owns a resource is closed when its worker says so.
    pub fn close(&mut self, slot: usize) {
        if self.own_a_resource() {
            self.take_out(slot);
            self.slots[slot] = Slot::Closing;
            self.closing += 1;
        } else {
            self.set_closed(slot);
        }
        self.forget_trouble();
    }

    /// Where nothing is tried any more, nothing fails.
    fn forget_trouble(&mut self) {
        if self.building + self.failing == 0 {
            self.unavailable = None;
        }
    }

    /// Closes every slot from `limit` on that runs nothing; running ones retire as they come free.
    pub fn retire(&mut self, limit: usize) -> Vec<usize> {
        let surplus: Vec<usize> = (limit.min(self.slots.len())..self.slots.len())
            .filter(|&slot| matches!(self.slots[slot], Slot::Free { .. } | Slot::Preparing { .. }))
            .collect();
        // From the back, since closing trims.
        for &slot in surplus.iter().rev() {
            self.close(slot);
        }
        surplus
    }

    fn idle(&self) -> Duration {
        if self.own_a_resource() { IDLE_RESOURCE } else { IDLE }
    }

    fn trim(&mut self) {
        while matches!(self.slots.last(), Some(Slot::Closed)) {
            self.slots.pop();
            self.closed.remove(self.slots.len());
        }
    }

    /// When [`Slots::sweep`] next has something to do.
    pub fn next_sweep(&self) -> Option<Instant> {
        self.sweep
    }

    /// Closes the slots that have idled for long enough.
    pub fn sweep(&mut self, now: Instant) -> Vec<usize> {
        if self.sweep.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut idle = Vec::new();
        let mut next: Option<Instant> = None;
        for slot in self.free.range(self.warm.unwrap_or(0)..) {
            if let Slot::Free { since } = self.slots[slot] {
                let due = since + self.idle();
                if due <= now {
                    idle.push(slot);
                } else {
                    next = Some(next.map_or(due, |n| n.min(due)));
                }
            }
        }
        for &slot in idle.iter().rev() {
            self.close(slot);
        }
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

    /// Marks one event of a run as interrupted.
    pub fn cancel(&mut self, slot: usize, id: EventId) {
        let Some(Slot::Busy(run)) = self.slots.get_mut(slot) else { return };
        for run_event in run.events.as_mut_slice().iter_mut().filter(|run_event| run_event.id == id)
        {
            run_event.cancelled = true;
        }
    }

    /// Marks a whole run as interrupted. False when it was already, or nothing runs there.
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
