//! What the workers of one concurrency id are given to run events.

use std::sync::Arc;

use super::arbiter_thread::ArbiterThread;
use super::watchdog::Pulse;
use crate::handler::durable::Durability;
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
    /// Of the supervisor's arbiter, where the workers run unless they are spread.
    pub pulse: Arc<Pulse>,
    /// The threads that the workers are spread over, slot after slot; empty where they are not.
    pub spread: Vec<ArbiterThread>,
    pub threads: Arc<Threads>,
    /// What those above the core have given the queue.
    pub extensions: Arc<Extensions>,
}

impl WorkerConfig {
    /// The thread of a slot's worker, where it isn't the supervisor's. Always the same.
    pub fn thread_of(&self, slot: usize) -> Option<&ArbiterThread> {
        self.spread.get(slot.checked_rem(self.spread.len())?)
    }
}

pub(crate) struct WorkerListener {
    pub api_name: Arc<str>,
    /// Its number in the whole queue, for the watchdog.
    pub number: u16,
    pub start: ErasedHandler,
    /// Its handler takes what the slot owns.
    pub takes_slot: bool,
    /// Where its events are recorded.
    pub durability: Option<Durability>,
}
