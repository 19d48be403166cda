//! An event queue for actix-web services: Gradio's queuing system rebuilt as actix actors.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod actors;
mod builder;
mod context;
mod entry;
mod error;
mod event;
mod handle;
mod handler;
mod listener;
mod outbox;
mod output;
mod queue;
mod resource;
mod scheduler;
mod sink;
mod snapshot;
mod submission;
pub mod testing;
mod update;
#[cfg(feature = "web")]
mod web;

pub use builder::QueueBuilder;
pub use context::{EventContext, Tracked};
pub use error::{CallError, ControlError, Failure, Refusal, StartError, SubmitError, UserError};
pub use event::{EventId, ParseEventIdError};
pub use handle::ListenerHandle;
pub use handler::{Extract, Handler};
pub use listener::Listener;
pub use output::Output;
pub use queue::{Queue, Shutdown};
pub use resource::Slot;
pub use scheduler::Limit;
pub use snapshot::{
    ConcurrencyIdSnapshot, ListenerSnapshot, QueueSnapshot, SlotSnapshot, SlotState,
};
pub use submission::Submission;
pub use update::{Log, LogLevel, Outcome, ProgressUnit, Update};
#[cfg(feature = "web")]
pub use web::{Gate, GateService};
