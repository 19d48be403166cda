//! All sessions of a queue: how one begins, how it is found, and when it is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::login::Caller;
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
    /// By user and session hash: what a user's client chooses says nothing to another user's.
    sessions: HashMap<(Caller, Arc<str>), Arc<Session>>,
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
    pub fn begin(&self, caller: &Caller, hash: &str) -> Arc<Session> {
        let key = (caller.clone(), Arc::from(hash));
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.get(&key) {
            session.touch();
            return session.clone();
        }
        let state = SessionState::new(key.1.clone(), caller.0.clone(), self.on_end.clone());
        let session = Arc::new(Session::new(Arc::new(state)));
        inner.sessions.insert(key, session.clone());
        session
    }

    /// A client says that it is there, until it lets go of this.
    pub fn attend(self: &Arc<Self>, caller: &Caller, hash: &str) -> Presence {
        let session = self.begin(caller, hash);
        session.arrive();
        Presence { sessions: Arc::downgrade(self), session }
    }

    /// Forgets a session whose client has left and not come back.
    fn leave(&self, session: &Arc<Session>) {
        let mut inner = self.lock();
        let key = (session.caller(), session.hash.clone());
        let same = inner.sessions.get(&key).is_some_and(|s| Arc::ptr_eq(s, session));
        if same && session.is_deserted() {
            let forgotten = inner.sessions.remove(&key);
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

    pub fn find(&self, caller: &Caller, hash: &str) -> Option<Arc<Session>> {
        self.lock().sessions.get(&(caller.clone(), Arc::from(hash))).cloned()
    }

    /// What listeners keep for a session, which is one of its own for a request that names none.
    pub fn state(&self, caller: &Caller, hash: Option<&str>) -> Arc<SessionState> {
        match hash {
            Some(hash) => self.begin(caller, hash).state(),
            None => {
                let id = EventId::random().to_string().into();
                Arc::new(SessionState::new(id, caller.0.clone(), None))
            }
        }
    }

    /// A stream for a single `/call`, in a session of its own unless the client names one.
    pub fn begin_call(&self, id: EventId, caller: &Caller, hash: Option<&str>) -> Arc<Session> {
        let session = Arc::new(Session::new(self.state(caller, hash)));
        self.lock().calls.insert(id, session.clone());
        session
    }

    pub fn find_call(&self, caller: &Caller, id: EventId) -> Option<Arc<Session>> {
        self.lock().calls.get(&id).filter(|session| session.caller() == *caller).cloned()
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
