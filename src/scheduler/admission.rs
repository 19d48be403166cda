//! Into the wait queue: who is admitted, who is blocked, who is refused.

use std::time::Duration;

use super::command::{Arrival, Effect, Pressure, WhenFull};
use super::wait_queue::Key;
use super::{Location, Phase, Scheduler, Waiting};
use crate::event::refusal::Refusal;

impl<T> Scheduler<T> {
    /// Whether an arrival could enter right now, as far as this wait queue's own bound goes. So the shell
    /// knows for whom to take a place of the queue-wide capacity.
    pub fn has_room(&self) -> bool {
        self.phase != Phase::Stopped && self.blocked() == 0 && self.has_own_room()
    }

    /// Callers that wait for room. They are not admitted and have no rank.
    pub fn blocked(&self) -> usize {
        self.blocked.len() + self.requesting.len()
    }

    /// Callers that wait for a place of the queue-wide capacity.
    pub fn requesting(&self) -> usize {
        self.requesting.len()
    }

    pub(super) fn admit(&mut self, arrival: Arrival<T>) {
        if let Err(refusal) = self.may_enter(&arrival) {
            let refused = &mut self.listeners[arrival.listener].refused;
            match refusal {
                Refusal::WaitTooLong { .. } => refused.wait_too_long += 1,
                Refusal::Unavailable { .. } => refused.unavailable += 1,
                Refusal::Stopped => refused.stopped += 1,
                _ => refused.queue_full += 1,
            }
            if arrival.placed {
                self.free_place();
            }
            self.effects.push_back(Effect::Refuse { event: arrival.payload, refusal });
            return;
        }
        let Arrival { id, listener, watched, placed, payload, not_before, .. } = arrival;
        if let Some(due) = not_before.filter(|due| *due > self.now) {
            self.not_before.insert(id, due);
        }
        let waiting =
            Waiting { id, watched, since: self.now, last_notified: None, returned: false, payload };
        let placed = placed || self.rules.queue_max_size.is_none();
        if placed && self.has_room() {
            return self.accept(listener, waiting);
        }
        if placed {
            // Who is blocked by this wait queue's own bound keeps no place from others.
            self.free_place();
        }
        let key = self.blocked.push_back(listener, waiting);
        self.places.insert(id, Location::Blocked(key));
    }

    /// Refuses an arrival that must not even be blocked.
    fn may_enter(&self, arrival: &Arrival<T>) -> Result<(), Refusal> {
        if self.phase == Phase::Stopped {
            return Err(Refusal::Stopped);
        }
        if let (Some(rules), Some(unavailable)) = (self.rules.resource, self.slots.unavailable()) {
            let time = self.now.saturating_duration_since(unavailable.since);
            if time >= rules.unavailable_after {
                let retry_after = unavailable.next_attempt.saturating_duration_since(self.now);
                return Err(Refusal::Unavailable { time, retry_after });
            }
        }
        // Estimated only where it decides: it costs a step for each listener.
        if let Some(max_eta) = self.rules.max_eta
            && let Some(wait) = self.wait_at_the_end()
            && wait > max_eta.as_secs_f64()
        {
            return Err(Refusal::WaitTooLong { eta: Duration::from_secs_f64(wait), max_eta });
        }
        if arrival.when_full == WhenFull::Refuse
            && let Some((max_size, size)) = self.full(arrival.placed)
        {
            return Err(Refusal::QueueFull { max_size, size, retry_after: self.retry_after() });
        }
        Ok(())
    }

    /// The bound that keeps one more event out, with the number of events that count against it.
    fn full(&self, placed: bool) -> Option<(usize, usize)> {
        let size = self.accepted();
        let own = self.rules.max_size.filter(|&max| size >= max || self.blocked() > 0);
        match self.rules.queue_max_size.filter(|_| !placed) {
            // A place that is promised to somebody who is blocked counts as taken.
            Some(max) if own.is_none_or(|own| size < own) => Some((max, max)),
            _ => Some((own?, size)),
        }
    }

    /// Whether this wait queue's own bound lets one more in, beside those who request a place already.
    fn has_own_room(&self) -> bool {
        self.rules.max_size.is_none_or(|max| self.accepted() + self.requesting.len() < max)
    }

    /// Events that wait, or will as soon as they are on record.
    fn accepted(&self) -> usize {
        self.wait_queue.len() + self.recording.len()
    }

    #[inline]
    fn accept(&mut self, listener: usize, waiting: Waiting<T>) {
        if self.lane_rules(listener).durable {
            self.record(listener, waiting);
        } else {
            self.enter(listener, waiting);
        }
    }

    #[inline]
    pub(super) fn enter(&mut self, listener: usize, waiting: Waiting<T>) {
        if !self.not_before.is_empty()
            && let Some(due) = self.not_before.remove(&waiting.id)
            && due > self.now
        {
            return self.schedule(listener, due, waiting);
        }
        self.listeners[listener].admitted += 1;
        self.join(listener, waiting);
    }

    /// Into the wait queue, behind those that wait.
    #[inline(always)]
    pub(super) fn join(&mut self, listener: usize, waiting: Waiting<T>) {
        let (id, watched) = (waiting.id, waiting.watched);
        let rank = self.wait_queue.len();
        let ahead = watched.then(|| self.work_ahead()).flatten();
        let key = self.wait_queue.push_back(listener, waiting);
        self.places.insert(id, Location::Waiting(key));
        if watched {
            self.watchers += 1;
            self.notify_rank(key, listener, rank, ahead);
        }
    }

    /// Lets blocked callers go on, first come first served: into the wait queue, or to request a place of
    /// the queue-wide capacity. No more of them request one than the wait queue's own bound has room
    /// for, so that a place that is granted is used at once.
    pub(super) fn let_in(&mut self) {
        while self.has_own_room()
            && let Some((listener, key)) = self.blocked.front()
        {
            let Some((_, waiting)) = self.blocked.remove(key) else { return };
            if self.rules.queue_max_size.is_none() {
                self.accept(listener, Waiting { since: self.now, ..waiting });
                continue;
            }
            let (id, since) = (waiting.id, waiting.since);
            let key = self.requesting.push_back(listener, waiting);
            self.places.insert(id, Location::Requesting(key));
            self.effects.push_back(Effect::RequestPlace { key, since });
        }
    }

    pub(super) fn place_granted(&mut self, key: Key) {
        match self.requesting.remove(key) {
            Some((listener, waiting)) => {
                self.accept(listener, Waiting { since: self.now, ..waiting });
            }
            None => self.free_place(),
        }
    }

    /// Gives a place of the queue-wide capacity back, where there is one.
    pub(super) fn free_place(&mut self) {
        if self.rules.queue_max_size.is_some() {
            self.freed += 1;
        }
    }

    /// Notifies the listeners when the wait queue has become full, or no longer is.
    pub(super) fn press(&mut self) {
        let Some(max_size) = self.rules.max_size else { return };
        let size = self.wait_queue.len();
        let closed = size >= max_size && self.phase != Phase::Stopped;
        if closed != self.closed {
            self.closed = closed;
            self.effects.push_back(Effect::Pressure(if closed {
                Pressure::Closed { max_size, size, retry_after: self.retry_after() }
            } else {
                Pressure::Open
            }));
        }
    }
}
