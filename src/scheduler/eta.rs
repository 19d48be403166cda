//! How long a run takes, and how long somebody in the wait queue will wait: estimates that follow a
//! change of load.

/// The weight of one new observation, once enough have been made.
///
/// A twentieth forgets an old load within some fifty runs and still averages out noise. An all-time
/// mean, as Gradio keeps, never forgets the slow first run.
const WEIGHT: f64 = 1.0 / 20.0;

/// A mean that follows its input: a plain mean at first, an exponential one later.
#[derive(Clone, Copy, Debug, Default)]
struct MovingMean {
    observed: u32,
    mean: f64,
}

impl MovingMean {
    fn observe(&mut self, value: f64) {
        self.observed = self.observed.saturating_add(1);
        let weight = WEIGHT.max(1.0 / f64::from(self.observed));
        self.mean += weight * (value - self.mean);
    }
}

/// What is known of one listener's run times, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunTimes {
    run: MovingMean,
    batch: MovingMean,
}

impl RunTimes {
    /// Notes a run of `seconds` that carried `events` events.
    pub fn observe(&mut self, seconds: f64, events: usize) {
        self.run.observe(seconds);
        self.batch.observe(events as f64);
    }

    /// Seconds that a run takes; `None` while none has been seen.
    pub fn run(&self) -> Option<f64> {
        (self.run.observed > 0).then_some(self.run.mean)
    }

    /// Seconds of a slot that one event costs: a run divided by the events that share it.
    pub fn per_event(&self) -> Option<f64> {
        self.run().map(|run| run / self.batch.mean.max(1.0))
    }
}

/// The seconds until somebody starts, with `ahead` seconds of work waiting before it, `running`
/// seconds of work left in the slots, and `mean` seconds for a typical run.
///
/// All slots work off what is ahead. When the last of it is done, the other slots are on average
/// half-way through runs of their own, whose remainder needn't be waited for.
pub(crate) fn wait(slots: usize, ahead: f64, running: f64, mean: f64) -> f64 {
    let others = slots.saturating_sub(1) as f64;
    let work = ahead + running - others * mean / 2.0;
    (work / slots.max(1) as f64).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_until_a_run_has_ended() {
        assert_eq!(RunTimes::default().run(), None);
        assert_eq!(RunTimes::default().per_event(), None);
    }

    #[test]
    fn the_mean_follows_a_change_of_load() {
        let mut times = RunTimes::default();
        for _ in 0..1000 {
            times.observe(10.0, 1);
        }
        for _ in 0..60 {
            times.observe(1.0, 1);
        }
        let all_time = (1000.0 * 10.0 + 40.0) / 1040.0;
        assert!(times.run().unwrap() < 1.5, "{:?} still remembers {all_time}", times.run());
    }

    #[test]
    fn events_of_a_batch_share_its_time() {
        let mut times = RunTimes::default();
        times.observe(2.0, 4);
        assert_eq!(times.per_event(), Some(0.5));
    }

    #[test]
    fn one_slot_waits_for_all_the_work_ahead() {
        assert_eq!(wait(1, 6.0, 1.0, 2.0), 7.0);
    }

    #[test]
    fn a_wait_is_never_negative() {
        assert_eq!(wait(8, 0.0, 0.1, 2.0), 0.0);
    }
}
