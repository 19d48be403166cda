//! A run that waits for the check of its slot's resource, and may end before it has begun.

use super::messages::Job;
use crate::event::id::EventId;
use crate::handler::input::OneOrMany;
use crate::scheduler::command::{Cause, OutcomeCounts, RunParams};

/// A run that has not begun.
pub(super) struct HeldRun {
    pub jobs: OneOrMany<Box<Job>>,
    pub params: RunParams,
    /// Those of its events that have ended meanwhile.
    pub counts: OutcomeCounts,
}

impl HeldRun {
    /// Ends all of its events, or one. The check goes on: what one that was cut short leaves in the
    /// resource nobody knows.
    pub fn interrupt(&mut self, event: Option<EventId>, cause: Cause) {
        let ends = |job: &Job| event.is_none_or(|event| event == job.id);
        let ended = match std::mem::replace(&mut self.jobs, OneOrMany::Many(Vec::new())) {
            OneOrMany::One(job) if ends(&job) => vec![job],
            OneOrMany::One(job) => {
                self.jobs = OneOrMany::One(job);
                return;
            }
            OneOrMany::Many(mut jobs) => {
                let ended = jobs.extract_if(.., |job| ends(job)).collect();
                self.jobs = OneOrMany::Many(jobs);
                ended
            }
        };
        for job in ended {
            self.counts.count(cause);
            job.sender.end_unstarted(cause.outcome());
        }
    }
}
