//! The scheduler's state as a snapshot.

use super::slots::Slot;
use super::{Phase, Scheduler};
use crate::snapshot::{ConcurrencyIdSnapshot, ListenerSnapshot, SlotSnapshot, SlotState};

impl<T> Scheduler<T> {
    pub fn snapshot(&self, now: std::time::Instant) -> ConcurrencyIdSnapshot {
        let since = |at| now.saturating_duration_since(at).as_secs_f64();
        let oldest = self.line.front().and_then(|(_, key)| self.line.get(key));
        ConcurrencyIdSnapshot {
            concurrency_id: self.rules.concurrency_id.clone(),
            limit: self.rules.limit,
            paused: self.phase == Phase::Paused,
            stopped: self.phase == Phase::Stopped,
            running: self.slots.busy(),
            waiting: self.line.len(),
            blocked: self.door.len(),
            oldest_wait: oldest.map(|waiting| since(waiting.since)),
            failing_slots: self.slots.failing(),
            unavailable: self.slots.unavailable().map(|unavailable| since(unavailable.since)),
            slots: self
                .slots
                .iter()
                .filter_map(|(slot, state)| {
                    let state = match state {
                        Slot::Closed => return None,
                        Slot::Closing => SlotState::Closing,
                        Slot::Preparing { trouble } => {
                            SlotState::Preparing { trouble: trouble.clone() }
                        }
                        Slot::Vacating => SlotState::Preparing {
                            trouble: Some("what ran here before a fault hasn't stopped yet".into()),
                        },
                        Slot::Free { .. } => SlotState::Free,
                        Slot::Busy(run) => SlotState::Busy {
                            events: run.riders.as_slice().iter().map(|rider| rider.id).collect(),
                            listener: self.lane_rules(run.listener).api_name.clone(),
                            seconds: since(run.started),
                            interrupted: run.interrupted,
                            // Known to the worker alone.
                            progress: None,
                        },
                    };
                    Some(SlotSnapshot { slot, state })
                })
                .collect(),
            recent: self.recent.snapshot(now, |lane| &self.lane_rules(lane).api_name),
            listeners: (0..self.permits()).map(|lane| self.lane_snapshot(lane)).collect(),
            permits: Some(self.lane_snapshot(self.permits()))
                .filter(|permits| permits.admitted + permits.refused > 0),
        }
    }

    fn lane_snapshot(&self, lane: usize) -> ListenerSnapshot {
        let state = &self.listeners[lane];
        ListenerSnapshot {
            api_name: self.lane_rules(lane).api_name.clone(),
            waiting: self.line.lane_len(lane),
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
}
