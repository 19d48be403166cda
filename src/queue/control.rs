//! Controls a running queue: pause, limits, snapshot, shutdown.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::ControlError;
use super::snapshot::QueueSnapshot;
use super::{ConcurrencyId, Queue};
use crate::actors::messages::{Abort, AwaitClosed, Control, Steer, Stop, TakeSnapshot};
use crate::clock;
use crate::event::id::EventId;
use crate::handler::slot_resource::CLOSE;
use crate::scheduler::limit::Limit;
use crate::scheduler::snapshot::ConcurrencyIdSnapshot;

/// How long a shutdown waits, past its grace, for interrupted handlers to stop.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a supervisor may take to answer with its snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// What [`Queue::shutdown`] left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Every handler had stopped by itself within the grace. False also where that can't be known,
    /// because the actix system ended first and took what ran with it.
    pub drained: bool,
    /// Every handler has stopped. Otherwise blocking ones still run, which can't be stopped from
    /// outside; their clients have been notified.
    pub stopped: bool,
    /// What the slots own is closed and dropped. Always so where they own nothing.
    pub closed: bool,
}

impl Queue {
    /// Cancels an event of a listener: [`ListenerHandle::cancel`](crate::ListenerHandle::cancel) by name. Nothing happens when it
    /// has ended.
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn cancel(&self, api_name: &str, event: EventId) -> Result<(), ControlError> {
        let listener_ref = self.inner.listener_ref(api_name);
        let listener_ref =
            listener_ref.ok_or_else(|| ControlError::UnknownListener(api_name.into()))?;
        listener_ref.cancel(event);
        Ok(())
    }

    fn id(&self, name: &str) -> Result<&ConcurrencyId, ControlError> {
        let unknown = || ControlError::UnknownConcurrencyId(name.into());
        self.inner.id(name).ok_or_else(unknown)
    }

    async fn control(&self, id: &ConcurrencyId, control: Control) -> Result<(), ControlError> {
        if let Some(elsewhere) = self.inner.elsewhere.as_ref().filter(|_| id.is_elsewhere) {
            return elsewhere.control(&id.name, control).await;
        }
        let (reply, recorded) = oneshot::channel();
        id.supervisor.send(Steer { control, reply }).await.map_err(|_| ControlError::Stopped)?;
        let recorded = recorded.await.map_err(|_| ControlError::Stopped)?;
        recorded.map_err(ControlError::NotRecorded)
    }

    /// Starts no more events of a concurrency id until it is resumed. Running ones go on, new ones
    /// wait.
    ///
    /// With durable listeners it returns once that is on record, and holds in later processes too.
    ///
    /// # Errors
    /// When no listener has this id, or the queue is stopped. When it could not be recorded, though it holds:
    /// [`ControlError::NotRecorded`].
    pub async fn pause(&self, concurrency_id: &str) -> Result<(), ControlError> {
        self.control(self.id(concurrency_id)?, Control::Pause).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// As [`Queue::pause`].
    pub async fn resume(&self, concurrency_id: &str) -> Result<(), ControlError> {
        self.control(self.id(concurrency_id)?, Control::Resume).await
    }

    /// Changes how many events of a concurrency id run at once. Up: more start at once. Down:
    /// running ones finish, and slots retire as they come free.
    ///
    /// # Errors
    /// When the limit is 0, or unlimited where slots own a resource; also as [`Queue::pause`].
    pub async fn set_concurrency_limit(
        &self,
        concurrency_id: &str,
        limit: impl Into<Limit>,
    ) -> Result<(), ControlError> {
        let (id, limit) = (self.id(concurrency_id)?, limit.into());
        match limit {
            Limit::Slots(0) => Err(ControlError::ZeroLimit),
            Limit::Unlimited if id.prepared => {
                Err(ControlError::ResourceWithoutLimit(concurrency_id.into()))
            }
            Limit::Slots(_) | Limit::Unlimited => {
                let recorded = self.control(id, Control::SetLimit(limit)).await;
                if matches!(recorded, Ok(()) | Err(ControlError::NotRecorded(_))) {
                    id.slots.set_limit(limit.slots());
                }
                recorded
            }
        }
    }

    /// The present state of the queue. Ids whose actors have ended, or don't answer within a second
    /// because a handler blocks their thread, are left out.
    ///
    /// Each id spends at most a fifth of its thread's time on this: concurrent calls wait a moment
    /// and get the same answer.
    pub async fn snapshot(&self) -> QueueSnapshot {
        let snapshot = |id| timeout(SNAPSHOT_TIMEOUT, ConcurrencyId::snapshot(id));
        let here = self.inner.ids.iter().filter(|id| !id.is_elsewhere);
        let here = join_all(here.map(snapshot)).await.into_iter().flatten().flatten();
        let mut concurrency_ids: Vec<_> = here.collect();
        if let Some(elsewhere) = &self.inner.elsewhere
            && let Some(line) = elsewhere.snapshot().await
        {
            concurrency_ids.extend(line.concurrency_ids);
        }
        QueueSnapshot { concurrency_ids }
    }

    /// Takes no more events, stops the waiting ones, and lets the running ones finish for up to
    /// `grace`; those that still run then are interrupted, and a second later it no longer waits for
    /// them. What the slots own is closed and dropped as they come free (see
    /// [`SlotResource::close`](crate::SlotResource::close)), which it waits for, up to 5 seconds
    /// more. May be called again, with another grace.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.inner.stopped.store(true, Relaxed);
        if let Some(elsewhere) = &self.inner.elsewhere {
            // What is placed here ends here, or is placed elsewhere.
            let begun = clock::now();
            elsewhere.leave(grace).await;
            // Permits are held elsewhere, by whoever is here.
            let rest = grace.saturating_sub(clock::since(begun));
            let _ = timeout(rest, self.inner.outside.emptied()).await;
        }
        let idle = self.inner.ids.iter().map(|id| {
            let (idle, is_idle) = oneshot::channel();
            // Past the mailbox' bound: a shutdown doesn't queue behind a flood's admissions.
            id.supervisor.do_send(Stop { idle });
            is_idle
        });
        let idle = async {
            let drained = join_all(idle).await.iter().all(Result::is_ok);
            if !drained {
                // A supervisor is gone without reporting it. Its async handlers went with it; what
                // was on a thread didn't.
                self.inner.outside.emptied().await;
            }
            drained
        };
        let mut idle = std::pin::pin!(idle);
        let (drained, stopped) = match timeout(grace, &mut idle).await {
            Ok(drained) => (drained, true),
            Err(_) => {
                for id in &self.inner.ids {
                    id.supervisor.do_send(Abort);
                }
                (false, timeout(LAST_CALL, idle).await.is_ok())
            }
        };
        let closed = self.inner.ids.iter().filter(|id| id.prepared).map(|id| {
            let (closed, is_closed) = oneshot::channel();
            id.supervisor.do_send(AwaitClosed { closed });
            is_closed
        });
        // A reset or a check that is under way stops at once; what closes has a bound of its own.
        let closed = timeout(CLOSE + LAST_CALL, join_all(closed)).await.is_ok();
        Shutdown { drained, stopped, closed: closed && stopped }
    }
}

impl ConcurrencyId {
    async fn snapshot(&self) -> Option<ConcurrencyIdSnapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.supervisor.send(TakeSnapshot { reply }).await.ok()?;
        // Copied here and not by the supervisor, whose time is everybody's.
        snapshot.await.ok().map(Arc::unwrap_or_clone)
    }
}
