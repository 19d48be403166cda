//! Typed handles: calling a listener from inside the process.

use std::any::{TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use actix::Recipient;

use super::Queue;
use super::error::{CallError, SubmitError};
use super::listener_ref::ListenerRef;
use super::submission::{Submission, result};
use crate::delivery::sender::Follower;
use crate::event::id::EventId;
use crate::event::update::Update;
use crate::scheduler::command::WhenFull;

/// A listener that takes `I` and gives `O`, to be called from inside the process: from other
/// actors, from background tasks, or from an actix-web handler through `web::Data`.
///
/// Nothing goes through JSON. Cheap to clone, and sendable to other threads.
///
/// ```
/// use actix_web::web;
/// use now_serving::{Listener, ListenerHandle, Queue};
///
/// async fn double(x: u32) -> Result<u32, String> {
///     Ok(2 * x)
/// }
///
/// async fn route(double: web::Data<ListenerHandle<u32, u32>>, x: web::Path<u32>) -> String {
///     match double.call(*x).await {
///         Ok(doubled) => doubled.to_string(),
///         Err(error) => error.to_string(),
///     }
/// }
///
/// # actix::System::new().block_on(async {
/// let queue = Queue::builder().listener(Listener::new("double", double)).start().unwrap();
/// let handle = queue.listener::<u32, u32>("double").unwrap();
/// assert_eq!(handle.call(21).await, Ok(42));
/// # });
/// ```
pub struct ListenerHandle<I, O> {
    pub(super) listener_ref: Arc<ListenerRef>,
    /// The queue lives as long as its handles.
    pub(super) queue: Queue,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Clone for ListenerHandle<I, O> {
    fn clone(&self) -> Self {
        let (listener_ref, queue) = (self.listener_ref.clone(), self.queue.clone());
        ListenerHandle { listener_ref, queue, types: PhantomData }
    }
}

impl<I, O> fmt::Debug for ListenerHandle<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListenerHandle").field(&self.listener_ref.api_name).finish()
    }
}

impl<I: Send + 'static, O: Send + Sync + 'static> ListenerHandle<I, O> {
    pub(crate) fn new(listener_ref: Arc<ListenerRef>, queue: Queue) -> Result<Self, SubmitError> {
        check_input::<I>(&listener_ref)?;
        if listener_ref.output.id != TypeId::of::<O>() {
            return Err(SubmitError::WrongType {
                listener: listener_ref.api_name.to_string(),
                takes_or_gives: "gives",
                expected: listener_ref.output.name,
                given: type_name::<O>(),
            });
        }
        Ok(ListenerHandle { listener_ref, queue, types: PhantomData })
    }

    /// The same listener in the name of a user, as [`Queue::as_user`].
    #[must_use = "it gives a handle, and leaves this one as it is"]
    pub fn as_user(&self, user: impl Into<Arc<str>>) -> Self {
        ListenerHandle { queue: self.queue.as_user(user), ..self.clone() }
    }

    /// Submits an event and waits for its result; where the wait queue is full, first for room.
    ///
    /// Dropping the future cancels the event. Nobody follows the event, so that no updates are
    /// made: this is the fastest way.
    ///
    /// # Inside a handler
    /// A handler may call other listeners, by its
    /// [`EventContext::queue`](crate::EventContext::queue), and keeps its slot meanwhile. It must not
    /// wait for a slot that only it can free: where it and the handlers that wait for it hold all slots
    /// of the listener's concurrency id, the call is refused. With a limit of 2 or more, several runs
    /// can still come to wait for each other, so listeners that call each other had better have ids of
    /// their own.
    ///
    /// What a handler spawns as a task of its own, or does on a thread of its own, doesn't count as its
    /// call: it may wait until the handler has returned. A handler that waits for such a task, or for
    /// the [`Submission`] of an event that needs its slot, waits for ever.
    ///
    /// ```
    /// use now_serving::{CallError, EventContext, Listener, Queue};
    ///
    /// async fn outline(text: String, context: EventContext) -> Result<String, CallError> {
    ///     let queue = context.queue()?;
    ///     // Another id: it has slots of its own.
    ///     let text: String = queue.call("correct", text).await?;
    ///     // Its own id, whose one slot it has itself.
    ///     let again = queue.call::<String, String>("outline", text.clone()).await;
    ///     assert!(again.unwrap_err().to_string().contains("would wait for itself"));
    ///     Ok(text)
    /// }
    ///
    /// # actix::System::new().block_on(async {
    /// let correct = async |text: String| Ok::<_, String>(text.replace("teh", "the"));
    /// let queue = Queue::builder()
    ///     .listener(Listener::new("outline", outline))
    ///     .listener(Listener::new("correct", correct))
    ///     .start()
    ///     .unwrap();
    /// assert_eq!(queue.call("outline", "teh fox".to_string()).await, Ok("the fox".to_string()));
    /// # });
    /// ```
    ///
    /// # Errors
    /// When the event is refused, fails, is cancelled, times out, or the queue is stopped; when it would
    /// wait for itself.
    pub async fn call(&self, input: I) -> Result<O, CallError> {
        self.call_with(input, WhenFull::Wait).await
    }

    /// As [`ListenerHandle::call`], but never waits for room: once admitted, the event waits for its
    /// slot as any other.
    ///
    /// # Errors
    /// [`QueueFull`](crate::Refusal::QueueFull) when the wait queue is full; also as `call`.
    pub async fn try_call(&self, input: I) -> Result<O, CallError> {
        self.call_with(input, WhenFull::Refuse).await
    }

    async fn call_with(&self, input: I, when_full: WhenFull) -> Result<O, CallError> {
        let input = self.listener_ref.input(input, self.queue.user())?;
        let (input, _waits) = self.listener_ref.nest(input)?;
        let (ended, guard) =
            self.listener_ref.submit_and_wait(EventId::random(), input, None, when_full).await;
        let reply = ended.await;
        guard.disarm();
        result(reply.map_err(|_| CallError::Stopped)??.outcome)
    }

    /// Submits an event, and waits for room where the wait queue is full. Gives the stream of its
    /// updates.
    ///
    /// # Errors
    /// When the listener's validator refuses the input, the estimated wait is longer than `max_eta`,
    /// or the queue is stopped.
    pub async fn submit(&self, input: I) -> Result<Submission, SubmitError> {
        submit(&self.listener_ref, input, self.queue.user(), WhenFull::Wait).await
    }

    /// As [`ListenerHandle::submit`], but never waits for room.
    ///
    /// # Errors
    /// [`QueueFull`](crate::Refusal::QueueFull) when the wait queue is full; also as `submit`.
    pub async fn try_submit(&self, input: I) -> Result<Submission, SubmitError> {
        submit(&self.listener_ref, input, self.queue.user(), WhenFull::Refuse).await
    }

    /// As [`ListenerHandle::try_submit`], but an actor follows the event: it gets every [`Update`]
    /// as a message. The event goes on whatever becomes of the actor;
    /// [`ListenerHandle::cancel`] ends it.
    ///
    /// # Errors
    /// As `try_submit`.
    pub async fn submit_to(
        &self,
        input: I,
        follower: Recipient<Update>,
    ) -> Result<EventId, SubmitError> {
        submit_to(&self.listener_ref, input, self.queue.user(), follower).await
    }

    /// Cancels an event of this listener. One that waits leaves the wait queue; a running async handler
    /// is dropped at its next await; a blocking one sees its token. Events that have ended are left
    /// alone.
    pub fn cancel(&self, event: EventId) {
        self.listener_ref.cancel(event);
    }
}

pub(crate) fn check_input<I: 'static>(listener_ref: &ListenerRef) -> Result<(), SubmitError> {
    if listener_ref.input.id == TypeId::of::<I>() {
        return Ok(());
    }
    Err(SubmitError::WrongType {
        listener: listener_ref.api_name.to_string(),
        takes_or_gives: "takes",
        expected: listener_ref.input.name,
        given: type_name::<I>(),
    })
}

pub(crate) async fn submit<I: Send + 'static>(
    listener_ref: &Arc<ListenerRef>,
    input: I,
    user: Option<&Arc<str>>,
    when_full: WhenFull,
) -> Result<Submission, SubmitError> {
    let input = listener_ref.to_record(listener_ref.input(input, user)?, None)?;
    Ok(Submission::begin(listener_ref, EventId::random(), input, when_full, None).await?)
}

pub(crate) async fn submit_to<I: Send + 'static>(
    listener_ref: &Arc<ListenerRef>,
    input: I,
    user: Option<&Arc<str>>,
    follower: Recipient<Update>,
) -> Result<EventId, SubmitError> {
    let id = EventId::random();
    let follower = Follower::Recipient(follower);
    let input = listener_ref.input(input, user)?;
    let guard = listener_ref.submit(id, input, None, follower, WhenFull::Refuse).await?;
    guard.disarm();
    Ok(id)
}
