//! A submitted event, as its submitter holds it.

use std::any::type_name;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{Stream, StreamExt};

use super::error::CallError;
use super::listener_ref::{CancelOnDrop, ListenerRef};
use crate::delivery::bounds::UNREAD;
use crate::delivery::outbox::Outbox;
use crate::delivery::sender::{Follower, UpdateSender};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::{Outcome, Update};
use crate::handler::input::Input;
use crate::scheduler::command::WhenFull;

/// An event in this process' hands: the stream of its [`Update`]s, and its typed result.
///
/// The stream ends after the terminal update. Of estimations and progress it gives the latest;
/// someone more than 1,024 yielded values behind gets the newest in place of the last ones.
///
/// **Dropping it cancels the event**; [`Submission::detach`] lets the event go on.
///
/// ```
/// use futures::StreamExt;
/// use now_serving::{Listener, Queue, Update};
///
/// # actix::System::new().block_on(async {
/// let queue = Queue::builder()
///     .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
///     .start()
///     .unwrap();
/// let mut updates = queue.submit("echo", "hi".to_string()).await.unwrap();
/// while let Some(update) = updates.next().await {
///     match update {
///         Update::Estimation { rank, .. } => println!("{rank} ahead of me"),
///         Update::ProcessCompleted { outcome, .. } => println!("{outcome:?}"),
///         _ => {}
///     }
/// }
/// # });
/// ```
#[derive(Debug)]
pub struct Submission {
    id: EventId,
    outbox: Arc<Outbox>,
    /// Gone once the event has ended.
    guard: Option<CancelOnDrop>,
}

impl Submission {
    pub(crate) fn new(outbox: Arc<Outbox>, guard: CancelOnDrop) -> Self {
        Submission { id: guard.id, outbox, guard: Some(guard) }
    }

    /// Submits an event that is followed by what this gives, with an input from
    /// [`ListenerRef::to_record`].
    pub(crate) async fn begin(
        listener_ref: &Arc<ListenerRef>,
        id: EventId,
        input: Input,
        when_full: WhenFull,
        not_before: Option<Instant>,
    ) -> Result<Self, Refusal> {
        let outbox = Arc::new(Outbox::new(UNREAD));
        let follower = Follower::Outbox(outbox.clone());
        let guard =
            listener_ref.submit_at(id, input, None, follower, when_full, not_before).await?;
        Ok(Submission::new(outbox, guard))
    }

    /// Of an event that somebody else has submitted: dropping it doesn't cancel the event.
    pub(crate) fn of_another(
        outbox: Arc<Outbox>,
        listener_ref: &Arc<ListenerRef>,
        event: EventId,
    ) -> Self {
        Submission::new(outbox, listener_ref.cancel_on_drop(event).only_when_asked())
    }

    /// The same, with its updates from now on, unless it has ended.
    pub(crate) fn follow(
        listener_ref: &Arc<ListenerRef>,
        event: EventId,
        updates: &Weak<UpdateSender>,
    ) -> Option<Self> {
        let outbox = Arc::new(Outbox::new(UNREAD));
        let goes_on = updates.upgrade()?.add(Follower::Outbox(outbox.clone()));
        goes_on.then(|| Submission::of_another(outbox, listener_ref, event))
    }

    /// Of an event that has ended: there is nothing to cancel.
    pub(crate) fn ended(id: EventId, outbox: Arc<Outbox>) -> Self {
        Submission { id, outbox, guard: Some(CancelOnDrop::of_ended(id)) }
    }

    /// The event's identity.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Cancels the event; its terminal update still comes.
    pub fn cancel(&self) {
        if let Some(guard) = &self.guard {
            guard.cancel();
        }
    }

    /// Lets the event go on with nobody following it.
    pub fn detach(mut self) {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }

    /// Skips the updates that are left and gives the result.
    ///
    /// # Errors
    /// When the event failed, was cancelled or timed out, when its stream has given its terminal
    /// update already, or when the listener doesn't give an `O`.
    pub async fn result<O: Send + Sync + 'static>(mut self) -> Result<O, CallError> {
        while let Some(update) = self.next().await {
            if let Update::ProcessCompleted { outcome, .. } = update {
                return result(outcome);
            }
        }
        Err(CallError::NoOutput)
    }
}

impl Stream for Submission {
    type Item = Update;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Update>> {
        if self.guard.is_none() {
            return Poll::Ready(None);
        }
        let update = std::task::ready!(self.outbox.poll_next(cx)).update;
        if update.is_terminal()
            && let Some(guard) = self.guard.take()
        {
            guard.disarm();
        }
        Poll::Ready(Some(update))
    }
}

/// The typed result of an event that has ended.
pub(crate) fn result<O: Send + Sync + 'static>(outcome: Outcome) -> Result<O, CallError> {
    match outcome {
        Outcome::Completed(Some(output)) => {
            output.downcast().map_err(|_| CallError::WrongOutput(type_name::<O>()))
        }
        Outcome::Completed(None) => Err(CallError::NoOutput),
        Outcome::Failed(failure) => Err(CallError::Failed(failure)),
        Outcome::Cancelled => Err(CallError::Cancelled),
        Outcome::TimedOut => Err(CallError::TimedOut),
        Outcome::Stopped => Err(CallError::Stopped),
    }
}
