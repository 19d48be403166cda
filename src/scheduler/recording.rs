//! On record: an event of a durable listener waits, once accepted, until its admission is recorded,
//! and only then enters the wait queue. One that was recorded by an earlier process comes back.

use std::time::Instant;

use super::command::{Arrival, Cause, Effect};
use super::wait_queue::Key;
use super::{Location, Phase, Scheduler, Waiting};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;

impl<T> Scheduler<T> {
    /// What the shell stored with an event that is to be recorded.
    pub fn to_record(&self, key: Key) -> Option<(usize, &T)> {
        let waiting = self.recording.get(key)?;
        Some((self.recording.lane_of(key)?, &waiting.payload))
    }

    pub(super) fn record(&mut self, listener: usize, waiting: Waiting<T>) {
        let id = waiting.id;
        let key = self.recording.push_back(listener, waiting);
        self.places.insert(id, Location::Recording(key));
        self.effects.push_back(Effect::Record { key });
    }

    /// The event is on record: from now on it has been admitted.
    pub(super) fn recorded(&mut self, key: Key) {
        // One that was cancelled meanwhile has left.
        let Some((listener, waiting)) = self.recording.remove(key) else { return };
        let id = waiting.id;
        // It waits from now on: in its lane, who came first has waited for longest.
        self.enter(listener, Waiting { since: self.now, ..waiting });
        if self.phase == Phase::Stopped {
            self.end_accepted(id, Cause::Stopped);
        }
    }

    /// The event could not be recorded, so that it is not admitted.
    pub(super) fn not_recorded(&mut self, key: Key, refusal: Refusal) {
        let Some((listener, waiting)) = self.recording.remove(key) else { return };
        self.places.remove(&waiting.id);
        self.not_before.remove(&waiting.id);
        self.free_place();
        self.listeners[listener].refused.not_recorded += 1;
        self.effects.push_back(Effect::Refuse { event: waiting.payload, refusal });
    }

    /// Takes back an event that was admitted by an earlier process, behind those that are here: no bound
    /// holds for it. `since` may be of a moment before it came into the wait queue: no event has waited for
    /// longer than one of its lane that stands before it.
    pub(super) fn restore(&mut self, arrival: Arrival<T>, since: Instant, runs: bool) {
        let Arrival { id, listener, watched, not_before, payload, .. } = arrival;
        let (last_notified, returned) = (None, false);
        if runs && let Some(claim) = self.slots.claim(usize::MAX) {
            let waiting = Waiting { id, watched, since, last_notified, returned, payload };
            return self.go_on(listener, claim, waiting);
        }
        if let Some(due) = not_before {
            self.not_before.insert(id, due);
        }
        let before = self.wait_queue.lane_back(listener).and_then(|key| self.wait_queue.get(key));
        let since = before.map_or(since, |before| since.max(before.since));
        let waiting = Waiting { id, watched, since, last_notified, returned, payload };
        if self.rules.queue_max_size.is_some() {
            self.effects.push_back(Effect::RetakePlace);
        }
        self.enter(listener, waiting);
    }

    /// Another process goes on with what is on record. What isn't yet is refused when that is known.
    pub(super) fn hand_over(&mut self) {
        let mut on_record: Vec<EventId> = Vec::new();
        for (id, place) in &self.places {
            let lane = match *place {
                Location::Waiting(key) => self.wait_queue.lane_of(key),
                Location::Scheduled(appointment) => self.scheduled.lane_of(appointment),
                Location::Running(slot) => self.slots.run(slot).map(|run| run.listener),
                Location::Blocked(_) | Location::Requesting(_) | Location::Recording(_) => None,
            };
            if lane.is_some_and(|lane| self.lane_rules(lane).durable) {
                on_record.push(*id);
            }
        }
        on_record.into_iter().for_each(|id| self.end_accepted(id, Cause::Stopped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::command::{Command, WhenFull};
    use crate::scheduler::limit::Limit;
    use crate::scheduler::rules::{ListenerRules, Rules};
    use std::time::Duration;

    fn scheduler(now: Instant) -> Scheduler<u128> {
        let listener = ListenerRules {
            api_name: "paint".into(),
            batch: None,
            time_limit: None,
            queue_timeout: Some(Duration::from_secs(10)),
            durable: true,
        };
        let rules = Rules {
            concurrency_id: "gpu".into(),
            limit: Limit::Slots(1),
            max_size: None,
            max_eta: None,
            resource: None,
            listeners: vec![listener],
            queue_max_size: None,
        };
        Scheduler::new(rules, now)
    }

    fn restore(scheduler: &mut Scheduler<u128>, now: Instant, n: u128, runs: bool) {
        let arrival = Box::new(Arrival {
            id: EventId::for_test(n),
            listener: 0,
            watched: false,
            when_full: WhenFull::Wait,
            not_before: None,
            placed: false,
            payload: n,
        });
        let since = now - Duration::from_secs(60);
        scheduler.handle(now, Command::Restore { arrival, since, runs });
    }

    fn effects(scheduler: &mut Scheduler<u128>) -> (Vec<u128>, Vec<u128>) {
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        while let Some(effect) = scheduler.poll_effect() {
            match effect {
                Effect::Start { event, .. } => started.push(event),
                Effect::End { event, .. } => ended.push(event),
                _ => {}
            }
        }
        (started, ended)
    }

    #[test]
    fn what_runs_already_goes_on_though_the_limit_is_lower_and_others_wait() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut scheduler = scheduler(now);
        scheduler.handle(now, Command::Pause);
        restore(&mut scheduler, now, 1, true);
        restore(&mut scheduler, now, 2, true);
        restore(&mut scheduler, now, 3, false);
        restore(&mut scheduler, now, 4, false);
        let (started, ended) = effects(&mut scheduler);
        assert_eq!(started, [1, 2]);
        assert_eq!(ended, [3], "it has waited for too long");
        assert_eq!((scheduler.running(), scheduler.waiting()), (2, 1));
        scheduler.handle(now, Command::Cancel { listener: 0, id: EventId::for_test(2) });
        let mut effects = std::iter::from_fn(|| scheduler.poll_effect());
        assert!(effects.any(|effect| matches!(effect, Effect::Interrupt { slot: 1, .. })));
    }

    #[test]
    fn what_is_next_again_has_not_waited_while_it_ran() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut scheduler = scheduler(now);
        scheduler.handle(now, Command::Pause);
        restore(&mut scheduler, now, 1, true);
        assert_eq!(effects(&mut scheduler), (vec![1], vec![]));
        let id = EventId::for_test(1);
        scheduler.handle(now, Command::Postpone { slot: 0, id, payload: 1, due: None });
        let counts = Default::default();
        scheduler.handle(now, Command::Done { slot: 0, counts, ready: true });
        assert_eq!(effects(&mut scheduler), (vec![], vec![]));
        assert_eq!(scheduler.waiting(), 1);
        scheduler.handle_timeout(now + Duration::from_secs(10));
        assert_eq!(effects(&mut scheduler), (vec![], vec![1]));
    }
}
