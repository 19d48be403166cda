//! A handler's way to its own queue.

use std::sync::{Arc, Weak};

use super::{Inner, Queue};
use crate::event::refusal::Refusal;
use crate::handler::context::EventContext;

/// Among a queue's extensions: the queue itself, which must not keep itself alive.
struct OwnQueue(Weak<Inner>);

impl Queue {
    /// Lets its handlers have it.
    pub(super) fn for_its_handlers(self) -> Self {
        self.inner.extensions.insert(OwnQueue(Arc::downgrade(&self.inner)));
        self
    }
}

impl EventContext {
    /// The queue that this event runs in, for handlers that call other listeners of it. See
    /// [`ListenerHandle::call`](crate::ListenerHandle::call) for what a handler may wait for.
    ///
    /// The queue doesn't end while a handler has it, though its last other clone was dropped. Where a
    /// handler leaves it behind, in a [`Data`](crate::Data) or a [`State`](crate::State), it never ends.
    /// Its calls are the service's own; for those in the user's name, see [`Queue::as_user`].
    ///
    /// ```
    /// use now_serving::{CallError, EventContext, Listener, Queue};
    ///
    /// async fn outline(text: String, context: EventContext) -> Result<String, CallError> {
    ///     let text: String = context.queue()?.call("correct", text).await?;
    ///     Ok(format!("Outline: {text}"))
    /// }
    ///
    /// # actix::System::new().block_on(async {
    /// let correct = async |text: String| Ok::<_, String>(text.replace("teh", "the"));
    /// let queue = Queue::builder()
    ///     .listener(Listener::new("outline", outline))
    ///     .listener(Listener::new("correct", correct))
    ///     .start()
    ///     .unwrap();
    /// let outline: String = queue.call("outline", "teh fox".to_string()).await.unwrap();
    /// assert_eq!(outline, "Outline: the fox");
    /// # });
    /// ```
    ///
    /// # Errors
    /// [`Refusal::Stopped`] when the queue has ended, as a blocking handler may see it.
    pub fn queue(&self) -> Result<Queue, Refusal> {
        let own = self.extensions().get::<OwnQueue>().and_then(|own| own.0.upgrade());
        own.map(Queue::of).ok_or(Refusal::Stopped)
    }
}
