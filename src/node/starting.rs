//! A run on its way to its handler, and what that says on its way back: on a thread apart, since reading and
//! writing values is the service's code.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::input::{Input as AgentInput, Listener};
use super::wire::{EventEnd, OrderedEvent, Said, end_of};
use crate::actors::messages::{Admit, AdmitTogether, CancelOf, Job, Submit};
use crate::clock;
use crate::cluster::message::Attempt;
use crate::delivery::bounds::UNREAD;
use crate::delivery::outbox::Outbox;
use crate::delivery::sender::{EventSender, Follower};
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::{Outcome, Update};
use crate::handler::durable::Durable;
use crate::handler::input::Input;
use crate::handler::session_state::SessionState;
use crate::handler::user::with_user;
use crate::journal::record::End;
use crate::scheduler::command::WhenFull;

/// How many updates of an event are passed on at once, and after that, how often one is, and how many bytes of
/// them a second: what a handler says faster than that is coalesced as for a slow reader.
const BURST: u32 = 128;
const PACE: Duration = Duration::from_millis(2);
const BYTES: f64 = 16e6;

/// Says that a run has really stopped, when it is dropped with what its handler was given.
#[derive(Debug)]
struct Running {
    attempt: Attempt,
    input: UnboundedSender<AgentInput>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The agent ends with the process only.
        let _ = self.input.send(AgentInput::RunOver(self.attempt));
    }
}

/// A run that is about to start.
pub(super) struct Starting {
    /// The one that stands for it.
    pub attempt: Attempt,
    pub listener: Listener,
    /// With its input as it was submitted here, if it was.
    pub events: Vec<(OrderedEvent, Option<Input>, Option<Arc<SessionState>>)>,
    pub input: UnboundedSender<AgentInput>,
    /// It isn't to run any more. Set before its events are cancelled.
    pub is_stopped: Arc<AtomicBool>,
}

impl Starting {
    pub fn start(self) {
        let Starting { attempt, listener, events, input, is_stopped } = self;
        let running = Arc::new(Running { attempt, input: input.clone() });
        let mut admits = Vec::with_capacity(events.len());
        let mut follow = Vec::with_capacity(events.len());
        let ids: Vec<EventId> = events.iter().map(|(event, ..)| event.event).collect();
        for (event, given, session) in events {
            let read = match given {
                Some(given) => Ok(given),
                None => listener.durability.read_input(&event.input),
            };
            let given = match read {
                Ok(given) => given,
                Err(why) => {
                    let _ = input.send(AgentInput::RunFailed(attempt, why));
                    return;
                }
            };
            let durable = Durable::new(event.input.clone()).recovered(event.attempt);
            let given = give(given, durable).with(running.clone());
            let given = with_user(given, event.user.clone());
            let outbox = Arc::new(Outbox::new(UNREAD));
            let (id, follower) = (event.event, Follower::Outbox(outbox.clone()));
            let (admit, admitted) = oneshot::channel();
            let sender = EventSender::follow(id, follower, admit);
            let ordered = (attempt, event.attempt, id);
            follow.push(pass_on(ordered, outbox, admitted, input.clone()));
            let job = Box::new(Job { id, session, input: given, sender });
            let submit = Submit { job, when_full: WhenFull::Wait, not_before: None };
            admits.push(Admit { listener: listener.lane, submit });
        }
        drop(running);
        if is_stopped.load(SeqCst) {
            let why = "it was stopped before it started".into();
            let _ = input.send(AgentInput::RunFailed(attempt, why));
            return;
        }
        listener.supervisor.do_send(AdmitTogether(admits));
        // Whoever has stopped it just now may have done so before that.
        if is_stopped.load(SeqCst) {
            for id in ids {
                listener.supervisor.do_send(CancelOf { listener: listener.lane, id });
            }
        }
        for updates in follow {
            actix::spawn(updates);
        }
    }
}

/// The input with what is known of its attempt.
fn give(mut input: Input, durable: Durable) -> Input {
    if input.given::<Durable>().is_some() {
        input.change(|it: &mut Durable| *it = durable);
        return input;
    }
    input.with(durable)
}

/// What the handler says of an event, until its end.
async fn pass_on(
    (attempt, number, event): (Attempt, u32, EventId),
    outbox: Arc<Outbox>,
    admitted: oneshot::Receiver<Result<(), Refusal>>,
    input: UnboundedSender<AgentInput>,
) {
    let mut admitted = Some(admitted);
    let mut due = clock::now() - BURST * PACE;
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(read) = outbox.poll_next(cx) {
                return Poll::Ready(Ok(read.update));
            }
            if let Some(waiting) = &mut admitted
                && let Poll::Ready(answer) = Pin::new(waiting).poll(cx)
            {
                admitted = None;
                if let Ok(Err(refusal)) = answer {
                    return Poll::Ready(Err(refusal));
                }
            }
            Poll::Pending
        });
        let update = match next.await {
            Ok(update) => update,
            // As where its slots can't have their resource: it gets no updates then.
            Err(refusal) => {
                let end = End::Failed(Failure::unexpected(refusal.to_string()));
                let end = EventEnd { event, attempt: number, end, transient: None };
                let _ = input.send(AgentInput::RunEnded { attempt, end: Box::new(end) });
                return;
            }
        };
        let mut bytes = 0;
        let sent = match update {
            // Who keeps the line says these.
            Update::Estimation { .. } | Update::ProcessStarts { .. } => Ok(()),
            Update::ProcessCompleted { outcome, .. } => {
                let transient = match &outcome {
                    Outcome::Failed(failure) => failure.transient.as_deref().copied(),
                    _ => None,
                };
                let end = EventEnd { event, attempt: number, end: end_of(outcome), transient };
                let _ = input.send(AgentInput::RunEnded { attempt, end: Box::new(end) });
                return;
            }
            update => {
                let said = Said::of(update);
                if let Said::Generating { output, .. } = &said {
                    bytes = output.get().len();
                }
                input.send(AgentInput::RunSaid { attempt, event, said: Box::new(said) })
            }
        };
        if sent.is_err() {
            return;
        }
        let now = clock::now();
        let pause = PACE.max(Duration::from_secs_f64(bytes as f64 / BYTES));
        due = due.max(now - BURST * PACE) + pause;
        if due > now {
            tokio::time::sleep(due - now).await;
        }
    }
}
