//! What a user declares: a named handler, its concurrency id and its limits.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::allow::Allow;
use super::declarations::DeclaredListener;
use super::error::StartError;
use crate::handler::backoff::Backoff;
use crate::handler::codec::{InputType, OutputType};
use crate::handler::durable::{Codec, OnCrash};
use crate::handler::erased::{
    ErasedHandler, start_async, start_batch, start_blocking, start_stream,
};
use crate::handler::extensions::Extensions;
use crate::handler::extract::{Extract, Handler};
use crate::handler::needs::Needs;
use crate::handler::types::{ListenerInput, ListenerOutput};
use crate::handler::validator::{Validate, Validator};
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::BatchRules;

/// The default maximum of events in a batch, as Gradio's.
const BATCH: usize = 4;

/// An event listener: a name, a handler, and how its events queue. `I` is what the handler takes,
/// `O` what it gives; both follow from the handler.
///
/// ```
/// use now_serving::Listener;
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Prompt { text: String, steps: u32 }
///
/// async fn generate(prompt: Prompt) -> Result<String, String> {
///     Ok(format!("{} in {} steps", prompt.text, prompt.steps))
/// }
///
/// let listener = Listener::new("generate", generate)
///     .concurrency_id("gpu_queue")
///     .concurrency_limit(2);
/// ```
pub struct Listener<I, O> {
    declared: DeclaredListener,
    /// Known until the queue takes it: an option may require a trait of them.
    types: PhantomData<fn(I) -> O>,
}

/// What the extras of a handler ask of its queue.
fn needs<X: Extract>() -> Needs {
    let mut needs = Needs::default();
    X::needs(&mut needs);
    needs
}

impl<I, O> Listener<I, O> {
    /// A listener with an async handler: `async fn(I) -> Result<O, E>`, with an
    /// [`EventContext`](crate::EventContext), a [`Slot`](crate::Slot), a
    /// [`State`](crate::State), a [`Data`](crate::Data), and over HTTP a `Request` and an `EventData` as
    /// further arguments, in any order.
    ///
    /// `api_name` stands in URLs: letters, digits, `_`, `-` and `.`. The handler runs on a thread
    /// that it shares with others, so it must not block; see [`Listener::blocking`]. Its future
    /// needn't be `Send`.
    pub fn new<F, X, Fut, E>(api_name: impl Into<String>, handler: F) -> Self
    where
        F: Handler<I, X, Output = Fut>,
        I: ListenerInput,
        X: Extract,
        Fut: Future<Output = Result<O, E>> + 'static,
        O: ListenerOutput,
        E: fmt::Display + 'static,
    {
        let types = (InputType::of::<I>(), OutputType::of::<O>());
        Self::with(api_name.into(), start_async(handler), needs::<X>(), types)
    }

    /// A listener with a blocking handler: `fn(I) -> Result<O, E>`, with the same further arguments
    /// as [`Listener::new`]. It runs on a thread of its own and keeps its slot until it returns;
    /// a cancelled one should notice by [`EventContext::is_cancelled`].
    ///
    /// There are as many such threads as the limits let run. An event whose thread the system doesn't
    /// give fails.
    ///
    /// [`EventContext::is_cancelled`]: crate::EventContext::is_cancelled
    pub fn blocking<F, X, E>(api_name: impl Into<String>, handler: F) -> Self
    where
        F: Handler<I, X, Output = Result<O, E>>,
        I: ListenerInput,
        X: Extract + Send,
        O: ListenerOutput,
        E: fmt::Display + 'static,
    {
        let types = (InputType::of::<I>(), OutputType::of::<O>());
        Self::with(api_name.into(), start_blocking(handler), needs::<X>(), types)
    }

    /// A listener whose handler gives a stream: `fn(I) -> impl Stream<Item = Result<O, E>>`, with
    /// the same further arguments as [`Listener::new`]. Each item reaches the client at once; the
    /// last one is the result. As Gradio's generator functions.
    ///
    /// ```
    /// use futures::{Stream, stream};
    /// use now_serving::Listener;
    ///
    /// fn count(n: u32) -> impl Stream<Item = Result<u32, String>> {
    ///     stream::iter((0..n).map(Ok))
    /// }
    ///
    /// let listener = Listener::stream("count", count);
    /// ```
    pub fn stream<F, X, S, E>(api_name: impl Into<String>, handler: F) -> Self
    where
        F: Handler<I, X, Output = S>,
        I: ListenerInput,
        X: Extract,
        S: Stream<Item = Result<O, E>> + 'static,
        O: ListenerOutput + Clone,
        E: fmt::Display + 'static,
    {
        let types = (InputType::of::<I>(), OutputType::of::<O>());
        let mut listener = Self::with(api_name.into(), start_stream(handler), needs::<X>(), types);
        listener.declared.generator = true;
        listener
    }

    /// A listener whose handler takes several events at once:
    /// `async fn(Vec<I>) -> Result<Vec<O>, E>`, one output for each input, in order. A batch holds
    /// up to [`max_batch_size`](Listener::max_batch_size) events of this listener, oldest first,
    /// and takes one slot.
    pub fn batch<F, X, Fut, E>(api_name: impl Into<String>, handler: F) -> Self
    where
        F: Handler<Vec<I>, X, Output = Fut>,
        I: ListenerInput,
        X: Extract,
        Fut: Future<Output = Result<Vec<O>, E>> + 'static,
        O: ListenerOutput,
        E: fmt::Display + 'static,
    {
        let types = (InputType::of::<I>(), OutputType::of::<O>());
        let mut listener = Self::with(api_name.into(), start_batch(handler), needs::<X>(), types);
        let batch = BatchRules { max_size: BATCH, max_wait: Duration::ZERO };
        listener.declared.batch = Some(batch);
        listener
    }

    fn with(
        api_name: String,
        start: ErasedHandler,
        needs: Needs,
        (input, output): (InputType, OutputType),
    ) -> Self {
        let declared = DeclaredListener {
            api_name: api_name.into(),
            concurrency_id: None,
            limit: None,
            max_size: None,
            time_limit: None,
            queue_timeout: None,
            batch: None,
            needs,
            start,
            queued: true,
            generator: false,
            validator: None,
            allow: None,
            own_arbiter: false,
            spread: false,
            codec: None,
            max_attempts: None,
            on_crash: None,
            backoff: None,
            input,
            output,
            extensions: Extensions::default(),
            contradiction: None,
        };
        Listener { declared, types: PhantomData }
    }

    /// Its declaration for the queue, with its types erased.
    pub(crate) fn into_declared(self) -> DeclaredListener {
        self.declared
    }

    /// Names the queue that this listener shares with every listener of the same id. Without, it
    /// has one of its own, named as itself.
    pub fn concurrency_id(mut self, id: impl Into<String>) -> Self {
        self.declared.concurrency_id = Some(id.into());
        self
    }

    /// How many events of the concurrency id run at once: a number of 1 or more, or `None` for
    /// unlimited.
    ///
    /// Of several listeners of one id, those that declare none don't count and the lowest limit
    /// holds. Gradio differs: there, declaring none counts as declaring the default.
    pub fn concurrency_limit(mut self, limit: impl Into<Limit>) -> Self {
        self.declared.limit = Some(limit.into());
        self
    }

    /// The maximum of events in the wait queue of the concurrency id; by default, there is no bound
    /// but the queue's own, [`QueueBuilder::max_size`](crate::QueueBuilder::max_size). Of several
    /// listeners of one id, those that declare none don't count and the lowest holds.
    pub fn max_size(mut self, events: usize) -> Self {
        self.declared.max_size = Some(events);
        self
    }

    /// How long a run may take; after that its events end as timed out. Without, for ever.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.declared.time_limit = Some(limit);
        self
    }

    /// How long an event may wait in the wait queue; after that it ends as timed out. Without, for ever.
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.declared.queue_timeout = Some(timeout);
        self
    }

    /// Gives its concurrency id a thread of its own, so that what keeps the thread for long delays
    /// nobody else. Otherwise the id shares one with others; see
    /// [`QueueBuilder::arbiters`](crate::QueueBuilder::arbiters). Asked for by one listener, it holds
    /// for all of the id.
    pub fn own_arbiter(mut self) -> Self {
        self.declared.own_arbiter = true;
        self
    }

    /// Spreads the slots of its concurrency id over several threads, so that async handlers that
    /// compute run side by side. Otherwise those of one id take turns on one thread, each going on
    /// while the others await.
    ///
    /// A slot stays on its thread, with its [`Slot`](crate::Slot) resource, and nothing of a handler
    /// moves to another: its future and the resource still needn't be `Send`. The threads are further
    /// ones, as many as [`QueueBuilder::arbiters`](crate::QueueBuilder::arbiters) says (by default one
    /// a core), shared by all ids that are spread. So a queue answers and cancels while handlers
    /// compute; what is cancelled still stops at its next await. With more slots than threads, slots
    /// share one.
    ///
    /// Starting an event on another thread costs some microseconds, which is lost on handlers that
    /// only await. Blocking handlers ([`Listener::blocking`]) have threads of their own already.
    ///
    /// Asked for by one listener, it holds for all of the id. An id with a thread of its own can't be
    /// spread: `start()` refuses [`Listener::own_arbiter`] beside it. With `arbiters(0)` there is one
    /// thread for everything, and this has no effect.
    ///
    /// ```
    /// use now_serving::{Listener, Queue};
    ///
    /// async fn count_primes(below: u32) -> Result<usize, String> {
    ///     let is_prime = |n: &u32| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d > 0);
    ///     Ok((2..below).filter(is_prime).count())
    /// }
    ///
    /// # actix::System::new().block_on(async {
    /// let queue = Queue::builder()
    ///     .listener(Listener::new("count_primes", count_primes).concurrency_limit(2).spread())
    ///     .start()
    ///     .unwrap();
    /// // On two cores, both take as long as one.
    /// let (few, many) = futures::join!(
    ///     queue.call("count_primes", 100u32),
    ///     queue.call("count_primes", 1000u32),
    /// );
    /// assert_eq!((few, many), (Ok(25usize), Ok(168usize)));
    /// # });
    /// ```
    pub fn spread(mut self) -> Self {
        self.declared.spread = true;
        self
    }

    /// Records its events in the queue's journal (`QueueBuilder::journal`),
    /// so that they outlive the process:
    ///
    /// - An event is on record before its caller hears that it was accepted, and so is its end before
    ///   its client hears of that. An event that was accepted has exactly one end, whatever has died
    ///   meanwhile; of several the first on record counts.
    /// - What waits when the process ends waits again after the next start, in its order. What ran may
    ///   start again: see [`Listener::on_crash`], [`Listener::max_attempts`] and
    ///   [`EventContext::attempt`](crate::EventContext::attempt).
    /// - [`Queue::shutdown`](crate::Queue::shutdown) leaves waiting events on record; whoever follows
    ///   them hears [`Outcome::Stopped`](crate::Outcome::Stopped).
    ///
    /// The input is written as JSON by its `Serialize` and must be read again by its `Deserialize`, by a
    /// later version of the service too; so must the output. A [`State`](crate::State) isn't recorded: it
    /// begins anew. `start()` refuses a durable listener where the queue has no journal.
    ///
    /// ```no_run
    /// # #[cfg(feature = "journal")]
    /// # actix::System::new().block_on(async {
    /// use now_serving::{Listener, Queue, Sqlite};
    ///
    /// let render = async |scene: String| Ok::<_, String>(scene.to_uppercase());
    /// let queue = Queue::builder()
    ///     .journal(Sqlite::open("events.db")?)
    ///     .listener(Listener::new("render", render).durable())
    ///     .start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn durable(mut self) -> Self
    where
        I: ListenerInput + Serialize,
        O: ListenerOutput + DeserializeOwned,
    {
        self.declared.codec = Some(Codec::of::<I, O>());
        self
    }

    /// How often an event may start, the first time counted (default: 3). Only for
    /// [`Listener::durable`] ones. What the last attempt ends with is the event's end; a process that
    /// ended during it makes the event fail.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.declared.max_attempts = Some(attempts);
        self
    }

    /// What becomes of an event whose process ends while its handler runs (default:
    /// [`OnCrash::Retry`]). Only for [`Listener::durable`] ones.
    pub fn on_crash(mut self, on_crash: OnCrash) -> Self {
        self.declared.on_crash = Some(on_crash);
        self
    }

    /// How long an event waits that is tried again because its handler failed with
    /// [`UserError::transient`](crate::UserError::transient). It holds no slot meanwhile and blocks
    /// nobody. Without, only the pause that [`UserError::retry_after`](crate::UserError::retry_after)
    /// gives counts. Only for [`Listener::durable`] ones.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.declared.backoff = Some(backoff);
        self
    }

    /// Validates each input before its event is admitted to the wait queue, and refuses it with a
    /// message for each parameter that is wrong. As Gradio's `validator`. It must be quick: it runs
    /// on the thread of the listener's actor. `T` is the listener's input. A second argument is the user
    /// whose event it is, as [`EventContext::user`](crate::EventContext::user) gives it.
    ///
    /// ```
    /// use now_serving::{Listener, Validation};
    ///
    /// fn check(steps: &u32, user: Option<&str>) -> Validation {
    ///     let max = if user.is_some() { 100 } else { 10 };
    ///     Validation::new().check("steps", *steps <= max, format!("At most {max}."))
    /// }
    ///
    /// let paint = async |steps: u32| Ok::<_, String>(steps);
    /// let listener = Listener::new("paint", paint).validator(check);
    /// ```
    pub fn validator<T: Send + 'static, X>(mut self, check: impl Validate<T, X>) -> Self {
        self.declared.validator = Some(Validator::new(check));
        self
    }

    /// Lets only those users call it for whom the function returns true. Others are refused before
    /// anything else: 403 over HTTP, before the input is read, a kept result is given, the validator runs
    /// or a place is taken; in process [`SubmitError::Forbidden`](crate::SubmitError::Forbidden).
    ///
    /// Over HTTP without a login the user is `None`. An in-process call is asked about where it is in a
    /// user's name ([`Queue::as_user`](crate::Queue::as_user)); otherwise it is the service's own, and may.
    /// Whoever was let in stays in, whatever the function says later. It runs for each call, on the
    /// caller's thread, so it must be quick; where it panics, the call is refused.
    ///
    /// ```
    /// use now_serving::Listener;
    ///
    /// let train = async |epochs: u32| Ok::<_, String>(epochs);
    /// let listener = Listener::new("train", train).allow(|user| user == Some("ada"));
    /// ```
    pub fn allow(mut self, allow: impl Fn(Option<&str>) -> bool + Send + Sync + 'static) -> Self {
        self.declared.allow = Some(Allow::new(allow));
        self
    }

    /// Whether its events wait in a queue (default: yes). With `false` it runs every event at once,
    /// has no limit and shares no concurrency id, and Gradio's clients call it by
    /// `run/{api_name}`: for quick things only. As Gradio's `queue`.
    pub fn queue(mut self, queued: bool) -> Self {
        self.declared.queued = queued;
        self
    }

    /// The maximum of events in a batch (default: 4, as Gradio's). Only for [`Listener::batch`].
    pub fn max_batch_size(mut self, events: usize) -> Self {
        match &mut self.declared.batch {
            Some(batch) => batch.max_size = events,
            None => self.refuse_batch_option("max_batch_size"),
        }
        self
    }

    /// How long the first event of a batch waits, with a slot free, for others to fill it
    /// (default: not at all). Others may pass meanwhile. Only for [`Listener::batch`].
    pub fn max_batch_wait(mut self, wait: Duration) -> Self {
        match &mut self.declared.batch {
            Some(batch) => batch.max_wait = wait,
            None => self.refuse_batch_option("max_batch_wait"),
        }
        self
    }
}

impl<I, O> Listener<I, O> {
    /// Its declaration, for options of the layers above the core.
    pub(crate) fn declared_mut(&mut self) -> &mut DeclaredListener {
        &mut self.declared
    }

    fn refuse_batch_option(&mut self, option: &'static str) {
        let listener = self.declared.api_name.to_string();
        self.declared.contradict(StartError::NotABatch { listener, option });
    }
}

impl<I, O> fmt::Debug for Listener<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.declared.fmt(f)
    }
}
