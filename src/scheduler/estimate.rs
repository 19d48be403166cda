//! Ranks and estimates: the scheduler's part that notifies waiting events.

use std::time::{Duration, Instant};

use super::command::Effect;
use super::rank_updates::{Estimation, LastNotified};
use super::wait_queue::Key;
use super::{Phase, Scheduler, eta};

impl<T> Scheduler<T> {
    pub(super) fn seconds_since_birth(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.born).as_secs_f64()
    }

    /// Seconds of a slot that one event of `listener` costs. A listener that has not run yet is
    /// taken for an average one.
    fn cost(&self, listener: usize) -> Option<f64> {
        self.listeners[listener].times.per_event().or_else(|| self.typical(|l| l.per_event()))
    }

    fn typical(&self, of: impl Fn(&eta::RunTimes) -> Option<f64>) -> Option<f64> {
        let known = self.listeners.iter().filter_map(|l| of(&l.times));
        let (sum, count) = known.fold((0.0, 0usize), |(sum, count), x| (sum + x, count + 1));
        (count > 0).then(|| sum / count as f64)
    }

    /// Seconds of work in the whole wait queue.
    pub(super) fn work_ahead(&self) -> Option<f64> {
        (0..self.listeners.len())
            .map(|lane| match self.wait_queue.lane_len(lane) {
                0 => Some(0.0),
                waiting => Some(waiting as f64 * self.cost(lane)?),
            })
            .sum()
    }

    /// Seconds of work left in the slots.
    fn work_running(&self) -> f64 {
        let now = self.seconds_since_birth(self.now);
        self.listeners
            .iter()
            .filter(|listener| listener.running > 0)
            .map(|listener| {
                let runs = listener.running as f64;
                let mean = listener.times.run().unwrap_or(0.0);
                (mean * runs - (now * runs - listener.started_sum)).max(0.0)
            })
            .sum()
    }

    /// Seconds until somebody with `ahead` seconds of work before it starts; `None` while unknown.
    fn wait(&self, ahead: f64) -> Option<f64> {
        if self.phase != Phase::Open {
            return None;
        }
        if self.slots.has_room(self.limit()) {
            return Some(0.0);
        }
        let mean = self.typical(|l| l.run())?;
        Some(eta::wait(self.limit().max(1), ahead, self.work_running(), mean))
    }

    /// Seconds that an event arriving now would wait; `None` while unknown.
    pub(super) fn wait_at_the_end(&self) -> Option<f64> {
        self.wait(self.work_ahead()?)
    }

    /// When the next place in the wait queue is likely to come free: a run's share of one slot, in whole
    /// seconds and at least one.
    pub fn retry_after(&self) -> Option<Duration> {
        let per_place = self.typical(|l| l.per_event())? / self.limit().max(1) as f64;
        Some(Duration::from_secs(per_place.ceil().clamp(1.0, 3600.0) as u64))
    }

    fn estimate(&self, listener: usize, ahead: Option<f64>) -> Option<f64> {
        let own = self.listeners[listener].times.run()?;
        Some(self.wait(ahead?)? + own)
    }

    /// Notifies one event of its rank. `ahead` is the work before it.
    pub(super) fn notify_rank(
        &mut self,
        key: Key,
        listener: usize,
        rank: usize,
        ahead: Option<f64>,
    ) {
        let eta = self.estimate(listener, ahead);
        let (now, queue_size) = (self.now, self.wait_queue.len());
        if let Some(waiting) = self.wait_queue.get_mut(key) {
            waiting.last_notified = Some(LastNotified { rank, eta, at: now });
            let estimation = Estimation { rank, queue_size, eta };
            self.effects.push_back(Effect::NotifyRank { key, estimation });
        }
    }

    /// Tells those among the first `places` whose last notification is outdated: one pass, front to
    /// back.
    pub(super) fn notify_ranks(&mut self, places: usize) {
        let mut ahead = Some(0.0);
        let mut outdated = Vec::new();
        for (rank, (key, listener, waiting)) in self.wait_queue.iter().take(places).enumerate() {
            if waiting.watched {
                let eta = self.estimate(listener, ahead);
                if waiting.last_notified.is_none_or(|told| told.is_outdated(self.now, rank, eta)) {
                    outdated.push((key, listener, rank, ahead));
                }
            }
            ahead = ahead.zip(self.cost(listener)).map(|(ahead, cost)| ahead + cost);
        }
        for (key, listener, rank, ahead) in outdated {
            self.notify_rank(key, listener, rank, ahead);
        }
    }
}
