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
use crate::journal::jetstream::{ConnectNats, Nats, RENEW};
use crate::logging::debug;
use crate::queue::blueprint::Blueprint;
use crate::queue::builder::{QueueBuilder, StartOnLine};
use crate::queue::elsewhere::RecordedRuns;

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is asked where the record ends.
const ASK: Duration = Duration::from_millis(250);

/// How long it must have ended there until it shows that nobody writes it: longer than it takes until who has it
/// appends again, and so short that it shows when a claim is due.
const STILL: Duration = Duration::from_millis(RENEW.as_millis() as u64 * 3 / 2);

pub(super) struct Claiming {
    connect: ConnectNats,
    /// The thread of a claim that is under way.
    thread: Option<Arbiter>,
    not_before: Option<Instant>,
    /// When it was last asked where the record ends.
    asked: Option<Instant>,
    record: Option<Seen>,
}

/// Where the record ends, as it was last seen.
struct Seen {
    last: Epoch,
    /// Since when it ends there.
    since: Instant,
    at: Instant,
}

/// When the line is to be claimed.
pub(super) struct Due {
    pub at: Instant,
    /// Who kept it by this claim or one before has left it.
    pub over: Option<Epoch>,
}

impl Claiming {
    pub fn new(connect: ConnectNats) -> Self {
        Claiming { connect, thread: None, not_before: None, asked: None, record: None }
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

    /// The record ends there.
    pub fn saw(&mut self, now: Instant, last: Epoch) {
        let since = self.record.as_ref().filter(|seen| seen.last == last).map(|seen| seen.since);
        self.record = Some(Seen { last, since: since.unwrap_or(now), at: now });
    }

    /// Where the record ends, if nobody writes it as far as that shows by now. Whoever keeps the line does so all
    /// the time, also where the other nodes don't hear it.
    fn still_at(&self, now: Instant) -> Option<Epoch> {
        let is_still = |seen: &&Seen| seen.at - seen.since >= STILL && now - seen.at <= AGAIN;
        self.record.as_ref().filter(is_still).map(|seen| seen.last)
    }

    /// Claims once that is due. `is_silent`: whoever keeps the line isn't heard, if anybody does.
    pub fn look(
        &mut self,
        now: Instant,
        due: Due,
        is_silent: bool,
        handle: &ClusterHandle,
        blueprint: &Blueprint,
        input: &UnboundedSender<Input>,
    ) {
        if self.is_under_way() || self.not_before.is_some_and(|then| now < then) {
            return;
        }
        let over = due.over.or_else(|| self.still_at(now));
        if let Some(over) = over.filter(|_| now >= due.at) {
            let thread = Arbiter::new();
            let keeping = keep(
                self.connect.clone(),
                handle.process.to_string(),
                over,
                blueprint.clone(),
                input.clone(),
            );
            let input = input.clone();
            thread.spawn(async move {
                // The agent ends with the process only.
                let _ = input.send(Input::Claimed(keeping.await.map(Box::new)));
            });
            self.thread = Some(thread);
        } else if is_silent && self.asked.is_none_or(|asked| now - asked >= ASK) {
            self.asked = Some(now);
            let (connect, client) = (self.connect.clone(), handle.client.clone());
            let input = input.clone();
            actix::spawn(async move {
                match connect.last(&client).await {
                    Ok((last, is_released)) => {
                        // The agent ends with the process only.
                        let _ = input.send(Input::RecordEnds { last, is_released });
                    }
                    Err(trouble) => debug!("it isn't known who has the record: {trouble}"),
                }
            });
        }
    }
}

async fn keep(
    connect: ConnectNats,
    by: String,
    over: Epoch,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_written_has_somebody_who_keeps_the_line() {
        let now = Instant::now();
        let mut claiming = Claiming::new(Nats::connect("nats://127.0.0.1:1"));
        assert_eq!(claiming.still_at(now), None, "nothing is known of it");
        claiming.saw(now, 7);
        assert_eq!(claiming.still_at(now), None);
        claiming.saw(now + RENEW, 8);
        claiming.saw(now + 2 * RENEW, 8);
        assert_eq!(claiming.still_at(now + 2 * RENEW), None);
        let still = now + RENEW + STILL;
        claiming.saw(still, 8);
        assert_eq!(claiming.still_at(still), Some(8));
        assert_eq!(claiming.still_at(still + 2 * AGAIN), None, "that is long ago");
    }
}
