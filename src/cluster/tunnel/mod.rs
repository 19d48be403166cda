//! Requests with a body from one process of a cluster to another, and their answers as streams, in messages of
//! core NATS.
//!
//! Core NATS may lose messages, while a connection is made again. So each way's messages are numbered, and a
//! number that is missing breaks the exchange: what is read is right, or an error. A reader that is slow stops
//! its sender, by a window of what may be unread.

mod exchange;
mod flow;
mod frame;
mod switchboard;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{join, select};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(crate) use self::exchange::Exchange;
use self::frame::{Alive, Frame};
pub(crate) use self::switchboard::Broken;
use self::switchboard::{ALIVE, Outgoing, Switchboard, subject_of, token_of};
use super::handle::ClusterHandle;
use super::message::Process;
use crate::logging::error;

/// How often each end of an exchange says that it lives.
const TICK: Duration = Duration::from_secs(1);

/// How long after it couldn't subscribe it tries again.
const AGAIN: Duration = Duration::from_secs(1);

/// A request from another process. What it carries is read from the exchange, and the answer sent there.
pub(crate) struct Incoming {
    pub head: Bytes,
    pub exchange: Exchange,
}

/// This process' end of the tunnels between all processes of a cluster.
pub(crate) struct Tunnel {
    switchboard: Arc<Switchboard>,
    closed: CancellationToken,
}

impl Tunnel {
    /// One, and what it does for as long as it is there. Requests of others are given to `serve`, which must
    /// not block.
    pub fn new(
        cluster: Arc<ClusterHandle>,
        serve: impl Fn(Incoming) + Send + Sync + 'static,
    ) -> (Tunnel, impl Future<Output = ()> + Send + 'static) {
        let (sending, outgoing) = mpsc::unbounded_channel();
        let switchboard = Arc::new(Switchboard::new(cluster, sending));
        let closed = CancellationToken::new();
        let publish = publish(switchboard.cluster.clone(), outgoing);
        let (own, is_closed) = (switchboard.clone(), closed.clone());
        let run = async move {
            let tasks = join(listen(own.clone(), serve), tick(own.clone()));
            select(Box::pin(tasks), Box::pin(is_closed.cancelled())).await;
            own.break_all();
        };
        // What is published last says to others that it is over.
        let run = async move {
            join(run, publish).await;
        };
        (Tunnel { switchboard, closed }, run)
    }

    /// Begins a request to another process; what it carries is sent by the exchange, and the answer read there.
    ///
    /// # Errors
    /// When the head doesn't fit into a message; when the process is this one.
    pub fn ask(&self, to: &Process, head: Bytes) -> Result<Exchange, Broken> {
        if *to == self.switchboard.cluster.process {
            return Err(Broken::NotThere);
        }
        let id = rand::random();
        let mut exchange = Exchange::register(self.switchboard.clone(), id, to.clone());
        exchange.begin(head)?;
        Ok(exchange)
    }

    /// Breaks all that goes on, as a lost connection would.
    #[cfg(test)]
    pub fn break_all(&self) {
        self.switchboard.break_all();
    }

    /// How many exchanges go on.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.switchboard.count()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

async fn publish(cluster: Arc<ClusterHandle>, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some(Outgoing { subject, reply, bytes }) = outgoing.recv().await {
        let client = &cluster.client;
        let published = match reply {
            Some(reply) => client.publish_with_reply(subject, reply, bytes).await,
            None => client.publish(subject, bytes).await,
        };
        if let Err(trouble) = published {
            // Its exchange breaks for it.
            error!("a message to another node could not be sent: {trouble}");
        }
    }
}

async fn tick(switchboard: Arc<Switchboard>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        switchboard.tick();
    }
}

async fn listen(switchboard: Arc<Switchboard>, serve: impl Fn(Incoming)) {
    let subject = format!("{}.*", subject_of(&switchboard.cluster, &switchboard.cluster.process));
    loop {
        match switchboard.cluster.client.subscribe(subject.clone()).await {
            Ok(messages) => hear(&switchboard, messages, &serve).await,
            Err(trouble) => error!("requests of other nodes can't be heard: {trouble}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hear(switchboard: &Arc<Switchboard>, mut messages: Subscriber, serve: &impl Fn(Incoming)) {
    while let Some(Message { subject, payload, status, .. }) = messages.next().await {
        let Some(token) = subject.as_str().rsplit('.').next() else { continue };
        if token == ALIVE {
            if let Some(alive) = Alive::from_bytes(&payload) {
                switchboard.hear(&alive);
            }
            continue;
        }
        let Some(id) = u128::from_str_radix(token, 16).ok().filter(|id| token_of(*id) == token)
        else {
            continue;
        };
        if status == Some(StatusCode::NO_RESPONDERS) {
            switchboard.nobody_listens(id);
            continue;
        }
        match Frame::from_bytes(payload) {
            Some(Frame::Begin { from, part }) => {
                let exchange = Exchange::register(switchboard.clone(), id, from.clone());
                // It has the number 0, and isn't for the one who reads on.
                switchboard.arrive(id, Frame::Begin { from, part: Bytes::new() });
                serve(Incoming { head: part, exchange });
            }
            Some(frame) => switchboard.arrive(id, frame),
            None => {}
        }
    }
}

/// A subject on which a process of a test answers nothing, and which exists once it listens.
#[cfg(test)]
pub(crate) fn test_subject_of(cluster: &ClusterHandle) -> String {
    format!("{}.test", subject_of(cluster, &cluster.process))
}
