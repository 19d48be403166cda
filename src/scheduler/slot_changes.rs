//! What becomes of a slot: ready, vacated, free again, closed, lost.

use super::command::{Effect, OutcomeCounts};
use super::limit::Limit;
use super::run::{Run, RunEvent};
use super::slots::Slot;
use super::{Phase, Scheduler, history};

impl<T> Scheduler<T> {
    /// Whether a slot is held by a permit.
    pub(super) fn is_held(&self, slot: usize) -> bool {
        matches!(self.slots.get(slot), Some(Slot::Busy(run)) if run.listener >= self.permits())
    }

    pub(super) fn done(&mut self, slot: usize, counts: OutcomeCounts, ready: bool) {
        let Some(run) = self.slots.vacate(slot) else { return };
        self.record_run(&run, counts);
        if ready {
            self.free(slot);
        } else {
            self.prepare(slot);
        }
    }

    /// A slot can take an event, unless it retires.
    #[inline]
    pub(super) fn free(&mut self, slot: usize) {
        if self.is_surplus(slot) {
            self.close(slot);
        } else {
            self.slots.set_free(slot, self.now);
        }
    }

    /// The worker on a vacated slot sees to its resource, unless it retires.
    pub(super) fn prepare(&mut self, slot: usize) {
        if self.is_surplus(slot) {
            self.close(slot);
        } else {
            self.slots.set_preparing(slot);
            self.effects.push_back(Effect::Prepare { slot });
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        self.slots.close(slot);
        self.effects.push_back(Effect::Close { slot });
    }

    /// Whether a slot closes as soon as it runs nothing: beyond the limit, and when the queue is
    /// stopped where it owns a resource.
    pub(super) fn is_surplus(&self, slot: usize) -> bool {
        slot >= self.slots_to_keep()
    }

    pub(super) fn slots_to_keep(&self) -> usize {
        let closes = self.phase == Phase::Stopped && self.rules.resource.is_some();
        if closes { 0 } else { self.limit() }
    }

    pub(super) fn record_run(&mut self, run: &Run, counts: OutcomeCounts) {
        let outcome = history::ended_as(&counts);
        let (submitted, started) = (run.submitted, Some(run.started));
        for RunEvent { id, .. } in run.events.as_slice() {
            self.places.remove(id);
            self.recent.push(*id, run.listener, outcome, submitted, started, self.now);
        }
        let since_birth = self.seconds_since_birth(run.started);
        let took = self.now.saturating_duration_since(run.started).as_secs_f64();
        let state = &mut self.listeners[run.listener];
        state.running -= 1;
        state.started_sum -= since_birth;
        state.ended.add(counts);
        state.runs.observe(took);
        // A run that was cut short says nothing of how long the next will take.
        if counts.completed > 0 {
            state.times.observe(took, run.events.as_slice().len());
        }
        self.queue_moved = true;
    }

    pub(super) fn slot_ready(&mut self, slot: usize) {
        if matches!(self.slots.get(slot), Some(Slot::Preparing { .. })) {
            self.free(slot);
        }
    }

    /// Another worker is put there when the slot is needed.
    pub(super) fn slot_lost(&mut self, slot: usize) {
        match self.slots.get(slot) {
            None | Some(Slot::Closed) => return,
            Some(Slot::Busy(_)) => {
                if let Some(run) = self.slots.vacate(slot) {
                    let failed = run.events.as_slice().len() as u64;
                    self.record_run(&run, OutcomeCounts { failed, ..OutcomeCounts::default() });
                }
            }
            Some(_) => {}
        }
        self.slots.set_closed(slot);
    }

    pub(super) fn set_limit(&mut self, limit: Limit) {
        self.rules.limit = limit;
        self.queue_moved = true;
        self.retire();
    }

    /// Drops the workers of slots beyond the limit that run nothing.
    pub(super) fn retire(&mut self) {
        for slot in self.slots.retire(self.slots_to_keep()) {
            self.effects.push_back(Effect::Close { slot });
        }
    }
}
