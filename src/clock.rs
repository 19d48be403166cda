//! The clock that limits and estimates go by: the one by which timers fire, so that a test that pauses
//! tokio's clock moves both.

use std::time::{Duration, Instant};

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time since then.
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}
