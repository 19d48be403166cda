//! The end of a durable event: on record before anybody is notified of it.

use std::time::{Duration, Instant};

use crate::clock;
use crate::delivery::sender::EventSender;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::update::Outcome;
use crate::handler::durable::Durability;
use crate::journal::record::{End, Ended, Record};

/// How a durable event has ended, and who is to be notified.
#[derive(Debug)]
pub(crate) struct DurableEnd {
    id: EventId,
    sender: EventSender,
    outcome: Outcome,
    /// What is recorded; `None` for one that goes on in the next process.
    end: Option<End>,
    run: Option<RunTimes>,
}

/// Of an event that has started.
#[derive(Clone, Copy, Debug)]
struct RunTimes {
    started: Instant,
    took: Duration,
    average: Option<f64>,
}

impl DurableEnd {
    /// Of an event whose run started then, and takes `average` seconds.
    pub fn of_run(
        id: EventId,
        sender: EventSender,
        outcome: Outcome,
        durability: &Durability,
        (started, average): (Instant, Option<f64>),
    ) -> Self {
        let run = RunTimes { started, took: clock::since(started), average };
        Self::new(id, sender, outcome, Some((run, durability)))
    }

    /// Of an event that hasn't started, at least not for this attempt.
    pub fn unstarted(id: EventId, sender: EventSender, outcome: Outcome) -> Self {
        Self::new(id, sender, outcome, None)
    }

    /// Writes the output, which takes its time with a large one.
    fn new(
        id: EventId,
        sender: EventSender,
        mut outcome: Outcome,
        run: Option<(RunTimes, &Durability)>,
    ) -> Self {
        let write = |output| match run {
            Some((_, durability)) => durability.write_output(output),
            None => Err("an event that never ran has no output".into()),
        };
        let end = match &outcome {
            Outcome::Completed(output) => match output.as_ref().map(write).transpose() {
                Ok(text) => Some(End::Completed(text)),
                Err(message) => {
                    outcome = Outcome::Failed(Failure::unexpected(message));
                    None
                }
            },
            _ => None,
        };
        let end = end.or_else(|| match &outcome {
            Outcome::Failed(failure) => Some(End::Failed(failure.clone())),
            Outcome::Cancelled => Some(End::Cancelled),
            Outcome::TimedOut => Some(End::TimedOut),
            // The queue was stopped, not the event: it is taken back at the next start.
            Outcome::Stopped | Outcome::Completed(_) => None,
        });
        DurableEnd { id, sender, outcome, end, run: run.map(|(run, _)| run) }
    }

    /// What is to be recorded before anybody is notified, if anything.
    pub fn record(&self) -> Option<Record> {
        let (event, end) = (self.id, self.end.clone()?);
        let duration = self.run.map_or(0.0, |run| run.took.as_secs_f64());
        Some(Record::Ended(Ended { event, end, duration, at: clock::unix_millis() }))
    }

    pub fn notify(self) {
        match self.run {
            Some(RunTimes { started, average, .. }) => {
                self.sender.end(self.outcome, started, average);
            }
            None => self.sender.end_unstarted(self.outcome),
        }
    }

    /// It can't be recorded. To its client it looks as if the queue were stopped: the event is on record
    /// as one that goes on.
    pub fn leave_open(self) {
        DurableEnd { outcome: Outcome::Stopped, ..self }.notify();
    }
}
