//! How a supervisor answers requests for a snapshot: all that have come by then at once, and never so
//! often that it delays its events.

use std::sync::Arc;

use actix::{AsyncContext, Context, Handler};

use super::grant::Queued;
use super::messages::TakeSnapshot;
use super::supervisor::Supervisor;
use crate::clock;
use crate::handler::durable::Durable;
use crate::scheduler::snapshot::SlotState;

impl Supervisor {
    /// Answers everybody who has asked for a snapshot by now.
    fn answer(&mut self, context: &mut Context<Self>) {
        let mut snapshot_replies = std::mem::take(&mut self.snapshot_replies);
        snapshot_replies.retain(|reply| !reply.is_closed());
        if snapshot_replies.is_empty() {
            return;
        }
        let began = clock::now();
        for (listener, events) in self.gauges.take_refused() {
            self.scheduler.note_refused(listener, events);
        }
        let mut snapshot = self.scheduler.snapshot(began);
        for slot in &mut snapshot.slots {
            if let SlotState::Busy { progress, attempt, .. } = &mut slot.state {
                *progress = self.worker(slot.slot).and_then(|worker| worker.meter.progress());
                *attempt =
                    self.recording.as_ref().and_then(|it| it.attempts.get(&slot.slot)).copied();
            }
        }
        for (listed, queued) in snapshot.upcoming.iter_mut().zip(self.scheduler.upcoming()) {
            listed.attempts = attempts(queued);
        }
        let trouble = self.recording.as_ref().and_then(|recording| recording.trouble.as_ref());
        snapshot.journal_trouble = trouble.map(ToString::to_string);
        let snapshot = Arc::new(snapshot);
        for reply in snapshot_replies {
            // Who asked may have stopped waiting.
            let _ = reply.send(snapshot.clone());
        }
        self.pace.spent(began, clock::now());
        self.settle(context);
    }
}

/// How often an event has started.
fn attempts(queued: &Queued) -> u32 {
    match queued {
        Queued::Event(job) => job.input.given::<Durable>().map_or(0, Durable::attempt),
        Queued::Permit(_) => 0,
    }
}

impl Handler<TakeSnapshot> for Supervisor {
    type Result = ();

    /// Answered a little later: after the other messages that are here, and not too often.
    fn handle(&mut self, TakeSnapshot { reply }: TakeSnapshot, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        self.snapshot_replies.push(reply);
        if self.snapshot_replies.len() > 1 {
            return;
        }
        let wait = self.pace.wait(clock::now());
        if wait.is_zero() {
            context.notify(Answer);
        } else {
            context.notify_later(Answer, wait);
        }
    }
}

/// To itself: there are requests for a snapshot to answer.
struct Answer;

impl actix::Message for Answer {
    type Result = ();
}

impl Handler<Answer> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Answer, context: &mut Self::Context) {
        self.turn(context, Self::answer);
    }
}
