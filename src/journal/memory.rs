//! What a journal must know after the records that it was given: lists that are too simple to be wrong. For
//! tests.

use std::sync::Arc;

use super::record::{Called, End, Ended, Kept, Live, Record, Steered, Webhook};
use super::{Batch, Loaded, Query};
use crate::event::id::EventId;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub live: Vec<Live>,
    pub ends: Vec<(Live, Ended)>,
    /// Of those with a webhook.
    pub calls: Vec<Called>,
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
                    self.live.push(Live { admitted, attempt: 0, postponed: None, place: None });
                }
            }
            Record::Started { event, attempt, place } => {
                if let Some(at) = at(*event) {
                    (self.live[at].attempt, self.live[at].postponed) = (*attempt, None);
                    self.live[at].place = place.clone();
                }
            }
            Record::Postponed { event, attempt, until } => {
                let at = at(*event).filter(|at| self.live[*at].attempt <= *attempt);
                if let Some(at) = at {
                    (self.live[at].attempt, self.live[at].postponed) = (*attempt, Some(*until));
                    self.live[at].place = None;
                }
            }
            Record::Ended(ended) => {
                if let Some(at) = at(ended.event) {
                    let live = self.live.remove(at);
                    if live.admitted.webhook.is_some() {
                        let (event, next) = (ended.event, Some(ended.at));
                        self.calls.push(Called { event, calls: 0, next });
                    }
                    self.ends.push((live, ended.clone()));
                }
            }
            Record::Called(called) => {
                if let Some(call) = self.calls.iter_mut().find(|it| it.event == called.event) {
                    *call = *called;
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
        let mut found: Vec<_> = self.ends.iter().map(|end| self.kept(end)).collect();
        match query {
            Query::Event(event) => found.retain(|kept| kept.ended.event == *event),
            Query::Key { listener, user, key } => found.retain(|kept| {
                kept.listener == *listener && kept.user == *user && kept.key.as_ref() == Some(key)
            }),
            Query::Session { user, session, since } => {
                found.retain(|kept| {
                    let of = kept.session.as_ref() == Some(session) && kept.user == *user;
                    of && kept.ended.at >= *since
                });
                found.sort_by_key(|kept| kept.ended.at);
            }
            Query::ToCall(most) => {
                let next = |kept: &Kept| kept.webhook.as_ref().and_then(|webhook| webhook.next);
                found.retain(|kept| next(kept).is_some());
                found.sort_by_key(next);
                found.truncate(*most);
            }
            Query::Failed { listener, most } => {
                found.retain(|kept| kept.listener == *listener && kept.ended.failed());
                found.reverse();
                found.sort_by_key(|kept| std::cmp::Reverse(kept.ended.at));
                found.truncate(*most);
            }
        }
        found
    }

    fn kept(&self, (live, ended): &(Live, Ended)) -> Kept {
        let admitted = &live.admitted;
        let keeps_input = admitted.key.is_some() || ended.failed();
        let call = self.calls.iter().find(|call| call.event == ended.event);
        let webhook = admitted.webhook.clone().zip(call);
        Kept {
            listener: admitted.listener.clone(),
            session: admitted.session.clone(),
            user: admitted.user.clone(),
            key: admitted.key.clone(),
            input: keeps_input.then(|| admitted.input.clone()),
            ended: ended.clone(),
            attempts: live.attempt,
            webhook: webhook.map(|(url, call)| Webhook { url, calls: call.calls, next: call.next }),
        }
    }

    pub fn forget(&mut self, before: u64) {
        self.ends.retain(|(_, ended)| ended.at >= before);
    }

    /// Whether this is how the event has ended.
    pub fn has_completed(&self, event: EventId) -> bool {
        self.end(event).is_some_and(|ended| matches!(ended.end, End::Completed(_)))
    }
}
