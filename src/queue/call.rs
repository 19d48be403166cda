//! Calling a listener by its name.

use actix::Recipient;

use super::Queue;
use super::error::{CallError, SubmitError};
use super::handle::{ListenerHandle, check_input, submit, submit_to};
use super::submission::Submission;
use crate::event::id::EventId;
use crate::event::update::Update;
use crate::scheduler::command::WhenFull;

impl Queue {
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

    /// Submits an event, refused where the wait queue is full, and waits for its result:
    /// [`ListenerHandle::try_call`] by name.
    ///
    /// # Errors
    /// As [`ListenerHandle::try_call`]; when there is no such listener, or it takes or gives other
    /// types.
    pub async fn try_call<I, O>(&self, api_name: &str, input: I) -> Result<O, CallError>
    where
        I: Send + 'static,
        O: Send + Sync + 'static,
    {
        self.listener(api_name)?.try_call(input).await
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
        check_input::<I>(listener_ref)?;
        submit(listener_ref, input, self.user(), WhenFull::Wait).await
    }

    /// Submits an event, refused where the wait queue is full: [`ListenerHandle::try_submit`] by name.
    ///
    /// # Errors
    /// As [`ListenerHandle::try_submit`]; when there is no such listener, or it takes another type.
    pub async fn try_submit<I>(&self, api_name: &str, input: I) -> Result<Submission, SubmitError>
    where
        I: Send + 'static,
    {
        let listener_ref = self.listener_ref(api_name)?;
        check_input::<I>(listener_ref)?;
        submit(listener_ref, input, self.user(), WhenFull::Refuse).await
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
        check_input::<I>(listener_ref)?;
        submit_to(listener_ref, input, self.user(), follower).await
    }
}
