//! Out of the wait queue without a run: who is cancelled, who has waited too long, and what a stop
//! ends.

use super::command::{Cause, Effect};
use super::snapshot::EndedAs;
use super::wait_queue::Key;
use super::{Location, Phase, Scheduler, Waiting};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;

impl<T> Scheduler<T> {
    /// Takes an event out of the wait queue. It must be given its next place, or none.
    pub(super) fn leave(&mut self, key: Key) -> Option<(usize, Waiting<T>)> {
        let (listener, waiting) = self.wait_queue.remove(key)?;
        self.watchers -= usize::from(waiting.watched);
        self.front_moved = true;
        self.queue_moved = true;
        self.free_place();
        Some((listener, waiting))
    }

    pub(super) fn end_waiting(&mut self, key: Key, cause: Cause) {
        if let Some((listener, waiting)) = self.leave(key) {
            self.places.remove(&waiting.id);
            self.note_unstarted(listener, &waiting, cause);
            self.effects.push_back(Effect::End { event: waiting.payload, cause });
        }
    }

    /// Counts an admitted event that ends without having run.
    pub(super) fn note_unstarted(&mut self, listener: usize, waiting: &Waiting<T>, cause: Cause) {
        self.listeners[listener].ended.count(cause);
        let outcome = match cause {
            Cause::Cancelled => EndedAs::Cancelled,
            Cause::TimedOut => EndedAs::TimedOut,
            Cause::Stopped => EndedAs::Stopped,
        };
        self.recent.push(waiting.id, listener, outcome, waiting.since, None, self.now);
    }

    pub(super) fn cancel(&mut self, listener: usize, id: EventId) {
        if let Some(place) = self.place_of(id, |lane| lane == listener) {
            self.end_early(id, place, Cause::Cancelled);
        }
    }

    pub(super) fn give_up(&mut self, id: EventId, cause: Cause) {
        let permits = self.permits();
        if let Some(place) = self.place_of(id, |lane| lane >= permits) {
            self.end_early(id, place, cause);
        }
    }

    /// Where an event is, if it is in one of these lanes.
    fn place_of(&self, id: EventId, fits: impl FnOnce(usize) -> bool) -> Option<Location> {
        let place = self.places.get(&id).copied()?;
        let lane = match place {
            Location::Blocked(key) => self.blocked.lane_of(key),
            Location::Requesting(key) => self.requesting.lane_of(key),
            Location::Recording(key) => self.recording.lane_of(key),
            Location::Scheduled(appointment) => self.scheduled.lane_of(appointment),
            Location::Waiting(key) => self.wait_queue.lane_of(key),
            Location::Running(slot) => self.slots.run(slot).map(|run| run.listener),
        };
        lane.is_some_and(fits).then_some(place)
    }

    /// Ends an event wherever it is.
    pub(super) fn end_accepted(&mut self, id: EventId, cause: Cause) {
        if let Some(place) = self.places.get(&id).copied() {
            self.end_early(id, place, cause);
        }
    }

    fn end_early(&mut self, id: EventId, place: Location, cause: Cause) {
        let left = match place {
            Location::Blocked(key) => self.blocked.remove(key),
            Location::Requesting(key) => {
                let left = self.requesting.remove(key);
                if let Some((_, Waiting { since, .. })) = left {
                    self.withdrawn.push((key, since));
                }
                left
            }
            Location::Recording(key) => {
                self.free_place();
                self.recording.remove(key)
            }
            Location::Scheduled(appointment) => return self.end_scheduled(appointment, cause),
            Location::Waiting(key) => return self.end_waiting(key, cause),
            // A permit is its holder's to give back.
            Location::Running(slot) if self.is_held(slot) => return,
            Location::Running(slot) => {
                self.slots.cancel(slot, id);
                self.effects.push_back(Effect::Interrupt { slot, event: Some(id), cause });
                return;
            }
        };
        self.places.remove(&id);
        self.not_before.remove(&id);
        if let Some((_, waiting)) = left {
            self.effects.push_back(Effect::End { event: waiting.payload, cause });
        }
    }

    /// Ends what has waited or run for too long.
    pub(super) fn expire(&mut self) {
        for at in 0..self.expiring_lanes.len() {
            let lane = self.expiring_lanes[at];
            while self.next_expiry(lane).is_some_and(|due| due <= self.now) {
                let Some(key) = self.wait_queue.lane_front(lane) else { break };
                self.end_waiting(key, Cause::TimedOut);
            }
        }
        // Whoever comes now is told a rank without those that have just left.
        self.keep_appointments();
        while let Some(slot) = self.slots.pop_overdue(self.now) {
            self.interrupt(slot, Cause::TimedOut);
        }
    }

    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        while let Some((listener, key)) = self.requesting.front() {
            let Some((_, waiting)) = self.requesting.remove(key) else { break };
            self.effects.push_back(Effect::WithdrawPlace { key, since: waiting.since });
            self.refuse_blocked(listener, waiting);
        }
        while let Some((listener, key)) = self.blocked.front() {
            let Some((_, waiting)) = self.blocked.remove(key) else { break };
            self.refuse_blocked(listener, waiting);
        }
        while let Some((_, key)) = self.wait_queue.front() {
            self.end_waiting(key, Cause::Stopped);
        }
        self.stop_scheduled();
        self.retire();
    }

    pub(super) fn refuse_blocked(&mut self, listener: usize, waiting: Waiting<T>) {
        self.places.remove(&waiting.id);
        self.not_before.remove(&waiting.id);
        self.listeners[listener].refused.stopped += 1;
        let refusal = Refusal::Stopped;
        self.effects.push_back(Effect::Refuse { event: waiting.payload, refusal });
    }

    pub(super) fn abort(&mut self) {
        self.stop();
        let busy: Vec<usize> = self.slots.runs().map(|(slot, _)| slot).collect();
        for slot in busy {
            self.interrupt(slot, Cause::Stopped);
        }
    }
}
