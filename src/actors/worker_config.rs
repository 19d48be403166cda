//! What the workers of one concurrency id are given to run events.

use std::sync::Arc;

use super::watchdog::Pulse;
use crate::handler::erased::ErasedHandler;
use crate::handler::extensions::Extensions;
use crate::handler::nesting::IdSlots;
use crate::handler::slot_resource::Factory;
use crate::handler::threads::Threads;

/// What the workers of one concurrency id serve.
pub(crate) struct WorkerConfig {
    pub concurrency_id: Arc<str>,
    pub slots: Arc<IdSlots>,
    pub listeners: Vec<WorkerListener>,
    pub factory: Option<Factory>,
    /// Of the arbiter that all of it runs on.
    pub pulse: Arc<Pulse>,
    pub threads: Arc<Threads>,
    /// What those above the core have given the queue.
    pub extensions: Arc<Extensions>,
}

pub(crate) struct WorkerListener {
    pub api_name: Arc<str>,
    /// Its number in the whole queue, for the watchdog.
    pub number: u16,
    pub start: ErasedHandler,
    /// Its handler takes what the slot owns.
    pub takes_slot: bool,
}
