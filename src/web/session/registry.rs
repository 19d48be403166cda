//! All sessions of a queue: how one begins, how it is found, and when it is forgotten.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::results;
use super::results::Results;
use super::session::{Session, SessionLimits};
use super::snapshot::ClientsSnapshot;
use crate::event::id::{EventId, EventMap};
use crate::handler::session_state::{OnEnd, SessionState};
use crate::logging::warn;
use crate::web::auth::guard::Caller;
use crate::web::rejection::Rejection;
use crate::web::shares::Bounds;

/// How long a session may be without a stream and without a request before it is forgotten, by
/// default: as long as Gradio keeps the state of a client that has left.
const TTL: Duration = Duration::from_secs(3600);

/// The default maximum of sessions.
const MAX_SESSIONS: usize = 100_000;

/// The longest hash that a client may choose, in bytes.
pub(crate) const MAX_HASH_LEN: usize = 128;

/// The maximum of heartbeats of one session.
const MAX_HEARTBEATS: usize = 16;

/// How long sessions to forget are not searched after none was found: in a flood, each request
/// would search all of them.
const CROWDED: Duration = Duration::from_millis(200);

/// How long a client has to come back, by default.
const GRACE: Duration = Duration::from_secs(10);

/// The default maximum of events that a session may have under way.
const MAX_EVENTS: usize = 1000;

/// Of so many users the counts are kept before those that are nobody's any more go.
const COUNTS: usize = 1024;

/// Every client of a queue, and every `/call`.
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    pub(super) ttl: Duration,
    max: usize,
    /// There is no room, which has been logged.
    full: AtomicBool,
    /// What the sessions keep is worth more than their results.
    pub(super) keep_state: bool,
    on_end: Option<OnEnd>,
    pub limits: Arc<SessionLimits>,
}

/// The builder's options of sessions.
#[derive(Clone)]
pub(crate) struct SessionOptions {
    pub ttl: Option<Duration>,
    pub on_end: Option<OnEnd>,
    pub max: Option<usize>,
    pub max_events: Option<usize>,
    pub grace: Option<Duration>,
    pub results: Bounds,
    #[cfg(feature = "cluster")]
    pub of_cluster: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            ttl: None,
            on_end: None,
            max: None,
            max_events: None,
            grace: None,
            results: results::BOUNDS,
            #[cfg(feature = "cluster")]
            of_cluster: false,
        }
    }
}

#[derive(Default)]
pub(super) struct Inner {
    /// By user and session hash, so that equal hashes of two users are two sessions.
    pub sessions: HashMap<(Caller, Arc<str>), Arc<Session>>,
    /// A `/call` has a stream of its own.
    pub calls: EventMap<Arc<Session>>,
    /// The events of each user that name no session.
    without_session: HashMap<Arc<str>, Weak<AtomicUsize>>,
    /// Until then, nothing could be forgotten to make room.
    crowded_until: Option<Instant>,
}

impl Sessions {
    pub fn new(options: &SessionOptions, keep_state: bool) -> Self {
        Sessions {
            inner: Mutex::default(),
            ttl: options.ttl.unwrap_or(TTL),
            max: options.max.unwrap_or(MAX_SESSIONS),
            full: AtomicBool::new(false),
            keep_state,
            on_end: options.on_end.clone(),
            limits: Arc::new(SessionLimits {
                results: Results::new(options.results),
                unread: Arc::default(),
                replay: Arc::default(),
                grace: options.grace.unwrap_or(GRACE),
                max_events: options.max_events.unwrap_or(MAX_EVENTS),
                #[cfg(feature = "cluster")]
                of_cluster: options.of_cluster,
                #[cfg(feature = "cluster")]
                move_away: AtomicBool::new(false),
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a hash that the client chose, begun if it is new.
    ///
    /// # Errors
    /// When there are too many sessions.
    pub fn begin(&self, caller: &Caller, hash: &str) -> Result<Begun<'_>, Rejection> {
        if hash.len() > MAX_HASH_LEN {
            let message = format!("A session_hash has at most {MAX_HASH_LEN} bytes.");
            return Err(Rejection::bad_request(&message));
        }
        let key = (caller.clone(), Arc::from(hash));
        // Dropped after the lock: the end of a session may run code of the service's.
        let _forgotten;
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.get(&key) {
            session.touch();
            return Ok(Begun { sessions: self, session: session.clone(), is_new: false });
        }
        _forgotten = self.make_room(&mut inner)?;
        let state = SessionState::new(key.1.clone(), caller.0.clone(), self.on_end.clone());
        let session = Arc::new(Session::new(Arc::new(state), caller.1, self.limits.clone()));
        inner.sessions.insert(key, session.clone());
        Ok(Begun { sessions: self, session, is_new: true })
    }

    /// Takes a session back that came to nothing.
    fn take_back(&self, session: &Arc<Session>) {
        self.forget_if(session, |session| {
            // Another request may have found it, and be about to submit. It finds it under our lock.
            let alone = Arc::strong_count(session) <= 2;
            alone && session.is_idle() && !session.was_followed()
        });
    }

    /// Forgets a deserted session if it is still the one of its hash, and fits.
    fn forget_if(&self, session: &Arc<Session>, fits: impl FnOnce(&Arc<Session>) -> bool) {
        let key = (session.caller(), session.hash.clone());
        let mut inner = self.lock();
        let same = inner.sessions.get(&key).is_some_and(|s| Arc::ptr_eq(s, session));
        if same && session.is_deserted() && fits(session) {
            let forgotten = inner.sessions.remove(&key);
            // Its end may run code of the service's.
            drop(inner);
            drop(forgotten);
        }
    }

    /// Sees to it that there is room for one more session, where need be by forgetting those whose
    /// clients have been gone for longest and have nothing under way. Gives them, to be dropped.
    fn make_room(&self, inner: &mut Inner) -> Result<Vec<Arc<Session>>, Rejection> {
        if inner.sessions.len() + inner.calls.len() < self.max {
            self.full.store(false, Relaxed);
            return Ok(Vec::new());
        }
        let now = Instant::now();
        if inner.crowded_until.is_none_or(|until| until <= now) {
            let forgotten = self.forget_oldest(inner, now);
            if !forgotten.is_empty() {
                return Ok(forgotten);
            }
            inner.crowded_until = Some(now + CROWDED);
        }
        // Once, and not for each of a flood.
        if !self.full.swap(true, Relaxed) {
            warn!("clients are refused: there are {} sessions, see max_sessions", self.max);
        }
        Err(Rejection::crowded("There are too many clients; try again later.".into()))
    }

    /// Many at once: searching all of them is what costs.
    fn forget_oldest(&self, inner: &mut Inner, now: Instant) -> Vec<Arc<Session>> {
        let grace = self.limits.grace;
        let all = inner.sessions.values().chain(inner.calls.values());
        let mut gone: Vec<Instant> = all
            .filter(|session| session.is_idle() && session.is_deserted_for(grace, now))
            .map(|session| session.touched())
            .collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let last = (self.max / 64).min(gone.len() - 1);
        let (_, &mut until, _) = gone.select_nth_unstable(last);
        let old = |session: &Session| {
            session.is_idle() && session.is_deserted_for(grace, now) && session.touched() <= until
        };
        let sessions = inner.sessions.extract_if(|_, session| old(session)).map(|(_, s)| s);
        let mut forgotten: Vec<_> = sessions.collect();
        forgotten.extend(inner.calls.extract_if(|_, session| old(session)).map(|(_, s)| s));
        forgotten
    }

    /// A client is there, until it drops this.
    ///
    /// # Errors
    /// When there are too many sessions, or this one has too many heartbeats.
    pub fn attend(self: &Arc<Self>, caller: &Caller, hash: &str) -> Result<Presence, Rejection> {
        let session = self.begin(caller, hash)?.keep();
        let times = session.arrive();
        let presence = Presence { sessions: Arc::downgrade(self), session };
        if times > MAX_HEARTBEATS {
            return Err(Rejection::too_many("This session has enough heartbeats.".into()));
        }
        Ok(presence)
    }

    /// Forgets a session whose client has left and not come back.
    fn leave(&self, session: &Arc<Session>) {
        // One whose events go on is kept until they have ended.
        self.forget_if(session, |session| session.leave());
    }

    pub fn find(&self, caller: &Caller, hash: &str) -> Option<Arc<Session>> {
        self.lock().sessions.get(&(caller.clone(), Arc::from(hash))).cloned()
    }

    /// What listeners keep for a session, which is one of its own for a request that names none. A
    /// session that is new stays if the [`Begun`] is kept.
    ///
    /// # Errors
    /// When there are too many sessions.
    pub fn state(
        &self,
        caller: &Caller,
        hash: Option<&str>,
    ) -> Result<(Arc<SessionState>, Option<Begun<'_>>), Rejection> {
        Ok(match hash {
            Some(hash) => {
                let begun = self.begin(caller, hash)?;
                (begun.session.state(), Some(begun))
            }
            None => {
                let id = EventId::random().to_string().into();
                let state = SessionState::unnamed(id, caller.0.clone());
                let counts = caller.0.as_ref().map(|user| self.events_without_session(user));
                let state = match counts {
                    Some(events) => state.counted_by(events),
                    None => state,
                };
                (Arc::new(state), None)
            }
        })
    }

    /// How many events a user has under way that name no session: each has a session of its own, and
    /// all together are bounded as those of one.
    fn events_without_session(&self, user: &Arc<str>) -> Arc<AtomicUsize> {
        let counts = &mut self.lock().without_session;
        if let Some(count) = counts.get(user).and_then(Weak::upgrade) {
            return count;
        }
        if counts.len() >= COUNTS {
            counts.retain(|_, count| count.strong_count() > 0);
        }
        let count = Arc::default();
        counts.insert(user.clone(), Arc::downgrade(&count));
        count
    }

    /// A stream for a single `/call`, in a session of its own unless the client names one.
    ///
    /// # Errors
    /// When there are too many sessions.
    pub fn begin_call(
        &self,
        id: EventId,
        caller: &Caller,
        hash: Option<&str>,
    ) -> Result<BegunCall<'_>, Rejection> {
        let (state, begun) = self.state(caller, hash)?;
        let session = Arc::new(Session::new(state, caller.1, self.limits.clone()));
        let _forgotten;
        let mut inner = self.lock();
        let begun_before = inner.calls.get(&id).filter(|session| session.caller() == *caller);
        if let Some(session) = begun_before {
            // Its request came here twice.
            let session = session.clone();
            return Ok(BegunCall { sessions: self, id, session, begun, is_new: false });
        }
        _forgotten = self.make_room(&mut inner)?;
        inner.calls.insert(id, session.clone());
        Ok(BegunCall { sessions: self, id, session, begun, is_new: true })
    }

    pub fn snapshot(&self) -> ClientsSnapshot {
        let inner = self.lock();
        let all = || inner.sessions.values().chain(inner.calls.values());
        let (kept_results, kept_result_bytes) = self.limits.results.size();
        ClientsSnapshot {
            sessions: all().count(),
            streams: all().filter(|session| session.is_streaming()).count(),
            kept_results,
            kept_result_bytes,
            kept_value_bytes: all().map(|session| session.log_bytes()).sum(),
        }
    }

    pub fn find_call(&self, caller: &Caller, id: EventId) -> Option<Arc<Session>> {
        self.lock().calls.get(&id).filter(|session| session.caller() == *caller).cloned()
    }

    /// All that there are, by user and hash, and the calls.
    #[cfg(feature = "cluster")]
    pub fn in_use(&self) -> (Vec<(Caller, Arc<str>)>, Vec<EventId>) {
        let inner = self.lock();
        (inner.sessions.keys().cloned().collect(), inner.calls.keys().copied().collect())
    }

    pub fn end_call(&self, id: EventId) {
        // Named, so that it is dropped after the lock.
        let _ended = self.lock().calls.remove(&id);
    }
}

/// A session that a request has found or begun. One that is new is removed unless it is kept, so
/// that refused requests leave nothing.
pub(crate) struct Begun<'a> {
    sessions: &'a Sessions,
    pub session: Arc<Session>,
    is_new: bool,
}

impl Begun<'_> {
    pub fn keep(mut self) -> Arc<Session> {
        self.is_new = false;
        self.session.clone()
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.is_new {
            self.sessions.take_back(&self.session);
        }
    }
}

/// A call that has begun. It is removed unless it is kept.
pub(crate) struct BegunCall<'a> {
    sessions: &'a Sessions,
    id: EventId,
    pub session: Arc<Session>,
    begun: Option<Begun<'a>>,
    is_new: bool,
}

impl BegunCall<'_> {
    pub fn keep(mut self) {
        if !self.is_new {
            // The one who began it may have taken it back.
            self.sessions.lock().calls.entry(self.id).or_insert_with(|| self.session.clone());
        }
        self.is_new = false;
        self.begun.take().map(Begun::keep);
    }
}

impl Drop for BegunCall<'_> {
    fn drop(&mut self) {
        if self.is_new {
            self.sessions.end_call(self.id);
        }
    }
}

/// A client's heartbeat.
pub(crate) struct Presence {
    sessions: Weak<Sessions>,
    session: Arc<Session>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.session.depart() {
            // Not held meanwhile: it may end before.
            let (sessions, session) = (self.sessions.clone(), Arc::downgrade(&self.session));
            let grace = self.session.limits.grace;
            actix_web::rt::spawn(async move {
                tokio::time::sleep(grace).await;
                if let (Some(sessions), Some(session)) = (sessions.upgrade(), session.upgrade()) {
                    sessions.leave(&session);
                }
            });
        }
    }
}
