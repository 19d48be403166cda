//! The scheduler's state as a snapshot.

use super::slots::Slot;
use super::snapshot::{
    ConcurrencyIdSnapshot, ListenerSnapshot, ScheduledEvent, SlotSnapshot, SlotState,
};
use super::{Phase, Scheduler};

/// The maximum of slots that a snapshot lists. Where thousands run at once, making a list of all of
/// them would take the supervisor's time from their timeouts.
pub(crate) const LISTED: usize = 1024;

/// The maximum of scheduled events that a snapshot lists.
const LISTED_SCHEDULED: usize = 50;

impl<T> Scheduler<T> {
    pub fn snapshot(&self, now: std::time::Instant) -> ConcurrencyIdSnapshot {
        let since = |at| now.saturating_duration_since(at).as_secs_f64();
        let oldest = self.wait_queue.front().and_then(|(_, key)| self.wait_queue.get(key));
        let slots = self.list_slots(now);
        ConcurrencyIdSnapshot {
            concurrency_id: self.rules.concurrency_id.clone(),
            limit: self.rules.limit,
            paused: self.phase == Phase::Paused,
            stopped: self.phase == Phase::Stopped,
            running: self.slots.busy(),
            waiting: self.wait_queue.len(),
            blocked: self.blocked(),
            scheduled: self.scheduled(),
            upcoming: self.list_scheduled(now),
            oldest_wait: oldest.map(|waiting| since(waiting.since)),
            failing_slots: self.slots.failing(),
            unavailable: self.slots.unavailable().map(|unavailable| since(unavailable.since)),
            // The shell's to say.
            journal_trouble: None,
            unlisted_slots: self.slots.open() - slots.len(),
            slots,
            recent: self.recent.snapshot(now, |lane| &self.lane_rules(lane).api_name),
            listeners: (0..self.permits()).map(|lane| self.lane_snapshot(lane)).collect(),
            permits: Some(self.lane_snapshot(self.permits()))
                .filter(|permits| permits.admitted + permits.refused > 0),
            gates: (self.permits() + 1..self.listeners.len())
                .map(|lane| self.lane_snapshot(lane))
                .collect(),
        }
    }

    fn lane_snapshot(&self, lane: usize) -> ListenerSnapshot {
        let state = &self.listeners[lane];
        ListenerSnapshot {
            api_name: self.lane_rules(lane).api_name.clone(),
            waiting: self.wait_queue.lane_len(lane),
            average_run: state.times.run(),
            admitted: state.admitted,
            refused: state.refused.all(),
            refusals: state.refused,
            wait_seconds: state.waits.snapshot(),
            run_seconds: state.runs.snapshot(),
            batch_events: state.batches.snapshot(),
            completed: state.ended.completed,
            failed: state.ended.failed,
            cancelled: state.ended.cancelled,
            timed_out: state.ended.timed_out,
            stopped: state.ended.stopped,
        }
    }

    fn list_scheduled(&self, now: std::time::Instant) -> Vec<ScheduledEvent> {
        let next = self.scheduled.iter().take(LISTED_SCHEDULED);
        let listed = next.map(|(due, lane, waiting)| ScheduledEvent {
            id: waiting.id,
            listener: self.lane_rules(lane).api_name.clone(),
            starts_in: due.saturating_duration_since(now).as_secs_f64(),
            // The shell's to say.
            attempts: 0,
        });
        listed.collect()
    }

    /// What the shell stored with those of a snapshot's `upcoming`.
    pub fn upcoming(&self) -> impl Iterator<Item = &T> {
        self.scheduled.iter().take(LISTED_SCHEDULED).map(|(_, _, waiting)| &waiting.payload)
    }

    /// The open slots in order; where there are too many, the busy ones first.
    fn list_slots(&self, now: std::time::Instant) -> Vec<SlotSnapshot> {
        let is_busy = |slot: &Slot| matches!(slot, Slot::Busy(_));
        let mut listed: Vec<(usize, &Slot)> =
            self.slots.iter().filter(|(_, slot)| is_busy(slot)).take(LISTED).collect();
        let idle = self.slots.iter().filter(|(_, slot)| !is_busy(slot));
        let open = idle.filter(|(_, slot)| !matches!(slot, Slot::Closed));
        listed.extend(open.take(LISTED - listed.len()));
        listed.sort_unstable_by_key(|(number, _)| *number);
        let states = listed.into_iter().filter_map(|(slot, state)| {
            let state = match state {
                Slot::Closed => return None,
                Slot::Closing => SlotState::Closing,
                Slot::Preparing { trouble } => SlotState::Preparing { trouble: trouble.clone() },
                Slot::Vacating => SlotState::Preparing {
                    trouble: Some("what ran here before a fault hasn't stopped yet".into()),
                },
                Slot::Free { .. } => SlotState::Free,
                Slot::Busy(run) => SlotState::Busy {
                    events: run.events.as_slice().iter().map(|run_event| run_event.id).collect(),
                    listener: self.lane_rules(run.listener).api_name.clone(),
                    seconds: now.saturating_duration_since(run.started).as_secs_f64(),
                    interrupted: run.interrupted,
                    // The shell's to say.
                    attempt: None,
                    progress: None,
                    node: None,
                },
            };
            Some(SlotSnapshot { slot, state })
        });
        states.collect()
    }
}
