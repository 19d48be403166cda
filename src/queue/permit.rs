//! A slot for work outside of listeners, which is waited for as for an event.

use std::any::Any;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix::dev::SendError;
use futures::future::{Either, select};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::error::AcquireError;
use super::{ConcurrencyId, Queue};
use crate::actors::grant::{Acquire, Grant};
use crate::actors::messages::GiveUp;
use crate::actors::supervisor::Supervisor;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::handler::outside::{Outside, Stay};
use crate::scheduler::command::Cause;
use crate::scheduler::snapshot::PERMIT;

/// The right to use one slot of a concurrency id, from [`Queue::acquire`]. The slot is free again
/// when it is dropped.
///
/// It may be moved to any thread; whatever does the work should own it until the work has really
/// stopped, a blocking thread above all. Nobody can take it back: a [`Queue::shutdown`] waits for
/// it, and reports when it is still held past the grace.
#[must_use = "the slot is free again when the permit is dropped"]
pub struct Permit(Held);

/// What frees the slot when it is dropped.
enum Held {
    Here { grant: Grant, _stay: Stay },
    Elsewhere { slot: usize, _release: Box<dyn Any + Send>, _stay: Stay },
}

impl Permit {
    /// The number of the slot, from 0: for instance which of the id's GPUs is free for the work. No
    /// other permit and no handler of the id has the same at the same time.
    pub fn slot(&self) -> usize {
        match &self.0 {
            Held::Here { grant, .. } => grant.slot(),
            Held::Elsewhere { slot, .. } => *slot,
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("slot", &self.slot()).finish()
    }
}

impl Queue {
    /// Waits for a slot of a concurrency id, for work outside of listeners. It waits in the same
    /// queue as the events of the id's listeners, first come first served, and counts against the
    /// same limit; pauses and changes of the limit hold for it. Dropping the future leaves the wait
    /// queue.
    ///
    /// Where the id's slots own a resource, the slot is taken and its resource rests meanwhile: it is
    /// lent to handlers only.
    ///
    /// # Errors
    /// When there is no such concurrency id; declare one that no listener has with
    /// [`QueueBuilder::permits`](crate::QueueBuilder::permits). When it is refused:
    /// the wait queue is full, the estimated wait is longer than `max_eta`, or the queue is
    /// stopped. When a handler asks, and no slot can come free before it returns: see
    /// [`ListenerHandle::call`](crate::ListenerHandle::call).
    ///
    /// ```
    /// use now_serving::Queue;
    ///
    /// # actix::System::new().block_on(async {
    /// let queue = Queue::builder().permits("gpu_queue", 2).start().unwrap();
    /// let permit = queue.acquire("gpu_queue").await.unwrap();
    /// let work = std::thread::spawn(move || {
    ///     // Here, so that the slot is busy for as long as the thread works.
    ///     let permit = permit;
    ///     format!("rendered on GPU {}", permit.slot())
    /// });
    /// assert_eq!(work.join().unwrap(), "rendered on GPU 0");
    /// # });
    /// ```
    pub async fn acquire(&self, concurrency_id: &str) -> Result<Permit, AcquireError> {
        self.acquire_as(concurrency_id, PERMIT.into(), None).await
    }

    /// The same, counted under a label of its own, for those who wait no longer than this.
    pub(crate) async fn acquire_as(
        &self,
        concurrency_id: &str,
        label: Arc<str>,
        queue_timeout: Option<Duration>,
    ) -> Result<Permit, AcquireError> {
        let id = self.permits_of(concurrency_id)?;
        if let Some(slots) = id.slots.held_by_callers() {
            let concurrency_id = concurrency_id.into();
            return Err(AcquireError::WaitsForItself { concurrency_id, slots });
        }
        if let Some(elsewhere) = self.inner().elsewhere.as_ref().filter(|_| id.is_elsewhere) {
            let granted = elsewhere.acquire(&id.name, label, queue_timeout).await?;
            let (slot, release) = granted;
            let _stay = self.inner().outside.enter();
            return Ok(Permit(Held::Elsewhere { slot, _release: release, _stay }));
        }
        Ok(id.acquire(label, &self.inner().outside, queue_timeout).await?)
    }
}

impl Queue {
    fn permits_of(&self, concurrency_id: &str) -> Result<&ConcurrencyId, AcquireError> {
        let unknown = || AcquireError::UnknownConcurrencyId(concurrency_id.into());
        self.inner().id(concurrency_id).ok_or_else(unknown)
    }

    /// The slot of somebody who holds it since before this queue was started. It is taken at once, whatever
    /// keeps others waiting.
    #[cfg(feature = "cluster")]
    pub(crate) async fn acquire_held(
        &self,
        concurrency_id: &str,
        label: Arc<str>,
    ) -> Result<Permit, AcquireError> {
        let id = self.permits_of(concurrency_id)?;
        let (grant, granted) = oneshot::channel();
        let acquire = Acquire { id: EventId::random(), label, held: true, grant };
        // Past the mailbox' bound: those who wait there come behind it.
        id.supervisor.do_send(acquire);
        let grant = granted.await.unwrap_or(Err(Refusal::Stopped))?;
        Ok(Permit(Held::Here { grant, _stay: self.inner().outside.enter() }))
    }
}

impl ConcurrencyId {
    async fn acquire(
        &self,
        label: Arc<str>,
        outside: &Outside,
        queue_timeout: Option<Duration>,
    ) -> Result<Permit, Refusal> {
        let late = queue_timeout.map(sleep);
        let (grant, granted) = oneshot::channel();
        let id = EventId::random();
        let mut waits = Waits { supervisor: Some(&self.supervisor), id, cause: Cause::Cancelled };
        match self.supervisor.try_send(Acquire { id, label, held: false, grant }) {
            Ok(()) => {}
            // Its mailbox is full: wait for room, as everybody before us does.
            Err(SendError::Full(acquire)) => {
                let _ = self.supervisor.send(acquire).await;
            }
            Err(SendError::Closed(_)) => return Err(Refusal::Stopped),
        }
        let granted = match (late, queue_timeout) {
            (Some(late), Some(queue_timeout)) => match select(granted, pin!(late)).await {
                Either::Left((granted, _)) => granted,
                Either::Right(_) => {
                    waits.cause = Cause::TimedOut;
                    let retry_after = self.gauges.retry_after();
                    return Err(Refusal::QueueTimeout { queue_timeout, retry_after });
                }
            },
            _ => granted.await,
        };
        waits.no_more();
        let grant = granted.unwrap_or(Err(Refusal::Stopped))?;
        Ok(Permit(Held::Here { grant, _stay: outside.enter() }))
    }
}

/// Leaves the wait queue when dropped.
struct Waits<'a> {
    supervisor: Option<&'a Addr<Supervisor>>,
    id: EventId,
    cause: Cause,
}

impl Waits<'_> {
    fn no_more(mut self) {
        self.supervisor = None;
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor {
            // Past the mailbox' bound: a cancel that is lost can't be repeated.
            supervisor.do_send(GiveUp { id: self.id, cause: self.cause });
        }
    }
}
