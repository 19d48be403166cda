//! Onto a slot: who runs next, and where.

use std::time::Instant;

use super::command::{Cause, Effect, OutcomeCounts, RunParams};
use super::rank_updates::LastNotified;
use super::run::{Run, RunEvent, RunEvents};
use super::slots::Claim;
use super::wait_queue::Key;
use super::{Location, Phase, Scheduler, Waiting, history};
use crate::event::id::{EventId, EventMap};

impl<T> Scheduler<T> {
    /// Starts the next run, if there is an event that may run and a slot for it.
    pub(super) fn dispatch(&mut self) {
        if self.phase != Phase::Open
            || self.wait_queue.is_empty()
            || !self.slots.has_room(self.limit())
        {
            return;
        }
        let Some((listener, key)) = self.next_to_run() else { return };
        let Some(claim) = self.slots.claim(self.limit()) else { return };
        let (slot, params) = self.open_claimed(claim, listener);
        let mut submitted = self.now;
        let events = match self.lane_rules(listener).batch {
            None => {
                let Some((_, waiting)) = self.leave(key) else { return };
                self.note_wait(listener, &waiting);
                let Waiting { id, watched, since, payload, .. } = waiting;
                submitted = since;
                self.effects.push_back(Effect::Start { slot, event: payload, params });
                RunEvents::One(RunEvent { id, watched, since, key, cancelled: false })
            }
            Some(batch) => {
                let mut run_events = Vec::new();
                let mut events = Vec::new();
                while events.len() < batch.max_size
                    && let Some(key) = self.wait_queue.lane_front(listener)
                    && let Some((_, waiting)) = self.leave(key)
                {
                    self.note_wait(listener, &waiting);
                    let Waiting { id, watched, since, payload, .. } = waiting;
                    submitted = submitted.min(since);
                    run_events.push(RunEvent { id, watched, since, key, cancelled: false });
                    events.push(payload);
                }
                self.listeners[listener].batches.observe(events.len() as f64);
                self.effects.push_back(Effect::StartBatch { slot, events, params });
                RunEvents::Batch(run_events)
            }
        };
        self.fill(slot, events, submitted, params);
    }

    fn open_claimed(&mut self, claim: Claim, listener: usize) -> (usize, RunParams) {
        let Claim { slot, open } = claim;
        if open {
            self.effects.push_back(Effect::Open { slot });
        }
        let deadline = self.lane_rules(listener).time_limit.map(|limit| self.now + limit);
        let average = self.listeners[listener].times.run();
        (slot, RunParams { listener, started: self.now, deadline, average })
    }

    /// An event that may be running already: on a slot of its own, whatever keeps others from starting.
    pub(super) fn go_on(&mut self, listener: usize, claim: Claim, waiting: Waiting<T>) {
        // Where it stands if it turns out not to run.
        let key = self.wait_queue.push_back(listener, waiting);
        let Some((_, waiting)) = self.wait_queue.remove(key) else { return };
        let (slot, params) = self.open_claimed(claim, listener);
        let Waiting { id, watched, since, payload, .. } = waiting;
        let run_event = RunEvent { id, watched, since, key, cancelled: false };
        let (effect, events) = match self.lane_rules(listener).batch {
            None => (Effect::Start { slot, event: payload, params }, RunEvents::One(run_event)),
            Some(_) => {
                let events = vec![payload];
                (Effect::StartBatch { slot, events, params }, RunEvents::Batch(vec![run_event]))
            }
        };
        self.effects.push_back(effect);
        self.listeners[listener].admitted += 1;
        self.fill(slot, events, since, params);
    }

    fn fill(&mut self, slot: usize, events: RunEvents, submitted: Instant, params: RunParams) {
        let RunParams { listener, started, deadline, .. } = params;
        for run_event in events.as_slice() {
            self.places.insert(run_event.id, Location::Running(slot));
        }
        let run = Run { events, listener, submitted, started, deadline, interrupted: false };
        self.slots.fill(slot, run);
        let since_birth = self.seconds_since_birth(self.now);
        let state = &mut self.listeners[listener];
        state.running += 1;
        state.started_sum += since_birth;
    }

    fn note_wait(&mut self, listener: usize, waiting: &Waiting<T>) {
        if !waiting.returned {
            let waited = self.now.saturating_duration_since(waiting.since).as_secs_f64();
            self.listeners[listener].waits.observe(waited);
        }
    }

    /// Opens slots that own a resource, ahead of use or because events wait for them.
    pub(super) fn open_slots(&mut self) {
        if self.phase == Phase::Stopped {
            return;
        }
        let limit = self.limit();
        while self.slots.may_open(limit) {
            let wanted = self.wanted();
            let Some(slot) = self.slots.open_next(limit, wanted) else { return };
            self.effects.push_back(Effect::Open { slot });
        }
    }

    /// The runs that what waits would fill.
    fn wanted(&self) -> usize {
        if self.phase != Phase::Open {
            return 0;
        }
        let runs = |lane| {
            let per_run = self.lane_rules(lane).batch.map_or(1, |batch| batch.max_size);
            self.wait_queue.lane_len(lane).div_ceil(per_run)
        };
        (0..self.listeners.len()).map(runs).sum()
    }

    /// Takes back the events of a run that has not begun, to where they stood in the wait queue.
    pub(super) fn returned(
        &mut self,
        slot: usize,
        counts: OutcomeCounts,
        events: Vec<(EventId, T)>,
    ) {
        let Some(run) = self.slots.vacate(slot) else { return };
        let state = &mut self.listeners[run.listener];
        state.running -= 1;
        state.started_sum -= run.started.saturating_duration_since(self.born).as_secs_f64();
        state.ended.add(counts);
        let outcome = history::ended_as(&counts);
        let mut events: EventMap<T> = events.into_iter().collect();
        for run_event in run.events.as_slice() {
            let RunEvent { id, watched, since, key, cancelled } = *run_event;
            let Some(payload) = events.remove(&id) else {
                self.places.remove(&id);
                self.recent.push(id, run.listener, outcome, since, None, self.now);
                continue;
            };
            let run_event = RunEvent { id, watched, since, key, cancelled };
            let key = self.wait_again(run.listener, run_event, payload);
            if let Some(key) = key.filter(|_| run.interrupted) {
                self.end_waiting(key, Cause::TimedOut);
            }
        }
        self.prepare(slot);
    }

    /// An event whose run has not ended it was next, and is again.
    pub(super) fn put_back(&mut self, lane: usize, run_event: RunEvent, payload: T) {
        self.wait_again(lane, run_event, payload);
    }

    /// Gives where it waits, unless it has ended meanwhile.
    fn wait_again(&mut self, lane: usize, run_event: RunEvent, payload: T) -> Option<Key> {
        let RunEvent { id, watched, since, key, cancelled } = run_event;
        // Its client knows already that it is next.
        let last_notified = Some(LastNotified { rank: 0, eta: None, at: self.now });
        let waiting = Waiting { id, watched, since, last_notified, returned: true, payload };
        let key = self.wait_queue.restore(lane, key, waiting);
        self.places.insert(id, Location::Waiting(key));
        self.watchers += usize::from(watched);
        if self.rules.queue_max_size.is_some() {
            self.effects.push_back(Effect::RetakePlace);
        }
        self.queue_moved = true;
        // The interrupt may have reached the worker too late.
        let cause = match self.phase {
            _ if cancelled => Cause::Cancelled,
            Phase::Stopped => Cause::Stopped,
            _ => return Some(key),
        };
        self.end_waiting(key, cause);
        None
    }

    /// The oldest event that may run now. A batch that waits to be filled lets others pass: it
    /// holds up nobody but itself.
    pub(super) fn next_to_run(&mut self) -> Option<(usize, Key)> {
        self.linger_until = None;
        let (listener, key) = self.wait_queue.front()?;
        if self.lingers_until(listener).is_none() {
            return Some((listener, key));
        }
        self.linger_until =
            (0..self.listeners.len()).filter_map(|lane| self.lingers_until(lane)).min();
        self.wait_queue.front_among(|lane| self.lingers_until(lane).is_none())
    }

    /// Until when the first batch of a listener waits for more events, if it does.
    pub(super) fn lingers_until(&self, listener: usize) -> Option<Instant> {
        let batch = self.lane_rules(listener).batch?;
        if self.wait_queue.lane_len(listener) >= batch.max_size {
            return None;
        }
        let first = self.wait_queue.get(self.wait_queue.lane_front(listener)?)?;
        let until = first.since + batch.max_wait;
        (until > self.now).then_some(until)
    }

    pub(super) fn interrupt(&mut self, slot: usize, cause: Cause) {
        if self.slots.interrupt(slot) {
            self.effects.push_back(Effect::Interrupt { slot, event: None, cause });
        }
    }
}
