//! A listener of a running queue: where its events go in, and what is known of its types.

use std::sync::Arc;
use std::time::Instant;

use actix::Addr;
use actix::dev::SendError;
use tokio::sync::oneshot;

use super::error::SubmitError;
use super::keyed::{IdempotencyKey, KeyedEvent, KeyedEvents};
use super::listener_options::ListenerOptions;
use super::live_events::{LiveEvent, LiveEvents};
use super::webhook_url::WebhookUrl;
use crate::actors::listener::ListenerActor;
use crate::actors::messages::{Cancel, Job, Submit};
use crate::delivery::sender::{EventSender, Follower};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::Reply;
use crate::handler::codec::{InputType, OutputType};
use crate::handler::durable::{Durability, Durable};
use crate::handler::extensions::Extensions;
use crate::handler::input::Input;
use crate::handler::nesting::{self, Caller, IdSlots, PendingCall};
use crate::handler::session_state::SessionState;
use crate::handler::user::{EventUser, user_of};
use crate::scheduler::command::WhenFull;

/// The way into one listener's queue, for handles and for the web alike.
#[derive(Debug)]
pub(crate) struct ListenerRef {
    pub api_name: Arc<str>,
    pub input: InputType,
    pub output: OutputType,
    pub options: ListenerOptions,
    /// What the layers above the core declare for it.
    pub extensions: Extensions,
    /// Those that its events wait for.
    pub slots: Arc<IdSlots>,
    /// Where its events are durable.
    pub durability: Option<Durability>,
    /// Those of its events that have an idempotency key.
    pub keyed: KeyedEvents,
    /// All of the queue's that are durable.
    pub live: Arc<LiveEvents>,
    pub address: Addr<ListenerActor>,
}

impl ListenerRef {
    /// Whether this user may call it.
    pub fn allows(&self, user: Option<&str>) -> bool {
        self.options.allow.as_ref().is_none_or(|allow| allow.allows(user))
    }

    /// How its events are recorded.
    ///
    /// # Errors
    /// When they aren't.
    pub fn durable(&self) -> Result<&Durability, SubmitError> {
        let not_durable = || SubmitError::NotDurable(self.api_name.to_string());
        self.durability.as_ref().ok_or_else(not_durable)
    }

    /// The input of an in-process call: in a user's name, or the service's own.
    ///
    /// # Errors
    /// When the user may not call it.
    pub fn input<I: Send + 'static>(
        &self,
        input: I,
        user: Option<&Arc<str>>,
    ) -> Result<Input, SubmitError> {
        let input = Input::new(input);
        let Some(user) = user else { return Ok(input) };
        if !self.allows(Some(user)) {
            let (listener, user) = (self.api_name.to_string(), user.to_string());
            return Err(SubmitError::Forbidden { listener, user });
        }
        Ok(input.with(EventUser(user.clone())))
    }

    /// An input whose submitter waits for its result, who says so for as long as he keeps what comes
    /// with it, if he is a handler.
    ///
    /// # Errors
    /// When it would wait for ever: for slots that its callers hold while they wait for it.
    pub fn nest(&self, input: Input) -> Result<(Input, Option<Arc<PendingCall>>), SubmitError> {
        if !nesting::in_run() {
            return Ok((input, None));
        }
        if let Some(slots) = self.slots.held_by_callers() {
            let concurrency_id = self.slots.name.to_string();
            return Err(SubmitError::WaitsForItself { concurrency_id, slots });
        }
        let Some(call) = PendingCall::begin() else { return Ok((input, None)) };
        Ok((input.with(Caller(Arc::downgrade(&call))), Some(call)))
    }

    /// Submits an event that nobody follows; its end comes through the receiver. Dropping the
    /// guard before that cancels it.
    pub async fn submit_and_wait(
        self: &Arc<Self>,
        id: EventId,
        input: Input,
        session: Option<Arc<SessionState>>,
        when_full: WhenFull,
    ) -> (oneshot::Receiver<Reply>, CancelOnDrop) {
        let guard = self.cancel_on_drop(id);
        let (reply, ended) = oneshot::channel();
        let sender = EventSender::reply(reply);
        let input = match self.to_record(input, session.as_deref()) {
            Ok(input) => input,
            Err(refusal) => {
                sender.refuse(refusal);
                return (ended, guard);
            }
        };
        let job = Box::new(Job { id, session, input, sender });
        self.deliver(Submit { job, when_full, not_before: None }).await;
        (ended, guard)
    }

    /// Submits an event with somebody who follows it, and waits until it is admitted.
    pub async fn submit(
        self: &Arc<Self>,
        id: EventId,
        input: Input,
        session: Option<Arc<SessionState>>,
        follower: Follower,
        when_full: WhenFull,
    ) -> Result<CancelOnDrop, Refusal> {
        let input = self.to_record(input, session.as_deref())?;
        self.submit_at(id, input, session, follower, when_full, None).await
    }

    /// The same with an input from [`ListenerRef::to_record`], for an event that may start from a moment
    /// on.
    pub async fn submit_at(
        self: &Arc<Self>,
        id: EventId,
        input: Input,
        session: Option<Arc<SessionState>>,
        follower: Follower,
        when_full: WhenFull,
        not_before: Option<Instant>,
    ) -> Result<CancelOnDrop, Refusal> {
        // Dropped while it still waits for room, it leaves.
        let guard = self.cancel_on_drop(id);
        match self.admit_at(id, input, session, follower, when_full, not_before).await {
            Ok(()) => Ok(guard),
            Err(refusal) => {
                guard.disarm();
                Err(refusal)
            }
        }
    }

    /// The same for an event that stays though nobody waits for its admission any more.
    pub async fn admit_at(
        self: &Arc<Self>,
        id: EventId,
        input: Input,
        session: Option<Arc<SessionState>>,
        follower: Follower,
        when_full: WhenFull,
        not_before: Option<Instant>,
    ) -> Result<(), Refusal> {
        let (admit, admitted) = oneshot::channel();
        let sender = EventSender::follow(id, follower, admit);
        let live = input.given::<Durable>().map(|durable| {
            let updates = sender.updates().map(Arc::downgrade).unwrap_or_default();
            let user: Option<Arc<str>> = user_of(session.as_deref(), input.given()).map(Arc::from);
            let keyed = durable.key.clone().map(|key| {
                let (input, updates) = (durable.input.clone(), updates.clone());
                ((user.clone(), key), KeyedEvent { event: id, input, updates })
            });
            (LiveEvent { listener: self.api_name.clone(), user, updates }, keyed)
        });
        let job = Box::new(Job { id, session, input, sender });
        self.deliver(Submit { job, when_full, not_before }).await;
        match admitted.await {
            Ok(Ok(())) => {
                if let Some((live, keyed)) = live {
                    self.live.insert(id, live);
                    if let Some((user_key, keyed)) = keyed {
                        self.keyed.insert(user_key, keyed);
                    }
                }
                Ok(())
            }
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Stopped),
        }
    }

    /// The input with what is to be recorded of it, where its events are durable.
    #[inline]
    pub fn to_record(
        &self,
        input: Input,
        session: Option<&SessionState>,
    ) -> Result<Input, Refusal> {
        match &self.durability {
            None => Ok(input),
            Some(durability) => Self::with_record(durability, input, session),
        }
    }

    fn with_record(
        durability: &Durability,
        input: Input,
        session: Option<&SessionState>,
    ) -> Result<Input, Refusal> {
        let text = durability.write_input(&input);
        let mut durable =
            Durable::new(text.map_err(|reason| Refusal::NotRecorded { reason, full: false })?);
        durable.key = input.given().map(|IdempotencyKey(key)| key.clone());
        durable.webhook = input.given().map(|WebhookUrl(url)| url.clone());
        durable.session = session.filter(|s| s.named).map(|session| session.id.clone());
        Ok(input.with(durable))
    }

    async fn deliver(&self, submit: Submit) {
        match self.address.try_send(submit) {
            Ok(()) => {}
            // Its mailbox is full: wait for room, as everybody before us does. Should the actor die
            // meanwhile, the sender reports it.
            Err(SendError::Full(submit)) => {
                let _ = self.address.send(submit).await;
            }
            Err(SendError::Closed(submit)) => submit.job.sender.refuse(Refusal::Stopped),
        }
    }

    pub fn cancel(&self, id: EventId) {
        // Past the mailbox' bound: a cancel that is lost can't be repeated by a guard.
        self.address.do_send(Cancel(id));
    }

    pub fn cancel_on_drop(self: &Arc<Self>, id: EventId) -> CancelOnDrop {
        CancelOnDrop { id, listener_ref: Some(self.clone()), on_drop: true }
    }
}

/// Cancels an event when dropped.
#[derive(Debug)]
pub(crate) struct CancelOnDrop {
    pub id: EventId,
    listener_ref: Option<Arc<ListenerRef>>,
    on_drop: bool,
}

impl CancelOnDrop {
    /// Of an event that has ended.
    pub fn of_ended(id: EventId) -> Self {
        CancelOnDrop { id, listener_ref: None, on_drop: false }
    }

    pub fn cancel(&self) {
        if let Some(listener_ref) = &self.listener_ref {
            listener_ref.cancel(self.id);
        }
    }

    /// It cancels the event when it is asked to, and not when it is dropped.
    pub fn only_when_asked(mut self) -> Self {
        self.on_drop = false;
        self
    }

    pub fn disarm(mut self) {
        self.listener_ref = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.on_drop {
            self.cancel();
        }
    }
}
