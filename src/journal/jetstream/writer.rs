//! The thread that has the log: it takes all that has come, appends it as one group, and says so once that
//! is kept.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::group::Group;
use super::lease::Lease;
use super::line::{Appending, Attempt, Line, group_of};
use super::log::Log;
use crate::journal::error::JournalError;
use crate::journal::record::{End, Kept, Record};
use crate::journal::{Batch, Done, Loaded, Query};
use crate::logging::{error, warn};

/// Batches in one group, at most.
const GROUP: usize = 4096;

/// About how many bytes a group has, at most, where it has more than one batch: what is longer takes
/// several messages.
const GROUP_BYTES: usize = 512 << 10;

/// How long an append without an answer waits to be tried again, from the first time on and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// After how long without anything to append it is looked whether the log is still this process'.
const IDLE: Duration = Duration::from_secs(2);

/// How long it is tried where nobody is left who could hear of it.
const LAST_TRIES: Duration = Duration::from_secs(10);

pub(super) enum Request {
    Append(Batch, Done),
    Load(std::sync::mpsc::Sender<Result<Loaded, JournalError>>),
    Ends(Query, oneshot::Sender<Result<Vec<Kept>, JournalError>>),
    Forget(u64),
}

pub(super) struct Writer<L> {
    line: Line<L>,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Those that were taken from `requests` with others.
    next: VecDeque<Request>,
    /// Why nothing is appended any more.
    broken: Option<JournalError>,
    taken_over: watch::Sender<Option<JournalError>>,
    lease: Lease,
}

impl<L: Log> Writer<L> {
    /// `taken_over` hears when another process has the log. `began` is when the claim of this one did.
    pub fn new(
        line: Line<L>,
        requests: mpsc::UnboundedReceiver<Request>,
        taken_over: watch::Sender<Option<JournalError>>,
        lease: Lease,
    ) -> Self {
        Writer { line, requests, next: VecDeque::new(), broken: None, taken_over, lease }
    }

    /// Does what it is asked until nobody can ask any more.
    pub async fn run(self) {
        let (lease, name) = (self.lease.clone(), self.line.name().to_string());
        let taken_over = self.taken_over.clone();
        // What it waits for may keep it from looking at the time.
        let watch = async move {
            let lost = lease.lost(&name).await;
            taken_over.send_replace(Some(lost));
            std::future::pending::<()>().await
        };
        select(std::pin::pin!(self.answer()), std::pin::pin!(watch)).await;
    }

    async fn answer(mut self) {
        loop {
            let request = match self.next.pop_front() {
                Some(request) => request,
                None => match tokio::time::timeout(IDLE, self.requests.recv()).await {
                    Ok(Some(request)) => request,
                    Ok(None) => return self.release().await,
                    Err(_) => {
                        self.look().await;
                        continue;
                    }
                },
            };
            match request {
                Request::Append(batch, done) => self.append(batch, done).await,
                // Who asked may have stopped waiting.
                Request::Load(reply) => drop(reply.send(Ok(self.line.loaded()))),
                Request::Ends(query, reply) => drop(reply.send(self.line.find(&query).await)),
                Request::Forget(before) => self.forget(before).await,
            }
        }
    }

    /// Looks whether the log is still this process', by appending nothing.
    async fn look(&mut self) {
        self.note_lost_lease();
        if self.broken.is_none()
            && let Ok(nothing) = self.line.prepare(Group::of(Vec::new()))
        {
            // What came of it is noted, and nobody waits for it.
            let _ = self.keep(nothing).await;
        }
    }

    /// Says that the next process needn't wait. Where that isn't kept, it waits.
    async fn release(&mut self) {
        self.note_lost_lease();
        if self.broken.is_none()
            && let Ok(mut release) = self.line.prepare(Group::release())
        {
            self.line.attempt(&mut release).await;
        }
    }

    async fn append(&mut self, batch: Batch, done: Done) {
        let mut bytes = weight(&batch);
        let (mut batches, mut all_done) = (vec![batch], vec![done]);
        while batches.len() < GROUP && bytes < GROUP_BYTES {
            match self.requests.try_recv() {
                Ok(Request::Append(batch, done)) => {
                    bytes += weight(&batch);
                    batches.push(batch);
                    all_done.push(done);
                }
                Ok(other) => {
                    self.next.push_back(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.note_lost_lease();
        let kept = match &self.broken {
            Some(broken) => Err(broken.clone()),
            None => match self.line.prepare(group_of(batches)) {
                Ok(appending) => self.keep(appending).await,
                Err(trouble) => Err(trouble),
            },
        };
        for done in all_done {
            done(kept.clone());
        }
    }

    /// Appends it, however long that takes: before it is known what has become of it, nothing else can be.
    async fn keep(&mut self, mut appending: Appending) -> Result<(), JournalError> {
        let (mut pause, longest) = PAUSES;
        let mut closed_at: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let why = match self.line.attempt(&mut appending).await {
                Attempt::Kept => {
                    self.lease.renew(began);
                    return Ok(());
                }
                Attempt::Refused(trouble) => {
                    if trouble.is_final() {
                        self.break_down(trouble.clone());
                    }
                    return Err(trouble);
                }
                Attempt::Unsure(why) => why,
            };
            if let Some(lost) = self.lease.is_lost(self.line.name()) {
                self.break_down(lost.clone());
                return Err(lost);
            }
            if pause == PAUSES.0 {
                warn!("the journal {} on NATS waits for an answer: {why}", self.line.name());
            }
            if self.refuse_for(pause, &why).await {
                let since = *closed_at.get_or_insert_with(Instant::now);
                if since.elapsed() >= LAST_TRIES {
                    let broken = JournalError::Broken(why);
                    self.break_down(broken.clone());
                    return Err(broken);
                }
                tokio::time::sleep(pause).await;
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// Whoever was told so has stopped what it ran: that an append is kept afterwards doesn't count.
    fn note_lost_lease(&mut self) {
        let lost = self.lease.is_lost(self.line.name()).filter(|_| self.broken.is_none());
        if let Some(lost) = lost {
            self.break_down(lost);
        }
    }

    fn break_down(&mut self, trouble: JournalError) {
        error!("{trouble}");
        self.line.resign();
        self.taken_over.send_replace(Some(trouble.clone()));
        self.broken = Some(trouble);
    }

    /// For so long, says that nothing can be kept now. Whether nobody is left who could ask.
    async fn refuse_for(&mut self, time: Duration, why: &str) -> bool {
        let until = Instant::now() + time;
        let mut later = None;
        let is_closed = self.refuse_until(until, why, &mut later).await;
        self.next.extend(later);
        is_closed
    }

    /// What can be done as well later goes there.
    async fn refuse_until(
        &mut self,
        until: Instant,
        why: &str,
        later: &mut Option<Request>,
    ) -> bool {
        let (lease, name) = (self.lease.clone(), self.line.name().to_string());
        let unreachable =
            || lease.is_lost(&name).unwrap_or_else(|| JournalError::Unreachable(why.to_string()));
        loop {
            let request = match self.next.pop_front() {
                Some(request) => request,
                None => match tokio::time::timeout_at(until, self.requests.recv()).await {
                    Err(_) => return false,
                    Ok(None) => return true,
                    Ok(Some(request)) => request,
                },
            };
            match request {
                Request::Append(_, done) => done(Err(unreachable())),
                Request::Load(reply) => drop(reply.send(Err(unreachable()))),
                Request::Ends(_, reply) => drop(reply.send(Err(unreachable()))),
                Request::Forget(_) => *later = Some(request),
            }
        }
    }

    async fn forget(&mut self, before: u64) {
        if self.broken.is_some() {
            return;
        }
        if let Err(trouble) = self.clean(before).await {
            // It is asked again in a while.
            warn!("the journal {} on NATS keeps what could go: {trouble}", self.line.name());
        }
    }

    async fn clean(&mut self, before: u64) -> Result<(), JournalError> {
        let Some(cleaning) = self.line.forget(before).await? else { return Ok(()) };
        let first = cleaning.before;
        for group in cleaning.groups(GROUP_BYTES) {
            let again = self.line.prepare(group)?;
            match self.keep(again).await {
                Ok(()) => {}
                Err(JournalError::Full) => {
                    // It says so to its writer only: what nobody needs may go.
                    return self.line.remove_before(self.line.needed_from()).await;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        self.line.remove_before(first).await
    }
}

/// About how many bytes its records take.
fn weight(batch: &Batch) -> usize {
    const FIELDS: usize = 256;
    let value = |record: &Record| match record {
        Record::Admitted(admitted) => admitted.input.get().len(),
        Record::Ended(ended) => match &ended.end {
            End::Completed(Some(output)) => output.get().len(),
            _ => 0,
        },
        _ => 0,
    };
    batch.records.iter().map(|record| FIELDS + value(record)).sum()
}
