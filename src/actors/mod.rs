//! The actors: thin shells that carry messages between callers, the scheduler and handlers.
//!
//! ```text
//! caller ─ Submit ─► Listener ─ Admit ─► Supervisor ─ Run ─► Worker (slot 0..N)
//!                        ▲                │    ▲                │
//!                        └── Pressure ────┘    └──── Report ────┘
//! ```

pub(crate) mod arbiter_thread;
pub(crate) mod capacity;
pub(crate) mod durable_end;
pub(crate) mod effects;
pub(crate) mod gauges;
pub(crate) mod grant;
pub(crate) mod held_run;
pub(crate) mod listener;
mod local_channel;
pub(crate) mod mailbox_budget;
pub(crate) mod messages;
pub(crate) mod place_queue;
pub(crate) mod recorded_effects;
pub(crate) mod recording;
pub(crate) mod reports;
mod run;
pub(crate) mod slot_hold;
pub(crate) mod snapshot_pace;
pub(crate) mod snapshots;
pub(crate) mod supervisor;
#[cfg(test)]
mod tests;
mod timer;
pub(crate) mod watchdog;
pub(crate) mod worker;
pub(crate) mod worker_config;
mod worker_link;

/// The places that the wait queues of all concurrency ids share.
pub(crate) type Capacity = capacity::Capacity<crate::scheduler::wait_queue::Key>;
