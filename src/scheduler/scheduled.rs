//! Not yet: accepted events that may start only from a moment on. They hold no slot and no place in the
//! wait queue, and block nobody. When their moment comes they enter the wait queue, behind those that
//! wait.

use std::time::Instant;

use super::appointments::Appointment;
use super::command::{Cause, Effect};
use super::run::RunEvent;
use super::{Location, Phase, Scheduler, Waiting};
use crate::event::id::EventId;

impl<T> Scheduler<T> {
    /// Events that may start only later.
    pub fn scheduled(&self) -> usize {
        self.scheduled.len()
    }

    /// What the shell stored with a scheduled event.
    pub fn scheduled_mut(&mut self, appointment: Appointment) -> Option<&mut T> {
        self.scheduled.get_mut(appointment).map(|waiting| &mut waiting.payload)
    }

    /// Accepts an event that may not start before `due`.
    pub(super) fn schedule(&mut self, lane: usize, due: Instant, waiting: Waiting<T>) {
        // The place is taken when it enters the wait queue.
        self.free_place();
        self.listeners[lane].admitted += 1;
        let (id, watched) = (waiting.id, waiting.watched);
        let appointment = self.scheduled.insert(due, lane, waiting);
        self.places.insert(id, Location::Scheduled(appointment));
        if watched {
            self.effects.push_back(Effect::Schedule { appointment });
        }
    }

    /// Takes an event out of the run on `slot`, which has not ended it: it may start again from `due` on, or
    /// without that is next again.
    pub(super) fn postpone(&mut self, slot: usize, id: EventId, payload: T, due: Option<Instant>) {
        let Some(run) = self.slots.run_mut(slot) else { return };
        let lane = run.listener;
        let Some(run_event) = run.events.take(id) else { return };
        // It hasn't waited while it ran.
        let next = RunEvent { since: self.now, ..run_event };
        let Some(due) = due else { return self.put_back(lane, next, payload) };
        let RunEvent { watched, since, cancelled, .. } = run_event;
        let waiting = Waiting { id, watched, since, last_notified: None, returned: true, payload };
        let appointment = self.scheduled.insert(due, lane, waiting);
        self.places.insert(id, Location::Scheduled(appointment));
        // The interrupt may have reached the worker too late.
        let cause = match self.phase {
            _ if cancelled => Cause::Cancelled,
            Phase::Stopped => Cause::Stopped,
            _ => return,
        };
        self.end_scheduled(appointment, cause);
    }

    /// Lets those whose moment has come into the wait queue.
    pub(super) fn keep_appointments(&mut self) {
        while let Some((due, appointment)) = self.scheduled.first()
            && due <= self.now
            && let Some((lane, waiting)) = self.scheduled.remove(appointment)
        {
            if self.rules.queue_max_size.is_some() {
                self.effects.push_back(Effect::RetakePlace);
            }
            self.join(lane, Waiting { since: self.now, ..waiting });
        }
    }

    pub(super) fn end_scheduled(&mut self, appointment: Appointment, cause: Cause) {
        let Some((lane, waiting)) = self.scheduled.remove(appointment) else { return };
        self.places.remove(&waiting.id);
        self.note_unstarted(lane, &waiting, cause);
        self.effects.push_back(Effect::End { event: waiting.payload, cause });
    }

    pub(super) fn stop_scheduled(&mut self) {
        while let Some((_, appointment)) = self.scheduled.first() {
            self.end_scheduled(appointment, Cause::Stopped);
        }
    }
}
