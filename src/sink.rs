//! Where the updates of one event go, and the guard that it gets exactly one terminal update.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix::Recipient;
use tokio::sync::oneshot;

use crate::error::{Failure, Refusal};
use crate::event::EventId;
use crate::outbox::Outbox;
use crate::update::{Finished, Outcome, Reply, Update};

/// Somebody who follows events.
#[derive(Debug)]
pub(crate) enum Follower {
    /// A reader in this process.
    Outbox(Arc<Outbox>),
    /// A function.
    #[cfg_attr(not(feature = "web"), allow(dead_code))]
    Function(Function),
    /// An actor.
    Recipient(Recipient<Update>),
}

/// Takes the updates of an event.
pub(crate) struct Function(pub Box<dyn Fn(Update) + Send + Sync>);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl Follower {
    fn send(&self, update: Update) {
        match self {
            Follower::Outbox(outbox) => {
                outbox.push(update);
            }
            Follower::Function(Function(take)) => take(update),
            // Past the mailbox' capacity on purpose: a terminal update must not be lost, and what
            // one event can send is bounded by its handler, not by a flood of events.
            Follower::Recipient(recipient) => recipient.do_send(update),
        }
    }
}

/// What can be said about an event until its terminal update. Shared with its handler's context,
/// which may live on in a blocking thread after the event has ended; then it says nothing more.
#[derive(Debug)]
pub(crate) struct Voice {
    event_id: EventId,
    follower: Mutex<Option<Follower>>,
}

impl Voice {
    pub fn say(&self, update: impl FnOnce(EventId) -> Update) {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.as_ref() {
            follower.send(update(self.event_id));
        }
    }

    fn hang_up(&self) -> Option<Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The sending end of one event, held by whoever owns the event. Dropped before the event has
/// ended, it says that the event was lost, so that nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Sink(State);

#[derive(Debug)]
enum State {
    /// Nobody follows; the caller wants the result.
    Reply(oneshot::Sender<Reply>),
    /// Somebody follows. The caller waits for the word that the event was admitted.
    Voice(Arc<Voice>, Option<oneshot::Sender<Result<(), Refusal>>>),
    Ended,
}

impl Sink {
    pub fn reply(sender: oneshot::Sender<Reply>) -> Self {
        Sink(State::Reply(sender))
    }

    pub fn follow(
        event_id: EventId,
        follower: Follower,
        admitted: oneshot::Sender<Result<(), Refusal>>,
    ) -> Self {
        let follower = Mutex::new(Some(follower));
        Sink(State::Voice(Arc::new(Voice { event_id, follower }), Some(admitted)))
    }

    /// Whether anybody follows.
    pub fn is_watched(&self) -> bool {
        matches!(self.0, State::Voice(..))
    }

    pub fn voice(&self) -> Option<&Arc<Voice>> {
        match &self.0 {
            State::Voice(voice, _) => Some(voice),
            State::Reply(_) | State::Ended => None,
        }
    }

    pub fn say(&self, update: impl FnOnce(EventId) -> Update) {
        if let Some(voice) = self.voice() {
            voice.say(update);
        }
    }

    /// Tells the caller that the event is in the line.
    pub fn admit(&mut self) {
        if let State::Voice(_, admitted) = &mut self.0
            && let Some(admitted) = admitted.take()
        {
            // The caller may have gone; its handle then cancels the event.
            let _ = admitted.send(Ok(()));
        }
    }

    pub fn refuse(mut self, refusal: Refusal) {
        match std::mem::replace(&mut self.0, State::Ended) {
            State::Reply(reply) => drop(reply.send(Err(refusal))),
            State::Voice(voice, admitted) => {
                voice.hang_up();
                if let Some(admitted) = admitted {
                    let _ = admitted.send(Err(refusal));
                }
            }
            State::Ended => {}
        }
    }

    /// Sends the terminal update of an event whose run started then, and takes `average` seconds.
    pub fn end(mut self, outcome: Outcome, started: Instant, average: Option<f64>) {
        self.finish(outcome, Some(started), average);
    }

    /// Sends the terminal update of an event that never ran.
    pub fn end_unstarted(mut self, outcome: Outcome) {
        self.finish(outcome, None, None);
    }

    fn finish(
        &mut self,
        outcome: Outcome,
        started: Option<Instant>,
        average_duration: Option<f64>,
    ) {
        let duration = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        match std::mem::replace(&mut self.0, State::Ended) {
            State::Reply(reply) => {
                drop(reply.send(Ok(Finished { outcome, duration, average_duration })));
            }
            State::Voice(voice, admitted) => {
                // Ended at the door: the caller still waits to hear whether it was let in.
                if let Some(admitted) = admitted {
                    let _ = admitted.send(Ok(()));
                }
                if let Some(follower) = voice.hang_up() {
                    let event_id = voice.event_id;
                    follower.send(Update::ProcessCompleted {
                        event_id,
                        outcome,
                        duration,
                        average_duration,
                    });
                }
            }
            State::Ended => {}
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !matches!(self.0, State::Ended) {
            let lost = Failure::unexpected("the event was lost: the actor that held it is gone");
            self.finish(Outcome::Failed(lost), None, None);
        }
    }
}
