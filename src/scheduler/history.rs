//! What has become of a concurrency id's events: how they are distributed since the start, and the
//! last few one by one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::bounds::{SIZES, TIMES};
use super::command::OutcomeCounts;
use super::snapshot::{EndedAs, EndedEvent, Histogram};
use crate::event::id::EventId;

/// How many ended events are remembered.
const RECENT: usize = 50;

/// Counts of observations by size.
#[derive(Debug)]
pub(super) struct Distribution {
    bounds: &'static [f64],
    counts: Box<[u64]>,
    sum: f64,
}

impl Distribution {
    pub fn of_times() -> Self {
        Self::new(TIMES)
    }

    pub fn of_sizes() -> Self {
        Self::new(SIZES)
    }

    fn new(bounds: &'static [f64]) -> Self {
        Distribution { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    pub fn snapshot(&self) -> Histogram {
        let count = self.counts.iter().sum();
        Histogram { bounds: self.bounds, counts: self.counts.to_vec(), sum: self.sum, count }
    }
}

/// The last events that ended.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ended: VecDeque<Ended>,
    number: u64,
}

#[derive(Debug)]
struct Ended {
    number: u64,
    id: EventId,
    listener: usize,
    outcome: EndedAs,
    submitted: Instant,
    started: Option<Instant>,
    at: Instant,
}

impl Recent {
    pub fn push(
        &mut self,
        id: EventId,
        listener: usize,
        outcome: EndedAs,
        submitted: Instant,
        started: Option<Instant>,
        at: Instant,
    ) {
        if self.ended.len() == RECENT {
            self.ended.pop_front();
        }
        self.number += 1;
        let number = self.number;
        self.ended.push_back(Ended { number, id, listener, outcome, submitted, started, at });
    }

    /// The oldest first, with each listener's name.
    pub fn snapshot<'a>(
        &self,
        now: Instant,
        name: impl Fn(usize) -> &'a Arc<str>,
    ) -> Vec<EndedEvent> {
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let picture = |ended: &Ended| EndedEvent {
            number: ended.number,
            id: ended.id,
            listener: name(ended.listener).clone(),
            outcome: ended.outcome,
            waited: seconds(ended.submitted, ended.started.unwrap_or(ended.at)),
            ran: ended.started.map(|started| seconds(started, ended.at)),
            seconds_ago: seconds(ended.at, now),
        };
        self.ended.iter().map(picture).collect()
    }
}

/// How the events of a run ended, if all did in the same way.
pub(super) fn ended_as(counts: &OutcomeCounts) -> EndedAs {
    let kinds = [
        (counts.completed, EndedAs::Completed),
        (counts.failed, EndedAs::Failed),
        (counts.cancelled, EndedAs::Cancelled),
        (counts.timed_out, EndedAs::TimedOut),
        (counts.stopped, EndedAs::Stopped),
    ];
    let mut some = kinds.into_iter().filter(|(count, _)| *count > 0);
    match (some.next(), some.next()) {
        (Some((_, only)), None) => only,
        _ => EndedAs::Mixed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut sizes = Distribution::of_sizes();
        for size in [1.0, 2.0, 3.0, 4.0, 1000.0] {
            sizes.observe(size);
        }
        let Histogram { counts, sum, count, .. } = sizes.snapshot();
        assert_eq!(counts, [1, 1, 2, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((sum, count), (1010.0, 5));
    }

    #[test]
    fn the_last_few_are_remembered() {
        let (mut recent, at) = (Recent::default(), Instant::now());
        let listener = Arc::from("paint");
        for n in 1..=RECENT as u64 + 3 {
            let id = EventId::for_test(n.into());
            let started = at + Duration::from_secs(1);
            let ended = at + Duration::from_secs(3);
            recent.push(id, 0, EndedAs::Completed, at, Some(started), ended);
        }
        let all = recent.snapshot(at + Duration::from_secs(4), |_| &listener);
        assert_eq!((all.len(), all[0].number), (RECENT, 4));
        assert_eq!((all[0].waited, all[0].ran, all[0].seconds_ago), (1.0, Some(2.0), 1.0));
    }

    #[test]
    fn a_batch_may_end_in_several_ways() {
        let one = OutcomeCounts { failed: 2, ..OutcomeCounts::default() };
        assert_eq!(ended_as(&one), EndedAs::Failed);
        assert_eq!(ended_as(&OutcomeCounts { completed: 1, ..one }), EndedAs::Mixed);
    }
}
