//! Into the line: who is admitted, who waits at the door, who is refused.

use std::time::Duration;

use super::{Arrival, Effect, Patience, Phase, Place, Pressure, Scheduler, Waiting};
use crate::error::Refusal;

impl<T> Scheduler<T> {
    pub(super) fn admit(&mut self, arrival: Arrival<T>) {
        if let Err(refusal) = self.may_enter(&arrival) {
            let refused = &mut self.listeners[arrival.listener].refused;
            match refusal {
                Refusal::WaitTooLong { .. } => refused.wait_too_long += 1,
                Refusal::Unavailable { .. } => refused.unavailable += 1,
                Refusal::Stopped => refused.stopped += 1,
                _ => refused.queue_full += 1,
            }
            self.effects.push_back(Effect::Refuse { event: arrival.payload, refusal });
            return;
        }
        let Arrival { id, listener, watched, payload, .. } = arrival;
        let waiting =
            Waiting { id, watched, since: self.now, told: None, returned: false, payload };
        if self.door.is_empty() && self.take_room() {
            self.enter(listener, waiting);
        } else {
            let key = self.door.push_back(listener, waiting);
            self.places.insert(id, Place::Door(key));
        }
    }

    /// Refuses an arrival that must not even wait at the door.
    pub(super) fn may_enter(&self, arrival: &Arrival<T>) -> Result<(), Refusal> {
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
        if let (Some(max_eta), Some(wait)) = (self.rules.max_eta, self.wait_at_the_end())
            && wait > max_eta.as_secs_f64()
        {
            return Err(Refusal::WaitTooLong { eta: Duration::from_secs_f64(wait), max_eta });
        }
        if arrival.patience == Patience::Refuse
            && let Some((max_size, size)) = self.full()
        {
            return Err(Refusal::QueueFull { max_size, size, retry_after: self.retry_after() });
        }
        Ok(())
    }

    /// The bound that keeps one more event out, with the number of events that count against it.
    pub(super) fn full(&self) -> Option<(usize, usize)> {
        let own =
            self.rules.max_size.filter(|&max| self.line.len() >= max || !self.door.is_empty());
        if let Some(max) = own {
            return Some((max, self.line.len()));
        }
        let capacity = self.rules.capacity.as_ref()?;
        let taken = capacity.taken();
        (taken >= capacity.max() || !self.door.is_empty()).then_some((capacity.max(), taken))
    }

    /// Takes a place in the line, if there is one, on this line's account and on the whole queue's.
    pub(super) fn take_room(&self) -> bool {
        self.rules.max_size.is_none_or(|max| self.line.len() < max)
            && self.rules.capacity.as_ref().is_none_or(|capacity| capacity.try_take())
    }

    pub(super) fn enter(&mut self, listener: usize, waiting: Waiting<T>) {
        let (id, watched) = (waiting.id, waiting.watched);
        let rank = self.line.len();
        let ahead = watched.then(|| self.work_ahead()).flatten();
        let key = self.line.push_back(listener, waiting);
        self.places.insert(id, Place::Line(key));
        self.listeners[listener].admitted += 1;
        if watched {
            self.watchers += 1;
            self.tell_one(key, listener, rank, ahead);
        }
    }

    /// Lets callers at the door in, first come first served.
    pub(super) fn let_in(&mut self) {
        while let Some((listener, key)) = self.door.front() {
            if !self.take_room() {
                if self.blocked || self.rules.capacity.is_none() {
                    return;
                }
                // Announce it, then try once more: see `Capacity::block`.
                self.set_blocked(true);
                continue;
            }
            let Some((_, waiting)) = self.door.remove(key) else { return };
            self.enter(listener, Waiting { since: self.now, ..waiting });
        }
        self.set_blocked(false);
    }

    pub(super) fn set_blocked(&mut self, blocked: bool) {
        if let Some(capacity) = &self.rules.capacity
            && self.blocked != blocked
        {
            self.blocked = blocked;
            if blocked { capacity.block() } else { capacity.unblock() }
        }
    }

    /// Tells the listeners when the line has become full, or no longer is.
    pub(super) fn press(&mut self) {
        let Some(max_size) = self.rules.max_size else { return };
        let size = self.line.len();
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
