//! One session: the events of one client, and the updates that it has not read yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::cache::Kept;
use super::endpoint::{Endpoint, Prepared};
use super::login::Caller;
use super::refusal::Rejection;
use super::wire::{Audience, Speaker};
use crate::entry::CancelOnDrop;
use crate::event::{EventId, EventMap};
use crate::outbox::Outbox;
use crate::output::Output;
use crate::scheduler::Patience;
use crate::sink::{Follower, Observer};
use crate::state::SessionState;
use crate::update::{Outcome, Update};

/// How long a client whose stream broke off, or whose heartbeat ended, has to come back.
pub(crate) const RECONNECT_GRACE: Duration = Duration::from_secs(10);

/// One client: its events and its unread updates.
#[derive(Debug)]
pub(crate) struct Session {
    pub hash: Arc<str>,
    kept: Arc<SessionState>,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Events whose terminal update the client hasn't read.
    live: EventMap<Live>,
    /// The number of the stream that reads; a newer one takes over.
    stream: u64,
    streaming: bool,
    /// Its heartbeats.
    present: usize,
    touched: Instant,
}

#[derive(Debug)]
struct Live {
    speaker: Speaker,
    /// Comes with the admission; dropped before the end, it cancels.
    guard: Option<CancelOnDrop>,
}

/// What a stream reads.
pub(crate) enum Read<T> {
    Next(T),
    /// The client has read the end of its last event.
    Finished,
    /// Another stream reads now.
    TakenOver,
}

impl Session {
    pub fn new(kept: Arc<SessionState>) -> Self {
        let state = State {
            live: EventMap::default(),
            stream: 0,
            streaming: false,
            present: 0,
            touched: Instant::now(),
        };
        let hash = kept.id.clone();
        Session { hash, kept, outbox: Arc::default(), state: Mutex::new(state) }
    }

    /// What its listeners keep for it.
    pub fn state(&self) -> Arc<SessionState> {
        self.kept.clone()
    }

    pub fn caller(&self) -> Caller {
        Caller(self.kept.user.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its client has just been heard of.
    pub fn touch(&self) {
        self.lock().touched = Instant::now();
    }

    /// Its client says that it is there: once more.
    pub fn arrive(&self) {
        self.lock().present += 1;
    }

    /// Its client doesn't say so any more: whether that was the last of it.
    pub fn depart(&self) -> bool {
        let mut state = self.lock();
        state.present -= 1;
        state.touched = Instant::now();
        state.present == 0
    }

    /// Nobody listens and nobody says that he is there.
    pub fn is_deserted(&self) -> bool {
        let state = self.lock();
        !state.streaming && state.present == 0
    }

    pub fn is_forgotten(&self, now: Instant, ttl: Duration) -> bool {
        self.is_deserted() && now >= self.lock().touched + ttl
    }

    /// Submits an event whose updates go to this session.
    pub async fn submit(
        &self,
        id: EventId,
        endpoint: &Endpoint,
        input: Prepared,
        audience: Audience,
    ) -> Result<(), Rejection> {
        if let Some(kept) = input.kept(endpoint) {
            self.give(id, endpoint, &kept, audience);
            return Ok(());
        }
        let (input, keep) = input.split(endpoint);
        {
            // Before it is admitted: its first updates may be read before we hear of it.
            let mut state = self.lock();
            state.touched = Instant::now();
            let speaker = Speaker::new(endpoint, audience);
            state.live.insert(id, Live { speaker, guard: None });
        }
        let unregister = Unregister { session: self, id, armed: true };
        let follower = match keep {
            None => Follower::Outbox(self.outbox.clone()),
            Some((cache, key)) => {
                Follower::Observed(self.outbox.clone(), Observer(Box::new(cache.recorder(key))))
            }
        };
        let session = Some(self.kept.clone());
        let submitted = endpoint.entry.submit(id, input, session, follower, Patience::Refuse).await;
        let guard = submitted.map_err(|r| Rejection::of(r, &endpoint.parameters))?;
        unregister.disarm();
        match self.lock().live.get_mut(&id) {
            Some(live) => live.guard = Some(guard),
            // Its end has been read already.
            None => guard.disarm(),
        }
        Ok(())
    }

    /// Gives what an event of the same input gave.
    fn give(&self, event_id: EventId, endpoint: &Endpoint, kept: &Kept, audience: Audience) {
        let speaker = Speaker::new(endpoint, audience).of_cache();
        let mut state = self.lock();
        state.touched = Instant::now();
        state.live.insert(event_id, Live { speaker, guard: None });
        drop(state);
        for item in &kept.items {
            let output = item.share();
            self.outbox.push(Update::ProcessGenerating { event_id, output, duration: 0.0 });
        }
        let outcome = Outcome::Completed(kept.output.as_ref().map(Output::share));
        let (duration, average_duration) = (0.0, None);
        self.outbox.push(Update::ProcessCompleted {
            event_id,
            outcome,
            duration,
            average_duration,
        });
    }

    /// Cancels an event, if it is this session's.
    pub fn cancel(&self, id: EventId) {
        if let Some(guard) = self.lock().live.get(&id).and_then(|live| live.guard.as_ref()) {
            guard.cancel();
        }
    }

    /// Begins to read; whoever read before is told so.
    pub fn open_stream(self: &Arc<Self>) -> Stream {
        let mut state = self.lock();
        state.stream += 1;
        state.streaming = true;
        Stream { session: self.clone(), number: state.stream, finished: false }
    }

    /// Cancels what a client left behind, unless it has come back meanwhile.
    fn abandon(&self, stream: u64) {
        let mut state = self.lock();
        if state.stream == stream && !state.streaming {
            state.live.clear();
        }
    }
}

/// Takes an event off the session again when it wasn't admitted, or the request went away.
struct Unregister<'a> {
    session: &'a Session,
    id: EventId,
    armed: bool,
}

impl Unregister<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Unregister<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.session.lock().live.remove(&self.id);
        }
    }
}

/// A client's reading of its session. A stream that breaks off leaves the events a while for the
/// client to come back.
pub(crate) struct Stream {
    session: Arc<Session>,
    number: u64,
    finished: bool,
}

impl Stream {
    /// The next update, in the words of `say`.
    pub fn poll_next<T>(
        &mut self,
        cx: &mut Context<'_>,
        say: impl Fn(&mut Speaker, Update) -> T,
    ) -> Poll<Read<T>> {
        loop {
            {
                let state = self.session.lock();
                if state.stream != self.number {
                    return Poll::Ready(Read::TakenOver);
                }
                if state.live.is_empty() {
                    self.finished = true;
                    return Poll::Ready(Read::Finished);
                }
            }
            let update = std::task::ready!(self.session.outbox.poll_next(cx));
            let (id, terminal) = (update.event_id(), update.is_terminal());
            let mut state = self.session.lock();
            // Updates of events that were given up have no listener any more.
            let Some(live) = state.live.get_mut(&id) else { continue };
            let said = say(&mut live.speaker, update);
            if terminal
                && let Some(live) = state.live.remove(&id)
                && let Some(guard) = live.guard
            {
                guard.disarm();
            }
            return Poll::Ready(Read::Next(said));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        if state.stream != self.number {
            return;
        }
        state.streaming = false;
        state.touched = Instant::now();
        drop(state);
        if !self.finished {
            let (session, number) = (self.session.clone(), self.number);
            actix_web::rt::spawn(async move {
                tokio::time::sleep(RECONNECT_GRACE).await;
                session.abandon(number);
            });
        }
    }
}
