//! The running queue: its handles, and how it is steered and stopped.

pub(crate) mod builder;
pub(crate) mod error;
#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod handle;
pub(crate) mod listener;
pub(crate) mod listener_options;
pub(crate) mod listener_ref;
pub(crate) mod permit;
pub(crate) mod plan;
pub(crate) mod snapshot;
pub(crate) mod submission;
pub(crate) mod validate;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Arbiter, Recipient};
use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::actors::gauges::Gauges;
use crate::actors::messages::{Abort, AwaitClosed, Control, Quit, Stop, TakeSnapshot};
use crate::actors::supervisor::Supervisor;
use crate::actors::watchdog::Watchdog;
use crate::event::id::EventId;
use crate::event::update::Update;
use crate::handler::outside::Outside;
use crate::handler::slot_resource::CLOSE;
use crate::queue::builder::QueueBuilder;
use crate::queue::error::{CallError, ControlError, SubmitError};
use crate::queue::handle::ListenerHandle;
use crate::queue::listener_ref::ListenerRef;
use crate::queue::snapshot::QueueSnapshot;
use crate::queue::submission::Submission;
use crate::scheduler::command::WhenFull;
use crate::scheduler::limit::Limit;
use crate::scheduler::snapshot::ConcurrencyIdSnapshot;

/// How long a shutdown waits, past its grace, for interrupted handlers to let go.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a supervisor is waited for that is asked what it looks like.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running event queue. Cheap to clone; clones are the same queue, on any thread.
///
/// Its actors end with the last clone and [`ListenerHandle`], or with the actix system. Then events
/// that are waiting or running end as lost; [`Queue::shutdown`] ends them in an orderly way. A
/// blocking handler that runs then sees that it is cancelled, and goes on until it returns.
///
/// ```
/// use now_serving::{Listener, Queue};
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Prompt { text: String }
///
/// #[derive(Serialize, JsonSchema)]
/// struct Image { pixels: Vec<u8> }
///
/// async fn image_gen_1(prompt: Prompt) -> Result<Image, String> {
///     Ok(Image { pixels: prompt.text.into_bytes() })
/// }
///
/// # actix::System::new().block_on(async {
/// let queue = Queue::builder()
///     .listener(
///         Listener::new("generate_1", image_gen_1).concurrency_id("gpu_queue").concurrency_limit(2),
///     )
///     .listener(Listener::new("generate_2", image_gen_1).concurrency_id("gpu_queue"))
///     .start()
///     .unwrap();
/// let image: Image = queue.call("generate_1", Prompt { text: "a fox".into() }).await.unwrap();
/// assert_eq!(image.pixels, b"a fox");
/// # });
/// ```
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

pub(crate) struct Inner {
    pub listeners: Vec<Arc<ListenerRef>>,
    pub by_name: HashMap<Arc<str>, usize>,
    pub ids: Vec<ConcurrencyId>,
    /// What runs outside of the actors.
    pub outside: Outside,
    pub arbiters: Vec<Arbiter>,
    pub _watchdog: Option<Watchdog>,
    #[cfg(feature = "web")]
    pub web: crate::web::state::Web,
}

pub(crate) struct ConcurrencyId {
    pub name: Arc<str>,
    /// Its slots own a resource, so that its limit must stay a number.
    pub prepared: bool,
    pub supervisor: Addr<Supervisor>,
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    pub gauges: Arc<Gauges>,
}

impl ConcurrencyId {
    async fn snapshot(&self) -> Option<ConcurrencyIdSnapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.supervisor.send(TakeSnapshot { reply }).await.ok()?;
        // Copied here and not by the supervisor, whose time is everybody's.
        snapshot.await.ok().map(Arc::unwrap_or_clone)
    }
}

impl Inner {
    /// The numbers of listeners by name.
    pub fn numbered(listeners: &[Arc<ListenerRef>]) -> HashMap<Arc<str>, usize> {
        let names = listeners.iter().enumerate();
        names.map(|(index, listener_ref)| (listener_ref.api_name.clone(), index)).collect()
    }

    pub fn listener_ref(&self, api_name: &str) -> Option<&Arc<ListenerRef>> {
        self.by_name.get(api_name).map(|&index| &self.listeners[index])
    }

    /// A listener that clients over HTTP may call, by its name.
    #[cfg(feature = "web")]
    pub fn endpoint(&self, api_name: &str) -> Option<&crate::web::api::endpoint::Endpoint> {
        let endpoint = self.by_name.get(api_name).map(|&index| &self.web.endpoints[index])?;
        endpoint.is_callable().then_some(endpoint)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Those on an arbiter that isn't the queue's own would stay.
        for listener in &self.listeners {
            listener.address.do_send(Quit);
        }
        for id in &self.ids {
            id.supervisor.do_send(Quit);
        }
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

/// What [`Queue::shutdown`] left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Every handler had stopped by itself within the grace. False also where that can't be known,
    /// because the actix system ended first and took what ran with it.
    pub drained: bool,
    /// Every handler has stopped. Otherwise blocking ones still run, which can't be stopped from
    /// outside; their clients have been told.
    pub stopped: bool,
    /// What the slots own is closed and dropped. Always so where they own nothing.
    pub closed: bool,
}

impl Queue {
    /// Starts declaring a queue.
    pub fn builder() -> QueueBuilder {
        QueueBuilder::default()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Queue(Arc::new(inner))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn test_supervisor(&self) -> &Addr<Supervisor> {
        &self.0.ids[0].supervisor
    }

    #[cfg(test)]
    pub(crate) fn test_listener(&self) -> &Addr<crate::actors::listener::ListenerActor> {
        &self.0.listeners[0].address
    }

    fn listener_ref(&self, api_name: &str) -> Result<&Arc<ListenerRef>, SubmitError> {
        let listener_ref = self.0.listener_ref(api_name);
        listener_ref.ok_or_else(|| SubmitError::UnknownListener(api_name.into()))
    }

    /// A typed handle on one listener.
    ///
    /// # Errors
    /// When there is no such listener, or it takes or gives other types.
    pub fn listener<I, O>(&self, api_name: &str) -> Result<ListenerHandle<I, O>, SubmitError>
    where
        I: Send + 'static,
        O: Send + Sync + 'static,
    {
        ListenerHandle::new(self.listener_ref(api_name)?.clone(), self.clone())
    }

    /// Submits an event and waits for its result: [`ListenerHandle::call`] by name.
    ///
    /// # Errors
    /// As [`ListenerHandle::call`]; when there is no such listener, or it takes or gives other
    /// types.
    pub async fn call<I, O>(&self, api_name: &str, input: I) -> Result<O, CallError>
    where
        I: Send + 'static,
        O: Send + Sync + 'static,
    {
        self.listener(api_name)?.call(input).await
    }

    /// Submits an event, waiting for room: [`ListenerHandle::submit`] by name.
    ///
    /// # Errors
    /// As [`ListenerHandle::submit`]; when there is no such listener, or it takes another type.
    pub async fn submit<I>(&self, api_name: &str, input: I) -> Result<Submission, SubmitError>
    where
        I: Send + 'static,
    {
        let listener_ref = self.listener_ref(api_name)?;
        handle::check_input::<I>(listener_ref)?;
        handle::submit(listener_ref, input, WhenFull::Wait).await
    }

    /// Submits an event, refused where the line is full: [`ListenerHandle::try_submit`] by name.
    ///
    /// # Errors
    /// As [`ListenerHandle::try_submit`]; when there is no such listener, or it takes another type.
    pub async fn try_submit<I>(&self, api_name: &str, input: I) -> Result<Submission, SubmitError>
    where
        I: Send + 'static,
    {
        let listener_ref = self.listener_ref(api_name)?;
        handle::check_input::<I>(listener_ref)?;
        handle::submit(listener_ref, input, WhenFull::Refuse).await
    }

    /// Submits an event that an actor follows: [`ListenerHandle::submit_to`] by name.
    ///
    /// # Errors
    /// As [`ListenerHandle::submit_to`]; when there is no such listener, or it takes another type.
    pub async fn submit_to<I>(
        &self,
        api_name: &str,
        input: I,
        follower: Recipient<Update>,
    ) -> Result<EventId, SubmitError>
    where
        I: Send + 'static,
    {
        let listener_ref = self.listener_ref(api_name)?;
        handle::check_input::<I>(listener_ref)?;
        handle::submit_to(listener_ref, input, follower).await
    }

    /// Cancels an event of a listener: [`ListenerHandle::cancel`] by name. Nothing happens when it
    /// has ended.
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn cancel(&self, api_name: &str, event: EventId) -> Result<(), ControlError> {
        let listener_ref = self.0.listener_ref(api_name);
        let listener_ref =
            listener_ref.ok_or_else(|| ControlError::UnknownListener(api_name.into()))?;
        listener_ref.cancel(event);
        Ok(())
    }

    fn id(&self, name: &str) -> Result<&ConcurrencyId, ControlError> {
        let id = self.0.ids.iter().find(|id| &*id.name == name);
        id.ok_or_else(|| ControlError::UnknownConcurrencyId(name.into()))
    }

    async fn control(&self, id: &ConcurrencyId, control: Control) -> Result<(), ControlError> {
        id.supervisor.send(control).await.map_err(|_| ControlError::Stopped)
    }

    /// Starts no more events of a concurrency id until it is resumed. Running ones go on, new ones
    /// wait.
    ///
    /// # Errors
    /// When no listener has this id, or the queue is stopped.
    pub async fn pause(&self, concurrency_id: &str) -> Result<(), ControlError> {
        self.control(self.id(concurrency_id)?, Control::Pause).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// As [`Queue::pause`].
    pub async fn resume(&self, concurrency_id: &str) -> Result<(), ControlError> {
        self.control(self.id(concurrency_id)?, Control::Resume).await
    }

    /// Changes how many events of a concurrency id run at once. Up: more start at once. Down:
    /// running ones finish, and slots retire as they come free.
    ///
    /// # Errors
    /// When the limit is 0, or unlimited where slots own a resource; also as [`Queue::pause`].
    pub async fn set_concurrency_limit(
        &self,
        concurrency_id: &str,
        limit: impl Into<Limit>,
    ) -> Result<(), ControlError> {
        let (id, limit) = (self.id(concurrency_id)?, limit.into());
        match limit {
            Limit::Slots(0) => Err(ControlError::ZeroLimit),
            Limit::Unlimited if id.prepared => {
                Err(ControlError::ResourceWithoutLimit(concurrency_id.into()))
            }
            Limit::Slots(_) | Limit::Unlimited => self.control(id, Control::SetLimit(limit)).await,
        }
    }

    /// The files of its clients, to make one for a listener that takes a
    /// [`FileData`](crate::FileData) and is called in process.
    #[cfg(feature = "web")]
    pub fn files(&self) -> &crate::files::store::Files {
        &self.0.web.files
    }

    /// Events that wait in all lines together. Costs nothing to know, unlike
    /// [`Queue::snapshot`].
    #[cfg(feature = "web")]
    pub(crate) fn waiting(&self) -> usize {
        self.0.ids.iter().map(|id| id.gauges.waiting()).sum()
    }

    /// What the queue looks like now. Ids whose actors have ended, or don't answer within a second
    /// because a handler keeps their thread to itself, are left out.
    ///
    /// Each id spends at most a fifth of its thread's time on this: where many ask at once, they
    /// wait a moment and get the same answer.
    pub async fn snapshot(&self) -> QueueSnapshot {
        let ask = |id| timeout(PATIENCE, ConcurrencyId::snapshot(id));
        let ids = join_all(self.0.ids.iter().map(ask)).await.into_iter().flatten().flatten();
        QueueSnapshot {
            concurrency_ids: ids.collect(),
            #[cfg(feature = "web")]
            clients: self.0.web.sessions.snapshot(),
        }
    }

    /// Takes no more events, tells the waiting ones, and lets the running ones finish for up to
    /// `grace`; those that still run then are interrupted, and a second later it no longer waits for
    /// them. What the slots own is closed and dropped as they come free (see
    /// [`SlotResource::close`](crate::SlotResource::close)), which it waits for, up to 5 seconds
    /// more. May be called again, with another grace.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        let idle = self.0.ids.iter().map(|id| {
            let (idle, is_idle) = oneshot::channel();
            // Past the mailbox' bound: a shutdown doesn't queue behind a flood's admissions.
            id.supervisor.do_send(Stop { idle });
            is_idle
        });
        let idle = async {
            let drained = join_all(idle).await.iter().all(Result::is_ok);
            if !drained {
                // A supervisor is gone that had not said so. Its async handlers went with it; what
                // was on a thread didn't.
                self.0.outside.emptied().await;
            }
            drained
        };
        let mut idle = std::pin::pin!(idle);
        let (drained, stopped) = match timeout(grace, &mut idle).await {
            Ok(drained) => (drained, true),
            Err(_) => {
                for id in &self.0.ids {
                    id.supervisor.do_send(Abort);
                }
                (false, timeout(LAST_CALL, idle).await.is_ok())
            }
        };
        let closed = self.0.ids.iter().filter(|id| id.prepared).map(|id| {
            let (closed, is_closed) = oneshot::channel();
            id.supervisor.do_send(AwaitClosed { closed });
            is_closed
        });
        // A reset or a check that is under way stops at once; what closes has a bound of its own.
        let closed = timeout(CLOSE + LAST_CALL, join_all(closed)).await.is_ok();
        Shutdown { drained, stopped, closed: closed && stopped }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.listeners.iter().map(|listener_ref| &listener_ref.api_name);
        f.debug_tuple("Queue").field(&names.collect::<Vec<_>>()).finish()
    }
}
