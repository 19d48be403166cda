//! The actors: thin shells that carry messages between callers, the scheduler and handlers.
//!
//! ```text
//! caller ─ Submit ─► Listener ─ Admit ─► Supervisor ─ Run ─► Worker (slot 0..N)
//!                        ▲                │    ▲                │
//!                        └── Pressure ────┘    └──── Report ────┘
//! ```

mod breather;
mod capacity;
mod gauges;
mod grant;
mod listener;
mod messages;
mod pace;
mod place_queue;
mod run;
mod slot_hold;
mod supervisor;
mod worker;

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod faults;

pub(crate) use gauges::Gauges;
pub(crate) use grant::Grant;
pub(crate) use listener::ListenerActor;
pub(crate) use messages::{
    Abort, Acquire, AwaitClosed, Cancel, CancelOf, Control, Job, Quit, Stop, Submit, TakeSnapshot,
};
pub(crate) use supervisor::{Served, ServedListener, Supervisor};

/// The places that the lines of all concurrency ids share.
pub(crate) type Capacity = capacity::Capacity<crate::scheduler::Key>;
