//! What stands for a listener's handler in the line: its events run on some node.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::input::Input as AgentInput;
use super::placing::{PlacedEvent, Placing, RunResult};
use crate::cluster::message::{Attempt, Epoch};
use crate::event::failure::{Failure, Lost};
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::event::output::Output;
use crate::handler::durable::Durable;
use crate::handler::erased::{ErasedHandler, HandlerFuture, HandlerOutput, take};
use crate::handler::input::OneOrMany;
use crate::handler::run_context::RunEvent;
use crate::journal::record::End;
use crate::queue::blueprint::ListenerBlueprint;
use crate::queue::elsewhere::Adopt;

/// The handler of a listener of the line. It holds its slot until its run has really stopped.
pub(super) fn handler(
    epoch: Epoch,
    listener: ListenerBlueprint,
    agent: UnboundedSender<AgentInput>,
) -> ErasedHandler {
    Arc::new(move |inputs, run| {
        let inputs = match inputs {
            OneOrMany::One(input) => vec![take::<JsonText>(input)?],
            OneOrMany::Many(inputs) => inputs.into_iter().map(take).collect::<Result<_, _>>()?,
        };
        let events: Vec<PlacedEvent> =
            inputs.into_iter().zip(run.events).map(|(input, event)| placed(input, event)).collect();
        let attempts: Vec<Attempt> = events.iter().map(PlacedEvent::attempt).collect();
        let (results, mut came) = unbounded_channel();
        let placing = Placing { listener: listener.clone(), events, results };
        let token = run.token.get_or_init(Default::default).clone();
        let (agent, is_batch) = (agent.clone(), listener.is_batch());
        let future = async move {
            let placed = agent.send(AgentInput::Place(epoch, Box::new(placing)));
            if placed.is_err() {
                return std::future::pending().await;
            }
            let interrupt = async {
                token.cancelled().await;
                for attempt in &attempts {
                    // Without an agent there are no results either.
                    let _ = agent.send(AgentInput::Interrupt(epoch, *attempt));
                }
                std::future::pending::<()>().await
            };
            let results = pin!(results_of(&attempts, &mut came));
            match select(results, pin!(interrupt)).await {
                Either::Left((results, _)) => output(&attempts, results, is_batch),
                Either::Right(((), _)) => Err(gone()),
            }
        };
        Ok(HandlerFuture::on_thread(future))
    })
}

fn placed(input: JsonText, event: &RunEvent) -> PlacedEvent {
    let durable = event.extensions.get::<Durable>();
    PlacedEvent {
        event: event.id,
        attempt: durable.map_or(1, Durable::attempt),
        input,
        session: durable.and_then(|durable| durable.session.clone()),
        user: event.user().map(Arc::from),
        adopts: event.extensions.get::<Adopt>().is_some(),
        from: durable.and_then(|durable| durable.came_to.as_ref()?.parse().ok()),
        updates: event.updates(),
    }
}

type Results = HashMap<EventId, RunResult>;

/// Waits until something is known of all. Where the line is kept elsewhere meanwhile, that is for ever: what
/// becomes of them is not said here.
async fn results_of(
    attempts: &[Attempt],
    came: &mut UnboundedReceiver<(EventId, RunResult)>,
) -> Results {
    let mut results = Results::new();
    while results.len() < attempts.len() {
        match came.recv().await {
            Some((event, result)) => results.insert(event, result),
            None => std::future::pending().await,
        };
    }
    results
}

fn output(
    attempts: &[Attempt],
    mut results: Results,
    is_batch: bool,
) -> Result<HandlerOutput, Failure> {
    let mut outputs = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let number = attempt.number;
        match results.remove(&attempt.event) {
            Some(RunResult::Ended(end)) => match (end.failure(), end.end) {
                (Some(failure), _) => return Err(failure),
                (None, End::Completed(output)) => outputs.push(output.map(Output::new)),
                // It was interrupted by its node's own rules.
                (None, End::TimedOut) => return Err(Failure::unexpected("its run took too long")),
                (None, _) => return Err(lost(Lost::MayHaveBegun, number)),
            },
            Some(RunResult::Lost(what)) => return Err(lost(what, number)),
            Some(RunResult::Stopped) | None => return Err(gone()),
        }
    }
    if is_batch {
        let missing = || Failure::unexpected("an event of the batch has no output");
        let outputs: Option<Vec<Output>> = outputs.into_iter().collect();
        return Ok(HandlerOutput::Batch(outputs.ok_or_else(missing)?));
    }
    Ok(HandlerOutput::One(outputs.pop().flatten()))
}

fn lost(what: Lost, attempt: u32) -> Failure {
    Failure::lost(what, format!("the node that ran it is gone, at attempt {attempt}"))
}

/// That of a run whose line is kept elsewhere now, which nobody sees.
fn gone() -> Failure {
    Failure::unexpected("its line is kept by another node now")
}
