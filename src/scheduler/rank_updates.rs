//! Which waiting events are notified of their rank, and when: what keeps N waiting clients at O(N
//! log N) messages in all.
//!
//! The first few are notified of every step, at once. All others are checked in one pass over the
//! queue per [`TICK`], and notified only of steps that matter; the further back, the more seldom.
//! Gradio notifies everybody of everything, on every start: quadratic in the number of waiting
//! clients.

use std::time::{Duration, Instant};

/// How many at the front are notified of every step, at once.
pub(crate) const FRONT: usize = 8;

/// The least time between two passes over the whole wait queue.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// A step that matters, far back, is this part of the rank last sent.
const STEP: f64 = 0.02;

/// The least time between two estimations for the same client, for each event ahead of it. Where jobs are
/// quick, far back steps of 2 % come so often that nobody can read them.
const PAUSE: Duration = Duration::from_millis(1);

/// A place in the wait queue, as sent to its client. Seconds; `None` while the run time is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimation {
    pub rank: usize,
    pub queue_size: usize,
    pub eta: Option<f64>,
}

/// What a client was last sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastNotified {
    pub rank: usize,
    pub eta: Option<f64>,
    pub at: Instant,
}

impl LastNotified {
    /// Whether a client that knows this should hear that it now has `rank` and `eta`.
    pub fn is_outdated(&self, now: Instant, rank: usize, eta: Option<f64>) -> bool {
        // Others came back from a slot that could not run them. A rank that was sent never rises.
        if rank > self.rank {
            return false;
        }
        if rank >= FRONT {
            let pause = PAUSE * u32::try_from(rank).unwrap_or(u32::MAX);
            if now.saturating_duration_since(self.at) < pause {
                return false;
            }
        }
        let steps = self.rank - rank;
        if steps > 0 && (rank < FRONT || steps as f64 >= STEP * self.rank as f64) {
            return true;
        }
        // The client counts down by itself. It hears of a new estimate when there was none, or
        // when the old one is off by more than half: a change of load, not noise.
        match (self.eta, eta) {
            (None, Some(_)) => true,
            (Some(told), Some(eta)) => {
                let expected = told - now.saturating_duration_since(self.at).as_secs_f64();
                (eta - expected).abs() > 1.0 && (eta > 2.0 * expected || expected > 2.0 * eta)
            }
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rank: usize, eta: Option<f64>) -> (LastNotified, Instant) {
        let at = Instant::now();
        (LastNotified { rank, eta, at }, at)
    }

    #[test]
    fn near_the_front_every_step_matters() {
        let (told, now) = told(7, None);
        assert!(told.is_outdated(now, 6, None));
        assert!(!told.is_outdated(now, 7, None));
    }

    #[test]
    fn far_back_only_two_per_cent_matter_and_not_all_the_time() {
        let (told, at) = told(1000, None);
        assert!(!told.is_outdated(at + Duration::from_millis(979), 980, None));
        let now = at + Duration::from_millis(980);
        assert!(!told.is_outdated(now, 981, None));
        assert!(told.is_outdated(now, 980, None));
    }

    #[test]
    fn a_first_estimate_is_told_and_a_count_down_is_not() {
        let (unknown, at) = told(100, None);
        assert!(unknown.is_outdated(at + PAUSE * 100, 100, Some(5.0)));
        let (known, now) = told(100, Some(60.0));
        assert!(!known.is_outdated(now + Duration::from_secs(20), 100, Some(41.0)));
        assert!(known.is_outdated(now + Duration::from_secs(20), 100, Some(90.0)));
    }
}
