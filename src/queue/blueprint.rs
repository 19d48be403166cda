//! What is to be known of a queue to keep its one line for all nodes, whoever runs its events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::declarations::{Declarations, DeclaredListener};
use super::elsewhere::RecordedRuns;
use super::plan::Plan;
use crate::event::json_text::JsonText;
use crate::handler::backoff::Backoff;
use crate::handler::codec::{InputType, OutputType};
use crate::handler::durable::{Codec, OnCrash};
use crate::handler::erased::ErasedHandler;
use crate::handler::extensions::Extensions;
use crate::handler::needs::Needs;
use crate::journal::Journal;
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::BatchRules;

/// Among a queue's extensions, where its events wait elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    pub listeners: Vec<ListenerBlueprint>,
    limits: Vec<(String, Limit)>,
    permits: Vec<String>,
    default_limit: Limit,
    max_size: Option<usize>,
    max_eta: Option<Duration>,
    result_ttl: Option<Duration>,
    /// How many runs of a concurrency id this node takes at once, where that is bounded: where slots own a
    /// resource, and where it is said.
    pub slots: BTreeMap<Arc<str>, usize>,
    /// The concurrency ids of the line.
    pub ids: Vec<Arc<str>>,
    /// What those above the core have given the queue, once it has started.
    pub extensions: Option<Arc<Extensions>>,
}

/// A listener whose events wait in the line.
#[derive(Clone, Debug)]
pub(crate) struct ListenerBlueprint {
    pub api_name: Arc<str>,
    pub concurrency_id: Arc<str>,
    /// Its number among those of its concurrency id.
    pub lane: usize,
    /// Its handler takes what only the node has where its events come from.
    pub stays: bool,
    limit: Option<Limit>,
    max_size: Option<usize>,
    time_limit: Option<Duration>,
    queue_timeout: Option<Duration>,
    batch: Option<BatchRules>,
    max_attempts: Option<u32>,
    on_crash: Option<OnCrash>,
    backoff: Option<Backoff>,
}

impl ListenerBlueprint {
    pub fn is_batch(&self) -> bool {
        self.batch.is_some()
    }
}

impl Blueprint {
    pub fn of(declared: &Declarations, plans: &[Plan], default_limit: Limit) -> Self {
        let mut listeners = Vec::new();
        for plan in plans.iter().filter(|plan| is_of_line(declared, plan)) {
            for (lane, &member) in plan.members.iter().enumerate() {
                let listener = &declared.listeners[member];
                listeners.push(ListenerBlueprint {
                    api_name: listener.api_name.clone(),
                    concurrency_id: plan.rules.concurrency_id.clone(),
                    lane,
                    stays: listener.needs.of_client().is_some(),
                    limit: listener.limit,
                    max_size: listener.max_size,
                    time_limit: listener.time_limit,
                    queue_timeout: listener.queue_timeout,
                    batch: listener.batch,
                    max_attempts: listener.max_attempts,
                    on_crash: listener.on_crash,
                    backoff: listener.backoff,
                });
            }
        }
        let of_line = plans.iter().filter(|plan| is_of_line(declared, plan));
        let ids = of_line.map(|plan| plan.rules.concurrency_id.clone()).collect();
        let prepared = plans.iter().filter(|plan| plan.rules.resource.is_some());
        let slots = |plan: &Plan| (plan.rules.concurrency_id.clone(), plan.rules.limit.slots());
        Blueprint {
            listeners,
            limits: declared.limits.clone(),
            permits: declared.permits.clone(),
            default_limit,
            max_size: declared.max_size,
            max_eta: declared.max_eta,
            result_ttl: declared.result_ttl,
            slots: prepared.map(slots).collect(),
            ids,
            extensions: None,
        }
    }

    /// What is declared of the queue that keeps the line: what its events give to `run` may run anywhere. The runs that are on
    /// record go to `recorded`.
    pub fn line(
        &self,
        journal: Arc<dyn Journal>,
        run: impl Fn(&ListenerBlueprint) -> ErasedHandler,
        recorded: RecordedRuns,
    ) -> Declarations {
        let declare = |listener: &ListenerBlueprint| DeclaredListener {
            api_name: listener.api_name.clone(),
            concurrency_id: Some(listener.concurrency_id.to_string()),
            limit: listener.limit,
            max_size: listener.max_size,
            time_limit: listener.time_limit,
            queue_timeout: listener.queue_timeout,
            batch: listener.batch,
            needs: Needs::default(),
            start: run(listener),
            queued: true,
            generator: false,
            validator: None,
            allow: None,
            own_arbiter: false,
            spread: false,
            codec: Some(Codec::verbatim()),
            max_attempts: listener.max_attempts,
            on_crash: listener.on_crash,
            backoff: listener.backoff,
            input: InputType::of::<JsonText>(),
            output: OutputType::of::<JsonText>(),
            extensions: Extensions::default(),
            contradiction: None,
        };
        Declarations {
            listeners: self.listeners.iter().map(declare).collect(),
            limits: self.limits.clone(),
            permits: self.permits.clone(),
            default_limit: Some(self.default_limit),
            max_size: self.max_size,
            max_eta: self.max_eta,
            arbiters: Some(1),
            watchdog: Some(Duration::ZERO),
            journal: Some(journal),
            result_ttl: self.result_ttl,
            recorded: Some(recorded),
            ..Declarations::default()
        }
    }
}

/// Whether the events of a concurrency id wait in the line, and who waits for a permit of it. Those that don't
/// queue have nothing to wait for.
pub(super) fn is_of_line(declared: &Declarations, plan: &Plan) -> bool {
    plan.members.iter().all(|&member| declared.listeners[member].queued)
}
