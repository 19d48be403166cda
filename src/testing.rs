//! What tests of your own listeners need: a handler that waits until the test lets it through, and
//! an actor that remembers every update.
//!
//! Tests wait for conditions, never for the clock:
//!
//! ```
//! use now_serving::testing::{Recorder, Turnstile};
//! use now_serving::{Listener, Queue, Update};
//!
//! # actix::System::new().block_on(async {
//! let turnstile = Turnstile::new();
//! let queue = Queue::builder()
//!     .listener(Listener::new("paint", turnstile.handler()).concurrency_limit(2))
//!     .start()
//!     .unwrap();
//! let recorder = Recorder::start();
//! for n in 0..3u32 {
//!     queue.submit_to("paint", n, recorder.recipient()).await.unwrap();
//! }
//! turnstile.arrived(2).await;
//! assert_eq!(turnstile.inside(), 2);
//! turnstile.open();
//! let updates = recorder.ended(3).await;
//! assert_eq!(updates.iter().filter(|update| update.is_terminal()).count(), 3);
//! assert_eq!(turnstile.most_inside(), 2);
//! # });
//! ```
//!
//! # Users
//!
//! How a test sends requests as a user, without a password: see `User`.
//!
//! # Time
//!
//! On [`arbiters(0)`](crate::QueueBuilder::arbiters) everything but blocking handlers runs in the
//! test's own runtime, so that tokio's paused clock holds for it: a `time_limit` of an hour is over
//! as soon as nothing else is left to do, or when the test advances it. A pause needs tokio's
//! feature `test-util`.
//!
//! ```
//! use std::time::Duration;
//!
//! use now_serving::{CallError, Listener, Queue};
//!
//! # actix::System::new().block_on(async {
//! tokio::time::pause();
//! let never = async |_: u32| std::future::pending::<Result<u32, String>>().await;
//! let queue = Queue::builder()
//!     .arbiters(0)
//!     .listener(Listener::new("never", never).time_limit(Duration::from_secs(3600)))
//!     .start()
//!     .unwrap();
//! assert_eq!(queue.call::<u32, u32>("never", 1).await, Err(CallError::TimedOut));
//! # });
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Addr, Context, Handler, Recipient};
use futures::future::{FutureExt, LocalBoxFuture};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::event::update::Update;
use crate::handler::extract;

/// Holds handlers up until the test lets them through. Clones are the same turnstile.
#[derive(Clone, Debug)]
pub struct Turnstile(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    /// One for each handler that may pass.
    passes: Semaphore,
    count: watch::Sender<Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    arrived: usize,
    inside: usize,
    most_inside: usize,
    passed: usize,
}

impl Turnstile {
    /// A turnstile that lets nobody through.
    #[allow(clippy::new_without_default)] // A default would not show that it is closed.
    pub fn new() -> Self {
        let count = watch::Sender::default();
        Turnstile(Arc::new(Gate { passes: Semaphore::new(0), count }))
    }

    /// Waits to be let through: to be called in an async handler. One that is cancelled here has
    /// left.
    pub async fn pass(&self) {
        self.0.count.send_modify(|count| {
            count.arrived += 1;
            count.inside += 1;
            count.most_inside = count.most_inside.max(count.inside);
        });
        let _leaves = Leaves(&self.0);
        // A turnstile is never closed for good, so this gives a permit.
        if let Ok(permit) = self.0.passes.acquire().await {
            permit.forget();
        }
        self.0.count.send_modify(|count| count.passed += 1);
    }

    /// A handler that waits to be let through and returns its input.
    pub fn handler(
        &self,
    ) -> impl extract::Handler<u32, (), Output = LocalBoxFuture<'static, Result<u32, String>>> + use<>
    {
        let turnstile = self.clone();
        move |input: u32| {
            let turnstile = turnstile.clone();
            async move {
                turnstile.pass().await;
                Ok(input)
            }
            .boxed_local()
        }
    }

    /// Lets this many through, now or when they come.
    pub fn let_through(&self, handlers: usize) {
        self.0.passes.add_permits(handlers);
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.let_through(Semaphore::MAX_PERMITS / 2);
    }

    /// Waits until this many handlers have arrived, since the beginning.
    pub async fn arrived(&self, handlers: usize) {
        self.until(|count| count.arrived >= handlers).await;
    }

    /// Waits until this many handlers have been let through, since the beginning.
    pub async fn passed(&self, handlers: usize) {
        self.until(|count| count.passed >= handlers).await;
    }

    /// Waits until no handler waits here.
    pub async fn empty(&self) {
        self.until(|count| count.inside == 0).await;
    }

    /// Handlers that wait here now.
    pub fn inside(&self) -> usize {
        self.0.count.borrow().inside
    }

    /// The maximum of handlers that have waited here at once.
    pub fn most_inside(&self) -> usize {
        self.0.count.borrow().most_inside
    }

    async fn until(&self, condition: impl Fn(&Count) -> bool) {
        let mut count = self.0.count.subscribe();
        // The sender lives in `self`.
        let _ = count.wait_for(condition).await;
    }
}

struct Leaves<'a>(&'a Gate);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| count.inside -= 1);
    }
}

/// Remembers every update that it is sent, in order. Clones are the same recorder.
#[derive(Clone, Debug)]
pub struct Recorder {
    actor: Addr<RecorderActor>,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    updates: Vec<Update>,
    ended: usize,
    /// Those who wait until so many events have ended.
    waiting: Vec<(usize, oneshot::Sender<()>)>,
}

impl Recorder {
    /// Starts a recorder on the current arbiter.
    ///
    /// # Panics
    /// Outside of an actix system.
    pub fn start() -> Self {
        let record = Arc::<Mutex<Record>>::default();
        Recorder { actor: RecorderActor(record.clone()).start(), record }
    }

    /// Where to send updates, for [`Queue::submit_to`](crate::Queue::submit_to).
    pub fn recipient(&self) -> Recipient<Update> {
        self.actor.clone().recipient()
    }

    /// Waits until this many events have ended, since the beginning, and takes all updates.
    pub async fn ended(&self, events: usize) -> Vec<Update> {
        let (ended, wait) = oneshot::channel();
        self.lock().waiting.push((events, ended));
        self.lock().wake();
        // The sender stays in the record until the condition holds.
        let _ = wait.await;
        self.take()
    }

    /// Takes the updates recorded so far.
    pub fn take(&self) -> Vec<Update> {
        std::mem::take(&mut self.lock().updates)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn wake(&mut self) {
        let count = self.ended;
        for (_, ended) in self.waiting.extract_if(.., |(events, _)| *events <= count) {
            // Who waited may have gone.
            let _ = ended.send(());
        }
    }
}

#[derive(Debug)]
struct RecorderActor(Arc<Mutex<Record>>);

impl Actor for RecorderActor {
    type Context = Context<Self>;
}

impl Handler<Update> for RecorderActor {
    type Result = ();

    fn handle(&mut self, update: Update, _: &mut Self::Context) {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        record.ended += usize::from(update.is_terminal());
        record.updates.push(update);
        record.wake();
    }
}
