//! Threads for handlers that block: as many as the limits let run, so that no run waits for one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tokio::runtime::Handle;

use super::outside::Outside;
use crate::event::guarded::discard_payload;
use crate::logging::error;

/// How long a thread waits for another run before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// The threads of one queue. Idle ones end with it; a run goes on until it returns.
///
/// tokio's own pool has 512 a runtime: beyond that a run would wait, unseen, in a second queue behind
/// ours, and its time limit would go by. And a runtime that ends waits for its pool, so that a
/// handler that never returns would keep the process.
pub(crate) struct Threads {
    pool: Arc<Pool>,
    outside: Outside,
}

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// For each of them, one of the threads that wait is counted off already.
    runs: VecDeque<Run>,
    /// Threads that wait and have no run coming.
    idle: usize,
    closed: bool,
}

type Run = Box<dyn FnOnce() + Send>;

impl Threads {
    pub fn new(outside: Outside) -> Self {
        Threads { pool: Arc::default(), outside }
    }

    /// Runs something on a thread that has nothing else to do. There it is inside of the runtime that
    /// it comes from, as on tokio's own pool.
    ///
    /// # Errors
    /// When no thread is idle and the system gives no other.
    pub fn run(&self, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (runtime, stay) = (Handle::try_current().ok(), self.outside.enter());
        let run: Run = Box::new(move || {
            let _stay = stay;
            let _inside = runtime.as_ref().map(Handle::enter);
            run();
        });
        let mut state = self.pool.lock();
        if state.idle > 0 {
            state.idle -= 1;
            state.runs.push_back(run);
            drop(state);
            self.pool.wake.notify_one();
            return Ok(());
        }
        drop(state);
        let pool = self.pool.clone();
        let work = move || pool.work(run);
        thread::Builder::new().name("now-serving-blocking".into()).spawn(work).map(drop)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.pool.lock().closed = true;
        self.pool.wake.notify_all();
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, first: Run) {
        let mut next = Some(first);
        while let Some(run) = next {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                error!("something of a blocking handler panicked when it was dropped");
                discard_payload(payload);
            }
            next = self.wait();
        }
    }

    /// The next run, or `None` when there has been none for long, or there won't be any.
    fn wait(&self) -> Option<Run> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.idle += 1;
        loop {
            // Whichever thread takes it: one was counted off for it.
            if let Some(run) = state.runs.pop_front() {
                return Some(run);
            }
            if state.closed {
                return None;
            }
            let waited = self.wake.wait_timeout(state, IDLE);
            let (held, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = held;
            if waited.timed_out() && state.runs.is_empty() {
                state.idle -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn each_run_has_a_thread_at_once_and_threads_are_used_again() {
        let threads = Threads::new(Outside::default());
        let all_begun = Arc::new(std::sync::Barrier::new(600));
        let (ended, ends) = channel();
        for _ in 0..600 {
            let (all_begun, ended) = (all_begun.clone(), ended.clone());
            // None gets past before all have begun.
            let run = move || {
                all_begun.wait();
                ended.send(thread::current().id()).unwrap();
            };
            threads.run(run).unwrap();
        }
        let begun: std::collections::HashSet<_> = ends.iter().take(600).collect();
        assert_eq!(begun.len(), 600);
        while threads.pool.lock().idle < 600 {
            thread::yield_now();
        }
        let ended_again = ended.clone();
        threads.run(move || ended_again.send(thread::current().id()).unwrap()).unwrap();
        assert!(begun.contains(&ends.recv().unwrap()));
    }

    #[test]
    fn a_run_that_panics_leaves_its_thread_working() {
        let threads = Threads::new(Outside::default());
        threads.run(|| panic!("past its handler")).unwrap();
        while threads.pool.lock().idle < 1 {
            thread::yield_now();
        }
        let (ended, ends) = channel();
        threads.run(move || ended.send(()).unwrap()).unwrap();
        ends.recv().unwrap();
    }

    #[actix::test]
    async fn what_runs_is_counted_until_it_returns() {
        let outside = Outside::default();
        let threads = Threads::new(outside.clone());
        let (go_on, wait) = channel::<()>();
        threads.run(move || assert!(wait.recv().is_err())).unwrap();
        assert!(futures::poll!(std::pin::pin!(outside.emptied())).is_pending());
        // The threads' end changes nothing about it.
        drop(threads);
        assert!(futures::poll!(std::pin::pin!(outside.emptied())).is_pending());
        drop(go_on);
        outside.emptied().await;
    }
}
