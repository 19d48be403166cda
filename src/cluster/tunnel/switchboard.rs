//! The exchanges that go on at this process: what comes for them, and whether their other ends live.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::flow::{Arrival, Arrivals};
use super::frame::{Alive, ExchangeId, Frame};
use crate::clock;
use crate::cluster::handle::ClusterHandle;
use crate::cluster::message::Process;

/// How long the other end of an exchange may say nothing. It says something each second.
const SILENT: Duration = Duration::from_secs(6);

/// The same for one whose process isn't heard either.
const SILENT_AND_DEAD: Duration = Duration::from_millis(2500);

/// So many exchanges are named in one message.
const NAMED_AT_ONCE: usize = 10_000;

/// Why an exchange came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Broken {
    /// It never began there: no such process listens.
    #[error("the other process isn't there")]
    NotThere,
    /// Nobody knows how far it got.
    #[error("the connection to the other process was lost: {0}")]
    Lost(&'static str),
    /// The other end has given it up.
    #[error("the other process has given it up")]
    Cancelled,
    #[error("it doesn't fit into a message")]
    TooLong,
}

/// What happens in an exchange.
#[derive(Debug)]
pub(super) enum Event {
    Part(Bytes),
    Last,
    Acknowledged(u64),
    Broken(Broken),
}

/// What is to be published.
pub(super) struct Outgoing {
    pub subject: String,
    pub reply: Option<String>,
    pub bytes: Bytes,
}

pub(super) struct Switchboard {
    pub cluster: Arc<ClusterHandle>,
    sending: mpsc::UnboundedSender<Outgoing>,
    exchanges: Mutex<HashMap<ExchangeId, Registered>>,
}

struct Registered {
    events: mpsc::UnboundedSender<Event>,
    peer: Process,
    heard: Instant,
    arrivals: Arrivals,
    /// How many messages this end has sent.
    sent: Arc<AtomicU64>,
}

/// The subject on which a process hears.
pub(super) fn subject_of(cluster: &ClusterHandle, process: &Process) -> String {
    // A node's name may have anything in it.
    let mut node = String::with_capacity(2 * process.node.len());
    for byte in process.node.bytes() {
        let _ = write!(node, "{byte:02x}");
    }
    cluster.subject(&format!("relay.n{node}.{}", process.boot))
}

/// What follows that subject in what goes to one exchange.
pub(super) fn token_of(id: ExchangeId) -> String {
    format!("{id:032x}")
}

/// Beside those: what goes to all exchanges with a process.
pub(super) const ALIVE: &str = "alive";

impl Switchboard {
    pub fn new(
        cluster: Arc<ClusterHandle>,
        sending: mpsc::UnboundedSender<Outgoing>,
    ) -> Switchboard {
        Switchboard { cluster, sending, exchanges: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExchangeId, Registered>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes in the order of these calls. It doesn't wait: of what exchanges carry, so much is on its way
    /// as their windows let.
    pub fn publish(&self, subject: String, reply: Option<String>, bytes: Bytes) {
        // The other end of this channel is gone only with all that goes on here.
        let _ = self.sending.send(Outgoing { subject, reply, bytes });
    }

    pub fn send(&self, peer: &Process, id: ExchangeId, frame: &Frame) {
        let subject = format!("{}.{}", subject_of(&self.cluster, peer), token_of(id));
        // Where nobody listens for the first one, the server says so.
        let reply = matches!(frame, Frame::Begin { .. }).then(|| {
            format!("{}.{}", subject_of(&self.cluster, &self.cluster.process), token_of(id))
        });
        self.publish(subject, reply, frame.to_bytes());
    }

    /// An exchange begins: what happens in it, and where it counts what it sends.
    pub fn register(
        &self,
        id: ExchangeId,
        peer: Process,
    ) -> (mpsc::UnboundedReceiver<Event>, Arc<AtomicU64>) {
        let (events, happens) = mpsc::unbounded_channel();
        let sent = Arc::new(AtomicU64::new(0));
        let (heard, arrivals) = (clock::now(), Arrivals::default());
        let registered = Registered { events, peer, heard, arrivals, sent: sent.clone() };
        self.lock().insert(id, registered);
        (happens, sent)
    }

    pub fn unregister(&self, id: ExchangeId) {
        self.lock().remove(&id);
    }

    /// A message has come for an exchange.
    pub fn arrive(&self, id: ExchangeId, frame: Frame) {
        let mut exchanges = self.lock();
        let Some(exchange) = exchanges.get_mut(&id) else { return };
        exchange.heard = clock::now();
        let (number, event) = match frame {
            Frame::Begin { part, .. } => (0, Event::Part(part)),
            Frame::Part { number, part } => (number, Event::Part(part)),
            Frame::Last { number } => (number, Event::Last),
            Frame::Acknowledge { next } => {
                let _ = exchange.events.send(Event::Acknowledged(next));
                return;
            }
            Frame::Cancel => {
                let _ = exchange.events.send(Event::Broken(Broken::Cancelled));
                exchanges.remove(&id);
                return;
            }
            Frame::Lost => {
                let _ = exchange.events.send(Event::Broken(Broken::Lost("it was given up there")));
                exchanges.remove(&id);
                return;
            }
        };
        match exchange.arrivals.arrive(number) {
            Arrival::Next => drop(exchange.events.send(event)),
            Arrival::Again => {}
            Arrival::Gap => self.break_off(&mut exchanges, id, "a message is missing"),
        }
    }

    /// Nobody listens where an exchange was to begin.
    pub fn nobody_listens(&self, id: ExchangeId) {
        if let Some(exchange) = self.lock().remove(&id) {
            let _ = exchange.events.send(Event::Broken(Broken::NotThere));
        }
    }

    fn break_off(
        &self,
        exchanges: &mut HashMap<ExchangeId, Registered>,
        id: ExchangeId,
        why: &'static str,
    ) {
        if let Some(exchange) = exchanges.remove(&id) {
            let _ = exchange.events.send(Event::Broken(Broken::Lost(why)));
            self.send(&exchange.peer, id, &Frame::Lost);
        }
    }

    /// The other end of exchanges lives. Those that aren't known here are over.
    pub fn hear(&self, alive: &Alive) {
        let mut exchanges = self.lock();
        for (id, next) in &alive.exchanges {
            match exchanges.get_mut(id) {
                Some(exchange) if exchange.arrivals.has_all_before(*next) => {
                    exchange.heard = clock::now();
                }
                Some(_) => self.break_off(&mut exchanges, *id, "a message is missing"),
                // Whoever waited here may wait elsewhere now: that isn't the same as not to want it any more.
                None => self.send(&alive.from, *id, &Frame::Lost),
            }
        }
    }

    /// Says that this end lives, and gives up those whose other end doesn't. To be called each second.
    pub fn tick(&self) {
        let mut exchanges = self.lock();
        let is_dead = |exchange: &Registered| {
            let silence = clock::since(exchange.heard);
            silence > SILENT || silence > SILENT_AND_DEAD && !self.cluster.is_live(&exchange.peer)
        };
        let dead = exchanges.iter().filter(|(_, exchange)| is_dead(exchange));
        for id in dead.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.break_off(&mut exchanges, id, "it is silent");
        }
        let mut by_peer: BTreeMap<&Process, Vec<(ExchangeId, u64)>> = BTreeMap::new();
        for (id, exchange) in exchanges.iter() {
            by_peer.entry(&exchange.peer).or_default().push((*id, exchange.sent.load(Relaxed)));
        }
        for (peer, named) in by_peer {
            let subject = format!("{}.{ALIVE}", subject_of(&self.cluster, peer));
            for named in named.chunks(NAMED_AT_ONCE) {
                let from = self.cluster.process.clone();
                let alive = Alive { from, exchanges: named.to_vec() };
                self.publish(subject.clone(), None, alive.to_bytes());
            }
        }
    }

    /// All that goes on here breaks off.
    pub fn break_all(&self) {
        let mut exchanges = self.lock();
        for id in exchanges.keys().copied().collect::<Vec<_>>() {
            self.break_off(&mut exchanges, id, "it has ended");
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().len()
    }
}
