//! Coming back to an event by its id: one that an earlier process has left, or one that has ended.

use std::sync::Arc;

use super::Queue;
use super::recovery::LeftEvents;
use super::submission::Submission;
use crate::delivery::bounds::UNREAD;
use crate::delivery::outbox::Outbox;
use crate::delivery::unread::Gone;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::update::{Outcome, Update};
use crate::handler::durable::Durability;
use crate::journal::Query;
use crate::journal::error::JournalError;
use crate::journal::record::{End, Kept};

/// Why [`Queue::follow`] found nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The journal knows no such event of this user's, or its result has been kept for long enough; or it
    /// was left by an earlier process and somebody else follows it.
    #[error("no event {0} is left to follow, and no result of it is kept")]
    Unknown(EventId),
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// An event that has ended.
#[derive(Debug)]
pub(crate) struct PastEvent {
    pub listener: Arc<str>,
    pub user: Option<Arc<str>>,
    pub outcome: Outcome,
    pub duration: f64,
}

impl Queue {
    /// Follows an event of a [durable](crate::Listener::durable) listener from now on, whichever process it
    /// was submitted in, or gives the end of one that has ended. Dropping what it gives doesn't cancel the
    /// event.
    ///
    /// An end is kept for [`QueueBuilder::result_ttl`](crate::QueueBuilder::result_ttl). An event that an
    /// earlier process has left can be followed by one. A queue [in a user's name](Queue::as_user) finds that user's events.
    ///
    /// ```no_run
    /// use now_serving::{EventId, Queue};
    ///
    /// # async fn example(queue: Queue, noted: String) -> Result<(), Box<dyn std::error::Error>> {
    /// let event: EventId = noted.parse()?;
    /// let image: String = queue.follow(event).await?.result().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there is no such event, or the journal can't be read.
    pub async fn follow(&self, event: EventId) -> Result<Submission, FollowError> {
        if let Some(left) = self.inner.left.take_if(event, |left| self.finds(&left.user)) {
            let listener_ref = &self.inner.listeners[left.listener];
            return Ok(Submission::of_another(left.outbox, listener_ref, event));
        }
        if let Some(live) = self.inner.live.find(event).filter(|live| self.finds(&live.user))
            && let Some(listener_ref) = self.inner.listener_ref(&live.listener)
            && let Some(submission) = Submission::follow(listener_ref, event, &live.updates)
        {
            return Ok(submission);
        }
        if self.fetch(event).await?
            && let Some(left) = self.inner.left.take_if(event, |left| self.finds(&left.user))
        {
            let listener_ref = &self.inner.listeners[left.listener];
            return Ok(Submission::of_another(left.outbox, listener_ref, event));
        }
        // It has ended, or is none.
        let kept = self.ends(Query::Event(event)).await?;
        let kept = kept.into_iter().find(|kept| self.finds(&kept.user));
        let kept = kept.ok_or(FollowError::Unknown(event))?;
        Ok(self.ended_submission(kept))
    }

    /// Brings an event that goes on here, where it may be elsewhere. Whether it may.
    pub(crate) async fn fetch(&self, event: EventId) -> Result<bool, JournalError> {
        let Some(elsewhere) = &self.inner.elsewhere else { return Ok(false) };
        elsewhere.fetch(event).await?;
        Ok(true)
    }

    /// The same for all events of a client's session.
    pub(crate) async fn fetch_session(
        &self,
        user: Option<&Arc<str>>,
        session: &str,
    ) -> Result<(), JournalError> {
        let Some(elsewhere) = &self.inner.elsewhere else { return Ok(()) };
        elsewhere.fetch_session(user.cloned(), session.into()).await
    }

    /// Whether an event of this user's is found: one in a user's name finds that user's only.
    pub(super) fn finds(&self, user: &Option<Arc<str>>) -> bool {
        self.user().is_none_or(|own| user.as_ref() == Some(own))
    }

    /// The ends that the journal has kept.
    pub(crate) async fn ends(&self, query: Query) -> Result<Vec<Kept>, JournalError> {
        if let Some(elsewhere) = &self.inner.elsewhere {
            return elsewhere.ends(query).await;
        }
        let Some(journal) = &self.inner.journal else { return Ok(Vec::new()) };
        let closed = || Err(JournalError::Broken("it is closed".into()));
        journal.ends(query).await.unwrap_or_else(|_| closed())
    }

    /// How an event has ended, if the journal has kept that.
    pub(crate) async fn past(&self, event: EventId) -> Result<Option<PastEvent>, JournalError> {
        Ok(self.ends(Query::Event(event)).await?.pop().map(|kept| self.past_of(kept)))
    }

    fn past_of(&self, Kept { listener, user, ended, .. }: Kept) -> PastEvent {
        let duration = ended.duration;
        let listener_ref = self.inner.listener_ref(&listener);
        let outcome = outcome(listener_ref.and_then(|it| it.durability.as_ref()), ended.end);
        PastEvent { listener, user, outcome, duration }
    }

    /// The events that an earlier process has left.
    pub(crate) fn left(&self) -> &LeftEvents {
        &self.inner.left
    }

    /// What would have been the submission of an event that has ended.
    pub(crate) fn ended_submission(&self, kept: Kept) -> Submission {
        let event_id = kept.ended.event;
        let PastEvent { outcome, duration, .. } = self.past_of(kept);
        let average_duration = None;
        let outbox = Arc::new(Outbox::new(UNREAD));
        let ended = Update::ProcessCompleted { event_id, outcome, duration, average_duration };
        outbox.push(ended, &mut Gone::default());
        Submission::ended(event_id, outbox)
    }
}

/// How an event has ended, with its output as its listener's type.
pub(crate) fn outcome(durability: Option<&Durability>, end: End) -> Outcome {
    match end {
        End::Completed(None) => Outcome::Completed(None),
        End::Completed(Some(text)) => {
            let gone = || Err("its listener is no durable one any more".to_string());
            match durability.map_or_else(gone, |durability| durability.read_output(&text)) {
                Ok(output) => Outcome::Completed(Some(output)),
                Err(trouble) => Outcome::Failed(Failure::unexpected(trouble)),
            }
        }
        End::Failed(failure) => Outcome::Failed(failure),
        End::Cancelled => Outcome::Cancelled,
        End::TimedOut => Outcome::TimedOut,
        End::Stopped => Outcome::Stopped,
    }
}
