//! One run, as the scheduler remembers it while it fills a slot.

use std::time::Instant;

use super::wait_queue::Key;
use crate::event::id::EventId;

/// One event of a run, with what it takes to put it back where it stood in the wait queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunEvent {
    pub id: EventId,
    pub watched: bool,
    pub since: Instant,
    pub key: Key,
    /// It is to end, whatever becomes of the run.
    pub cancelled: bool,
}

/// The events of one run.
#[derive(Clone, Debug)]
pub(crate) enum RunEvents {
    One(RunEvent),
    Batch(Vec<RunEvent>),
}

impl RunEvents {
    pub fn as_slice(&self) -> &[RunEvent] {
        match self {
            RunEvents::One(run_event) => std::slice::from_ref(run_event),
            RunEvents::Batch(events) => events,
        }
    }

    /// Takes one of them out.
    pub fn take(&mut self, id: EventId) -> Option<RunEvent> {
        match self {
            RunEvents::One(run_event) if run_event.id == id => {
                let taken = *run_event;
                *self = RunEvents::Batch(Vec::new());
                Some(taken)
            }
            RunEvents::One(_) => None,
            RunEvents::Batch(events) => {
                let at = events.iter().position(|run_event| run_event.id == id)?;
                Some(events.remove(at))
            }
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [RunEvent] {
        match self {
            RunEvents::One(run_event) => std::slice::from_mut(run_event),
            RunEvents::Batch(events) => events,
        }
    }
}

/// What fills a slot: one event, or one batch.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub events: RunEvents,
    pub listener: usize,
    /// When the first of its events came into the wait queue.
    pub submitted: Instant,
    pub started: Instant,
    pub deadline: Option<Instant>,
    /// The whole run has been interrupted and hasn't stopped yet.
    pub interrupted: bool,
}
