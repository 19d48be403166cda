//! What the worker knows of a run that is about to start.

use std::any::Any;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::extensions::Extensions;
use super::session_state::SessionState;
use super::slot::Resource;
use super::threads::Threads;
use super::user::user_of;
use crate::delivery::sender::{EventSender, UpdateSender};
use crate::event::id::EventId;
use crate::event::update::Outcome;

/// What the worker knows of a run that is about to start.
#[doc(hidden)]
pub struct RunContext<'a> {
    pub(crate) api_name: &'a Arc<str>,
    pub(crate) meter: &'a crate::handler::progress::Meter,
    pub(crate) slot: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) events: &'a [RunEvent],
    /// HandlerOutput only for handlers that want it.
    pub(crate) token: &'a OnceCell<CancellationToken>,
    pub(crate) resource: Option<&'a Resource>,
    /// For a handler that blocks.
    pub(crate) threads: &'a Threads,
    /// What such a thread keeps for as long as it runs, so that its slot isn't taken for free.
    pub(crate) hold: &'a Arc<dyn Any + Send + Sync>,
    /// What those above the core have given the queue.
    pub(crate) extensions: &'a Arc<Extensions>,
}

impl RunContext<'_> {
    /// The session of the oldest event.
    pub(crate) fn session(&self) -> Option<&Arc<SessionState>> {
        self.events.first().and_then(|run_event| run_event.session.as_ref())
    }

    /// What those above the core have given with the oldest event.
    pub(crate) fn of_event<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.events.first().and_then(|run_event| run_event.extensions.get())
    }
}

/// One event of a run. Its sender is gone once it has ended.
#[doc(hidden)]
#[derive(Debug)]
pub struct RunEvent {
    pub(crate) id: EventId,
    pub(crate) session: Option<Arc<SessionState>>,
    pub(crate) sender: Option<EventSender>,
    /// What those above the core have given with it.
    pub(crate) extensions: Extensions,
    /// How it has ended, until its client is notified.
    pub(crate) outcome: Option<Outcome>,
}

impl RunEvent {
    /// Whether it hasn't ended yet.
    pub(crate) fn is_open(&self) -> bool {
        self.sender.is_some() && self.outcome.is_none()
    }

    /// The user whose event it is.
    pub(crate) fn user(&self) -> Option<&str> {
        user_of(self.session.as_deref(), self.extensions.get())
    }

    pub fn updates(&self) -> Option<Arc<UpdateSender>> {
        self.sender.as_ref()?.updates().cloned()
    }
}
