//! An event with more than its input: when it may start, and the key by which it is known.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::SubmitError;
use super::handle::ListenerHandle;
use super::keyed::{KeyedEvent, UserKey};
use super::submission::Submission;
use crate::clock;
use crate::delivery::bounds::UNREAD;
use crate::delivery::outbox::Outbox;
use crate::delivery::sender::Follower;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::handler::durable::Durable;
use crate::journal::Query;
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
    not_before: Option<SystemTime>,
    key: Option<Arc<str>>,
}

impl<I, O> ListenerHandle<I, O> {
    /// An event to be submitted with more than its input.
    pub fn event(&self, input: I) -> EventBuilder<'_, I, O> {
        EventBuilder { handle: self, input, not_before: None, key: None }
    }
}

impl<I: Send + 'static, O: Send + Sync + 'static> EventBuilder<'_, I, O> {
    /// It may start after this time at the earliest. Until then it has no rank, takes no slot and no place
    /// in the wait queue; then it enters the wait queue behind those that wait. Of a
    /// [durable](crate::Listener::durable) listener it outlives the process meanwhile.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.not_before = SystemTime::now().checked_add(delay);
        self
    }

    /// It may start from this moment on, as [`EventBuilder::delay`]. One that has passed means at once.
    pub fn schedule_at(mut self, moment: SystemTime) -> Self {
        self.not_before = Some(moment);
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

    /// Submits it, and waits for room where the wait queue is full.
    ///
    /// # Errors
    /// As [`ListenerHandle::submit`]; with a key, when that stands for another input already
    /// ([`SubmitError::KeyReused`]) or the listener isn't durable.
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
        let EventBuilder { handle, input, not_before, key } = self;
        let (queue, listener_ref) = (&handle.queue, &handle.listener_ref);
        let id = EventId::random();
        let outbox = Arc::new(Outbox::new(UNREAD));
        let input = listener_ref.input(input, queue.user())?;
        let mut input = listener_ref.to_record(input, None)?;
        let moment = not_before.map(unix_millis);
        input
            .change::<Durable>(|durable| (durable.not_before, durable.key) = (moment, key.clone()));
        let start = moment.and_then(from_unix_millis);
        let follower = Follower::Outbox(outbox.clone());
        let Some(key) = key else {
            let submitted = listener_ref.submit_at(id, input, None, follower, when_full, start);
            return Ok(Submission::new(outbox, submitted.await?.0));
        };
        let Some(text) = input.given::<Durable>().map(|durable| durable.input.clone()) else {
            return Err(SubmitError::NotDurable(listener_ref.api_name.to_string()));
        };
        let user_key: UserKey = (queue.user().cloned(), key);
        let _one_at_a_time = listener_ref.keyed.submitting.lock().await;
        if let Some(keyed) = listener_ref.keyed.find(&user_key) {
            same_input(&user_key, &keyed.input, &text)?;
            // Otherwise it has ended meanwhile.
            if keyed.updates.upgrade().is_some_and(|updates| updates.add(follower)) {
                let guard = listener_ref.cancel_on_drop(keyed.event).only_when_asked();
                return Ok(Submission::new(outbox, guard));
            }
        }
        let (user, key) = user_key.clone();
        let query = Query::Key { listener: listener_ref.api_name.clone(), user, key };
        if let Some(kept) = queue.ends(query).await?.pop() {
            same_input(&user_key, kept.input.as_ref().unwrap_or(&text), &text)?;
            return Ok(queue.ended_submission(kept));
        }
        let follower = Follower::Outbox(outbox.clone());
        let submitted = listener_ref.submit_at(id, input, None, follower, when_full, start);
        let (guard, updates) = submitted.await?;
        listener_ref.keyed.insert(user_key, KeyedEvent { event: id, input: text, updates });
        Ok(Submission::new(outbox, guard))
    }
}

fn same_input(user_key: &UserKey, used: &JsonText, given: &JsonText) -> Result<(), SubmitError> {
    if used == given { Ok(()) } else { Err(SubmitError::KeyReused(user_key.1.to_string())) }
}

fn unix_millis(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The moment by this process' clock, if it is still to come.
pub(crate) fn from_unix_millis(moment: u64) -> Option<Instant> {
    let wait = moment.checked_sub(clock::unix_millis()).filter(|wait| *wait > 0)?;
    clock::now().checked_add(Duration::from_millis(wait))
}
