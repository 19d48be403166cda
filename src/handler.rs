//! What can be a handler: async functions, blocking functions, streams and batch functions, with
//! any of the extras that a run can give.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{FutureExt, LocalBoxFuture};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::context::EventContext;
use crate::error::Failure;
use crate::event::EventId;
use crate::guarded::{Guarded, discard_payload};
use crate::output::Output;
use crate::resource::{Resource, ResourceType, Slot};
use crate::sink::{Sink, Voice};
use crate::state::{SessionState, State};
use crate::threads::Threads;
use crate::update::{Outcome, Update};

/// A function that takes an input and up to three extras: [`EventContext`], [`Slot`], [`State`].
///
/// Implemented for every `Fn(input, ..) -> Output`; not to be implemented by hand.
pub trait Handler<Input, Extras>: Clone + Send + Sync + 'static {
    /// What the function returns: a future, a result or a stream.
    type Output;

    #[doc(hidden)]
    fn call(&self, input: Input, extras: Extras) -> Self::Output;
}

macro_rules! handler {
    ($($extra:ident)*) => {
        impl<F, Input, Output, $($extra,)*> Handler<Input, ($($extra,)*)> for F
        where
            F: Fn(Input, $($extra),*) -> Output + Clone + Send + Sync + 'static,
        {
            type Output = Output;

            #[allow(non_snake_case)]
            fn call(&self, input: Input, ($($extra,)*): ($($extra,)*)) -> Output {
                self(input, $($extra),*)
            }
        }

        impl<$($extra: Extract),*> Extract for ($($extra,)*) {
            fn needs() -> Vec<ResourceType> {
                #[allow(unused_mut)]
                let mut needs = Vec::new();
                $(needs.extend($extra::needs());)*
                needs
            }

            fn takes_state() -> bool {
                false $(|| $extra::takes_state())*
            }

            #[allow(unused_variables)]
            fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
                Ok(($($extra::extract(run)?,)*))
            }
        }
    };
}

handler!();
handler!(A);
handler!(A B);
handler!(A B C);

/// What a handler can take besides its input. Sealed: [`EventContext`], [`Slot`],
/// [`State`], tuples of them.
pub trait Extract: sealed::Sealed + Sized + 'static {
    #[doc(hidden)]
    fn needs() -> Vec<ResourceType>;

    #[doc(hidden)]
    fn takes_state() -> bool {
        false
    }

    #[doc(hidden)]
    fn extract(run: &RunContext<'_>) -> Result<Self, Failure>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::EventContext {}
    impl<R> Sealed for crate::Slot<R> {}
    impl<T> Sealed for crate::State<T> {}
    impl Sealed for () {}
    impl<A> Sealed for (A,) {}
    impl<A, B> Sealed for (A, B) {}
    impl<A, B, C> Sealed for (A, B, C) {}
}

impl Extract for EventContext {
    fn needs() -> Vec<ResourceType> {
        Vec::new()
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(EventContext::of(run))
    }
}

impl<R: 'static> Extract for Slot<R> {
    fn needs() -> Vec<ResourceType> {
        vec![ResourceType::of::<R>()]
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        let resource = run.resource.and_then(|resource| resource.lend(run.slot));
        resource.ok_or_else(|| Failure::unexpected("the slot's resource is not there"))
    }
}

impl<T: Default + Send + 'static> Extract for State<T> {
    fn needs() -> Vec<ResourceType> {
        Vec::new()
    }

    fn takes_state() -> bool {
        true
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(run.session().map(|session| session.of()).unwrap_or_default())
    }
}

/// What the worker knows of a run that is about to start.
#[doc(hidden)]
pub struct RunContext<'a> {
    pub(crate) api_name: &'a Arc<str>,
    pub(crate) meter: &'a crate::meter::Meter,
    pub(crate) slot: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) riders: &'a [Rider],
    /// Made only for handlers that want it.
    pub(crate) token: &'a OnceCell<CancellationToken>,
    pub(crate) resource: Option<&'a Resource>,
    /// For a handler that blocks.
    pub(crate) threads: &'a Threads,
    /// What such a thread keeps for as long as it runs, so that its slot isn't taken for free.
    pub(crate) hold: &'a Arc<dyn Any + Send + Sync>,
    #[cfg(feature = "web")]
    pub(crate) files: &'a crate::files::Files,
}

impl RunContext<'_> {
    /// The session of the oldest event.
    pub(crate) fn session(&self) -> Option<&Arc<SessionState>> {
        self.riders.first().and_then(|rider| rider.session.as_ref())
    }
}

/// One event of a run. Its sink is gone once it has ended.
#[doc(hidden)]
#[derive(Debug)]
pub struct Rider {
    pub(crate) id: EventId,
    pub(crate) session: Option<Arc<SessionState>>,
    pub(crate) sink: Option<Sink>,
    /// How it has ended, until its client is told.
    pub(crate) outcome: Option<Outcome>,
}

impl Rider {
    /// Whether it hasn't ended yet.
    pub(crate) fn is_open(&self) -> bool {
        self.sink.is_some() && self.outcome.is_none()
    }

    pub fn voice(&self) -> Option<Arc<Voice>> {
        self.sink.as_ref()?.voice().cloned()
    }
}

/// An input of a type that only its handler knows.
#[derive(Debug)]
pub(crate) struct Input(Guarded<Box<dyn Any + Send>>);

impl Input {
    pub fn new<I: Send + 'static>(input: I) -> Self {
        Input(Guarded::new(Box::new(input)))
    }

    /// The input, if it is an `I`.
    pub fn get<I: 'static>(&self) -> Option<&I> {
        let input: &dyn Any = &**self.0;
        input.downcast_ref()
    }

    /// Takes the input out, if it is an `I`.
    pub fn downcast<I: 'static>(self) -> Option<I> {
        match self.0.into_inner().downcast() {
            Ok(input) => Some(*input),
            Err(other) => {
                drop(Guarded::new(other));
                None
            }
        }
    }
}

/// A handler at work.
pub(crate) struct Work {
    pub future: Guarded<LocalBoxFuture<'static, Result<Made, Failure>>>,
    /// Dropping the future stops the handler. Not so on a blocking thread.
    pub droppable: bool,
}

impl Work {
    /// Of a handler that stops when its future is dropped.
    pub fn droppable(future: impl Future<Output = Result<Made, Failure>> + 'static) -> Self {
        Work { future: Guarded::new(future.boxed_local()), droppable: true }
    }

    /// Of a handler on a thread of its own, which goes on whatever becomes of the future.
    pub fn on_thread(future: impl Future<Output = Result<Made, Failure>> + 'static) -> Self {
        Work { future: Guarded::new(future.boxed_local()), droppable: false }
    }
}

/// What a handler has made.
pub(crate) enum Made {
    One(Option<Output>),
    Batch(Vec<Output>),
}

/// Starts a handler on its inputs: one, or a batch, oldest first. Called by the worker.
pub(crate) type Start =
    Arc<dyn Fn(Vec1<Input>, &RunContext<'_>) -> Result<Work, Failure> + Send + Sync>;

/// One thing, without an allocation, or several.
#[derive(Debug)]
pub(crate) enum Vec1<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Vec1<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            Vec1::One(one) => std::slice::from_ref(one),
            Vec1::Many(many) => many,
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Vec1::One(one) => std::slice::from_mut(one),
            Vec1::Many(many) => many,
        }
    }
}

impl<T> IntoIterator for Vec1<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Vec1::One(one) => (Some(one), Vec::new()),
            Vec1::Many(many) => (None, many),
        };
        one.into_iter().chain(many)
    }
}

fn take<I: 'static>(input: Input) -> Result<I, Failure> {
    let input = input.downcast();
    input.ok_or_else(|| Failure::unexpected("the input is of another type than the listener's"))
}

fn take_one<I: 'static>(inputs: Vec1<Input>) -> Result<I, Failure> {
    match inputs {
        Vec1::One(input) => take(input),
        Vec1::Many(_) => Err(Failure::unexpected("a batch came to a handler of single events")),
    }
}

/// An `async fn(I, ..) -> Result<O, E>`.
pub(crate) fn start_async<F, I, X, Fut, O, E>(handler: F) -> Start
where
    F: Handler<I, X, Output = Fut>,
    I: 'static,
    X: Extract,
    Fut: Future<Output = Result<O, E>> + 'static,
    O: Serialize + Send + Sync + 'static,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let future = handler.call(take_one(inputs)?, X::extract(run)?);
        let future = async move {
            let made = future.await.map_err(Failure::of)?;
            Ok(Made::One(Some(Output::new(made))))
        };
        Ok(Work::droppable(future))
    })
}

/// A `fn(I, ..) -> Result<O, E>` that blocks its thread, on one for such.
pub(crate) fn start_blocking<F, I, X, O, E>(handler: F) -> Start
where
    F: Handler<I, X, Output = Result<O, E>>,
    I: Send + 'static,
    X: Extract + Send,
    O: Serialize + Send + Sync + 'static,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let (input, extras) = (take_one(inputs)?, X::extract(run)?);
        let handler = handler.clone();
        let (made, ended) = oneshot::channel();
        let hold = run.hold.clone();
        let begun = run.threads.run(move || {
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
                Ok(Ok(made)) => made.map(|output| Made::One(Some(output))),
                Ok(Err(payload)) => resume_unwind(payload),
                Err(_) => Err(Failure::unexpected("the handler's thread is gone")),
            }
        };
        Ok(Work::on_thread(future))
    })
}

/// A `fn(I, ..) -> Stream<Item = Result<O, E>>`: each item is a value on the way, the last one the
/// result.
pub(crate) fn start_stream<F, I, X, S, O, E>(handler: F) -> Start
where
    F: Handler<I, X, Output = S>,
    I: 'static,
    X: Extract,
    S: Stream<Item = Result<O, E>> + 'static,
    O: Serialize + Clone + Send + Sync + 'static,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let items = handler.call(take_one(inputs)?, X::extract(run)?);
        let voice = run.riders.first().and_then(Rider::voice);
        let future = async move {
            let mut items = pin!(items);
            let mut last = None;
            let mut since = Instant::now();
            while let Some(item) = items.next().await {
                let output = Output::shared(item.map_err(Failure::of)?);
                if let Some(voice) = &voice {
                    let duration = since.elapsed().as_secs_f64();
                    let output = output.share();
                    voice.say(|event_id| Update::ProcessGenerating { event_id, output, duration });
                }
                last = Some(output);
                since = Instant::now();
                // A stream that always has another item ready must not keep its thread.
                tokio::task::yield_now().await;
            }
            Ok(Made::One(last))
        };
        Ok(Work::droppable(future))
    })
}

/// An `async fn(Vec<I>, ..) -> Result<Vec<O>, E>`: one output for each input, in order.
pub(crate) fn start_batch<F, I, X, Fut, O, E>(handler: F) -> Start
where
    F: Handler<Vec<I>, X, Output = Fut>,
    I: 'static,
    X: Extract,
    Fut: Future<Output = Result<Vec<O>, E>> + 'static,
    O: Serialize + Send + Sync + 'static,
    E: fmt::Display + 'static,
{
    Arc::new(move |inputs, run| {
        let inputs = match inputs {
            Vec1::One(input) => vec![take(input)?],
            Vec1::Many(inputs) => inputs.into_iter().map(take).collect::<Result<_, _>>()?,
        };
        let future = handler.call(inputs, X::extract(run)?);
        let future = async move {
            let made = future.await.map_err(Failure::of)?;
            Ok(Made::Batch(made.into_iter().map(Output::new).collect()))
        };
        Ok(Work::droppable(future))
    })
}
