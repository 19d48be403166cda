//! Handlers with their types erased: how each kind is started.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;

use futures::future::{FutureExt, LocalBoxFuture};
use futures::{Stream, StreamExt};
use tokio::sync::oneshot;

use super::extract::{Extract, Handler};
use super::input::{Input, OneOrMany};
use super::nesting::Running;
use super::run_context::{RunContext, RunEvent};
use super::types::ListenerOutput;
use crate::clock;
use crate::event::failure::Failure;
use crate::event::guarded::{Guarded, discard_payload};
use crate::event::output::Output;
use crate::event::update::Update;

/// A handler at work.
pub(crate) struct HandlerFuture {
    pub future: Guarded<LocalBoxFuture<'static, Result<HandlerOutput, Failure>>>,
    /// Dropping the future stops the handler. Not so on a blocking thread.
    pub droppable: bool,
}

impl HandlerFuture {
    /// Of a handler that stops when its future is dropped.
    pub fn droppable(
        future: impl Future<Output = Result<HandlerOutput, Failure>> + 'static,
    ) -> Self {
        HandlerFuture { future: Guarded::new(future.boxed_local()), droppable: true }
    }

    /// Of a handler on a thread of its own, which goes on whatever becomes of the future.
    pub fn on_thread(
        future: impl Future<Output = Result<HandlerOutput, Failure>> + 'static,
    ) -> Self {
        HandlerFuture { future: Guarded::new(future.boxed_local()), droppable: false }
    }
}

/// What a handler has made.
pub(crate) enum HandlerOutput {
    One(Option<Output>),
    Batch(Vec<Output>),
}

/// Starts a handler on its inputs: one, or a batch, oldest first. Called by the worker.
pub(crate) type ErasedHandler =
    Arc<dyn Fn(OneOrMany<Input>, &RunContext<'_>) -> Result<HandlerFuture, Failure> + Send + Sync>;

pub(crate) fn take<I: 'static>(input: Input) -> Result<I, Failure> {
    let input = input.downcast();
    input.ok_or_else(|| Failure::unexpected("the input is of another type than the listener's"))
}

fn take_one<I: 'static>(inputs: OneOrMany<Input>) -> Result<I, Failure> {
    match inputs {
        OneOrMany::One(input) => take(input),
        OneOrMany::Many(_) => {
            Err(Failure::unexpected("a batch came to a handler of single events"))
        }
    }
}

/// An `async fn(I, ..) -> Result<O, E>`.
pub(crate) fn start_async<F, I, X, Fut, O, E>(handler: F) -> ErasedHandler
where
    F: Handler<I, X, Output = Fut>,
    I: 'static,
    X: Extract,
    Fut: Future<Output = Result<O, E>> + 'static,
    O: ListenerOutput,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let future = handler.call(take_one(inputs)?, X::extract(run)?);
        let future = async move {
            let made = future.await.map_err(Failure::of)?;
            Ok(HandlerOutput::One(Some(Output::new(made))))
        };
        Ok(HandlerFuture::droppable(future))
    })
}

/// A `fn(I, ..) -> Result<O, E>` that blocks its thread, on one for such.
pub(crate) fn start_blocking<F, I, X, O, E>(handler: F) -> ErasedHandler
where
    F: Handler<I, X, Output = Result<O, E>>,
    I: Send + 'static,
    X: Extract + Send,
    O: ListenerOutput,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let (input, extras) = (take_one(inputs)?, X::extract(run)?);
        let handler = handler.clone();
        let (made, ended) = oneshot::channel();
        let hold = run.hold.clone();
        let mut running = Running::of_thread();
        let begun = run.threads.run(move || {
            let _running = running.enter();
            let call = || handler.call(input, extras).map(Output::new).map_err(Failure::of);
            // The worker may have gone meanwhile.
            if let Err(Err(payload)) = made.send(catch_unwind(AssertUnwindSafe(call))) {
                discard_payload(payload);
            }
            drop(hold);
        });
        begun.map_err(|error| {
            Failure::unexpected(format!("no thread could be started for the handler: {error}"))
        })?;
        let future = async move {
            match ended.await {
                Ok(Ok(made)) => made.map(|output| HandlerOutput::One(Some(output))),
                Ok(Err(payload)) => resume_unwind(payload),
                Err(_) => Err(Failure::unexpected("the handler's thread is gone")),
            }
        };
        Ok(HandlerFuture::on_thread(future))
    })
}

/// A `fn(I, ..) -> Stream<Item = Result<O, E>>`: each item is a value on the way, the last one the
/// result.
pub(crate) fn start_stream<F, I, X, S, O, E>(handler: F) -> ErasedHandler
where
    F: Handler<I, X, Output = S>,
    I: 'static,
    X: Extract,
    S: Stream<Item = Result<O, E>> + 'static,
    O: ListenerOutput + Clone,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let items = handler.call(take_one(inputs)?, X::extract(run)?);
        let updates = run.events.first().and_then(RunEvent::updates);
        let future = async move {
            let mut items = pin!(items);
            let mut last = None;
            let mut since = clock::now();
            while let Some(item) = items.next().await {
                let output = Output::shared(item.map_err(Failure::of)?);
                if let Some(updates) = &updates {
                    let duration = clock::since(since).as_secs_f64();
                    let output = output.clone();
                    updates.send(|event_id| Update::ProcessGenerating {
                        event_id,
                        output,
                        duration,
                    });
                }
                last = Some(output);
                since = clock::now();
                // A stream that always has another item ready must not keep its thread.
                tokio::task::yield_now().await;
            }
            Ok(HandlerOutput::One(last))
        };
        Ok(HandlerFuture::droppable(future))
    })
}

/// An `async fn(Vec<I>, ..) -> Result<Vec<O>, E>`: one output for each input, in order.
pub(crate) fn start_batch<F, I, X, Fut, O, E>(handler: F) -> ErasedHandler
where
    F: Handler<Vec<I>, X, Output = Fut>,
    I: 'static,
    X: Extract,
    Fut: Future<Output = Result<Vec<O>, E>> + 'static,
    O: ListenerOutput,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let inputs = match inputs {
            OneOrMany::One(input) => vec![take(input)?],
            OneOrMany::Many(inputs) => inputs.into_iter().map(take).collect::<Result<_, _>>()?,
        };
        let future = handler.call(inputs, X::extract(run)?);
        let future = async move {
            let made = future.await.map_err(Failure::of)?;
            Ok(HandlerOutput::Batch(made.into_iter().map(Output::new).collect()))
        };
        Ok(HandlerFuture::droppable(future))
    })
}
