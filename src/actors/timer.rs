//! A supervisor's timer.

use std::time::Instant;

use tokio::task::JoinHandle;

/// A task of its own that calls once when it is due. Dropped before that, it never calls.
///
/// Not a future of the actor's: those are polled whenever the actor does anything, which costs a busy
/// supervisor more than all its timers.
#[derive(Debug)]
pub(super) struct Timer {
    pub due: Instant,
    task: JoinHandle<()>,
}

impl Timer {
    pub fn start(due: Instant, call: impl FnOnce() + 'static) -> Self {
        let task = actix::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            call();
        });
        Timer { due, task }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
