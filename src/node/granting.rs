//! Permits where the line is kept: they wait there, as events do, for whoever wants them on some node.

use std::pin::pin;

use futures::future::{Either, select};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::input::Input as AgentInput;
use super::office::Office;
use super::out::Out;
use super::wire::Acquire;
use crate::cluster::message::Process;

/// Somebody there wants one, or has it already.
pub(super) fn acquire(
    office: &mut Office,
    input: &UnboundedSender<AgentInput>,
    from: Process,
    acquire: Acquire,
    out: &mut Out,
) {
    if let Some(given_up) = office.permits.begin(&from, &acquire, out) {
        wait(office, input, from, acquire, given_up);
    }
}

/// Which ones are held there, and waited for.
pub(super) fn are(
    office: &mut Office,
    input: &UnboundedSender<AgentInput>,
    from: &Process,
    held: Vec<Acquire>,
    waits: &[u64],
    out: &mut Out,
) {
    for (acquire, given_up) in office.permits.are(from, held, waits, out) {
        wait(office, input, from.clone(), acquire, given_up);
    }
}

/// Waits for one in the line, as long as somebody wants it.
fn wait(
    office: &Office,
    input: &UnboundedSender<AgentInput>,
    from: Process,
    acquire: Acquire,
    given_up: oneshot::Receiver<()>,
) {
    let (queue, input, epoch) = (office.queue.clone(), input.clone(), office.epoch);
    let Acquire { permit, concurrency_id, label, queue_timeout, slot } = acquire;
    office.thread().spawn(async move {
        let granted = async {
            match slot {
                Some(_) => queue.acquire_held(&concurrency_id, label).await,
                None => queue.acquire_as(&concurrency_id, label, queue_timeout).await,
            }
        };
        if let Either::Left((result, _)) = select(pin!(granted), given_up).await {
            // The agent ends with the process only.
            let _ = input.send(AgentInput::PermitDecided(epoch, from, permit, Box::new(result)));
        }
    });
}
