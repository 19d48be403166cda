//! All sessions of a queue: how one begins, how it is found, and when it is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::session::{RECONNECT_GRACE, Session};
use crate::event::{EventId, EventMap};
use crate::state::{OnEnd, SessionState};

/// How long a session may be without a stream and without a request before it is forgotten, when
/// the builder doesn't say: as long as Gradio keeps the state of a client that has left.
const TTL: Duration = Duration::from_secs(3600);

/// How long a `/call` is kept that nobody follows.
const CALL_TTL: Duration = Duration::from_secs(600);

/// How often is looked for such sessions at most and at least.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

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
            session.touch();
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
        session.arrive();
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
        if self.session.depart() {
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
