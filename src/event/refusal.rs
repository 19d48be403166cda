//! Refusals: why an event was not admitted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::validation::Validation;

/// Why an event was not admitted. Nothing of it has run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The wait queue is full. The text is Gradio's.
    #[error("Queue is full. Max size is {max_size} and size is {size}.")]
    QueueFull {
        /// The bound, in waiting events.
        max_size: usize,
        /// The events that wait.
        size: usize,
        /// When there is likely to be room; `None` while run times are unknown.
        retry_after: Option<Duration>,
    },
    /// The estimated wait is longer than `max_eta`.
    #[error("The estimated wait is {} s, longer than the {} s allowed; try again later.", .eta.as_secs(), .max_eta.as_secs_f64())]
    WaitTooLong {
        /// The estimated wait.
        eta: Duration,
        /// The bound.
        max_eta: Duration,
    },
    /// No slot can run anything, because the resources that they own can't be built. See
    /// [`SlotResource::unavailable_after`](crate::SlotResource::unavailable_after).
    #[error("Nothing can run this now: what its slots need has not been there for {} s; try again later.", .time.as_secs())]
    Unavailable {
        /// For how long no slot has had its resource.
        time: Duration,
        /// When a build is tried again.
        retry_after: Duration,
    },
    /// No slot has come free within the `queue_timeout` of a gate.
    #[error("No slot has come free within {} s; try again later.", .queue_timeout.as_secs_f64())]
    QueueTimeout {
        /// The bound.
        queue_timeout: Duration,
        /// When one is likely to be free; `None` while run times are unknown.
        retry_after: Option<Duration>,
    },
    /// The listener's validator refused the input.
    #[error("{0}")]
    Invalid(Validation),
    /// The listener's validator panicked; the log has more.
    #[error("The input could not be checked.")]
    ValidatorPanicked,
    /// The listener is durable, and the event could not be recorded.
    #[error("The event could not be recorded: {reason}.")]
    NotRecorded {
        /// Why.
        reason: String,
        /// There is no room for it.
        full: bool,
    },
    /// The queue takes no more events. The text is Gradio's.
    #[error("Queue is stopped.")]
    Stopped,
}
