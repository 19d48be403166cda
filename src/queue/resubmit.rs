//! A failed event's input once more, in a new event.

use std::sync::Arc;

use serde::Serialize;

use super::Queue;
use super::error::SubmitError;
use super::submission::Submission;
use super::webhook_url::WebhookUrl;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::handler::user::with_user;
use crate::journal::Query;
use crate::journal::record::{End, Kept};
use crate::scheduler::command::WhenFull;

/// A durable event that has failed for good.
#[derive(Debug, Serialize)]
pub(crate) struct FailedEvent {
    event_id: EventId,
    listener: Arc<str>,
    user: Option<Arc<str>>,
    message: String,
    /// How often it has started.
    attempts: u32,
    /// In milliseconds since the Unix epoch.
    ended_at: u64,
}

impl Queue {
    /// Submits the input of a [durable](crate::Listener::durable) event that has failed once more: as a new
    /// event, of the same user and with the same webhook, while the end of the failed one stays as it is. For
    /// operators, once what made it fail is mended. It can be done as long as the end is kept
    /// ([`QueueBuilder::result_ttl`](crate::QueueBuilder::result_ttl)), and as often as one likes.
    ///
    /// ```no_run
    /// use now_serving::{EventId, Queue};
    ///
    /// # async fn example(queue: Queue, failed: EventId) -> Result<(), Box<dyn std::error::Error>> {
    /// let event = queue.resubmit(failed).await?;
    /// println!("{failed} goes on as {}", event.id());
    /// event.detach();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no such event has failed, its listener is gone or no longer reads its input, or the journal can't
    /// be read; also as [`Queue::submit`], and when the wait queue is full.
    pub async fn resubmit(&self, event: EventId) -> Result<Submission, SubmitError> {
        let kept = self.ends(Query::Event(event)).await?.pop();
        let kept = kept.filter(|kept| kept.ended.failed() && self.finds(&kept.user));
        let Some(Kept { listener, user, input: Some(text), webhook, .. }) = kept else {
            return Err(SubmitError::NotFailed(event));
        };
        let listener_ref = self.listener_ref(&listener)?;
        let unread = |reason| Refusal::NotRecorded { reason, full: false };
        let input = listener_ref.durable()?.read_input(&text).map_err(unread)?;
        let input = with_user(input, user);
        let input = match webhook {
            Some(webhook) => input.with(WebhookUrl(webhook.url)),
            None => input,
        };
        let input = listener_ref.to_record(input, None)?;
        Ok(Submission::begin(listener_ref, EventId::random(), input, WhenFull::Refuse, None)
            .await?)
    }

    /// The last durable events that have failed for good, as many of each listener at most.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub(crate) async fn failed_events(&self, most: usize) -> Result<Vec<FailedEvent>, SubmitError> {
        let mut failed = Vec::new();
        for listener_ref in self.inner.listeners.iter().filter(|l| l.durability.is_some()) {
            let query = Query::Failed { listener: listener_ref.api_name.clone(), most };
            failed.extend(self.ends(query).await?.into_iter().filter_map(|kept| {
                let End::Failed(failure) = kept.ended.end else { return None };
                Some(FailedEvent {
                    event_id: kept.ended.event,
                    listener: kept.listener,
                    user: kept.user,
                    message: failure.message.to_string(),
                    attempts: kept.attempts,
                    ended_at: kept.ended.at,
                })
            }));
        }
        failed.sort_by_key(|event| std::cmp::Reverse(event.ended_at));
        Ok(failed)
    }
}
