//! What a slot owns: a resource built by its worker and lent to one run at a time.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::guarded::Guarded;

/// The place where a worker keeps its resource between runs. Shared with the guard that lends it,
/// which may be on a blocking thread; never locked while anything waits.
type Home<R> = Arc<Mutex<Shelf<R>>>;

struct Shelf<R> {
    resource: Option<R>,
    trace: Trace,
}

/// What the runs since the last check have done with the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trace {
    /// Nobody took it.
    Untouched,
    /// It came back in an orderly way, or hasn't yet.
    Lent,
    /// It was dropped by a panic.
    Unwound,
    /// The handler discarded it.
    Discarded,
}

/// A slot's resource, lent to a handler: `&mut` access, with the number of the slot.
///
/// A handler takes it as an argument after its input; its concurrency id builds it, see
/// [`QueueBuilder::slots`](crate::QueueBuilder::slots). It goes back to the slot when dropped, and
/// the next run gets it as it is, if this one has returned by itself: with a result or an error, and
/// in a blocking handler also after a cancel that it has heeded.
///
/// After a run that was cut short (a panic, a cancel, a `time_limit`, a stream that was dropped, the
/// end of a shutdown's grace) nobody knows what is left in it, such as an unread answer. It is then
/// built anew, or made clean again by [`SlotResource::reset`](crate::SlotResource::reset), and so
/// after [`Slot::discard`]. A guard that outlives its run is not waited for: the slot gets a new
/// resource, and the old one is dropped with its guard.
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

    /// Gives it back as one that no other run must get: it is closed, and the slot builds another.
    ///
    /// ```
    /// # use now_serving::Slot;
    /// # struct Child;
    /// # impl Child {
    /// #     async fn request(&mut self, _: String) -> std::io::Result<String> { Ok(String::new()) }
    /// # }
    /// async fn render(text: String, mut child: Slot<Child>) -> std::io::Result<String> {
    ///     let answer = child.request(text).await;
    ///     if answer.is_err() {
    ///         Slot::discard(child);
    ///     }
    ///     answer
    /// }
    /// # let _ = now_serving::Listener::new("render", render);
    /// ```
    pub fn discard(mut slot: Self) {
        slot.give_back(Trace::Discarded);
    }

    fn give_back(&mut self, trace: Trace) {
        if let Some(resource) = self.resource.take() {
            let mut shelf = self.home.lock().unwrap_or_else(PoisonError::into_inner);
            shelf.resource = Some(resource);
            shelf.trace = shelf.trace.max(trace);
        }
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
        let unwinds = std::thread::panicking();
        self.give_back(if unwinds { Trace::Unwound } else { Trace::Lent });
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
    inspect: fn(&dyn Any) -> (bool, Trace),
}

impl Resource {
    #[allow(clippy::arc_with_non_send_sync)] // Async handlers of one thread may share any `R`.
    pub fn new<R: 'static>(resource: R) -> Self {
        let shelf = Shelf { resource: Some(resource), trace: Trace::Untouched };
        let home: Home<R> = Arc::new(Mutex::new(shelf));
        let inspect = |home: &dyn Any| match home.downcast_ref::<Home<R>>() {
            Some(home) => {
                let mut shelf = home.lock().unwrap_or_else(PoisonError::into_inner);
                let trace = std::mem::replace(&mut shelf.trace, Trace::Untouched);
                (shelf.resource.is_some(), trace)
            }
            None => (false, Trace::Untouched),
        };
        Resource { home: Guarded::new(Box::new(home)), inspect }
    }

    /// Whether it is at home, and what has been done with it since the last check.
    pub fn inspect(&self) -> (bool, Trace) {
        (self.inspect)(&**self.home)
    }

    fn shelf<R: 'static>(&self) -> Option<MutexGuard<'_, Shelf<R>>> {
        let home = self.home.downcast_ref::<Home<R>>()?;
        Some(home.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lends it out; `None` when it is lent already or is no `R`.
    pub fn lend<R: 'static>(&self, index: usize) -> Option<Slot<R>> {
        let home = self.home.downcast_ref::<Home<R>>()?;
        let mut shelf = self.shelf::<R>()?;
        let resource = shelf.resource.take()?;
        shelf.trace = shelf.trace.max(Trace::Lent);
        Some(Slot { resource: Some(resource), index, home: home.clone() })
    }

    pub fn take<R: 'static>(&self) -> Option<R> {
        self.shelf::<R>()?.resource.take()
    }

    pub fn put<R: 'static>(&self, resource: R) {
        if let Some(mut shelf) = self.shelf::<R>() {
            shelf.resource = Some(resource);
        }
    }
}
