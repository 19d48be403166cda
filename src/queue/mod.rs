//! The running queue: what its handles share.

pub(crate) mod allow;
pub(crate) mod background;
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
pub(crate) mod blueprint;
pub(crate) mod builder;
pub(crate) mod call;
mod context;
pub(crate) mod control;
pub(crate) mod declarations;
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
pub(crate) mod elsewhere;
pub(crate) mod error;
pub(crate) mod event_builder;
pub(crate) mod follow;
pub(crate) mod handle;
pub(crate) mod keyed;
pub(crate) mod listener;
pub(crate) mod listener_options;
pub(crate) mod listener_ref;
pub(crate) mod live_events;
pub(crate) mod permit;
pub(crate) mod plan;
pub(crate) mod recovery;
pub(crate) mod resubmit;
pub(crate) mod snapshot;
mod spelling;
pub(crate) mod submission;
#[cfg(test)]
mod tests;
pub(crate) mod validate;
pub(crate) mod webhook_url;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::{Addr, Arbiter};

use crate::actors::gauges::Gauges;
use crate::actors::messages::Quit;
use crate::actors::supervisor::Supervisor;
use crate::actors::watchdog::Watchdog;
use crate::handler::data::Data;
use crate::handler::extensions::Extensions;
use crate::handler::nesting::IdSlots;
use crate::handler::outside::Outside;
use crate::journal::Journal;
use crate::queue::elsewhere::Elsewhere;
use crate::queue::error::SubmitError;
use crate::queue::listener_ref::ListenerRef;
use crate::queue::live_events::LiveEvents;
use crate::queue::recovery::LeftEvents;

/// A running event queue. Cheap to clone; clones are the same queue, on any thread.
///
/// Its actors end with the last clone and [`ListenerHandle`](crate::ListenerHandle), or with the
/// actix system. Then events that are waiting or running end as lost; [`Queue::shutdown`] ends them
/// in an orderly way. A blocking handler that runs then sees that it is cancelled, and goes on until
/// it returns.
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
pub struct Queue {
    inner: Arc<Inner>,
    /// Whose events this clone submits.
    user: Option<Arc<str>>,
}

pub(crate) struct Inner {
    pub listeners: Vec<Arc<ListenerRef>>,
    pub by_name: HashMap<Arc<str>, usize>,
    pub ids: Vec<ConcurrencyId>,
    /// What runs outside of the actors.
    pub outside: Outside,
    /// It takes no more events.
    pub stopped: AtomicBool,
    pub arbiters: Vec<Arbiter>,
    /// Where the events of durable listeners are recorded.
    pub journal: Option<Arc<dyn Journal>>,
    /// How long ends are kept there.
    pub result_ttl: Duration,
    /// The durable events of this process.
    pub live: Arc<LiveEvents>,
    /// What earlier processes have left there, and nobody has asked for.
    pub left: LeftEvents,
    /// Where its events wait, if that isn't here.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
    pub _watchdog: Option<Watchdog>,
    /// What those above the core have given it.
    pub extensions: Arc<Extensions>,
}

pub(crate) struct ConcurrencyId {
    pub name: Arc<str>,
    /// Its slots own a resource, so that its limit must stay a number.
    pub prepared: bool,
    /// Its events wait elsewhere.
    pub is_elsewhere: bool,
    pub supervisor: Addr<Supervisor>,
    pub slots: Arc<IdSlots>,
    pub gauges: Arc<Gauges>,
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

    pub fn id(&self, name: &str) -> Option<&ConcurrencyId> {
        self.ids.iter().find(|id| &*id.name == name)
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

impl Queue {
    pub(crate) fn new(inner: Inner) -> Self {
        Self::of(Arc::new(inner))
    }

    /// One in nobody's name.
    fn of(inner: Arc<Inner>) -> Self {
        Queue { inner, user: None }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The same queue in the name of a user: what is called and submitted by it, and by its
    /// [`ListenerHandle`](crate::ListenerHandle)s, are the user's events. Handlers find the user at
    /// [`EventContext::user`](crate::EventContext::user), validators as their second argument, and
    /// [`Listener::allow`](crate::Listener::allow) decides whether the user may call. Everything else is as
    /// before: permits, control and HTTP have nothing to do with it. Costs two reference counts.
    ///
    /// Without, an event is the service's own, which no `allow` refuses; so is a handler's call of another
    /// listener. Pass the user on where it is to count there:
    ///
    /// ```
    /// use now_serving::{EventContext, Listener, Queue, SubmitError};
    ///
    /// async fn greet(_: (), context: EventContext) -> Result<String, String> {
    ///     Ok(format!("Hello, {}", context.user().unwrap_or("whoever you are")))
    /// }
    ///
    /// # actix::System::new().block_on(async {
    /// let greet = Listener::new("greet", greet).allow(|user| user != Some("mallory"));
    /// let queue = Queue::builder().listener(greet).start().unwrap();
    /// assert_eq!(queue.as_user("ada").call("greet", ()).await, Ok("Hello, ada".to_string()));
    /// let refused = queue.as_user("mallory").submit("greet", ()).await;
    /// assert!(matches!(refused, Err(SubmitError::Forbidden { .. })));
    /// # });
    /// ```
    #[must_use = "it gives a queue, and leaves this one as it is"]
    pub fn as_user(&self, user: impl Into<Arc<str>>) -> Queue {
        Queue { inner: self.inner.clone(), user: Some(user.into()) }
    }

    /// Whose events it submits.
    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn test_supervisor(&self) -> &Addr<Supervisor> {
        &self.inner.ids[0].supervisor
    }

    #[cfg(test)]
    pub(crate) fn test_listener(&self) -> &Addr<crate::actors::listener::ListenerActor> {
        &self.inner.listeners[0].address
    }

    /// Whether it takes no more events.
    pub(crate) fn is_stopped(&self) -> bool {
        self.inner.stopped.load(Relaxed)
    }

    /// The value of a type that it was given by [`QueueBuilder::data`](crate::QueueBuilder::data), for
    /// routes of one's own and tests.
    ///
    /// ```
    /// use actix_web::web;
    /// use now_serving::Queue;
    ///
    /// # actix::System::new().block_on(async {
    /// let queue = Queue::builder().data(String::from("/models")).start().unwrap();
    /// let models = queue.data::<String>().unwrap();
    /// assert_eq!(*models, "/models");
    /// let for_the_app = web::Data::from(models.into_inner());
    /// # drop(for_the_app);
    /// # });
    /// ```
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Data<T>> {
        self.inner.extensions.get::<Data<T>>().cloned()
    }

    fn listener_ref(&self, api_name: &str) -> Result<&Arc<ListenerRef>, SubmitError> {
        let listener_ref = self.inner.listener_ref(api_name);
        listener_ref.ok_or_else(|| SubmitError::UnknownListener(api_name.into()))
    }

    /// Events that wait in all wait queues together. Costs nothing to know, unlike
    /// [`Queue::snapshot`].
    pub(crate) fn waiting(&self) -> usize {
        self.inner.ids.iter().map(|id| id.gauges.waiting()).sum()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.inner.listeners.iter().map(|listener_ref| &listener_ref.api_name);
        f.debug_tuple("Queue").field(&names.collect::<Vec<_>>()).finish()
    }
}
