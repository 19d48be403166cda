//! What a journal must know after the records that it was given: lists that are too simple to be wrong. For
//! tests.

use std::sync::Arc;

use super::record::{Admitted, End, Ended, Kept, Live, Record, Steered};
use super::{Batch, Loaded, Query};
use crate::event::id::EventId;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub live: Vec<Live>,
    pub ends: Vec<(Admitted, Ended)>,
    pub steered: Vec<(Arc<str>, Steered)>,
}

impl Memory {
    pub fn take(&mut self, batch: &Batch) {
        for record in batch.records.iter() {
            self.take_record(&batch.concurrency_id, record);
        }
    }

    fn take_record(&mut self, concurrency_id: &Arc<str>, record: &Record) {
        let at = |event: EventId| self.live.iter().position(|l| l.admitted.event == event);
        match record {
            Record::Admitted(admitted) => {
                if !self.knows(admitted.event) {
                    let admitted = admitted.clone();
                    self.live.push(Live { admitted, attempt: 0, postponed: None });
                }
            }
            Record::Started { event, attempt } => {
                if let Some(at) = at(*event) {
                    (self.live[at].attempt, self.live[at].postponed) = (*attempt, None);
                }
            }
            Record::Postponed { event, attempt, until } => {
                if let Some(at) = at(*event) {
                    (self.live[at].attempt, self.live[at].postponed) = (*attempt, Some(*until));
                }
            }
            Record::Ended(ended) => {
                if let Some(at) = at(ended.event) {
                    let Live { admitted, .. } = self.live.remove(at);
                    self.ends.push((admitted, ended.clone()));
                }
            }
            Record::Steered(steered) => {
                self.steered.retain(|(id, _)| id != concurrency_id);
                self.steered.push((concurrency_id.clone(), *steered));
                self.steered.sort_by(|(a, _), (b, _)| a.cmp(b));
            }
        }
    }

    pub fn knows(&self, event: EventId) -> bool {
        self.live.iter().any(|live| live.admitted.event == event) || self.end(event).is_some()
    }

    pub fn end(&self, event: EventId) -> Option<&Ended> {
        self.ends.iter().map(|(_, ended)| ended).find(|ended| ended.event == event)
    }

    pub fn loaded(&self) -> Loaded {
        Loaded { events: self.live.clone(), steered: self.steered.clone() }
    }

    pub fn find(&self, query: &Query) -> Vec<Kept> {
        let fits = |(admitted, ended): &&(Admitted, Ended)| match query {
            Query::Event(event) => ended.event == *event,
            Query::Key { listener, user, key } => {
                admitted.listener == *listener
                    && admitted.user == *user
                    && admitted.key.as_ref() == Some(key)
            }
        };
        let kept = |(admitted, ended): &(Admitted, Ended)| Kept {
            listener: admitted.listener.clone(),
            session: admitted.session.clone(),
            user: admitted.user.clone(),
            key: admitted.key.clone(),
            input: admitted.key.as_ref().map(|_| admitted.input.clone()),
            ended: ended.clone(),
        };
        self.ends.iter().filter(fits).map(kept).collect()
    }

    pub fn forget(&mut self, before: u64) {
        self.ends.retain(|(_, ended)| ended.at >= before);
    }

    /// Whether this is how the event has ended.
    pub fn has_completed(&self, event: EventId) -> bool {
        self.end(event).is_some_and(|ended| matches!(ended.end, End::Completed(_)))
    }
}
