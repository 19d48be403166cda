//! On record: an event of a durable listener waits, once accepted, until its admission is recorded,
//! and only then enters the wait queue. One that was recorded by an earlier process comes back.

use std::time::Instant;

use super::command::{Arrival, Cause, Effect};
use super::wait_queue::Key;
use super::{Location, Phase, Scheduler, Waiting};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;

impl<T> Scheduler<T> {
    /// What the shell stored with an event that is to be recorded.
    pub fn to_record(&self, key: Key) -> Option<(usize, &T)> {
        let waiting = self.recording.get(key)?;
        Some((self.recording.lane_of(key)?, &waiting.payload))
    }

    pub(super) fn record(&mut self, listener: usize, waiting: Waiting<T>) {
        let id = waiting.id;
        let key = self.recording.push_back(listener, waiting);
        self.places.insert(id, Location::Recording(key));
        self.effects.push_back(Effect::Record { key });
    }

    /// The event is on record: from now on it has been admitted.
    pub(super) fn recorded(&mut self, key: Key) {
        // One that was cancelled meanwhile has left.
        let Some((listener, waiting)) = self.recording.remove(key) else { return };
        let id = waiting.id;
        // It waits from now on: in its lane, who came first has waited for longest.
        self.enter(listener, Waiting { since: self.now, ..waiting });
        if self.phase == Phase::Stopped {
            self.end_accepted(id, Cause::Stopped);
        }
    }

    /// The event could not be recorded, so that it is not admitted.
    pub(super) fn not_recorded(&mut self, key: Key, refusal: Refusal) {
        let Some((listener, waiting)) = self.recording.remove(key) else { return };
        self.places.remove(&waiting.id);
        self.not_before.remove(&waiting.id);
        self.free_place();
        self.listeners[listener].refused.not_recorded += 1;
        self.effects.push_back(Effect::Refuse { event: waiting.payload, refusal });
    }

    /// Takes back an event that was admitted by an earlier process, behind those that are here: no bound
    /// holds for it. `since` may be of a moment before it came into the wait queue: no event has waited for
    /// longer than one of its lane that stands before it.
    pub(super) fn restore(&mut self, arrival: Arrival<T>, since: Instant) {
        let Arrival { id, listener, watched, not_before, payload, .. } = arrival;
        if let Some(due) = not_before {
            self.not_before.insert(id, due);
        }
        let before = self.wait_queue.lane_back(listener).and_then(|key| self.wait_queue.get(key));
        let since = before.map_or(since, |before| since.max(before.since));
        let (last_notified, returned) = (None, false);
        let waiting = Waiting { id, watched, since, last_notified, returned, payload };
        if self.rules.queue_max_size.is_some() {
            self.effects.push_back(Effect::RetakePlace);
        }
        self.enter(listener, waiting);
    }

    /// Another process goes on with what is on record. What isn't yet is refused when that is known.
    pub(super) fn hand_over(&mut self) {
        let mut on_record: Vec<EventId> = Vec::new();
        for (id, place) in &self.places {
            let lane = match *place {
                Location::Waiting(key) => self.wait_queue.lane_of(key),
                Location::Scheduled(appointment) => self.scheduled.lane_of(appointment),
                Location::Running(slot) => self.slots.run(slot).map(|run| run.listener),
                Location::Blocked(_) | Location::Requesting(_) | Location::Recording(_) => None,
            };
            if lane.is_some_and(|lane| self.lane_rules(lane).durable) {
                on_record.push(*id);
            }
        }
        on_record.into_iter().for_each(|id| self.end_accepted(id, Cause::Stopped));
    }
}
