//! What a slot owns: a resource built by its worker and lent to one run at a time.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{FutureExt, LocalBoxFuture};

use crate::guarded::Guarded;

/// The place where a worker keeps its resource between runs. Shared with the guard that lends it,
/// which may be on a blocking thread; never held while anything waits.
type Home<R> = Arc<Mutex<Option<R>>>;

/// A slot's resource, lent to a handler: `&mut` access, with the number of the slot.
///
/// A handler takes it as an argument after its input; its concurrency id builds it, see
/// [`QueueBuilder::slots`](crate::QueueBuilder::slots). It goes back to the slot when dropped. A
/// guard that is dropped by a panic, or outlives its run, doesn't come back: the worker builds a
/// new resource.
///
/// ```
/// use now_serving::{Limit, Listener, Queue, Slot};
///
/// struct Gpu { index: usize, painted: usize }
///
/// async fn paint(prompt: String, mut gpu: Slot<Gpu>) -> Result<String, String> {
///     gpu.painted += 1;
///     Ok(format!("{prompt} on GPU {}", gpu.index))
/// }
///
/// # actix::System::new().block_on(async {
/// let queue = Queue::builder()
///     .listener(Listener::new("paint", paint).concurrency_id("gpu_queue").concurrency_limit(2))
///     .slots("gpu_queue", |slot| async move {
///         Ok::<_, String>(Gpu { index: slot, painted: 0 })
///     })
///     .start()
///     .unwrap();
/// let picture: String = queue.call("paint", "a fox".to_string()).await.unwrap();
/// assert!(picture.starts_with("a fox on GPU "));
/// # });
/// ```
pub struct Slot<R> {
    // `None` only while dropping.
    resource: Option<R>,
    index: usize,
    home: Home<R>,
}

impl<R> Slot<R> {
    /// The number of the slot, from 0.
    pub fn index(slot: &Self) -> usize {
        slot.index
    }
}

impl<R> Deref for Slot<R> {
    type Target = R;

    fn deref(&self) -> &R {
        match &self.resource {
            Some(resource) => resource,
            None => unreachable!("a guard holds its resource until it is dropped"),
        }
    }
}

impl<R> DerefMut for Slot<R> {
    fn deref_mut(&mut self) -> &mut R {
        match &mut self.resource {
            Some(resource) => resource,
            None => unreachable!("a guard holds its resource until it is dropped"),
        }
    }
}

impl<R> Drop for Slot<R> {
    fn drop(&mut self) {
        let resource = self.resource.take();
        // A resource that saw a panic is in nobody knows what state.
        if !std::thread::panicking() {
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = resource;
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for Slot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("index", &self.index)
            .field("resource", &self.resource)
            .finish()
    }
}

/// A built resource of a type that only its handlers know.
pub(crate) struct Resource {
    home: Guarded<Box<dyn Any>>,
    is_home: fn(&dyn Any) -> bool,
}

impl Resource {
    #[allow(clippy::arc_with_non_send_sync)] // Async handlers of one thread may share any `R`.
    fn new<R: 'static>(resource: R) -> Self {
        let home: Home<R> = Arc::new(Mutex::new(Some(resource)));
        Resource {
            home: Guarded::new(Box::new(home)),
            is_home: |home| {
                let home = home.downcast_ref::<Home<R>>();
                home.is_some_and(|h| h.lock().is_ok_and(|resource| resource.is_some()))
            },
        }
    }

    /// Whether it has come back from its last run.
    pub fn is_home(&self) -> bool {
        (self.is_home)(&**self.home)
    }

    /// Lends it out; `None` when it is lent already or is no `R`.
    pub fn lend<R: 'static>(&self, index: usize) -> Option<Slot<R>> {
        let home = self.home.downcast_ref::<Home<R>>()?;
        let resource = home.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Slot { resource: Some(resource), index, home: home.clone() })
    }
}

/// A type of resource, by which `start()` checks that handlers ask for what their id builds.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ResourceType {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
}

impl ResourceType {
    pub(crate) fn of<R: 'static>() -> Self {
        ResourceType { id: TypeId::of::<R>(), name: type_name::<R>() }
    }
}

type Build = dyn Fn(usize) -> LocalBoxFuture<'static, Result<Resource, String>> + Send + Sync;

/// How the resource of one concurrency id is built.
#[derive(Clone)]
pub(crate) struct Factory {
    pub built: ResourceType,
    build: Arc<Build>,
}

impl Factory {
    pub fn new<F, Fut, R, E>(build: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + 'static,
        R: 'static,
        E: fmt::Display,
    {
        Factory {
            built: ResourceType::of::<R>(),
            build: Arc::new(move |slot| {
                let resource = build(slot);
                async move { resource.await.map(Resource::new).map_err(|e| e.to_string()) }
                    .boxed_local()
            }),
        }
    }

    pub fn build(&self, slot: usize) -> LocalBoxFuture<'static, Result<Resource, String>> {
        (self.build)(slot)
    }
}
