//! The pauses between the attempts of an event that fails in passing.

use std::time::Duration;

/// How long an event waits before it is tried again, after its handler failed with
/// [`UserError::transient`](crate::UserError::transient). For [`Listener::retry`](crate::Listener::retry).
///
/// ```
/// use std::time::Duration;
///
/// use now_serving::Backoff;
///
/// // 1 s, 2 s, 4 s, …, a minute at most.
/// let backoff = Backoff::exponential(Duration::from_secs(1)).max(Duration::from_secs(60));
/// // Ten seconds each time.
/// let constant = Backoff::constant(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    factor: u32,
    max: Duration,
}

impl Backoff {
    /// The same pause each time.
    pub fn constant(pause: Duration) -> Self {
        Backoff { first: pause, factor: 1, max: Duration::MAX }
    }

    /// A pause that doubles with each attempt, an hour at most.
    pub fn exponential(first: Duration) -> Self {
        Backoff { first, factor: 2, max: Duration::from_secs(3600) }
    }

    /// The longest pause.
    pub fn max(self, max: Duration) -> Self {
        Backoff { max, ..self }
    }

    /// The pause after this attempt, counted from 1.
    pub(crate) fn pause(self, attempt: u32) -> Duration {
        let factor = self.factor.saturating_pow(attempt.saturating_sub(1));
        self.first.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_longest() {
        let backoff = Backoff::exponential(Duration::from_secs(1)).max(Duration::from_secs(5));
        let pauses: Vec<_> = (1..6).map(|attempt| backoff.pause(attempt).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.pause(u32::MAX).as_secs(), 5);
        assert_eq!(Backoff::constant(Duration::from_secs(3)).pause(9).as_secs(), 3);
    }
}
