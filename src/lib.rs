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
//! // Of all three, at most two events run at once.
//! let queue = Queue::builder()
//!     .listener(
//!         Listener::new("generate_1", image_gen).concurrency_limit(2).concurrency_id("gpu_queue"),
//!     )
//!     .listener(Listener::new("generate_2", image_gen).concurrency_id("gpu_queue"))
//!     .listener(Listener::new("generate_3", image_gen).concurrency_id("gpu_queue"))
//!     .start()?;
//!
//! // In process, typed, without JSON. Over HTTP: `App::new().configure(Web::new(&queue).routes())`.
//! let image: Image = queue.call("generate_1", Prompt { text: "a fox".into() }).await?;
//! assert_eq!(image.caption, "a fox");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Where to go
//!
//! - What can be a handler: [`Listener::new`], [`Listener::blocking`], [`Listener::stream`],
//!   [`Listener::batch`]; its context: [`EventContext`]; what it shares with others: [`Data`]; what its
//!   slot owns: [`Slot`], [`SlotResource`].
//! - How events queue: the methods of [`Listener`] and [`QueueBuilder`].
//! - Calling: [`Queue::call`], [`Queue::submit`], [`Queue::submit_to`], [`ListenerHandle`].
//! - Work outside of listeners, in the same queue: [`Queue::acquire`].
//! - Over HTTP, with the feature `web` (on by default): `Web::routes` and `Web::gate`.
//! - Who it is: `WebBuilder::auth`, `User` and `Web::require_login` over HTTP, [`Queue::as_user`] in process;
//!   who may: [`Listener::allow`], and `Operators` for the dashboard. For clients that
//!   aren't Gradio's: the chapter `protocol`.
//! - Events that outlive the process: [`Listener::durable`], [`Queue::follow`]; for later, or with an
//!   idempotency key: [`ListenerHandle::event`].
//! - Steering: [`Queue::pause`], [`Queue::set_concurrency_limit`], [`Queue::snapshot`],
//!   [`Queue::shutdown`].
//! - Testing your own listeners: [`testing`].
//! - Whole programs: the directory `examples`. `chat` streams from the API of a language model, `children`
//!   has a child process for each slot, `websocket` forwards updates over a connection of its own,
//!   `members` has routes with login and roles, `tested` is a service with its unit tests.
//!
//! # Crate features
//!
//! - `web` (default): everything HTTP. Gradio's protocol, sessions, files, login, the gate, the
//!   dashboard and metrics, all on `Web`. Without it the queue has no HTTP and none of its
//!   dependencies.
//! - `journal`: events of [`Listener::durable`] listeners are recorded in an SQLite file and outlive the
//!   process. SQLite is compiled in.
//! - `cluster`: or in a stream of NATS JetStream, and outlive the machine: `Nats`. And one queue on several
//!   nodes: `Cluster`. The chapter `machines` has when to take which.
//! - `webhook`: their ends are posted to URLs that their submitters name: `Webhooks`. With `journal`.
//!
//! # Layout
//!
//! Each concurrency id has a supervisor actor that owns the wait queue, and a worker actor on each
//! slot; a listener actor stands in front of each listener's events. The supervisor is a shell: a
//! pure state machine decides who runs, who waits and who is refused. An event goes one way: caller,
//! listener, supervisor, worker, and back as [`Update`]s. In the source, from below:
//!
//! - `event`: events, updates, outputs, refusals and failures;
//! - `scheduler`: the state machine, free of actors, clocks and threads;
//! - `delivery`: where an event's updates go;
//! - `handler`: handlers, and what they can take: context, slot, session state;
//! - `journal`: the durable record of events, and what is taken back from it;
//! - `actors`: listener, supervisor, worker;
//! - `queue`: what is declared, started, called and steered;
//! - `cluster`: who may run what on several nodes, free of actors and clocks, and what they share;
//! - `node`: this process as one of them;
//! - `files`, `web`: what HTTP adds on top;
//! - `webhook`: ends of events, posted to those who can't stay.
//!
//! See `ARCHITECTURE.md` in the repository for more.
//!
//! # What is promised
//!
//! 1. Never more than the limit of a concurrency id run at once; a batch counts as one.
//! 2. An admitted event ends exactly once: completed, failed, cancelled, timed out or stopped.
//! 3. First in, first out. Only a batch that waits to be filled lets others pass.
//! 4. A slot never leaks: not by a panic, a cancel, a timeout or a client that goes away.
//! 5. A rank is true when it is sent, and never rises.
//! 6. Waiting clients cost few messages: near the front every step is sent, far back only steps
//!    that matter.
//! 7. A shutdown notifies all waiting clients, and never hangs.
//! 8. A durable event survives the death of its process: it ends once, and its end can be asked for.
//! 9. In a cluster the first eight hold over all nodes, whichever dies, stands still or is cut off. What can't be
//!    interrupted, a permit's work and a blocking handler that looks at no [`CancellationToken`], can outlive its
//!    node's right to run it. The chapter `machines` has what isn't there yet.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]
// Much of the core's inner side has no other user than the web yet.
#![cfg_attr(not(feature = "web"), allow(dead_code))]

mod actors;
mod clock;
#[cfg(feature = "cluster")]
mod cluster;
mod delivery;
mod event;
#[cfg(feature = "web")]
mod files;
mod handler;
mod journal;
mod logging;
#[cfg(feature = "cluster")]
mod node;
mod queue;
mod scheduler;
mod sync;
pub mod testing;
#[cfg(feature = "web")]
mod web;
#[cfg(feature = "webhook")]
mod webhook;

pub use event::failure::{Failure, UserError};
pub use event::id::{EventId, ParseEventIdError};
pub use event::output::Output;
pub use event::refusal::Refusal;
pub use event::update::{Log, LogLevel, Outcome, ProgressUnit, Update};
pub use event::validation::Validation;
#[cfg(feature = "web")]
pub use files::file_data::FileData;
#[cfg(feature = "web")]
pub use files::store::Files;
pub use handler::backoff::Backoff;
pub use handler::context::EventContext;
pub use handler::data::Data;
pub use handler::durable::OnCrash;
pub use handler::extract::{Extract, Handler};
pub use handler::session_state::{EndedSession, State};
pub use handler::slot::Slot;
pub use handler::slot_resource::SlotResource;
pub use handler::track::Tracked;
pub use handler::types::{ListenerInput, ListenerOutput};
pub use handler::validator::Validate;
pub use journal::error::JournalError;
#[cfg(any(feature = "journal", feature = "cluster"))]
pub use journal::handle::AnyJournal;
#[cfg(feature = "cluster")]
pub use journal::jetstream::{ConnectNats, Nats};
#[cfg(feature = "journal")]
pub use journal::sqlite::Sqlite;
#[cfg(feature = "cluster")]
pub use node::Cluster;
pub use queue::Queue;
pub use queue::builder::QueueBuilder;
pub use queue::control::Shutdown;
pub use queue::error::{AcquireError, CallError, ControlError, StartError, SubmitError};
pub use queue::event_builder::EventBuilder;
pub use queue::follow::FollowError;
pub use queue::handle::ListenerHandle;
pub use queue::listener::Listener;
pub use queue::permit::Permit;
pub use queue::snapshot::QueueSnapshot;
pub use queue::submission::Submission;
pub use scheduler::limit::Limit;
pub use scheduler::snapshot::{
    ConcurrencyIdSnapshot, EndedAs, EndedEvent, Histogram, ListenerSnapshot, Refusals,
    ScheduledEvent, SlotSnapshot, SlotState,
};
#[cfg(feature = "web")]
pub use web::auth::user::User;
#[cfg(feature = "web")]
pub use web::auth::{Auth, Users};
#[cfg(feature = "web")]
pub use web::error::WebError;
#[cfg(feature = "web")]
pub use web::event_data::EventData;
#[cfg(feature = "web")]
pub use web::gate::{Gate, GateService};
#[cfg(feature = "web")]
pub use web::http_server::http_server;
#[cfg(feature = "web")]
pub use web::listener_options::{ApiVisibility, OnDisconnect};
#[cfg(feature = "web")]
pub use web::operator::operators::{Access, Operators};
#[cfg(feature = "web")]
pub use web::options::WebBuilder;
#[cfg(feature = "web")]
pub use web::request::Request;
#[cfg(feature = "web")]
pub use web::require_login::{RequireLogin, RequireLoginService};
#[cfg(feature = "web")]
pub use web::session::snapshot::ClientsSnapshot;
#[cfg(feature = "web")]
pub use web::state::{Web, WebSnapshot};
#[cfg(feature = "webhook")]
pub use webhook::Webhooks;

// What of other crates stands in signatures here. Of serde, services need its derives anyway.
pub use actix::{self, Recipient};
#[cfg(feature = "web")]
pub use actix_web;
pub use futures::Stream;
pub use schemars::{self, JsonSchema};
pub use serde_json;
pub use tokio_util::sync::CancellationToken;

#[cfg(feature = "web")]
#[doc = include_str!("../docs/PROTOCOL.md")]
pub mod protocol {}

#[cfg(feature = "cluster")]
#[doc = include_str!("../docs/MACHINES.md")]
pub mod machines {}

/// The README's examples, compiled.
#[cfg(all(doctest, feature = "web"))]
#[doc = include_str!("../README.md")]
struct Readme;
