//! One end of an exchange.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::flow::{Taken, Window};
use super::frame::{ExchangeId, Frame};
use super::switchboard::{Broken, Event, Switchboard};
use crate::cluster::message::Process;

/// The longest part of what is carried. With what is around it, it fits into a message of NATS' by far.
const MAX_PART: usize = 256 * 1024;

/// What headers and the like may take of a message.
const AROUND: usize = 4096;

/// One end of an exchange. Dropped before the other end has said all, it tells it to stop.
pub(crate) struct Exchange {
    switchboard: Arc<Switchboard>,
    id: ExchangeId,
    peer: Process,
    events: mpsc::UnboundedReceiver<Event>,
    sent: Arc<AtomicU64>,
    window: Window,
    taken: Taken,
    /// What has come and wasn't read.
    arrived: VecDeque<Bytes>,
    /// The other end has said all.
    is_whole: bool,
    /// This end has said all.
    is_finished: bool,
    broken: Option<Broken>,
}

impl Exchange {
    pub(super) fn register(switchboard: Arc<Switchboard>, id: ExchangeId, peer: Process) -> Self {
        let (events, sent) = switchboard.register(id, peer.clone());
        Exchange {
            switchboard,
            id,
            peer,
            events,
            sent,
            window: Window::default(),
            taken: Taken::default(),
            arrived: VecDeque::new(),
            is_whole: false,
            is_finished: false,
            broken: None,
        }
    }

    /// The process at the other end.
    pub fn peer(&self) -> &Process {
        &self.peer
    }

    /// Sees to what has happened; woken when more does.
    fn look(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            match event {
                Event::Part(part) => self.arrived.push_back(part),
                Event::Last => self.is_whole = true,
                Event::Acknowledged(next) => self.window.acknowledge(next),
                Event::Broken(broken) => {
                    self.broken.get_or_insert(broken);
                }
            }
        }
    }

    /// The longest part that the servers take.
    fn max_part(&self) -> usize {
        let max_payload = self.switchboard.cluster.client.server_info().max_payload;
        match max_payload {
            // It isn't known.
            0 => MAX_PART,
            max => MAX_PART.min(max.saturating_sub(AROUND).max(1)),
        }
    }

    pub(super) fn begin(&mut self, head: Bytes) -> Result<(), Broken> {
        if head.len() > self.max_part() {
            return Err(Broken::TooLong);
        }
        self.window.send(head.len());
        let from = self.switchboard.cluster.process.clone();
        self.publish(&Frame::Begin { from, part: head });
        Ok(())
    }

    fn publish(&mut self, frame: &Frame) {
        self.switchboard.send(&self.peer, self.id, frame);
        // After it: what is said to have been sent is on its way.
        self.sent.fetch_add(1, Relaxed);
    }

    /// Sends this as one part, which the other end reads as one. Waits while it doesn't read.
    ///
    /// # Errors
    /// When it doesn't fit into a message; when the exchange breaks.
    pub async fn send_whole(&mut self, part: Bytes) -> Result<(), Broken> {
        if part.len() > self.max_part() {
            return Err(Broken::TooLong);
        }
        poll_fn(|cx| self.poll_room(cx)).await?;
        let number = self.window.send(part.len());
        self.publish(&Frame::Part { number, part });
        Ok(())
    }

    /// Sends this in as many parts as it takes.
    ///
    /// # Errors
    /// When the exchange breaks.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(self.max_part()));
            self.send_whole(part).await?;
        }
        Ok(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.look(cx);
        match &self.broken {
            Some(broken) => Poll::Ready(Err(broken.clone())),
            None if self.window.has_room() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    /// Nothing more comes from this end.
    pub fn finish(&mut self) {
        let number = self.window.send(0);
        self.publish(&Frame::Last { number });
        self.is_finished = true;
    }

    /// The next part of what the other end sends; none after the last one.
    ///
    /// # Errors
    /// When the exchange broke before all had come. What has come is read first.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.look(cx);
        if let Some(part) = self.arrived.pop_front() {
            if let Some(next) = self.taken.take(part.len()) {
                self.switchboard.send(&self.peer, self.id, &Frame::Acknowledge { next });
            }
            return Poll::Ready(Ok(Some(part)));
        }
        if self.is_whole {
            return Poll::Ready(Ok(None));
        }
        match &self.broken {
            Some(broken) => Poll::Ready(Err(broken.clone())),
            None => Poll::Pending,
        }
    }

    /// See [`poll_part`](Self::poll_part).
    pub async fn part(&mut self) -> Result<Option<Bytes>, Broken> {
        poll_fn(|cx| self.poll_part(cx)).await
    }

    /// Ready when the exchange breaks.
    pub async fn broken(&mut self) -> Broken {
        poll_fn(|cx| {
            self.look(cx);
            self.broken.clone().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// As [`broken`](Self::broken), to be polled beside what is done meanwhile.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.look(cx);
        match &self.broken {
            Some(broken) => Poll::Ready(broken.clone()),
            None => Poll::Pending,
        }
    }
}

impl Exchange {
    /// Reads all that the other end sends, as long as that isn't too much.
    ///
    /// # Errors
    /// When it is; when the exchange breaks.
    pub async fn rest(&mut self, max: usize) -> Result<Bytes, Broken> {
        let mut all: Vec<u8> = Vec::new();
        while let Some(part) = self.part().await? {
            if all.len() + part.len() > max {
                return Err(Broken::TooLong);
            }
            all.extend_from_slice(&part);
        }
        Ok(all.into())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.switchboard.unregister(self.id);
        let is_over = self.is_whole && self.is_finished;
        if !is_over && self.broken.is_none() {
            self.switchboard.send(&self.peer, self.id, &Frame::Cancel);
        }
    }
}
