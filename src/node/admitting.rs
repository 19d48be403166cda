//! How whoever keeps the line lets events into it. A node that hears no answer asks again, and what it has asked may
//! come late: each time has a number, and what a node takes for a refusal is the answer to what it asked last.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::answers;
use super::input::Input as AgentInput;
use super::office::Office;
use super::out::{Out, To};
use super::tracked::Known;
use super::wire::{Admit, Message};
use crate::clock;
use crate::cluster::message::Process;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::handler::durable::Durable;
use crate::handler::input::Input;
use crate::handler::user::with_user;
use crate::scheduler::command::WhenFull;

/// How long it may take until it is known here that the journal is lost.
const DOUBT: Duration = Duration::from_millis(250);

/// An event is to be let in.
pub(super) fn asked(
    office: &mut Office,
    input: &UnboundedSender<AgentInput>,
    from: Process,
    admit: Box<Admit>,
    out: &mut Out,
) {
    match office.tracked.knows(admit.event) {
        Known::IsBeingAdmitted | Known::IsAdmitted => asked_again(office, from, &admit, out),
        Known::No if office.tracked.has_refused(&from, &admit) => {}
        Known::HasEnded | Known::No if admit.again => look(office, input, from, admit),
        Known::HasEnded => answers::find(office, input, from, admit.event),
        Known::No => admit_new(office, input, from, *admit),
    }
}

fn asked_again(office: &mut Office, from: Process, admit: &Admit, out: &mut Out) {
    if office.tracked.asks(&from, admit) {
        out.push((To::Process(from.clone()), answer(office, admit.event, admit.ask, Ok(()))));
    }
    office.tracked.follow(&from, admit.event, out);
}

/// Looks how an event has ended that may have been let in before.
fn look(office: &Office, input: &UnboundedSender<AgentInput>, from: Process, admit: Box<Admit>) {
    let (queue, input, epoch) = (office.queue.clone(), input.clone(), office.epoch);
    office.thread().spawn(async move {
        let _ = input.send(match answers::end_of(&queue, admit.event).await {
            Some(ended) => AgentInput::Found(epoch, from, admit.event, answers::said_of(ended)),
            None => AgentInput::Admits(epoch, from, admit),
        });
    });
}

/// There is no record of its end.
pub(super) fn looked(
    office: &mut Office,
    input: &UnboundedSender<AgentInput>,
    from: Process,
    admit: Admit,
    out: &mut Out,
) {
    match office.tracked.knows(admit.event) {
        // It was asked twice.
        Known::IsBeingAdmitted | Known::IsAdmitted => asked_again(office, from, &admit, out),
        Known::No if office.tracked.has_refused(&from, &admit) => {}
        // Of one that has ended, no record is left, as where it was never let in.
        Known::HasEnded | Known::No => admit_new(office, input, from, admit),
    }
}

fn admit_new(
    office: &mut Office,
    input: &UnboundedSender<AgentInput>,
    from: Process,
    admit: Admit,
) {
    let (input, epoch, event) = (input.clone(), office.epoch, admit.event);
    let follower = office.tracked.begin(from.clone(), &admit);
    let Some(listener_ref) = office.queue.inner().listener_ref(&admit.listener).cloned() else {
        let reason = format!("the node that keeps the line has no listener {:?}", admit.listener);
        let result = Err(Refusal::NotRecorded { reason, full: false });
        let _ = input.send(AgentInput::Admitted(epoch, event, result));
        return;
    };
    let when_full = if admit.waits { WhenFull::Wait } else { WhenFull::Refuse };
    let start = admit.not_before.and_then(clock::from_unix_millis);
    let mut durable = Durable::new(admit.input.clone());
    (durable.session, durable.key) = (admit.session, admit.key);
    (durable.webhook, durable.not_before) = (admit.webhook, admit.not_before);
    durable.came_to = Some(from.to_string().into());
    let given = Input::new(admit.input).with(durable);
    let given = with_user(given, admit.user);
    office.thread().spawn(async move {
        let result = listener_ref.admit_at(event, given, None, follower, when_full, start).await;
        if matches!(result, Err(Refusal::NotRecorded { full: false, .. })) {
            // A journal that is lost says so of what may be kept all the same; whether it is lost, shows at once.
            tokio::time::sleep(DOUBT).await;
        }
        // The agent ends with the process only.
        let _ = input.send(AgentInput::Admitted(epoch, event, result));
    });
}

/// An event was let in, or not.
pub(super) fn decided(
    office: &mut Office,
    event: EventId,
    result: Result<(), Refusal>,
    out: &mut Out,
) {
    if matches!(result, Err(Refusal::NotRecorded { .. })) && office.is_lost() {
        // Whoever keeps the line next knows.
        return;
    }
    let asking = office.tracked.decided(event, result.is_ok(), out);
    for (process, ask) in asking {
        out.push((To::Process(process), answer(office, event, ask, result.clone())));
    }
}

fn answer(office: &Office, event: EventId, ask: u64, result: Result<(), Refusal>) -> Message {
    Message::Admitted { epoch: office.epoch, event, ask, result }
}
