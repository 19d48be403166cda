//! How a slot's resource is built, checked, made clean and closed.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, LocalBoxFuture};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::needs::NamedType;
use super::slot::Resource;
use crate::event::guarded::discard;
use crate::logging::warn;

/// How long a check may take; longer is a veto.
const CHECK: Duration = Duration::from_secs(5);

/// How long a reset may take; longer has failed.
const RESET: Duration = Duration::from_secs(10);

/// How long a resource may take to close before it is dropped.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

/// How long all slots may be unavailable before new events are refused, by default.
const UNAVAILABLE_AFTER: Duration = Duration::from_secs(30);

type Build<R> = dyn Fn(usize) -> LocalBoxFuture<'static, Result<R, String>> + Send + Sync;

type Tend<R> = dyn for<'a> Fn(&'a mut R) -> LocalBoxFuture<'a, Result<(), String>> + Send + Sync;

type Close<R> = dyn Fn(R) -> LocalBoxFuture<'static, ()> + Send + Sync;

/// How the slots of a concurrency id come by what they own, and what becomes of it. For
/// [`QueueBuilder::slot_resource`](crate::QueueBuilder::slot_resource).
///
/// Everything here runs on the slot's worker, on the thread where it runs handlers, and while no
/// handler has the resource. Only building it is required:
///
/// ```
/// use now_serving::{Listener, Queue, Slot, SlotResource};
///
/// struct Gpu { index: usize, scratch: Vec<f32> }
///
/// impl Gpu {
///     async fn open(index: usize) -> Result<Gpu, String> {
///         Ok(Gpu { index, scratch: Vec::new() })
///     }
///
///     async fn is_alive(&mut self) -> bool { true }
///
///     async fn clear(&mut self) -> Result<(), String> {
///         self.scratch.clear();
///         Ok(())
///     }
///
///     async fn free(self) {}
/// }
///
/// async fn paint(prompt: String, gpu: Slot<Gpu>) -> Result<String, String> {
///     Ok(format!("{prompt} on GPU {}", gpu.index))
/// }
///
/// # actix::System::new().block_on(async {
/// let gpus = SlotResource::new(Gpu::open)
///     .check(async |gpu: &mut Gpu| gpu.is_alive().await)
///     .reset(async |gpu: &mut Gpu| gpu.clear().await)
///     .close(Gpu::free);
/// let queue = Queue::builder()
///     .listener(Listener::new("paint", paint).concurrency_id("gpu_queue").concurrency_limit(2))
///     .slot_resource("gpu_queue", gpus)
///     .start()
///     .unwrap();
/// let picture: String = queue.call("paint", "a fox".to_string()).await.unwrap();
/// assert!(picture.starts_with("a fox on GPU "));
/// # queue.shutdown(std::time::Duration::from_secs(1)).await;
/// # });
/// ```
#[must_use = "it does nothing before QueueBuilder::slot_resource takes it"]
pub struct SlotResource<R> {
    build: Box<Build<R>>,
    check: Option<Box<Tend<R>>>,
    reset: Option<Box<Tend<R>>>,
    close: Option<Box<Close<R>>>,
    unavailable_after: Duration,
}

impl<R: 'static> SlotResource<R> {
    /// A resource that is built so, from the number of the slot. May take as long as it must: a
    /// slot takes no events meanwhile.
    ///
    /// A build that fails or panics is logged and tried again, after 100 ms at first and then after
    /// twice as long each time, up to 30 s.
    pub fn new<F, Fut, E>(build: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + 'static,
        E: fmt::Display,
    {
        SlotResource {
            build: Box::new(move |slot| {
                let resource = build(slot);
                async move { resource.await.map_err(|error| error.to_string()) }.boxed_local()
            }),
            check: None,
            reset: None,
            close: None,
            unavailable_after: UNAVAILABLE_AFTER,
        }
    }

    /// Checks whether the resource is still good: once when it has been built, and each time before
    /// it is lent. So a child process that has died while its slot was idle fails no event.
    ///
    /// After a `false`, a panic, or 5 seconds without an answer the resource is closed and the slot
    /// builds another. The event that was to get it has not started, keeps its place, and runs on
    /// the first slot that is ready. Its `time_limit` counts the time of the check.
    pub fn check<F>(mut self, check: F) -> Self
    where
        F: AsyncFn(&mut R) -> bool + Send + Sync + 'static,
    {
        let check = Arc::new(check);
        self.check = Some(tend(move |resource: &mut R| {
            let check = check.clone();
            let verdict = async move {
                if check(resource).await { Ok(()) } else { Err("it is not good any more".into()) }
            };
            verdict.boxed_local()
        }));
        self
    }

    /// Makes the resource clean again after a run that was cut short (see [`Slot`](crate::Slot)),
    /// where building another would cost too much. Without, another is built.
    ///
    /// After an error, a panic, or 10 seconds the resource is closed and the slot builds another.
    /// What a handler has discarded is never made clean.
    pub fn reset<F, E>(mut self, reset: F) -> Self
    where
        F: AsyncFn(&mut R) -> Result<(), E> + Send + Sync + 'static,
        E: fmt::Display,
    {
        let reset = Arc::new(reset);
        self.reset = Some(tend(move |resource: &mut R| {
            let reset = reset.clone();
            async move { reset(resource).await.map_err(|error| error.to_string()) }.boxed_local()
        }));
        self
    }

    /// Closes the resource, where dropping it isn't enough: ends a process, closes a connection
    /// properly. Done when its slot is closed, before another is built in its place, and by
    /// [`Queue::shutdown`](crate::Queue::shutdown), which waits for it. After 5 seconds it is
    /// dropped half-way. The slot takes no events meanwhile: what may hang should be killed here, not
    /// waited for.
    ///
    /// Not done for a resource whose guard outlives its run, nor when a queue is dropped without a
    /// shutdown: those are only dropped.
    pub fn close<F>(mut self, close: F) -> Self
    where
        F: AsyncFn(R) + Send + Sync + 'static,
    {
        let close = Arc::new(close);
        self.close = Some(Box::new(move |resource| {
            let close = close.clone();
            async move { close(resource).await }.boxed_local()
        }));
        self
    }

    /// Once no slot has had its resource for this long (default: 30 seconds), new events are refused
    /// with [`Refusal::Unavailable`](crate::Refusal::Unavailable), over HTTP a 503 with a
    /// `Retry-After`, until one has. Counts from the first build that fails while no other slot is
    /// there; a build that is merely slow is no failure. Events that wait already stay, up to their
    /// `queue_timeout`.
    pub fn unavailable_after(mut self, time: Duration) -> Self {
        self.unavailable_after = time;
        self
    }
}

/// Fixes the lifetimes for type inference.
fn tend<R, F>(tend: F) -> Box<Tend<R>>
where
    F: for<'a> Fn(&'a mut R) -> LocalBoxFuture<'a, Result<(), String>> + Send + Sync + 'static,
{
    Box::new(tend)
}

impl<R> fmt::Debug for SlotResource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotResource")
            .field("check", &self.check.is_some())
            .field("reset", &self.reset.is_some())
            .field("close", &self.close.is_some())
            .field("unavailable_after", &self.unavailable_after)
            .finish_non_exhaustive()
    }
}

type Tended = (Resource, Result<(), String>);

type BuildAny = dyn Fn(usize) -> LocalBoxFuture<'static, Result<Resource, String>> + Send + Sync;

type TendAny = dyn Fn(Resource, CancellationToken) -> LocalBoxFuture<'static, Tended> + Send + Sync;

type CloseAny = dyn Fn(Resource) -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync;

/// A [`SlotResource`] of a type that only its handlers know.
#[derive(Clone)]
pub(crate) struct Factory {
    pub built: NamedType,
    pub unavailable_after: Duration,
    build: Arc<BuildAny>,
    check: Option<Arc<TendAny>>,
    reset: Option<Arc<TendAny>>,
    close: Arc<CloseAny>,
}

impl<R: 'static> From<SlotResource<R>> for Factory {
    fn from(resource: SlotResource<R>) -> Self {
        let SlotResource { build, check, reset, close, unavailable_after } = resource;
        let close = close.map(Arc::<Close<R>>::from);
        Factory {
            built: NamedType::of::<R>(),
            unavailable_after,
            build: Arc::new(move |slot| {
                let resource = build(slot);
                async move { resource.await.map(Resource::new) }.boxed_local()
            }),
            check: check.map(|check| tend_any(check, CHECK)),
            reset: reset.map(|reset| tend_any(reset, RESET)),
            close: Arc::new(move |resource| close_any(resource, close.clone()).boxed_local()),
        }
    }
}

/// The resource survives whatever becomes of the work on it, so that it can be closed.
fn tend_any<R: 'static>(tend: Box<Tend<R>>, limit: Duration) -> Arc<TendAny> {
    let tend: Arc<Tend<R>> = tend.into();
    Arc::new(move |resource, halt| {
        let tend = tend.clone();
        let work = async move {
            let Some(mut inner) = resource.take::<R>() else {
                return (resource, Err("it has not come back".into()));
            };
            let work = AssertUnwindSafe(async { tend(&mut inner).await }).catch_unwind();
            let done = match halt.run_until_cancelled(timeout(limit, work)).await {
                None => Err("the slot is closed".into()),
                Some(Err(_)) => Err(format!("no answer within {limit:?}")),
                Some(Ok(Err(_))) => Err("it panicked".into()),
                Some(Ok(Ok(done))) => done,
            };
            resource.put(inner);
            (resource, done)
        };
        work.boxed_local()
    })
}

async fn close_any<R: 'static>(
    resource: Resource,
    close: Option<Arc<Close<R>>>,
) -> Result<(), String> {
    let Some(inner) = resource.take::<R>() else { return Ok(()) };
    let Some(close) = close else {
        discard(inner);
        return Ok(());
    };
    let work = AssertUnwindSafe(async move { close(inner).await }).catch_unwind();
    match timeout(CLOSE, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("it panicked".into()),
        Err(_) => Err(format!("not done after {CLOSE:?}")),
    }
}

/// A resource that is of no more use as it is.
pub(crate) struct Spoilt {
    pub resource: Resource,
    /// A reset may make it good again.
    pub resettable: bool,
}

impl Factory {
    /// Whether resources are checked before they are lent.
    pub fn checks(&self) -> bool {
        self.check.is_some()
    }

    /// Checks whether a resource is good.
    pub async fn check(&self, resource: Resource, halt: CancellationToken) -> Tended {
        match &self.check {
            Some(check) => check(resource, halt).await,
            None => (resource, Ok(())),
        }
    }

    /// Closes and drops a resource. `whose` names the slot in the log.
    pub async fn close(&self, resource: Resource, whose: &str) {
        if let Err(trouble) = (self.close)(resource).await {
            warn!("{whose}: closing the resource: {trouble}");
        }
    }

    /// Makes the spoilt resource good again or builds another. When `halt` is cancelled meanwhile it
    /// gives up, and has closed what there was.
    pub async fn prepare(
        &self,
        slot: usize,
        spoilt: Option<Spoilt>,
        halt: CancellationToken,
        whose: &str,
    ) -> Result<Resource, String> {
        if let Some(Spoilt { mut resource, resettable }) = spoilt {
            if resettable && let Some(reset) = &self.reset {
                let (after, done) = reset(resource, halt.clone()).await;
                match done {
                    Ok(()) => return Ok(after),
                    Err(_) if halt.is_cancelled() => {}
                    Err(trouble) => warn!("{whose}: resetting the resource: {trouble}"),
                }
                resource = after;
            }
            self.close(resource, whose).await;
        }
        let build = AssertUnwindSafe(async { (self.build)(slot).await }).catch_unwind();
        let resource = match halt.run_until_cancelled(build).await {
            None => return Err("the slot is closed".into()),
            Some(Err(_)) => return Err("the builder panicked".into()),
            Some(Ok(built)) => built?,
        };
        match self.check(resource, halt).await {
            (resource, Ok(())) => Ok(resource),
            (resource, Err(trouble)) => {
                self.close(resource, whose).await;
                Err(format!("it did not pass its check when just built: {trouble}"))
            }
        }
    }
}
