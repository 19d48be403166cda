//! Onto a slot: who runs next, and where.

use std::time::Instant;

use super::line::Key;
use super::slots::{Riders, Run};
use super::{Cause, Effect, Phase, Place, Scheduler, Terms};

impl<T> Scheduler<T> {
    /// Starts the next run, if there is an event that may run and a slot for it.
    pub(super) fn dispatch(&mut self) {
        if self.phase != Phase::Open || self.line.is_empty() || !self.slots.has_room(self.limit()) {
            return;
        }
        let Some((listener, key)) = self.next_to_run() else { return };
        let Some(claim) = self.slots.claim(self.limit()) else { return };
        let slot = claim.slot;
        if claim.open {
            self.effects.push_back(Effect::Open { slot });
        }
        let deadline = self.lane_rules(listener).time_limit.map(|limit| self.now + limit);
        let average = self.listeners[listener].times.run();
        let terms = Terms { listener, started: self.now, deadline, average };
        let mut submitted = self.now;
        let riders = match self.lane_rules(listener).batch {
            None => {
                let Some((_, waiting)) = self.leave(key) else { return };
                submitted = waiting.since;
                self.note_wait(listener, waiting.since);
                self.effects.push_back(Effect::Start { slot, event: waiting.payload, terms });
                Riders::One(waiting.id)
            }
            Some(batch) => {
                let mut ids = Vec::new();
                let mut events = Vec::new();
                while ids.len() < batch.max_size
                    && let Some(key) = self.line.lane_front(listener)
                    && let Some((_, waiting)) = self.leave(key)
                {
                    submitted = submitted.min(waiting.since);
                    self.note_wait(listener, waiting.since);
                    ids.push(waiting.id);
                    events.push(waiting.payload);
                }
                self.listeners[listener].batches.observe(ids.len() as f64);
                self.effects.push_back(Effect::StartBatch { slot, events, terms });
                Riders::Batch(ids)
            }
        };
        for id in riders.as_slice() {
            self.places.insert(*id, Place::Slot(slot));
        }
        self.slots.fill(
            slot,
            Run { riders, listener, submitted, started: self.now, deadline, interrupted: false },
        );
        let since_birth = self.seconds_since_birth(self.now);
        let state = &mut self.listeners[listener];
        state.running += 1;
        state.started_sum += since_birth;
    }

    fn note_wait(&mut self, listener: usize, since: Instant) {
        let waited = self.now.saturating_duration_since(since).as_secs_f64();
        self.listeners[listener].waits.observe(waited);
    }

    /// The oldest event that may run now. A batch that waits to be filled lets others pass: it
    /// holds up nobody but itself.
    pub(super) fn next_to_run(&mut self) -> Option<(usize, Key)> {
        self.linger_until = None;
        let (listener, key) = self.line.front()?;
        if self.lingers_until(listener).is_none() {
            return Some((listener, key));
        }
        self.linger_until =
            (0..self.listeners.len()).filter_map(|lane| self.lingers_until(lane)).min();
        self.line.front_among(|lane| self.lingers_until(lane).is_none())
    }

    /// Until when the first batch of a listener waits for more events, if it does.
    pub(super) fn lingers_until(&self, listener: usize) -> Option<Instant> {
        let batch = self.lane_rules(listener).batch?;
        if self.line.lane_len(listener) >= batch.max_size {
            return None;
        }
        let first = self.line.get(self.line.lane_front(listener)?)?;
        let until = first.since + batch.max_wait;
        (until > self.now).then_some(until)
    }

    pub(super) fn interrupt(&mut self, slot: usize, cause: Cause) {
        if self.slots.interrupt(slot) {
            self.effects.push_back(Effect::Interrupt { slot, event: None, cause });
        }
    }
}
