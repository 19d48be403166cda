//! Which records wait to be durable, and what is held back until they are: group commit.

use std::collections::{HashSet, VecDeque};
use std::mem::take;
use std::sync::Arc;

use super::record::Record;
use crate::event::id::EventId;

/// Gathers records into batches, each with what is done once it is durable. `H` is whatever is held back.
///
/// While one batch is on its way the next one gathers. Batches become durable in their order. The records
/// of one that was not kept come before those that have gathered, so that their order stays; where a batch
/// that was on its way meanwhile has been kept, what it says of an event is newer, and stands.
#[derive(Debug)]
pub(crate) struct Recorder<H> {
    again: Gathered<H>,
    next: Gathered<H>,
    on_their_way: VecDeque<(Arc<Vec<Record>>, Vec<H>)>,
}

#[derive(Debug)]
struct Gathered<H> {
    records: Vec<Record>,
    held: Vec<H>,
}

impl<H> Default for Gathered<H> {
    fn default() -> Self {
        Gathered { records: Vec::new(), held: Vec::new() }
    }
}

impl<H> Default for Recorder<H> {
    fn default() -> Self {
        let on_their_way = VecDeque::new();
        Recorder { again: Gathered::default(), next: Gathered::default(), on_their_way }
    }
}

impl<H> Recorder<H> {
    /// Wants something recorded that nothing waits for.
    pub fn note(&mut self, record: Record) {
        self.next.records.push(record);
    }

    /// Wants something recorded before something is done.
    pub fn hold(&mut self, record: Record, held: H) {
        self.next.records.push(record);
        self.next.held.push(held);
    }

    /// Holds something back for what has been wanted recorded up to now.
    pub fn held(&mut self, held: H) {
        self.next.held.push(held);
    }

    /// What has gathered, to be appended.
    pub fn take_batch(&mut self) -> Option<Arc<Vec<Record>>> {
        let (mut records, mut held) = (take(&mut self.again.records), take(&mut self.again.held));
        records.append(&mut self.next.records);
        if records.is_empty() {
            return None;
        }
        held.append(&mut self.next.held);
        let records = Arc::new(records);
        self.on_their_way.push_back((records.clone(), held));
        Some(records)
    }

    /// The oldest batch on its way is durable: what may be done now.
    pub fn settled(&mut self) -> Vec<H> {
        let Some((records, mut held)) = self.on_their_way.pop_front() else { return Vec::new() };
        if !self.again.records.is_empty() {
            let newer = Newer::of(&records);
            self.again.records.retain(|record| !newer.replaces(record));
            if self.again.records.is_empty() {
                // Nothing has to be recorded for it any more.
                held.splice(..0, take(&mut self.again.held));
            }
        }
        held
    }

    /// The oldest batch on its way was not kept. Gives what was held back for it: what still waits is to be
    /// given to [`Recorder::hold_again`]. Its records are recorded once more, but for admissions: those events
    /// are refused.
    pub fn failed(&mut self) -> Vec<H> {
        let Some((records, held)) = self.on_their_way.pop_front() else { return Vec::new() };
        let records = Arc::unwrap_or_clone(records).into_iter();
        self.again.records.extend(records.filter(|record| !matches!(record, Record::Admitted(_))));
        held
    }

    /// Holds something back for the records of batches that have failed.
    pub fn hold_again(&mut self, held: H) {
        self.again.held.push(held);
    }

    /// Nothing can be recorded any more: what was held back.
    pub fn give_up(&mut self) -> Vec<H> {
        let mut held = take(&mut self.again).held;
        held.append(&mut take(&mut self.next).held);
        held
    }

    /// Batches that are not durable yet.
    pub fn on_their_way(&self) -> usize {
        self.on_their_way.len()
    }

    /// Whether nothing waits to be durable.
    pub fn is_idle(&self) -> bool {
        let gathered = [&self.again, &self.next];
        gathered.iter().all(|it| it.records.is_empty()) && self.on_their_way.is_empty()
    }

    /// Whether nothing is held back.
    pub fn holds_nothing(&self) -> bool {
        let gathered = [&self.again, &self.next];
        gathered.iter().all(|it| it.held.is_empty()) && self.on_their_way.is_empty()
    }
}

/// What a batch has newer things of. Each record says all there is to say of its subject since the last.
struct Newer {
    events: HashSet<EventId>,
    steered: bool,
}

impl Newer {
    fn of(records: &[Record]) -> Self {
        let events = records.iter().filter_map(Record::event).collect();
        let steered = records.iter().any(|record| matches!(record, Record::Steered(_)));
        Newer { events, steered }
    }

    fn replaces(&self, record: &Record) -> bool {
        record.event().map_or(self.steered, |event| self.events.contains(&event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::Steered;

    fn started(event: u128, attempt: u32) -> Record {
        Record::Started { event: EventId::for_test(event), attempt }
    }

    fn batch(recorder: &mut Recorder<u8>) -> Vec<Record> {
        recorder.take_batch().expect("something has gathered").to_vec()
    }

    #[test]
    fn what_failed_comes_first_again_with_what_waits_for_it() {
        let mut recorder = Recorder::default();
        recorder.hold(started(1, 1), 1);
        batch(&mut recorder);
        recorder.hold(started(2, 1), 2);
        batch(&mut recorder);
        recorder.hold(started(3, 1), 3);
        for _ in 0..2 {
            let held = recorder.failed();
            held.into_iter().for_each(|held| recorder.hold_again(held));
        }
        assert_eq!(batch(&mut recorder), [started(1, 1), started(2, 1), started(3, 1)]);
        assert_eq!(recorder.settled(), [1, 2, 3]);
        assert!(recorder.is_idle() && recorder.holds_nothing());
    }

    #[test]
    fn what_was_kept_meanwhile_is_newer() {
        let mut recorder = Recorder::default();
        let steered = |paused| Record::Steered(Steered { paused, limit: None });
        recorder.hold(started(1, 1), 1);
        recorder.note(steered(true));
        batch(&mut recorder);
        recorder.hold(started(1, 2), 2);
        recorder.note(steered(false));
        batch(&mut recorder);
        for held in recorder.failed() {
            recorder.hold_again(held);
        }
        assert_eq!(recorder.settled(), [1, 2], "nothing is left to be recorded");
        assert_eq!(recorder.take_batch(), None);
    }

    #[test]
    fn what_nothing_waits_for_is_recorded_once_more_too() {
        let mut recorder: Recorder<u8> = Recorder::default();
        recorder.note(started(1, 1));
        batch(&mut recorder);
        assert!(recorder.failed().is_empty());
        assert!(!recorder.is_idle());
        assert_eq!(batch(&mut recorder), [started(1, 1)]);
    }
}
