//! The actors: thin shells that carry messages between callers, the scheduler and handlers.
//!
//! ```text
//! caller ─ Submit ─► Listener ─ Admit ─► Supervisor ─ Run ─► Worker (slot 0..N)
//!                        ▲                │    ▲                │
//!                        └── Pressure ────┘    └──── Report ────┘
//! ```

mod breather;
mod grant;
mod listener;
mod messages;
mod run;
mod slot_hold;
mod supervisor;
mod worker;

#[cfg(test)]
mod faults;

pub(crate) use grant::Grant;
pub(crate) use listener::ListenerActor;
pub(crate) use messages::{
    Abort, Acquire, AwaitClosed, Cancel, Control, Job, Peers, Quit, Stop, Submit, TakeSnapshot,
};
pub(crate) use supervisor::{Served, ServedListener, Supervisor};
