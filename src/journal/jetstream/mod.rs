//! The journal on NATS JetStream: a stream that one process writes at a time, on a thread of its own, one
//! message for all that has come by then.

mod connect;
#[cfg(test)]
pub(crate) mod fake_log;
mod group;
mod lease;
mod ledger;
mod line;
#[cfg(test)]
mod line_tests;
mod log;
mod stream;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use self::connect::ConnectNats;
pub(crate) use self::connect::escape;
use self::group::Claim;
pub(crate) use self::lease::LastKept;
use self::lease::Lease;
use self::line::Line;
use self::log::Log;
#[cfg_attr(not(feature = "cluster"), allow(unused_imports))]
pub(crate) use self::writer::RENEW;
use self::writer::Writer;
use super::error::JournalError;
use super::record::Kept;
use super::requests::{Requests, closed};
use super::{Batch, Done, Journal, Loaded, Query};
use crate::logging::{info, warn};

/// How long after the last append that was kept a process that others stand by for counts the journal as its
/// own. Longer than a stream takes to choose a new leader, and shorter than they wait ([`connect::GONE`]).
const LEASE: Duration = Duration::from_secs(6);

/// How long a process that stands by waits before it connects again.
const AGAIN: Duration = Duration::from_secs(1);

/// A journal on NATS JetStream, for [`QueueBuilder::journal`](crate::QueueBuilder::journal): what is
/// accepted outlives the machine.
///
/// It is one stream, `now-serving_NAME_journal`, that has records as JSON. One process writes it at a time:
/// while that process answers, another one that connects by the same name is refused, and once it doesn't,
/// the next takes over what it has left. A process that has been cut off or frozen meanwhile can't write any
/// more: the stream itself refuses what it appends.
///
/// With three servers and `sync_interval: always` in their `jetstream` section, what is recorded has reached
/// two disks. Without that setting a server writes to its disk now and then (two minutes, if nothing else is
/// said), and what it has acknowledged can be lost with its power.
///
/// While NATS is away nothing durable is accepted (503 over HTTP), and what runs goes on: its end is recorded
/// when NATS is back.
///
/// It is closed when the last clone of its queue is gone, with what is on its way.
pub struct Nats {
    name: String,
    requests: Requests<Infallible>,
    taken_over: watch::Receiver<Option<JournalError>>,
    opened: Opened,
}

/// What is known once it is this process'.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The sequence of its claim.
    pub epoch: u64,
    pub last_kept: LastKept,
}

impl Nats {
    /// Connects to these servers: `nats://HOST:PORT`, `tls://HOST:PORT`, several of one cluster separated
    /// by commas. `nats://USER:PASSWORD@HOST` where they want that.
    ///
    /// ```no_run
    /// use now_serving::{Listener, Nats, Queue};
    ///
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let journal = Nats::connect("nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3").name("studio").await?;
    /// let render = async |scene: String| Ok::<_, String>(scene.to_uppercase());
    /// let queue = Queue::builder()
    ///     .journal(journal)
    ///     .listener(Listener::new("render", render).durable())
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(servers: impl Into<String>) -> ConnectNats {
        ConnectNats::new(servers.into())
    }

    /// Resolves when this process has lost the journal: another one has taken it over, or may have
    /// ([`JournalError::TakenOver`], [`JournalError::LeaseLost`]), or it can't be written any more. What the
    /// queue ran of it is stopped; end the process then, and have it started again.
    ///
    /// ```no_run
    /// # use now_serving::{JournalError, Listener, Nats, Queue};
    /// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    /// # let render = Listener::new("render", async |scene: String| Ok::<_, String>(scene)).durable();
    /// let journal = Nats::connect("nats://nats-1.example.org").name("studio").standby().await?;
    /// let lost = journal.lost();
    /// let queue = Queue::builder().journal(journal).listener(render).start()?;
    /// // … serve, until
    /// let why: JournalError = lost.await;
    /// eprintln!("{why}");
    /// std::process::exit(1)
    /// # }
    /// ```
    pub fn lost(&self) -> impl Future<Output = JournalError> + Send + use<> {
        let mut taken_over = self.taken_over.clone();
        async move {
            match taken_over.wait_for(Option::is_some).await.map(|lost| lost.clone()) {
                Ok(Some(lost)) => lost,
                Ok(None) | Err(_) => closed(),
            }
        }
    }

    /// What is known of its being this process'.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Takes it over, for as long as that is sure to be known here, unless somebody has it by a claim behind the
    /// sequence `over`.
    pub(crate) async fn claim(
        connect: ConnectNats,
        by: String,
        over: u64,
    ) -> Result<Self, JournalError> {
        let name = connect.name.clone();
        let open = {
            let by = by.clone();
            move || async move { connect.taken(by).await }
        };
        Nats::start(name, by, Some(LEASE), Some(over), open).await
    }

    /// `stood_by` becomes true where another process has it, and is waited for.
    pub(crate) async fn open(
        connect: ConnectNats,
        stood_by: Arc<AtomicBool>,
    ) -> Result<Self, JournalError> {
        loop {
            let (name, by) = (connect.name.clone(), connect::this_process());
            let (connecting, waits) = (connect.clone(), stood_by.clone());
            let open = {
                let by = by.clone();
                move || async move { connecting.stream(by, &waits).await }
            };
            let lease = connect.is_standby().then_some(LEASE);
            match Nats::start(name, by, lease, None, open).await {
                // Once it stands by, it does so until it has its turn.
                Err(JournalError::Unreachable(why))
                    if connect.is_standby() && stood_by.load(Ordering::Relaxed) =>
                {
                    warn!("{}: NATS can't be reached ({why}), and is tried again", connect.name);
                    tokio::time::sleep(AGAIN).await;
                }
                // Another one was quicker.
                Err(JournalError::Owned { by, .. }) if connect.is_standby() => {
                    info!("{}: {by} has the journal now", connect.name);
                    stood_by.store(true, Ordering::Relaxed);
                }
                opened => return opened,
            }
        }
    }

    /// On a thread of its own, opens the log that `connect` gives, and writes it.
    async fn start<L, F>(
        name: String,
        by: String,
        lease: Option<Duration>,
        over: Option<u64>,
        connect: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self, JournalError>
    where
        L: Log,
        F: Future<Output = Result<L, JournalError>>,
    {
        let (opened, is_open) = oneshot::channel();
        let (take_over, taken_over) = watch::channel(None);
        let broken = |error: std::io::Error| JournalError::Broken(error.to_string());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        let claim = Claim { by, id: format!("{:032x}", rand::random::<u128>()) };
        let write = async move |incoming| {
            let mut opened = opened;
            let line = {
                let open = std::pin::pin!(open(connect(), claim, over));
                let given_up = std::pin::pin!(opened.closed());
                match select(open, given_up).await {
                    Either::Left((line, _)) => line,
                    // Who connects has stopped waiting.
                    Either::Right(_) => return,
                }
            };
            match line {
                Ok((line, began)) => {
                    // Who has stopped waiting just now asks for nothing.
                    let lease = Lease::new(lease, began);
                    let (epoch, last_kept) = (line.last(), lease.last_kept());
                    let _ = opened.send(Ok(Opened { epoch, last_kept }));
                    Writer::new(line, incoming, take_over, lease).run().await;
                }
                Err(trouble) => drop(opened.send(Err(trouble))),
            }
        };
        let requests = Requests::start(move |incoming| {
            runtime.block_on(write(incoming));
            // Nobody waits for a name that is still being looked up.
            runtime.shutdown_background();
        })?;
        let opened = is_open.await.unwrap_or_else(|_| Err(closed()))?;
        Ok(Nats { name, requests, taken_over, opened })
    }
}

/// With the moment from which on the log may be this process'.
async fn open<L: Log>(
    log: impl Future<Output = Result<L, JournalError>>,
    claim: Claim,
    over: Option<u64>,
) -> Result<(Line<L>, Instant), JournalError> {
    let log = log.await?;
    let began = Instant::now();
    Ok((Line::open(log, claim, over).await?, began))
}

#[cfg(test)]
impl Nats {
    /// Takes the journal over from whoever has it, as where that one doesn't answer.
    pub(crate) async fn test_take_over(servers: String, name: &str) -> Result<Self, JournalError> {
        let connect = Nats::connect(servers).name(name);
        let open = move || async move { connect.test_stream().await };
        Nats::start(name.into(), "somebody else".into(), None, None, open).await
    }

    /// On a log in memory.
    pub(crate) async fn test_open(log: fake_log::FakeLog) -> Result<Self, JournalError> {
        Nats::start("fake".into(), "a test".into(), None, None, move || async { Ok(log) }).await
    }
}

impl IntoFuture for ConnectNats {
    type Output = Result<Nats, JournalError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Nats::open(self, Arc::new(AtomicBool::new(false))))
    }
}

impl Journal for Nats {
    fn append(&self, batch: Batch, done: Done) {
        self.requests.append(batch, done);
    }

    fn load(&self) -> Result<Loaded, JournalError> {
        self.requests.load()
    }

    fn ends(&self, query: Query) -> oneshot::Receiver<Result<Vec<Kept>, JournalError>> {
        self.requests.ends(query)
    }

    fn taken_over(&self) -> Option<watch::Receiver<Option<JournalError>>> {
        Some(self.taken_over.clone())
    }

    fn forget(&self, before: u64) {
        self.requests.forget(before);
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nats").field(&self.name).finish()
    }
}
