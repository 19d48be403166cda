//! What a handler can query and report while it runs.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::data::Data;
use super::durable::Durable;
use super::extensions::Extensions;
use super::progress::Reporter;
use super::run_context::{RunContext, RunEvent};
use super::session_state::SessionState;
use crate::delivery::sender::UpdateSender;
use crate::event::id::EventId;
use crate::event::update::{Log, LogLevel, ProgressUnit, Update};

/// The running event, as its handler sees it. Cheap to clone; clones may go to other threads.
///
/// A handler takes it as an argument after its input:
///
/// ```
/// use now_serving::{EventContext, UserError};
///
/// async fn count(n: u64, context: EventContext) -> Result<u64, UserError> {
///     for i in context.track(0..n, "steps") {
///         if context.is_cancelled() {
///             break;
///         }
///         context.progress((i + 1) as f64 / n as f64, format!("step {i}"));
///     }
///     context.info("counted");
///     Ok(n)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct EventContext(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    api_name: Arc<str>,
    slot: usize,
    attempt: u32,
    deadline: Option<Instant>,
    events: Vec<EventId>,
    session: Option<Arc<SessionState>>,
    user: Option<Arc<str>>,
    token: CancellationToken,
    pub(super) updates: Vec<Arc<UpdateSender>>,
    pub(super) reporter: Reporter,
    extensions: Arc<Extensions>,
    /// The loops that the handler tracks, outermost first.
    pub(super) loops: Mutex<Vec<ProgressUnit>>,
}

impl EventContext {
    pub(crate) fn of(run: &RunContext<'_>) -> Self {
        EventContext(Arc::new(Inner {
            api_name: run.api_name.clone(),
            slot: run.slot,
            attempt: run.of_event::<Durable>().map_or(1, Durable::attempt),
            deadline: run.deadline,
            events: run.events.iter().map(|run_event| run_event.id).collect(),
            session: run.session().cloned(),
            user: run.events.first().and_then(RunEvent::user).map(Arc::from),
            token: run.token.get_or_init(CancellationToken::new).clone(),
            updates: run.events.iter().filter_map(RunEvent::updates).collect(),
            reporter: run.meter.reporter(),
            extensions: run.extensions.clone(),
            loops: Mutex::default(),
        }))
    }

    /// The listener's name.
    pub fn api_name(&self) -> &str {
        &self.0.api_name
    }

    /// The event of this run. In a batch: the oldest.
    pub fn event_id(&self) -> EventId {
        // No run is without an event.
        self.0.events[0]
    }

    /// The events of this run, oldest first: one, unless the listener takes batches.
    pub fn event_ids(&self) -> &[EventId] {
        &self.0.events
    }

    /// The session that the event came from; `None` for in-process calls. In a batch: of the
    /// oldest event.
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_deref().map(|session| &*session.id)
    }

    /// The user whose event it is: over HTTP who has logged in (`WebBuilder::auth`), in process whom
    /// [`Queue::as_user`](crate::Queue::as_user) names; otherwise `None`. In a batch: of the oldest event.
    /// As Gradio's `request.username`.
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// The value of a type that the queue was given by
    /// [`QueueBuilder::data`](crate::QueueBuilder::data); a handler that takes a
    /// [`Data`] of it is sure to have it.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.extensions.get::<Data<T>>().map(|data| &**data)
    }

    /// What those above the core have given the queue.
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    /// The number of the slot that the handler runs on, from 0.
    pub fn slot(&self) -> usize {
        self.0.slot
    }

    /// Which attempt this is, from 1. More than 1 only for events of a
    /// [durable](crate::Listener::durable) listener whose earlier attempts failed in passing, or whose
    /// process ended. In a batch: of the oldest event.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// When the run will be ended for its `time_limit`; `None` without one.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Whether the run should stop: it was cancelled or timed out, or the queue was stopped.
    ///
    /// An async handler needn't check, it is dropped at its next await. A blocking one keeps its
    /// slot until it returns, so it should check regularly.
    pub fn is_cancelled(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// The token behind [`EventContext::is_cancelled`], to pass on or to wait for.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    /// Reports to the client which part of the work is done, from 0 to 1.
    pub fn progress(&self, progress: f64, desc: impl Into<String>) {
        self.0.reporter.report(progress);
        self.send_progress(|| {
            vec![ProgressUnit {
                unit: Some("steps".into()),
                progress: Some(progress),
                desc: Some(desc.into()),
                ..ProgressUnit::default()
            }]
        });
    }

    /// Sends an info message to the client.
    pub fn info(&self, message: impl Into<String>) {
        self.log(Log::new(LogLevel::Info, message));
    }

    /// Sends a warning to the client.
    pub fn warning(&self, message: impl Into<String>) {
        self.log(Log::new(LogLevel::Warning, message));
    }

    /// Sends a success message to the client.
    pub fn success(&self, message: impl Into<String>) {
        self.log(Log::new(LogLevel::Success, message));
    }

    /// Sends a message to the client, with a title, duration or visibility of its own.
    pub fn log(&self, log: Log) {
        for updates in &self.0.updates {
            updates.send(|event_id| Update::Log { event_id, log: log.clone() });
        }
    }

    pub(super) fn send_progress(&self, units: impl FnOnce() -> Vec<ProgressUnit>) {
        if self.0.updates.is_empty() {
            return;
        }
        let units = units();
        for updates in &self.0.updates {
            updates.send(|event_id| Update::Progress { event_id, units: units.clone() });
        }
    }
}
