//! Sessions: the events of one client, and the updates that it has not read yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
use crate::state::{OnEnd, SessionState};
use crate::update::Update;

/// How long a session may be without a stream and without a request before it is forgotten, when
/// the builder doesn't say: as long as Gradio keeps the state of a client that has left.
const TTL: Duration = Duration::from_secs(3600);

/// How long a `/call` is kept that nobody follows.
const CALL_TTL: Duration = Duration::from_secs(600);

/// How often is looked for such sessions at most and at least.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// How long the events of a client whose stream broke off wait for it to come back.
const RECONNECT_GRACE: Duration = Duration::from_secs(10);

/// Every client of a queue, and every `/call`.
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    ttl: Duration,
    on_end: Option<OnEnd>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By session hash.
    sessions: HashMap<Arc<str>, Arc<Session>>,
    /// A `/call` has a stream of its own.
    calls: EventMap<Arc<Session>>,
}

impl Sessions {
    pub fn new(ttl: Option<Duration>, on_end: Option<OnEnd>) -> Self {
        Sessions { inner: Mutex::default(), ttl: ttl.unwrap_or(TTL), on_end }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a hash that the client chose, begun if it is new.
    pub fn begin(&self, hash: &str) -> Arc<Session> {
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.get(hash) {
            session.lock().touched = Instant::now();
            return session.clone();
        }
        let state = Arc::new(SessionState::new(hash.into(), self.on_end.clone()));
        let session = Arc::new(Session::new(state));
        inner.sessions.insert(session.hash.clone(), session.clone());
        session
    }

    /// A client says that it is there, until it lets go of this.
    pub fn attend(self: &Arc<Self>, hash: &str) -> Presence {
        let session = self.begin(hash);
        session.lock().present += 1;
        Presence { sessions: Arc::downgrade(self), session }
    }

    /// Forgets a session whose client has left and not come back.
    fn leave(&self, session: &Arc<Session>) {
        let mut inner = self.lock();
        let same = inner.sessions.get(&session.hash).is_some_and(|s| Arc::ptr_eq(s, session));
        if same && session.is_deserted() {
            let forgotten = inner.sessions.remove(&session.hash);
            // What comes of its end is not our lock's business.
            drop(inner);
            drop(forgotten);
        }
    }

    /// Forgets sessions that nobody has asked for in a long while. Their events are cancelled with
    /// them.
    fn forget(&self, now: Instant) {
        let mut inner = self.lock();
        let old = |_: &_, session: &mut Arc<Session>| session.is_forgotten(now, self.ttl);
        let sessions: Vec<_> = inner.sessions.extract_if(old).collect();
        let ttl = self.ttl.min(CALL_TTL);
        let old = |_: &_, session: &mut Arc<Session>| session.is_forgotten(now, ttl);
        let calls: Vec<_> = inner.calls.extract_if(old).collect();
        drop(inner);
        drop((sessions, calls));
    }

    pub fn find(&self, hash: &str) -> Option<Arc<Session>> {
        self.lock().sessions.get(hash).cloned()
    }

    /// A stream for a single `/call`, in a session of its own unless the client names one.
    pub fn begin_call(&self, id: EventId, hash: Option<&str>) -> Arc<Session> {
        let state = match hash {
            Some(hash) => self.begin(hash).state(),
            None => Arc::new(SessionState::new(EventId::random().to_string().into(), None)),
        };
        let session = Arc::new(Session::new(state));
        self.lock().calls.insert(id, session.clone());
        session
    }

    pub fn find_call(&self, id: EventId) -> Option<Arc<Session>> {
        self.lock().calls.get(&id).cloned()
    }

    pub fn end_call(&self, id: EventId) {
        self.lock().calls.remove(&id);
    }
}

/// Looks for sessions to forget, for as long as there are any to look after.
pub(crate) fn forget_now_and_then(
    sessions: &Arc<Sessions>,
) -> impl Future<Output = ()> + Send + use<> {
    let pause = (sessions.ttl / 10).clamp(LOOK.0, LOOK.1);
    let sessions = Arc::downgrade(sessions);
    async move {
        loop {
            tokio::time::sleep(pause).await;
            match sessions.upgrade() {
                Some(sessions) => sessions.forget(Instant::now()),
                None => return,
            }
        }
    }
}

/// A client's word that it is there.
pub(crate) struct Presence {
    sessions: Weak<Sessions>,
    session: Arc<Session>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        state.present -= 1;
        state.touched = Instant::now();
        if state.present == 0 {
            // Not held meanwhile: it may end before.
            let (sessions, session) = (self.sessions.clone(), Arc::downgrade(&self.session));
            actix_web::rt::spawn(async move {
                tokio::time::sleep(RECONNECT_GRACE).await;
                if let (Some(sessions), Some(session)) = (sessions.upgrade(), session.upgrade()) {
                    sessions.leave(&session);
                }
            });
        }
    }
}

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
    fn new(kept: Arc<SessionState>) -> Self {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody listens and nobody says that he is there.
    fn is_deserted(&self) -> bool {
        let state = self.lock();
        !state.streaming && state.present == 0
    }

    fn is_forgotten(&self, now: Instant, ttl: Duration) -> bool {
        self.is_deserted() && now >= self.lock().touched + ttl
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
