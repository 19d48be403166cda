//! An event queue for actix-web services: Gradio's queuing system, rebuilt as actix actors.
//!
//! A [`Listener`] is a named handler; every call to it is an event, and every event is queued. A
//! *concurrency id* names a queue: listeners that name the same id share it and its slots. The
//! *concurrency limit* says how many events of an id run at once. When the slots run out, events
//! wait, first in, first out, and clients see their rank and ETA live.
//!
//! ```
//! use now_serving::{Listener, Queue, UserError};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Prompt { text: String }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Image { caption: String }
//!
//! async fn image_gen(prompt: Prompt) -> Result<Image, UserError> {
//!     Ok(Image { caption: prompt.text })
//! }
//!
//! # actix::System::new().block_on(async {
//! // Two events of all three run at once, whoever asks.
//! let queue = Queue::builder()
//!     .listener(
//!         Listener::new("generate_1", image_gen).concurrency_limit(2).concurrency_id("gpu_queue"),
//!     )
//!     .listener(Listener::new("generate_2", image_gen).concurrency_id("gpu_queue"))
//!     .listener(Listener::new("generate_3", image_gen).concurrency_id("gpu_queue"))
//!     .start()?;
//!
//! // In process, typed, without JSON. Over HTTP: `App::new().configure(queue.routes())`.
//! let image: Image = queue.call("generate_1", Prompt { text: "a fox".into() }).await?;
//! assert_eq!(image.caption, "a fox");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Where to go
//!
//! - What can be a handler: [`Listener::new`], [`Listener::blocking`], [`Listener::stream`],
//!   [`Listener::batch`]; what it can ask and say: [`EventContext`]; what its slot owns: [`Slot`],
//!   [`SlotResource`].
//! - How events queue: the methods of [`Listener`] and [`QueueBuilder`].
//! - Calling: [`Queue::call`], [`Queue::submit`], [`Queue::submit_to`], [`ListenerHandle`].
//! - Work that is no listener's, in the same line: [`Queue::acquire`].
//! - Over HTTP, with the feature `web` (on by default): `Queue::routes` and `Queue::gate`.
//! - Steering: [`Queue::pause`], [`Queue::set_concurrency_limit`], [`Queue::snapshot`],
//!   [`Queue::shutdown`].
//! - Testing your own listeners: [`testing`].
//!
//! # How it is built
//!
//! Each concurrency id has a supervisor actor that owns the waiting line, and a worker actor on each
//! slot; a listener actor stands before each listener's events. The supervisor is a shell: a pure
//! state machine decides who runs, who waits and who is refused. An event goes one way: caller,
//! listener, supervisor, worker, and back as [`Update`]s.
//!
//! # What is promised
//!
//! 1. Never more than the limit of a concurrency id run at once; a batch counts as one.
//! 2. An admitted event ends exactly once: completed, failed, cancelled, timed out or stopped.
//! 3. First in, first out. Only a batch that waits to be filled lets others pass.
//! 4. A slot never leaks: not by a panic, a cancel, a timeout or a client that goes away.
//! 5. A rank is true when it is sent, and never rises.
//! 6. Waiting clients cost few messages: near the front every step is told, far back only steps
//!    that matter.
//! 7. A shutdown tells everybody who waits, and hangs on nobody.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod actors;
mod builder;
mod check;
mod context;
mod entry;
mod error;
mod event;
mod facts;
#[cfg(feature = "web")]
mod files;
mod guarded;
mod handle;
mod handler;
mod handover;
mod input;
mod listener;
mod logging;
mod meter;
mod outbox;
mod output;
mod outside;
mod permit;
mod queue;
mod resource;
mod scheduler;
mod sink;
mod slot_resource;
mod snapshot;
mod state;
mod submission;
mod sync;
pub mod testing;
mod threads;
mod update;
mod validation;
mod watchdog;
#[cfg(feature = "web")]
mod web;

pub use builder::QueueBuilder;
pub use context::{EventContext, Tracked};
pub use error::{
    AcquireError, CallError, ControlError, Failure, Refusal, StartError, SubmitError, UserError,
};
pub use event::{EventId, ParseEventIdError};
pub use facts::{ApiVisibility, OnDisconnect};
#[cfg(feature = "web")]
pub use files::{FileData, Files};
pub use handle::ListenerHandle;
pub use handler::{Extract, Handler};
pub use listener::Listener;
pub use output::Output;
pub use permit::Permit;
pub use queue::{Queue, Shutdown};
pub use resource::Slot;
pub use scheduler::Limit;
pub use slot_resource::SlotResource;
#[cfg(feature = "web")]
pub use snapshot::ClientsSnapshot;
pub use snapshot::{
    ConcurrencyIdSnapshot, EndedAs, EndedEvent, Histogram, ListenerSnapshot, QueueSnapshot,
    Refusals, SlotSnapshot, SlotState,
};
pub use state::{EndedSession, State};
pub use submission::Submission;
pub use update::{Log, LogLevel, Outcome, ProgressUnit, Update};
pub use validation::Validation;
#[cfg(feature = "web")]
pub use web::{Auth, Gate, GateService, Users, http_server};

/// The README's examples, compiled.
#[cfg(all(doctest, feature = "web"))]
#[doc = include_str!("../README.md")]
struct Readme;
