//! Failures: how a handler failed, and the error that it means for its caller.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An error that a handler means for its caller, as Gradio's `gr.Error`.
///
/// Every other error type of a handler counts as unexpected: in-process callers get its text,
/// clients over HTTP don't, unless `WebBuilder::show_error` is on.
///
/// ```
/// use now_serving::UserError;
///
/// async fn paint(prompt: String) -> Result<String, UserError> {
///     if prompt.is_empty() {
///         return Err(UserError::new("Say what to paint.").title("Empty prompt"));
///     }
///     Ok(prompt)
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct UserError {
    message: String,
    title: String,
    visible: bool,
    duration: Option<f64>,
    transient: Option<Option<Duration>>,
}

impl UserError {
    /// An error with a message for the caller, titled "Error", shown for 10 seconds.
    pub fn new(message: impl Into<String>) -> Self {
        UserError {
            message: message.into(),
            title: "Error".into(),
            visible: true,
            duration: Some(10.0),
            transient: None,
        }
    }

    /// Says that another attempt may succeed: an event of a durable listener waits for as long as its
    /// [`Listener::retry`](crate::Listener::retry) says and starts again, until it has started
    /// [`max_attempts`](crate::Listener::max_attempts) times. Elsewhere it means nothing.
    pub fn transient(self) -> Self {
        UserError { transient: Some(None), ..self }
    }

    /// As [`UserError::transient`], with the pause until the next attempt.
    pub fn retry_after(self, pause: Duration) -> Self {
        UserError { transient: Some(Some(pause)), ..self }
    }

    /// The title over the message.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Whether a client shows the error to its user (default: true).
    pub fn visible(mut self, visible: bool) -> Self {
        self.visible = visible;
        self
    }

    /// Seconds for which a client shows the error; `None` until the user closes it.
    pub fn duration(mut self, seconds: impl Into<Option<f64>>) -> Self {
        self.duration = seconds.into();
        self
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UserError {}

/// How a handler failed: the message of its [`UserError`], or the text of any other error or panic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// The title over the message, "Error" unless the handler gave another.
    pub title: String,
    /// Whether a client shows it to its user.
    pub visible: bool,
    /// Seconds for which a client shows it; `None` until the user closes it.
    pub duration: Option<f64>,
    /// The handler meant it for its caller. Otherwise clients over HTTP don't get the message,
    /// unless `WebBuilder::show_error` is on.
    pub for_user: bool,
    /// Another attempt may succeed: after this pause, or after one that the listener says. Boxed, since
    /// every outcome is as large as a failure.
    #[serde(skip)]
    pub(crate) transient: Option<Box<Option<Duration>>>,
    /// It isn't the handler's: what ran it is gone.
    #[serde(skip)]
    pub(crate) lost: Option<Lost>,
}

impl Failure {
    pub(crate) fn unexpected(message: impl Into<String>) -> Self {
        Failure { for_user: false, ..UserError::new(message).into() }
    }

    /// From whatever a handler returned. An `E` that is a [`UserError`], or a boxed error that
    /// holds one, keeps its title and visibility.
    pub(crate) fn of<E: fmt::Display + 'static>(error: E) -> Self {
        use std::error::Error;
        let any: &dyn std::any::Any = &error;
        let user = any
            .downcast_ref::<UserError>()
            .or_else(|| any.downcast_ref::<Box<dyn Error + Send + Sync>>()?.downcast_ref())
            .or_else(|| any.downcast_ref::<Box<dyn Error>>()?.downcast_ref());
        match user {
            Some(user) => user.clone().into(),
            None => Failure::unexpected(error.to_string()),
        }
    }
}

/// What is known of a run whose process is gone, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
pub(crate) enum Lost {
    /// Its handler may have done something.
    MayHaveBegun,
    /// Its handler was never called.
    HasNotBegun,
}

impl Failure {
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub(crate) fn lost(lost: Lost, message: impl Into<String>) -> Self {
        Failure { lost: Some(lost), ..Failure::unexpected(message) }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        let UserError { message, title, visible, duration, transient } = error;
        let transient = transient.map(Box::new);
        let lost = None;
        Failure { message, title, visible, duration, for_user: true, transient, lost }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_error_is_known_in_its_box() {
        let boxed: Box<dyn std::error::Error + Send + Sync> =
            Box::new(UserError::new("no good").title("Oh"));
        let failure = Failure::of(boxed);
        assert_eq!((failure.title.as_str(), failure.for_user), ("Oh", true));
        assert!(!Failure::of("no good").for_user);
    }
}
