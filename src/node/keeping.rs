//! How a node comes to keep the line: by a claim in the record, which is safe at any time, since of two the
//! record lets the later one stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Arbiter;
use tokio::sync::mpsc::UnboundedSender;

use super::input::{Input, Kept};
use super::proxy;
use crate::clock;
use crate::cluster::handle::ClusterHandle;
use crate::cluster::message::Epoch;
use crate::journal::Journal;
use crate::journal::error::JournalError;
use crate::journal::jetstream::{ConnectNats, Nats};
use crate::logging::debug;
use crate::queue::blueprint::Blueprint;
use crate::queue::builder::{QueueBuilder, StartOnLine};
use crate::queue::elsewhere::RecordedRuns;

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Claiming {
    connect: ConnectNats,
    /// The thread of a claim that is under way.
    thread: Option<Arbiter>,
    not_before: Option<Instant>,
    /// Whether somebody has the record is being asked.
    asked: Option<Instant>,
}

/// When the line is to be claimed.
pub(super) struct Due {
    pub at: Instant,
    /// Only if nobody keeps it by a claim behind this one.
    pub over: Option<Epoch>,
}

impl Claiming {
    pub fn new(connect: ConnectNats) -> Self {
        Claiming { connect, thread: None, not_before: None, asked: None }
    }

    pub fn is_under_way(&self) -> bool {
        self.thread.is_some()
    }

    pub fn has_failed(&mut self, now: Instant) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
        self.not_before = Some(now + AGAIN);
    }

    /// It has succeeded: gives the thread that the line is kept on.
    pub fn is_over(&mut self) -> Option<Arbiter> {
        self.thread.take()
    }

    /// Claims once that is due. `is_unknown`: nobody is known to keep the line, so that it may be free.
    pub fn look(
        &mut self,
        now: Instant,
        due: Due,
        is_unknown: bool,
        handle: &ClusterHandle,
        blueprint: &Blueprint,
        input: &UnboundedSender<Input>,
    ) {
        if self.is_under_way() || self.not_before.is_some_and(|then| now < then) {
            return;
        }
        if now >= due.at {
            let thread = Arbiter::new();
            let keeping = keep(
                self.connect.clone(),
                handle.process.to_string(),
                due.over,
                blueprint.clone(),
                input.clone(),
            );
            let input = input.clone();
            thread.spawn(async move {
                // The agent ends with the process only.
                let _ = input.send(Input::Claimed(keeping.await.map(Box::new)));
            });
            self.thread = Some(thread);
        } else if is_unknown && self.asked.is_none_or(|asked| now - asked >= AGAIN / 2) {
            self.asked = Some(now);
            let (connect, client) = (self.connect.clone(), handle.client.clone());
            let input = input.clone();
            actix::spawn(async move {
                match connect.released(&client).await {
                    Ok(Some(until)) => drop(input.send(Input::IsFree(until))),
                    Ok(None) => {}
                    Err(trouble) => debug!("it isn't known who has the record: {trouble}"),
                }
            });
        }
    }
}

async fn keep(
    connect: ConnectNats,
    by: String,
    over: Option<Epoch>,
    blueprint: Blueprint,
    input: UnboundedSender<Input>,
) -> Result<Kept, JournalError> {
    let began = clock::now();
    let nats = Nats::claim(connect, format!("node {by}"), over).await?;
    let (epoch, last_kept) = (nats.opened().epoch, nats.opened().last_kept.clone());
    let lost = nats.lost();
    let journal: Arc<dyn Journal> = Arc::new(nats);
    let recorded = RecordedRuns::default();
    let run = |listener: &_| proxy::handler(epoch, Clone::clone(listener), input.clone());
    let line = blueprint.line(journal.clone(), run, recorded.clone());
    let queue =
        QueueBuilder::of(line).start().map_err(|error| JournalError::Broken(error.to_string()))?;
    let given = blueprint.extensions.as_ref().and_then(|extensions| extensions.get());
    if let Some(StartOnLine(start)) = given {
        start(&queue);
    }
    actix::spawn(async move {
        let why = lost.await;
        let _ = input.send(Input::Lost(epoch, why));
    });
    let recorded = recorded.take();
    Ok(Kept { epoch, queue, journal, last_kept, began, recorded, blueprint })
}
