//! How often something is done that costs its thread time.

use std::time::{Duration, Instant};

/// What one does is followed by so many times as long for everything else.
const REST: u32 = 4;

/// A debt of rest that may be run up first, so that quick work is never put off.
const CREDIT: Duration = Duration::from_millis(2);

/// Keeps a task to a fifth of its thread's time, however often it is requested.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Until when the thread belongs to everything else.
    rests_until: Option<Instant>,
}

impl Pace {
    /// How long to wait before doing it again; zero for not at all.
    pub fn wait(&self, now: Instant) -> Duration {
        let rest = self.rests_until.map_or(Duration::ZERO, |until| until - until.min(now));
        rest.saturating_sub(CREDIT)
    }

    /// It was done, from `began` to `now`.
    pub fn spent(&mut self, began: Instant, now: Instant) {
        let since = self.rests_until.map_or(began, |until| until.max(began));
        self.rests_until = Some(since + (1 + REST) * now.saturating_duration_since(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of ten seconds that is spent on work of this length when it is always requested.
    fn share(work: Duration) -> f64 {
        let begin = Instant::now();
        let (mut now, mut spent, mut pace) = (begin, Duration::ZERO, Pace::default());
        while now - begin < Duration::from_secs(10) {
            now += pace.wait(now);
            let began = now;
            now += work;
            spent += work;
            pace.spent(began, now);
        }
        spent.div_duration_f64(now - begin)
    }

    #[test]
    fn however_long_it_takes_it_gets_a_fifth_of_the_time() {
        for millis in [1, 10, 100] {
            let share = share(Duration::from_millis(millis));
            assert!((0.19..0.21).contains(&share), "{share}");
        }
    }

    #[test]
    fn what_is_quick_and_seldom_is_not_put_off() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..100 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            let began = now;
            now += Duration::from_micros(100);
            pace.spent(began, now);
            now += Duration::from_micros(500);
        }
    }
}
