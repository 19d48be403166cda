//! What the record must say in the end.

use std::collections::BTreeMap;

use crate::cluster::message::{Attempt, Process};
use crate::event::id::EventId;

/// What an owner records.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Claim,
    Admit(EventId),
    Start(Attempt, Process),
    End(Attempt),
    Renew,
}

/// Every event of those that were to be admitted has one end; its starts are recorded in order, none left out; and
/// first starts come in the order of admission, where starts are recorded.
pub(super) fn check<'a>(records: impl Iterator<Item = &'a Record>, events: u64, has_starts: bool) {
    let mut admitted = Vec::new();
    let mut first_starts = Vec::new();
    let mut ends: BTreeMap<EventId, usize> = BTreeMap::new();
    let mut last: BTreeMap<EventId, u32> = BTreeMap::new();
    for record in records {
        match record {
            Record::Admit(event) => admitted.push(*event),
            Record::Start(Attempt { event, number }, _) => {
                let before = last.insert(*event, *number).unwrap_or(0);
                assert_eq!(*number, before + 1, "attempts are counted");
                if *number == 1 {
                    first_starts.push(*event);
                }
            }
            Record::End(Attempt { event, .. }) => *ends.entry(*event).or_default() += 1,
            Record::Claim | Record::Renew => {}
        }
    }
    assert!(ends.values().all(|ends| *ends == 1), "an event has a second end");
    for event in &admitted {
        assert!(ends.contains_key(event), "{event} has never ended");
    }
    assert_eq!(admitted.len() as u64, events, "all were accepted");
    if has_starts {
        assert_eq!(first_starts, admitted, "first in, first out");
    }
}
