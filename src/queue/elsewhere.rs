//! A queue whose events wait elsewhere, in one line with those of other nodes: its listeners forward there,
//! and its supervisors run what is placed here.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::ArbiterHandle;
use futures::future::{BoxFuture, LocalBoxFuture};
use serde::{Deserialize, Serialize};

use super::error::ControlError;
use super::keyed::UserKey;
use super::snapshot::QueueSnapshot;
use crate::actors::listener::SupervisorRef;
use crate::actors::messages::Control;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::event::refusal::Refusal;
use crate::journal::Query;
use crate::journal::error::JournalError;
use crate::journal::record::Kept;
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::{BatchRules, ResourceRules, Rules};

/// A slot of a concurrency id, and what frees it when it is dropped.
pub(crate) type GrantedSlot = (usize, Box<dyn Any + Send>);

/// Where the events of a queue wait, if that isn't here.
pub(crate) trait Elsewhere: Send + Sync {
    /// What the listeners of a concurrency id forward to.
    fn line(&self, arbiter: &ArbiterHandle, id: &Arc<str>) -> SupervisorRef;

    /// How many runs of a concurrency id are taken here at once, where that is said.
    fn slots_here(&self) -> &BTreeMap<Arc<str>, usize>;

    fn snapshot(&self) -> BoxFuture<'static, Option<QueueSnapshot>>;

    fn control(
        &self,
        id: &Arc<str>,
        control: Control,
    ) -> BoxFuture<'static, Result<(), ControlError>>;

    fn acquire(
        &self,
        id: &Arc<str>,
        label: Arc<str>,
        queue_timeout: Option<Duration>,
    ) -> BoxFuture<'static, Result<GrantedSlot, Refusal>>;

    /// The id of the event that a user submits to a listener with an idempotency key: always the same.
    fn keyed_id(&self, listener: &str, user_key: &UserKey) -> EventId;

    /// What is known of it.
    fn keyed(
        &self,
        listener: &Arc<str>,
        user_key: &UserKey,
    ) -> BoxFuture<'static, Result<Option<KeyedElsewhere>, JournalError>>;

    fn ends(&self, query: Query) -> BoxFuture<'static, Result<Vec<Kept>, JournalError>>;

    /// Brings an event here, if it goes on: from then on it is among those that were left.
    fn fetch(&self, event: EventId) -> LocalBoxFuture<'static, Result<(), JournalError>>;

    /// The same for all of a client's session.
    fn fetch_session(
        &self,
        user: Option<Arc<str>>,
        session: Arc<str>,
    ) -> LocalBoxFuture<'static, Result<(), JournalError>>;

    /// Takes no more runs, and lets those that are here end within `grace`. Whether they have.
    fn leave(&self, grace: Duration) -> BoxFuture<'static, bool>;
}

/// An event that was submitted with an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeyedElsewhere {
    pub event: EventId,
    /// Its input, where that is kept.
    pub input: Option<JsonText>,
    pub has_ended: bool,
}

/// A run that an earlier owner of the line has recorded.
#[derive(Clone, Debug)]
pub(crate) struct RecordedRun {
    pub event: EventId,
    pub attempt: u32,
    pub concurrency_id: Arc<str>,
    pub place: Option<Arc<str>>,
}

/// Those that are found when the journal is read. They may go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordedRuns(Arc<Mutex<Vec<RecordedRun>>>);

impl RecordedRuns {
    pub fn push(&self, run: RecordedRun) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    }

    pub fn take(&self) -> Vec<RecordedRun> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Given with an event that may be running already, as this attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adopt;

/// Given with an event that has been submitted before by somebody who doesn't know whether it was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubmittedBefore;

/// The rules of a concurrency id whose line is elsewhere: what is placed here starts at once, since whoever
/// places it counts the slots.
pub(super) fn of_runs_placed_here(mut rules: Rules, slots_here: Option<usize>) -> Rules {
    match &mut rules.resource {
        None => rules.limit = Limit::Unlimited,
        Some(resource) => {
            rules.limit = slots_here.map_or(rules.limit, Limit::Slots);
            *resource = ResourceRules::new(rules.limit, resource.unavailable_after);
        }
    }
    (rules.max_size, rules.max_eta, rules.queue_max_size) = (None, None, None);
    for listener in &mut rules.listeners {
        (listener.queue_timeout, listener.durable) = (None, false);
        let at_once = |batch| BatchRules { max_wait: Duration::ZERO, ..batch };
        listener.batch = listener.batch.map(at_once);
    }
    rules
}
