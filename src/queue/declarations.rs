//! What a builder declares, before anything is started.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::allow::Allow;
use super::elsewhere::{Elsewhere, RecordedRuns};
use super::error::StartError;
use super::listener_options::ListenerOptions;
use crate::handler::backoff::Backoff;
use crate::handler::codec::{InputType, OutputType};
use crate::handler::durable::{Codec, Durability, MAX_ATTEMPTS, OnCrash, ScopeOfRecords};
use crate::handler::erased::ErasedHandler;
use crate::handler::extensions::Extensions;
use crate::handler::needs::{NamedType, Needs};
use crate::handler::slot_resource::Factory;
use crate::handler::validator::Validator;
use crate::journal::Journal;
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::BatchRules;

/// What a builder declares, before anything is started.
#[derive(Default)]
pub(crate) struct Declarations {
    pub listeners: Vec<DeclaredListener>,
    /// Concurrency ids whose limit is declared apart from their listeners.
    pub limits: Vec<(String, Limit)>,
    /// Those of them that no listener needs to have.
    pub permits: Vec<String>,
    /// What the slots of a concurrency id own.
    pub factories: Vec<(String, Factory)>,
    /// What handlers may take as [`Data`](crate::Data), with the names of its types.
    pub data: Extensions,
    pub data_types: Vec<NamedType>,
    pub default_limit: Option<Limit>,
    pub max_size: Option<usize>,
    pub max_eta: Option<Duration>,
    /// Threads for the actors.
    pub arbiters: Option<usize>,
    pub watchdog: Option<Duration>,
    /// Where the events of durable listeners are recorded.
    pub journal: Option<Arc<dyn Journal>>,
    /// How long their ends are kept.
    pub result_ttl: Option<Duration>,
    /// Where events wait, if that isn't here.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
    /// This is the line of several nodes: where the runs that are on record are noted, which may go on.
    pub recorded: Option<RecordedRuns>,
}

impl Declarations {
    /// What builds the resources of a concurrency id's slots.
    pub fn factory(&self, id: &str) -> Option<&Factory> {
        self.factories.iter().find(|(name, _)| name == id).map(|(_, factory)| factory)
    }
}

/// A listener with its types erased.
pub(crate) struct DeclaredListener {
    pub api_name: Arc<str>,
    pub concurrency_id: Option<String>,
    pub limit: Option<Limit>,
    pub max_size: Option<usize>,
    pub time_limit: Option<Duration>,
    pub queue_timeout: Option<Duration>,
    pub batch: Option<BatchRules>,
    pub needs: Needs,
    pub start: ErasedHandler,
    pub queued: bool,
    pub generator: bool,
    pub validator: Option<Validator>,
    pub allow: Option<Allow>,
    pub own_arbiter: bool,
    pub spread: bool,
    /// How its events are written and read, where they are durable.
    pub codec: Option<Codec>,
    pub max_attempts: Option<u32>,
    pub on_crash: Option<OnCrash>,
    pub backoff: Option<Backoff>,
    pub input: InputType,
    pub output: OutputType,
    /// What the layers above the core declare for it.
    pub extensions: Extensions,
    /// A contradiction among its options, which `start()` returns.
    pub contradiction: Option<StartError>,
}

impl DeclaredListener {
    /// Keeps the first of what can't be until `start()`.
    pub(crate) fn contradict(&mut self, error: StartError) {
        self.contradiction.get_or_insert(error);
    }

    /// What it declares, where its events are durable. `data` is the queue's.
    pub(crate) fn durability(&self, data: &Extensions) -> Option<Durability> {
        let (codec, scope) = (self.codec?, data.get::<ScopeOfRecords>().cloned());
        Some(Durability {
            codec,
            reread: codec.reread(scope.clone()),
            scope,
            max_attempts: self.max_attempts.unwrap_or(MAX_ATTEMPTS),
            on_crash: self.on_crash.unwrap_or_default(),
            backoff: self.backoff,
        })
    }

    /// An option that makes sense for a durable listener only.
    pub(crate) fn durable_option(&self) -> Option<&'static str> {
        let set = [
            (self.max_attempts.is_some(), "max_attempts"),
            (self.on_crash.is_some(), "on_crash"),
            (self.backoff.is_some(), "retry"),
        ];
        set.into_iter().find(|(set, _)| *set).map(|(_, option)| option)
    }

    /// An option that makes no sense for a listener that doesn't queue.
    pub(crate) fn queue_option(&self) -> Option<&'static str> {
        let set = [
            (self.limit.is_some(), "concurrency_limit"),
            (self.concurrency_id.is_some(), "concurrency_id"),
            (self.max_size.is_some(), "max_size"),
            (self.queue_timeout.is_some(), "queue_timeout"),
            (self.batch.is_some(), "batches"),
            (self.codec.is_some(), "durable"),
        ];
        set.into_iter().find(|(set, _)| *set).map(|(_, option)| option)
    }

    pub(crate) fn options(&self) -> ListenerOptions {
        ListenerOptions {
            queued: self.queued,
            generator: self.generator,
            batch: self.batch.map(|batch| batch.max_size),
            needs: self.needs.clone(),
            allow: self.allow.clone(),
        }
    }
}

impl fmt::Debug for DeclaredListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("api_name", &self.api_name)
            .field("concurrency_id", &self.concurrency_id)
            .field("concurrency_limit", &self.limit)
            .finish_non_exhaustive()
    }
}
