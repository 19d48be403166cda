//! Which records wait to be durable, and what is held back until they are: group commit.

use std::collections::{HashSet, VecDeque};
use std::mem::take;
use std::sync::Arc;

use super::record::Record;
use crate::event::id::EventId;

/// Gathers records into batches, each with what is done once it is durable. `H` is whatever is held back.
///
/// While one batch is on its way the next one gathers. Batches become durable in their order, but one may be
/// refused while it isn't known yet what has become of one before it. The records of one that was not kept come
/// before those that have gathered, so that their order stays; where a later batch has been kept, what it says of
/// an event is newer, and stands.
#[derive(Debug)]
pub(crate) struct Recorder<H> {
    again: Gathered<(BatchNumber, Record), H>,
    next: Gathered<Record, H>,
    on_their_way: VecDeque<OnItsWay<H>>,
    next_number: BatchNumber,
}

/// Batches are numbered as they are taken.
pub(crate) type BatchNumber = u64;

#[derive(Debug)]
struct OnItsWay<H> {
    number: BatchNumber,
    records: Arc<Vec<Record>>,
    held: Vec<H>,
}

#[derive(Debug)]
struct Gathered<R, H> {
    records: Vec<R>,
    held: Vec<H>,
}

impl<R, H> Default for Gathered<R, H> {
    fn default() -> Self {
        Gathered { records: Vec::new(), held: Vec::new() }
    }
}

impl<H> Default for Recorder<H> {
    fn default() -> Self {
        let (again, next) = (Gathered::default(), Gathered::default());
        Recorder { again, next, on_their_way: VecDeque::new(), next_number: 0 }
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
    pub fn take_batch(&mut self) -> Option<(BatchNumber, Arc<Vec<Record>>)> {
        let (again, mut held) = (take(&mut self.again.records), take(&mut self.again.held));
        let mut records: Vec<Record> = again.into_iter().map(|(_, record)| record).collect();
        records.append(&mut self.next.records);
        if records.is_empty() {
            return None;
        }
        held.append(&mut self.next.held);
        let (number, records) = (self.next_number, Arc::new(records));
        self.next_number += 1;
        self.on_their_way.push_back(OnItsWay { number, records: records.clone(), held });
        Some((number, records))
    }

    fn answered(&mut self, number: BatchNumber) -> Option<OnItsWay<H>> {
        let at = self.on_their_way.iter().position(|batch| batch.number == number)?;
        self.on_their_way.remove(at)
    }

    /// The batch is durable: what may be done now.
    pub fn settled(&mut self, number: BatchNumber) -> Vec<H> {
        let Some(OnItsWay { records, mut held, .. }) = self.answered(number) else {
            return Vec::new();
        };
        if !self.again.records.is_empty() {
            let newer = Newer::of(&records);
            self.again.records.retain(|(of, record)| *of > number || !newer.replaces(record));
            if self.again.records.is_empty() {
                // Nothing has to be recorded for it any more.
                held.splice(..0, take(&mut self.again.held));
            }
        }
        held
    }

    /// The batch was not kept. Gives what was held back for it: what still waits is to be given to
    /// [`Recorder::hold_again`]. Its records are recorded once more, but for admissions: those events are
    /// refused.
    pub fn failed(&mut self, number: BatchNumber) -> Vec<H> {
        let Some(OnItsWay { records, held, .. }) = self.answered(number) else {
            return Vec::new();
        };
        let records = Arc::unwrap_or_clone(records).into_iter();
        let records = records.filter(|record| !matches!(record, Record::Admitted(_)));
        let again = &mut self.again.records;
        // Of those that were refused in another order than they were taken in, the earlier one comes first.
        let at = again.partition_point(|(of, _)| *of <= number);
        again.splice(at..at, records.map(|record| (number, record)));
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
        let gathered = !self.again.records.is_empty() || !self.next.records.is_empty();
        !gathered && self.on_their_way.is_empty()
    }

    /// Whether nothing is held back.
    pub fn holds_nothing(&self) -> bool {
        let held = !self.again.held.is_empty() || !self.next.held.is_empty();
        !held && self.on_their_way.is_empty()
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
        Record::Started { event: EventId::for_test(event), attempt, place: None }
    }

    fn batch(recorder: &mut Recorder<u8>) -> (BatchNumber, Vec<Record>) {
        let (number, records) = recorder.take_batch().expect("something has gathered");
        (number, records.to_vec())
    }

    fn failed(recorder: &mut Recorder<u8>, number: BatchNumber) {
        for held in recorder.failed(number) {
            recorder.hold_again(held);
        }
    }

    #[test]
    fn what_failed_comes_first_again_with_what_waits_for_it() {
        let mut recorder = Recorder::default();
        recorder.hold(started(1, 1), 1);
        let (first, _) = batch(&mut recorder);
        recorder.hold(started(2, 1), 2);
        let (second, _) = batch(&mut recorder);
        recorder.hold(started(3, 1), 3);
        failed(&mut recorder, first);
        failed(&mut recorder, second);
        let (third, records) = batch(&mut recorder);
        assert_eq!(records, [started(1, 1), started(2, 1), started(3, 1)]);
        assert_eq!(recorder.settled(third), [1, 2, 3]);
        assert!(recorder.is_idle() && recorder.holds_nothing());
    }

    #[test]
    fn what_was_kept_meanwhile_is_newer() {
        let mut recorder = Recorder::default();
        let steered = |paused| Record::Steered(Steered { paused, limit: None });
        recorder.hold(started(1, 1), 1);
        recorder.note(steered(true));
        let (first, _) = batch(&mut recorder);
        recorder.hold(started(1, 2), 2);
        recorder.note(steered(false));
        let (second, _) = batch(&mut recorder);
        failed(&mut recorder, first);
        assert_eq!(recorder.settled(second), [1, 2], "nothing is left to be recorded");
        assert_eq!(recorder.take_batch(), None);
    }

    /// Of the first it wasn't known yet what had become of it.
    #[test]
    fn what_is_kept_late_is_not_newer_than_what_was_refused_meanwhile() {
        let mut recorder = Recorder::default();
        recorder.hold(started(1, 1), 1);
        let (first, _) = batch(&mut recorder);
        recorder.hold(started(1, 2), 2);
        let (second, _) = batch(&mut recorder);
        failed(&mut recorder, second);
        assert_eq!(recorder.settled(first), [1]);
        let (third, records) = batch(&mut recorder);
        assert_eq!(records, [started(1, 2)], "it stands");
        assert_eq!(recorder.settled(third), [2]);
    }

    #[test]
    fn what_was_refused_in_another_order_keeps_its_own() {
        let mut recorder = Recorder::default();
        recorder.hold(started(1, 1), 1);
        let (first, _) = batch(&mut recorder);
        recorder.hold(started(2, 1), 2);
        let (second, _) = batch(&mut recorder);
        failed(&mut recorder, second);
        failed(&mut recorder, first);
        assert_eq!(batch(&mut recorder).1, [started(1, 1), started(2, 1)]);
    }

    #[test]
    fn what_nothing_waits_for_is_recorded_once_more_too() {
        let mut recorder: Recorder<u8> = Recorder::default();
        recorder.note(started(1, 1));
        let (first, _) = batch(&mut recorder);
        assert!(recorder.failed(first).is_empty());
        assert!(!recorder.is_idle());
        assert_eq!(batch(&mut recorder).1, [started(1, 1)]);
    }
}
