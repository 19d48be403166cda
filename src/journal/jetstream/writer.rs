//! The thread that has the log: it takes all that has come, appends it as one group, and says so once that
//! is kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::mem::take;
use std::time::Duration;

use futures::future::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::group::Group;
use super::lease::Lease;
use super::line::{Appending, Attempt, Line};
use super::log::Log;
use crate::journal::error::JournalError;
use crate::journal::record::{End, Record};
use crate::journal::{Batch, Done, requests};
use crate::logging::{error, warn};

/// Batches in one group, at most.
const GROUP: usize = 4096;

/// About how many bytes a group has, at most, where it has more than one batch: what is longer takes
/// several messages.
const GROUP_BYTES: usize = 512 << 10;

/// How long an append without an answer waits to be tried again, from the first time on and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long after the last append it is looked whether the log is still this process'.
const IDLE: Duration = Duration::from_secs(2);

/// How long after the last append a lease is renewed by another one.
pub(crate) const RENEW: Duration = Duration::from_secs(1);

/// How long it is tried where nobody is left who could hear of it.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// What it is asked.
type Request = requests::Request<Infallible>;

pub(super) struct Writer<L> {
    line: Line<L>,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Those that were taken from `requests` with others.
    next: VecDeque<Request>,
    /// Why nothing is appended any more.
    broken: Option<JournalError>,
    taken_over: watch::Sender<Option<JournalError>>,
    lease: Lease,
    /// Ends before this moment needn't be kept.
    forget_before: u64,
    /// When it was last seen that the log is this process'.
    seen: Instant,
}

impl<L: Log> Writer<L> {
    /// `taken_over` hears when another process has the log. `began` is when the claim of this one did.
    pub fn new(
        line: Line<L>,
        requests: mpsc::UnboundedReceiver<Request>,
        taken_over: watch::Sender<Option<JournalError>>,
        lease: Lease,
    ) -> Self {
        let (next, broken, forget_before) = (VecDeque::new(), None, 0);
        let seen = Instant::now();
        Writer { line, requests, next, broken, taken_over, lease, forget_before, seen }
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
            // Also where it is asked all the time, and has nothing to append.
            let idle = if self.lease.is_limited() { RENEW } else { IDLE };
            if self.seen.elapsed() >= idle {
                self.look().await;
            }
            let request = match self.next.pop_front() {
                Some(request) => request,
                None => match timeout_at(self.seen + idle, self.requests.recv()).await {
                    Ok(Some(request)) => request,
                    Ok(None) => return self.release().await,
                    Err(_) => continue,
                },
            };
            match request {
                Request::Append(batch, done) => self.append(batch, done).await,
                // Who asked may have stopped waiting.
                Request::Load(reply) => drop(reply.send(Ok(self.line.loaded()))),
                Request::Ends(query, reply) => drop(reply.send(self.line.find(&query).await)),
                Request::Forget(before) => self.forget(before).await,
                Request::Test(never) => match never {},
            }
        }
    }

    /// Looks whether the log is still this process'. A lease is renewed by appending nothing.
    async fn look(&mut self) {
        self.seen = Instant::now();
        self.note_lost_lease();
        if self.broken.is_some() {
            return;
        }
        if !self.lease.is_limited() {
            if let Err(trouble) = self.line.look().await {
                self.break_down(trouble);
            }
        } else if let Ok(nothing) = self.line.prepare(Group::of(Vec::new())) {
            // What came of it is noted, and nobody waits for it.
            let _ = self.keep(nothing, false, Duration::ZERO).await;
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
        let kept = self.append_all(batches).await;
        for done in all_done {
            done(kept.clone());
        }
    }

    /// What is long is appended in pieces: each piece is a state that there might have been. Once the first is
    /// kept, the others have to be.
    async fn append_all(&mut self, batches: Vec<Batch>) -> Result<(), JournalError> {
        self.note_lost_lease();
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut is_rest = false;
        for piece in pieces(batches, GROUP_BYTES) {
            let appending = self.line.prepare(Group::of(piece))?;
            self.keep(appending, is_rest, LAST_TRIES).await?;
            is_rest = true;
        }
        Ok(())
    }

    /// Appends it, however long that takes: before it is known what has become of it, nothing else can be. The
    /// rest of something waits for room, too. Where nobody is left who could hear of it, it is tried for so
    /// long.
    async fn keep(
        &mut self,
        mut appending: Appending,
        is_rest: bool,
        patience: Duration,
    ) -> Result<(), JournalError> {
        let (mut pause, longest) = PAUSES;
        let mut closed_at: Option<Instant> = None;
        // Which attempt it is that was kept isn't known.
        let began = Instant::now();
        loop {
            let trouble = match self.line.attempt(&mut appending).await {
                Attempt::Kept => {
                    self.lease.renew(began);
                    self.seen = began;
                    return Ok(());
                }
                Attempt::Refused(JournalError::Full) if is_rest => JournalError::Full,
                Attempt::Refused(trouble) => {
                    if trouble.is_final() {
                        self.break_down(trouble.clone());
                    }
                    return Err(trouble);
                }
                Attempt::UnsureWithoutRoom => JournalError::Full,
                Attempt::Unsure(why) => JournalError::Unreachable(why),
            };
            if trouble == JournalError::Full {
                self.make_room().await;
            }
            if let Some(lost) = self.lease.is_lost(self.line.name()) {
                self.break_down(lost.clone());
                return Err(lost);
            }
            if pause == PAUSES.0 {
                warn!("the journal {} on NATS waits: {trouble}", self.line.name());
            }
            if self.refuse_for(pause, &trouble).await {
                let since = *closed_at.get_or_insert_with(Instant::now);
                if since.elapsed() >= patience {
                    let broken = JournalError::Broken(trouble.to_string());
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
    async fn refuse_for(&mut self, time: Duration, trouble: &JournalError) -> bool {
        let until = Instant::now() + time;
        let mut later = None;
        let is_closed = self.refuse_until(until, trouble, &mut later).await;
        self.next.extend(later);
        is_closed
    }

    /// What can be done as well later goes there.
    async fn refuse_until(
        &mut self,
        until: Instant,
        trouble: &JournalError,
        later: &mut Option<Request>,
    ) -> bool {
        let (lease, name) = (self.lease.clone(), self.line.name().to_string());
        let refusal = || lease.is_lost(&name).unwrap_or_else(|| trouble.clone());
        loop {
            let request = match self.next.pop_front() {
                Some(request) => request,
                None => match timeout_at(until, self.requests.recv()).await {
                    Err(_) => return false,
                    Ok(None) => return true,
                    Ok(Some(request)) => request,
                },
            };
            match request {
                Request::Append(_, done) => done(Err(refusal())),
                Request::Load(reply) => drop(reply.send(Err(refusal()))),
                Request::Ends(_, reply) => drop(reply.send(Err(refusal()))),
                Request::Forget(before) => {
                    self.forget_before = before;
                    *later = Some(request);
                }
                Request::Test(never) => match never {},
            }
        }
    }

    /// What nobody needs goes, though nothing can be appended.
    async fn make_room(&mut self) {
        if let Err(trouble) = self.line.make_room(self.forget_before).await {
            warn!("the journal {} on NATS keeps what could go: {trouble}", self.line.name());
        }
    }

    async fn forget(&mut self, before: u64) {
        self.forget_before = before;
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
            match self.keep(again, false, LAST_TRIES).await {
                Ok(()) => {}
                Err(JournalError::Full) => return self.line.make_room(before).await,
                Err(trouble) => return Err(trouble),
            }
        }
        self.line.remove_before(first).await
    }
}

/// In pieces of about as many bytes, each of them in order, and no record in two.
fn pieces(batches: Vec<Batch>, bytes: usize) -> Vec<Vec<Batch>> {
    if batches.iter().map(weight).sum::<usize>() <= bytes {
        return vec![batches];
    }
    let (mut pieces, mut piece, mut weighs) = (Vec::new(), Vec::new(), 0);
    for batch in batches {
        let mut records = Vec::new();
        for record in batch.records.iter() {
            records.push(record.clone());
            weighs += weight_of(record);
            if weighs >= bytes {
                let concurrency_id = batch.concurrency_id.clone();
                piece.push(Batch { concurrency_id, records: take(&mut records).into() });
                pieces.push(take(&mut piece));
                weighs = 0;
            }
        }
        if !records.is_empty() {
            piece.push(Batch { concurrency_id: batch.concurrency_id, records: records.into() });
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// About how many bytes its records take.
fn weight(batch: &Batch) -> usize {
    batch.records.iter().map(weight_of).sum()
}

fn weight_of(record: &Record) -> usize {
    const FIELDS: usize = 256;
    FIELDS
        + match record {
            Record::Admitted(admitted) => admitted.input.get().len(),
            Record::Ended(ended) => match &ended.end {
                End::Completed(Some(output)) => output.get().len(),
                _ => 0,
            },
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::id::EventId;

    #[test]
    fn what_is_long_comes_in_pieces() {
        let started = |n| Record::Started { event: EventId::for_test(n), attempt: 1, place: None };
        let batch = |id: &str, records: Vec<Record>| Batch {
            concurrency_id: id.into(),
            records: records.into(),
        };
        let batches = vec![batch("a", (0..5).map(started).collect()), batch("b", vec![started(5)])];
        assert_eq!(pieces(batches.clone(), usize::MAX), std::slice::from_ref(&batches));
        let two = 2 * weight_of(&started(0));
        let expected = [
            vec![batch("a", vec![started(0), started(1)])],
            vec![batch("a", vec![started(2), started(3)])],
            vec![batch("a", vec![started(4)]), batch("b", vec![started(5)])],
        ];
        assert_eq!(pieces(batches, two), expected);
    }
}
