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
    /// Takes all of its events out, or one: they have ended. A check goes on: what one that was cut short
    /// leaves in the resource nobody knows.
    #[must_use = "their clients must be notified"]
    pub fn interrupt(&mut self, event: Option<EventId>, cause: Cause) -> Vec<Job> {
        let ends = |job: &Job| event.is_none_or(|event| event == job.id);
        let ended = match std::mem::replace(&mut self.jobs, OneOrMany::Many(Vec::new())) {
            OneOrMany::One(job) if ends(&job) => vec![job],
            OneOrMany::One(job) => {
                self.jobs = OneOrMany::One(job);
                Vec::new()
            }
            OneOrMany::Many(mut jobs) => {
                let ended: Vec<_> = jobs.extract_if(.., |job| ends(job)).collect();
                self.jobs = OneOrMany::Many(jobs);
                ended
            }
        };
        ended.iter().for_each(|_| self.counts.count(cause));
        ended.into_iter().map(|job| *job).collect()
    }
}
