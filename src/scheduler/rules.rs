//! The rules of a concurrency id, given to its scheduler before the first event.

use std::sync::Arc;
use std::time::Duration;

use super::limit::Limit;
use super::slots::WARM;

/// The rules of a concurrency id, given to its scheduler before the first event.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub concurrency_id: Arc<str>,
    pub limit: Limit,
    /// The maximum of waiting events; `None` for no bound.
    pub max_size: Option<usize>,
    /// Refuse when the estimated wait is longer.
    pub max_eta: Option<Duration>,
    /// Workers build a resource before they take events; `None` where slots own nothing.
    pub resource: Option<ResourceRules>,
    pub listeners: Vec<ListenerRules>,
    /// The maximum of waiting events in all wait queues together; `None` for no bound. Each that
    /// waits holds one of so many places. Who has them is not decided here: the scheduler requests
    /// places, and gives them back.
    pub queue_max_size: Option<usize>,
}

/// The rules of the resources that slots own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceRules {
    /// So many slots are opened before anybody needs them, and stay open when idle.
    pub warm: usize,
    /// Once no slot has had its resource for this long, because builds fail, new events are refused.
    pub unavailable_after: Duration,
}

impl ResourceRules {
    pub fn new(limit: Limit, unavailable_after: Duration) -> Self {
        ResourceRules { warm: limit.slots().min(WARM), unavailable_after }
    }
}

/// The rules of one listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerRules {
    pub api_name: Arc<str>,
    pub batch: Option<BatchRules>,
    /// How long a run may take.
    pub time_limit: Option<Duration>,
    /// How long an event may wait.
    pub queue_timeout: Option<Duration>,
    /// Its events are on record before they are admitted.
    pub durable: bool,
}

impl ListenerRules {
    pub(crate) fn of_permits(label: Arc<str>) -> Self {
        ListenerRules {
            api_name: label,
            batch: None,
            time_limit: None,
            queue_timeout: None,
            durable: false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRules {
    pub max_size: usize,
    /// How long the first event of a batch waits for others to fill it.
    pub max_wait: Duration,
}
