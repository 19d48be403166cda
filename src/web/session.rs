//! Sessions: the events of one client, and the updates that it has not read yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::refusal::Rejection;
use super::wire::Speaker;
use crate::entry::CancelOnDrop;
use crate::event::{EventId, EventMap};
use crate::handler::Input;
use crate::outbox::Outbox;
use crate::scheduler::Patience;
use crate::sink::Follower;
use crate::update::Update;

/// How long a session may be without a stream and without a request before it is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// How long the events of a client whose stream broke off wait for it to come back.
const RECONNECT_GRACE: Duration = Duration::from_secs(10);

/// Every client of a queue, and every `/call`.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By session hash.
    sessions: HashMap<Arc<str>, Arc<Session>>,
    /// A `/call` has a stream of its own.
    calls: EventMap<Arc<Session>>,
    swept: Option<Instant>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a hash that the client chose, begun if it is new.
    pub fn begin(&self, hash: &str) -> Arc<Session> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.sweep(now);
        if let Some(session) = inner.sessions.get(hash) {
            return session.clone();
        }
        let session = Arc::new(Session::new(hash.into(), now));
        inner.sessions.insert(session.hash.clone(), session.clone());
        session
    }

    pub fn find(&self, hash: &str) -> Option<Arc<Session>> {
        self.lock().sessions.get(hash).cloned()
    }

    /// A session for a single `/call`.
    pub fn begin_call(&self, id: EventId, hash: Arc<str>) -> Arc<Session> {
        let now = Instant::now();
        let session = Arc::new(Session::new(hash, now));
        let mut inner = self.lock();
        inner.sweep(now);
        inner.calls.insert(id, session.clone());
        session
    }

    pub fn find_call(&self, id: EventId) -> Option<Arc<Session>> {
        self.lock().calls.get(&id).cloned()
    }

    pub fn end_call(&self, id: EventId) {
        self.lock().calls.remove(&id);
    }
}

impl Inner {
    /// Forgets, now and then, sessions that nobody has asked for in a long while. Their events are
    /// cancelled with them.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now < at + FORGET / 10) {
            return;
        }
        self.swept = Some(now);
        self.sessions.retain(|_, session| !session.is_forgotten(now));
        self.calls.retain(|_, session| !session.is_forgotten(now));
    }
}

/// One client: its events and its unread updates.
#[derive(Debug)]
pub(crate) struct Session {
    pub hash: Arc<str>,
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
    fn new(hash: Arc<str>, now: Instant) -> Self {
        let state = State { live: EventMap::default(), stream: 0, streaming: false, touched: now };
        Session { hash, outbox: Arc::default(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        let state = self.lock();
        !state.streaming && now >= state.touched + FORGET
    }

    /// Submits an event whose updates go to this session.
    pub async fn submit(
        &self,
        id: EventId,
        endpoint: &Endpoint,
        input: Input,
        show_error: bool,
    ) -> Result<(), Rejection> {
        {
            // Before it is admitted: its first updates may be read before we hear of it.
            let mut state = self.lock();
            state.touched = Instant::now();
            let speaker = Speaker::new(endpoint, show_error);
            state.live.insert(id, Live { speaker, guard: None });
        }
        let unregister = Unregister { session: self, id, armed: true };
        let follower = Follower::Outbox(self.outbox.clone());
        let session = Some(self.hash.clone());
        let submitted = endpoint.entry.submit(id, input, session, follower, Patience::Refuse).await;
        let guard = submitted.map_err(Rejection::from)?;
        unregister.disarm();
        match self.lock().live.get_mut(&id) {
            Some(live) => live.guard = Some(guard),
            // Its end has been read already.
            None => guard.disarm(),
        }
        Ok(())
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
