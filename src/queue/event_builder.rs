//! An event with more than its input: when it may start, and the key by which it is known.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::Queue;
use super::elsewhere::{KeyedElsewhere, SubmittedBefore};
use super::error::SubmitError;
use super::follow::FollowError;
use super::handle::ListenerHandle;
use super::keyed::{IdempotencyKey, KeyedEvent, UserKey};
use super::listener_ref::ListenerRef;
use super::submission::Submission;
use super::webhook_url::{WebhookCheck, WebhookUrl};
use crate::clock;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::event::refusal::Refusal;
use crate::handler::durable::Durable;
use crate::handler::input::Input;
use crate::journal::Query;
use crate::journal::record::Kept;
use crate::scheduler::command::WhenFull;

/// An event that is about to be submitted, from [`ListenerHandle::event`].
///
/// ```
/// use std::time::Duration;
///
/// use now_serving::{Listener, Queue};
///
/// # actix::System::new().block_on(async {
/// let remind = async |text: String| Ok::<_, String>(format!("Remember: {text}"));
/// let queue = Queue::builder().listener(Listener::new("remind", remind)).start()?;
/// let remind = queue.listener::<String, String>("remind")?;
/// let later = remind.event("the milk".into()).delay(Duration::from_millis(20)).submit().await?;
/// assert_eq!(later.result::<String>().await?, "Remember: the milk");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use = "nothing is submitted before submit()"]
#[derive(Debug)]
pub struct EventBuilder<'a, I, O> {
    handle: &'a ListenerHandle<I, O>,
    input: I,
    /// In milliseconds since the Unix epoch.
    not_before: Option<u64>,
    key: Option<Arc<str>>,
    webhook: Option<String>,
}

impl<I, O> ListenerHandle<I, O> {
    /// An event to be submitted with more than its input.
    pub fn event(&self, input: I) -> EventBuilder<'_, I, O> {
        EventBuilder { handle: self, input, not_before: None, key: None, webhook: None }
    }
}

impl<I: Send + 'static, O: Send + Sync + 'static> EventBuilder<'_, I, O> {
    /// It may start after this time at the earliest. Until then it has no rank, takes no slot and no place
    /// in the wait queue; then it enters the wait queue behind those that wait. Of a
    /// [durable](crate::Listener::durable) listener it outlives the process meanwhile.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.not_before = Some(clock::unix_millis_after(delay));
        self
    }

    /// It may start from this moment on, as [`EventBuilder::delay`]. One that has passed means at once.
    pub fn schedule_at(mut self, moment: SystemTime) -> Self {
        self.not_before = Some(clock::unix_millis_of(moment));
        self
    }

    /// The same key of the same user gives the same event, and its end, for as long as that is kept
    /// ([`QueueBuilder::result_ttl`](crate::QueueBuilder::result_ttl)): so that whoever doesn't know
    /// whether his event was accepted may submit it again. Only for
    /// [durable](crate::Listener::durable) listeners.
    ///
    /// What is given for an event that was there already gives its further updates, and doesn't cancel the
    /// event when it is dropped.
    pub fn idempotency_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Where its end is posted once it is on record: a URL that the service allows, see
    /// [`QueueBuilder::webhooks`](crate::QueueBuilder::webhooks). Only for
    /// [durable](crate::Listener::durable) listeners. With an idempotency key, that of the first submit
    /// counts.
    #[cfg(feature = "webhook")]
    pub fn webhook(mut self, url: impl Into<String>) -> Self {
        self.webhook = Some(url.into());
        self
    }

    /// Submits it, and waits for room where the wait queue is full.
    ///
    /// # Errors
    /// As [`ListenerHandle::submit`]; with a key, when that stands for another input already
    /// ([`SubmitError::KeyReused`]) or the listener isn't durable; with a webhook, when that may not be
    /// called.
    pub async fn submit(self) -> Result<Submission, SubmitError> {
        self.submit_with(WhenFull::Wait).await
    }

    /// Submits it, and is refused where the wait queue is full.
    ///
    /// # Errors
    /// As [`EventBuilder::submit`]; [`Refusal::QueueFull`](crate::Refusal::QueueFull).
    pub async fn try_submit(self) -> Result<Submission, SubmitError> {
        self.submit_with(WhenFull::Refuse).await
    }

    async fn submit_with(self, when_full: WhenFull) -> Result<Submission, SubmitError> {
        let EventBuilder { handle, input, not_before, key, webhook } = self;
        let (queue, listener_ref) = (&handle.queue, &handle.listener_ref);
        let input = listener_ref.input(input, queue.user())?;
        let input = match &key {
            Some(key) => input.with(IdempotencyKey(key.clone())),
            None => input,
        };
        let input = match webhook {
            Some(url) => input.with(queue.check_webhook(&url)?),
            None => input,
        };
        let mut input = listener_ref.to_record(input, None)?;
        if key.is_some() || input.given::<WebhookUrl>().is_some() {
            listener_ref.durable()?;
        }
        input.change::<Durable>(|durable| durable.not_before = not_before);
        let start = not_before.and_then(clock::from_unix_millis);
        let mut id = None;
        let _one_at_a_time;
        if let Some(key) = key
            && let Some(durable) = input.given::<Durable>()
        {
            let user_key: UserKey = (queue.user().cloned(), key);
            id = queue.keyed_id(listener_ref, &user_key);
            _one_at_a_time = listener_ref.keyed.submitting(&user_key).await;
            let found = queue.keyed_submission(listener_ref, &user_key, &durable.input).await?;
            if let Some(submission) = found {
                return Ok(submission);
            }
        }
        let (id, input) = match id {
            Some(id) => (id, input.with(SubmittedBefore)),
            None => (EventId::random(), input),
        };
        Ok(Submission::begin(listener_ref, id, input, when_full, start).await?)
    }
}

impl Queue {
    /// The id of the event of a key, where that has one: on whichever node it is submitted, it is the same.
    pub(crate) fn keyed_id(&self, listener_ref: &ListenerRef, key: &UserKey) -> Option<EventId> {
        let elsewhere = self.inner.elsewhere.as_ref()?;
        Some(elsewhere.keyed_id(&listener_ref.api_name, key))
    }

    /// # Errors
    /// When it may not be called.
    pub(crate) fn check_webhook(&self, url: &str) -> Result<WebhookUrl, SubmitError> {
        let check = self.inner.extensions.get::<WebhookCheck>();
        let nobody = || SubmitError::Webhook("this service calls no webhooks".into());
        let WebhookCheck(check) = check.ok_or_else(nobody)?;
        check(url).map_err(SubmitError::Webhook)?;
        Ok(WebhookUrl(url.into()))
    }
}

/// The event that was submitted with a key.
pub(crate) enum Keyed {
    GoesOn(KeyedEvent),
    Ended(Kept),
}

impl Queue {
    /// The event of this input that a user has submitted with a key. To be asked by one after the other:
    /// see [`KeyedEvents::submitting`](super::keyed::KeyedEvents::submitting).
    ///
    /// # Errors
    /// When the key stands for another input.
    pub(crate) async fn keyed(
        &self,
        listener_ref: &ListenerRef,
        user_key: &UserKey,
        input: &JsonText,
    ) -> Result<Option<Keyed>, SubmitError> {
        if let Some(elsewhere) = &self.inner.elsewhere {
            let found = elsewhere.keyed(&listener_ref.api_name, user_key).await?;
            let Some(KeyedElsewhere { event, input: used, has_ended }) = found else {
                return Ok(None);
            };
            used.as_ref().map_or(Ok(()), |used| same_input(user_key, used, input))?;
            if !has_ended {
                let (input, updates) = (input.clone(), Weak::new());
                return Ok(Some(Keyed::GoesOn(KeyedEvent { event, input, updates })));
            }
            return Ok(self.keyed_end(listener_ref, user_key, input).await?.map(Keyed::Ended));
        }
        if let Some(keyed) = listener_ref.keyed.find(user_key) {
            same_input(user_key, &keyed.input, input)?;
            return Ok(Some(Keyed::GoesOn(keyed)));
        }
        Ok(self.keyed_end(listener_ref, user_key, input).await?.map(Keyed::Ended))
    }

    /// The same, as one who follows it from now on.
    async fn keyed_submission(
        &self,
        listener_ref: &Arc<ListenerRef>,
        user_key: &UserKey,
        input: &JsonText,
    ) -> Result<Option<Submission>, SubmitError> {
        let KeyedEvent { event, updates, .. } =
            match self.keyed(listener_ref, user_key, input).await? {
                None => return Ok(None),
                Some(Keyed::Ended(kept)) => return Ok(Some(self.ended_submission(kept))),
                Some(Keyed::GoesOn(keyed)) => keyed,
            };
        if let Some(submission) = Submission::follow(listener_ref, event, &updates) {
            return Ok(Some(submission));
        }
        if self.inner.elsewhere.is_some() {
            let gone = |error| match error {
                FollowError::Unknown(_) => SubmitError::Refused(Refusal::Stopped),
                FollowError::Journal(trouble) => SubmitError::from(trouble),
            };
            return self.follow(event).await.map(Some).map_err(gone);
        }
        // It has ended meanwhile, which is on record.
        let kept = self.keyed_end(listener_ref, user_key, input).await?;
        let kept = kept.ok_or(SubmitError::Refused(Refusal::Stopped))?;
        Ok(Some(self.ended_submission(kept)))
    }

    /// The same, and only which event it is.
    ///
    /// # Errors
    /// Also when the listener isn't durable.
    pub(crate) async fn keyed_event(
        &self,
        listener_ref: &ListenerRef,
        user_key: UserKey,
        input: &Input,
    ) -> Result<Option<EventId>, SubmitError> {
        let durability = listener_ref.durable()?;
        let not_recorded = |reason| Refusal::NotRecorded { reason, full: false };
        let text = durability.write_input(input).map_err(not_recorded)?;
        Ok(self.keyed(listener_ref, &user_key, &text).await?.map(|keyed| match keyed {
            Keyed::GoesOn(keyed) => keyed.event,
            Keyed::Ended(kept) => kept.ended.event,
        }))
    }

    async fn keyed_end(
        &self,
        listener_ref: &ListenerRef,
        user_key: &UserKey,
        input: &JsonText,
    ) -> Result<Option<Kept>, SubmitError> {
        let (user, key) = user_key.clone();
        let query = Query::Key { listener: listener_ref.api_name.clone(), user, key };
        let kept = self.ends(query).await?.pop();
        if let Some(used) = kept.as_ref().and_then(|kept| kept.input.as_ref()) {
            same_input(user_key, used, input)?;
        }
        Ok(kept)
    }
}

fn same_input(user_key: &UserKey, used: &JsonText, given: &JsonText) -> Result<(), SubmitError> {
    if used == given { Ok(()) } else { Err(SubmitError::KeyReused(user_key.1.to_string())) }
}
