//! The journal of a queue, as one supervisor uses it: what waits to be on record, and what earlier
//! processes have left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::durable_end::DurableEnd;
use super::held_run::HeldRun;
use super::messages::Job;
use super::timer::Timer;
use crate::clock;
use crate::event::refusal::Refusal;
use crate::event::update::Outcome;
use crate::handler::durable::Durable;
use crate::journal::Journal;
use crate::journal::error::JournalError;
use crate::journal::record::{Admitted, Record, Steered};
use crate::journal::recorder::Recorder;
use crate::scheduler::wait_queue::Key;

/// What is done once its record is durable.
#[derive(Debug)]
pub(super) enum Held {
    /// The event at this key is admitted.
    Admission(Key),
    /// The run on this slot starts.
    Start(usize),
    /// Its client is notified.
    End(Box<DurableEnd>),
    /// The operator is told that it holds in later processes too.
    Steered(SteeredReply),
}

/// To an operator: what was set is on record, or why it isn't yet.
pub(super) type SteeredReply = oneshot::Sender<Result<(), JournalError>>;

/// The journal of a queue, as one supervisor uses it.
pub(super) struct Recording {
    pub journal: Arc<dyn Journal>,
    pub recorder: Recorder<Held>,
    /// Runs whose start is being recorded, by slot.
    pub starting: HashMap<usize, HeldRun>,
    /// Which start a run is, by slot, where it isn't its event's first.
    pub attempts: HashMap<usize, u32>,
    /// Why nothing can be recorded, if that is so.
    pub trouble: Option<JournalError>,
    /// Until it is tried again, nothing is sent to the journal.
    pub retry: Option<Timer>,
    pub steered: Steered,
}

impl Recording {
    pub fn new(journal: Arc<dyn Journal>, steered: Steered) -> Self {
        Recording {
            journal,
            recorder: Recorder::default(),
            starting: HashMap::new(),
            attempts: HashMap::new(),
            trouble: None,
            retry: None,
            steered,
        }
    }

    /// Whether nothing waits to be on record. What can't be recorded is only waited for where somebody
    /// waits.
    pub fn is_idle(&self) -> bool {
        self.recorder.is_idle() || (self.trouble.is_some() && self.recorder.holds_nothing())
    }

    pub fn is_broken(&self) -> bool {
        self.trouble.as_ref().is_some_and(JournalError::is_final)
    }

    /// Holds an end back until it is on record.
    pub fn end(&mut self, end: DurableEnd) {
        match end.record() {
            Some(_) if self.is_broken() => end.leave_open(),
            Some(record) => self.recorder.hold(record, Held::End(Box::new(end))),
            None => end.notify(),
        }
    }
}

/// Ends an event that has not started. Gives the end of a durable one, of which its client hears when it
/// is on record.
pub(super) fn end_unstarted(job: Job, outcome: Outcome) -> Option<DurableEnd> {
    if job.input.given::<Durable>().is_some() {
        return Some(DurableEnd::unstarted(job.id, job.sender, outcome));
    }
    job.sender.end_unstarted(outcome);
    None
}

/// Has starts recorded, each by the number that its event has counted it as.
pub(super) fn note_starts(recorder: &mut Recorder<Held>, jobs: &[Box<Job>]) {
    for job in jobs {
        if let Some(durable) = job.input.given::<Durable>() {
            let (event, attempt) = (job.id, durable.attempt());
            recorder.note(Record::Started { event, attempt, place: None });
        }
    }
}

/// What is to be recorded of an event that is accepted.
pub(super) fn admission(listener: &Arc<str>, job: &Job) -> Option<Record> {
    let durable = job.input.given::<Durable>()?;
    Some(Record::Admitted(Admitted {
        event: job.id,
        listener: listener.clone(),
        session: durable.session.clone(),
        user: job.user().map(Arc::from),
        key: durable.key.clone(),
        webhook: durable.webhook.clone(),
        not_before: durable.not_before,
        came_to: durable.came_to.clone(),
        at: clock::unix_millis(),
        input: durable.input.clone(),
    }))
}

/// Tells an operator that it is done.
pub(super) fn accept(reply: SteeredReply) {
    // Who asked may have stopped waiting.
    let _ = reply.send(Ok(()));
}

/// Why an event is not admitted that could not be recorded.
pub(super) fn not_recorded(trouble: &JournalError) -> Refusal {
    Refusal::NotRecorded {
        reason: trouble.to_string(),
        full: matches!(trouble, JournalError::Full),
    }
}

/// What earlier processes have left of one concurrency id.
#[derive(Default)]
pub(crate) struct Recovered {
    /// Where events are recorded; without, nothing is.
    pub journal: Option<Arc<dyn Journal>>,
    /// The events that go on, in their order.
    pub events: Vec<RecoveredEvent>,
    /// The events that have ended by the end of their process.
    pub ended: Vec<DurableEnd>,
    pub steered: Steered,
    /// Whoever runs its events says how much room there is, once that is known.
    pub awaits_room: bool,
}

/// An event of an earlier process that goes on.
pub(crate) struct RecoveredEvent {
    pub listener: usize,
    pub job: Box<Job>,
    /// When it was admitted, by this process' clock.
    pub since: Instant,
    pub not_before: Option<Instant>,
    /// It may be running.
    pub runs: bool,
}
