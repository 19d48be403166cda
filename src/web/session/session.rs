//! One session: the events of one client, and the updates that it has not read yet.

use std::collections::hash_map::Entry;
#[cfg(feature = "cluster")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
#[cfg(feature = "cluster")]
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::active_event::ActiveEvent;
use super::mailbox::{Ledger, Mailbox};
use super::replay_log::ReplayLog;
use super::results::Results;
#[cfg(feature = "cluster")]
use crate::clock;
use crate::delivery::unread::Read;
use crate::event::id::{EventId, EventMap};
use crate::handler::session_state::SessionState;
use crate::web::auth::guard::Caller;
use crate::web::holder::Holder;
use crate::web::peer::Peer;
use crate::web::protocol::encoder::Ended;

/// How long a stream may have updates that its client doesn't read. After that it counts as broken
/// off.
const STALLED: Duration = Duration::from_secs(60);

/// How long a client may need to notice that its stream has ended.
const SETTLING: Duration = Duration::from_secs(10);

/// How long it counts that a session was at home here when that was looked at: no longer than it takes at least until
/// another node counts this one as dead, and becomes the home.
#[cfg(feature = "cluster")]
const KNOWN_AT_HOME: Duration = Duration::from_secs(3);

/// What holds for every session of a queue.
pub(crate) struct SessionLimits {
    pub results: Results,
    /// What all sessions have unread.
    pub unread: Arc<Ledger>,
    /// The bytes of values that all sessions keep for clients that come back.
    pub replay: Arc<AtomicUsize>,
    /// How long a client whose stream broke off, or whose heartbeat ended, has to come back.
    pub grace: Duration,
    /// The maximum of events that a session may have under way.
    pub max_events: usize,
    /// Other nodes may have had sessions of the same clients before.
    #[cfg(feature = "cluster")]
    pub of_cluster: bool,
    /// Other nodes become the home of sessions that were here, and it is looked at which are.
    #[cfg(feature = "cluster")]
    pub move_away: AtomicBool,
}

/// One client: its events and its unread updates.
pub(crate) struct Session {
    pub hash: Arc<str>,
    pub(crate) kept: Arc<SessionState>,
    pub(crate) limits: Arc<SessionLimits>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Events are let in, or refused.
    pub(crate) admissions: Notify,
    /// When this node has got to know it.
    #[cfg(feature = "cluster")]
    pub(crate) begun: Instant,
    peer: Peer,
    state: Mutex<State>,
}

pub(crate) struct State {
    /// Events whose end hasn't been handed out.
    pub live: EventMap<ActiveEvent>,
    /// What has been handed out.
    pub log: ReplayLog,
    /// The number of the stream that reads; a newer one takes over.
    pub stream: u64,
    pub streaming: bool,
    /// When the stream was last polled.
    pub polled: Instant,
    /// The task of the stream that reads, to be woken when another takes over.
    pub reader: Option<Waker>,
    /// There while `close_stream` is sent, and the client may not have read it yet.
    pub closing: Option<Closing>,
    /// Its heartbeats.
    present: usize,
    /// Its last heartbeat has ended.
    left: bool,
    pub touched: Instant,
    /// When it was known last that this node is its home.
    #[cfg(feature = "cluster")]
    pub(super) at_home: Option<Instant>,
    /// Since which entry this node was its home when the events were looked for that it has elsewhere.
    #[cfg(feature = "cluster")]
    pub(super) looked_at: Option<u64>,
}

/// Its end lets those go on who wait for it.
#[derive(Default)]
pub(crate) struct Closing(Option<CancellationToken>);

impl Closing {
    fn over(&mut self) -> CancellationToken {
        self.0.get_or_insert_default().clone()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(over) = &self.0 {
            over.cancel();
        }
    }
}

impl State {
    fn is_deserted(&self) -> bool {
        !self.streaming && self.present == 0
    }

    fn is_deserted_for(&self, time: Duration, now: Instant) -> bool {
        self.is_deserted() && now.saturating_duration_since(self.touched) >= time
    }

    /// Gives it back if it has begun already.
    pub(super) fn begin(
        &mut self,
        id: EventId,
        mut live: ActiveEvent,
    ) -> Result<(), Box<ActiveEvent>> {
        live.followed = self.streaming;
        self.touched = Instant::now();
        if self.live.is_empty() {
            // A client that has missed an end comes back for it before it sends more.
            self.log.settle();
        }
        match self.live.entry(id) {
            Entry::Occupied(_) => Err(Box::new(live)),
            Entry::Vacant(vacant) => {
                vacant.insert(live);
                Ok(())
            }
        }
    }
}

impl Session {
    pub fn new(kept: Arc<SessionState>, peer: Peer, limits: Arc<SessionLimits>) -> Self {
        #[cfg(feature = "cluster")]
        let log = {
            let mut log = ReplayLog::new(limits.replay.clone());
            if limits.of_cluster {
                log.number_by_clock(clock::unix_millis());
            }
            log
        };
        #[cfg(not(feature = "cluster"))]
        let log = ReplayLog::new(limits.replay.clone());
        let state = State {
            live: EventMap::default(),
            log,
            stream: 0,
            streaming: false,
            polled: Instant::now(),
            reader: None,
            closing: None,
            present: 0,
            left: false,
            touched: Instant::now(),
            #[cfg(feature = "cluster")]
            at_home: None,
            #[cfg(feature = "cluster")]
            looked_at: None,
        };
        let mailbox = Mailbox::new(limits.unread.clone());
        let hash = kept.id.clone();
        let (admissions, state) = (Notify::new(), Mutex::new(state));
        #[cfg(feature = "cluster")]
        let begun = clock::now();
        Session {
            hash,
            kept,
            limits,
            mailbox,
            admissions,
            #[cfg(feature = "cluster")]
            begun,
            peer,
            state,
        }
    }

    /// What its listeners keep for it.
    pub fn state(&self) -> Arc<SessionState> {
        self.kept.clone()
    }

    pub fn caller(&self) -> Caller {
        Caller(self.kept.user.clone(), self.peer)
    }

    /// Whose share what is kept for it counts against.
    pub fn holder(&self) -> Holder {
        self.caller().holder(self.kept.named.then_some(&self.hash))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events whose end hasn't been handed out.
    pub fn under_way(&self) -> Vec<EventId> {
        self.lock().live.keys().copied().collect()
    }

    /// When its client was last active.
    pub fn touched(&self) -> Instant {
        self.lock().touched
    }

    /// Its client has just been active.
    pub fn touch(&self) {
        let mut state = self.lock();
        state.touched = Instant::now();
    }

    /// Its client has opened one more heartbeat; returns how many it has now.
    pub fn arrive(&self) -> usize {
        let mut state = self.lock();
        state.present += 1;
        state.left = false;
        state.present
    }

    /// One of its heartbeats has ended: whether that was the last.
    pub fn depart(&self) -> bool {
        let mut state = self.lock();
        state.present -= 1;
        state.left = state.present == 0;
        state.touched = Instant::now();
        state.present == 0
    }

    /// Its client has left for good: whether nothing of it goes on.
    pub fn leave(&self) -> bool {
        let state = self.lock();
        // One that has sent a request since is there after all, if without a heartbeat.
        state.touched.elapsed() >= self.limits.grace
            && !state.live.values().any(ActiveEvent::keeps_running)
            && self.may_end(&state, Instant::now())
    }

    /// Whether its end may cancel what it has: its client is nowhere else.
    pub fn may_be_ended(&self, now: Instant) -> bool {
        self.may_end(&self.lock(), now)
    }

    #[cfg(feature = "cluster")]
    fn may_end(&self, state: &State, now: Instant) -> bool {
        let is_known = state.at_home.is_some_and(|at| {
            at >= state.touched && now.saturating_duration_since(at) < KNOWN_AT_HOME
        });
        !self.limits.move_away.load(Relaxed)
            || is_known
            || !state.live.values().any(ActiveEvent::is_bound)
    }

    #[cfg(not(feature = "cluster"))]
    fn may_end(&self, _: &State, _: Instant) -> bool {
        true
    }

    /// Its heartbeat has ended, and its client hasn't been active since.
    pub fn has_left(&self, now: Instant) -> bool {
        let state = self.lock();
        state.left && state.is_deserted_for(self.limits.grace, now)
    }

    /// Some event of it goes on without its client.
    pub fn keeps_running(&self) -> bool {
        self.lock().live.values().any(ActiveEvent::keeps_running)
    }

    /// It has neither a stream nor a heartbeat.
    pub fn is_deserted(&self) -> bool {
        self.lock().is_deserted()
    }

    /// Deserted for at least as long.
    pub fn is_deserted_for(&self, time: Duration, now: Instant) -> bool {
        self.lock().is_deserted_for(time, now)
    }

    /// The bytes of values that it keeps for a client that comes back.
    pub fn log_bytes(&self) -> usize {
        self.lock().log.bytes()
    }

    pub fn forget_values(&self) {
        self.lock().log.clear_values();
    }

    pub fn is_streaming(&self) -> bool {
        self.lock().streaming
    }

    /// All its events have ended, and their ends have been handed out or put aside.
    pub fn is_idle(&self) -> bool {
        self.lock().live.is_empty()
    }

    /// It has had a stream.
    pub fn was_followed(&self) -> bool {
        self.lock().stream > 0
    }

    /// Ready when its client knows whether it has a stream: at once, unless the last one is just
    /// ending. A client that learns of its next event before that opens no other stream, and waits
    /// for ever. Bounded, for a client that doesn't read, such as over a dead connection.
    pub async fn stream_settled(&self) {
        let closing = self.lock().closing.as_mut().map(Closing::over);
        if let Some(over) = closing {
            let _ = tokio::time::timeout(SETTLING, over.cancelled()).await;
        }
    }

    /// Whether an active event, or one whose end was kept, may be one of this listener.
    pub fn may_be_of(&self, id: EventId, api_name: &str) -> bool {
        if let Some(live) = self.lock().live.get(&id) {
            return live.encoder.is_of(api_name);
        }
        let ended = self.limits.results.find(&self.caller(), id);
        ended.is_none_or(|ended| ended.is_of(api_name))
    }

    /// Cancels an event, if it is this session's.
    pub fn cancel(&self, id: EventId) {
        if let Some(live) = self.lock().live.get(&id) {
            live.cancel();
        }
    }

    /// Keeps how an event ended, for a client that comes back.
    pub(crate) fn put_aside(&self, id: EventId, ended: Ended, bytes: usize) {
        self.limits.results.keep(self.caller(), self.holder(), id, ended, bytes, Instant::now());
    }

    /// Gives a stream up whose client takes nothing, though there is something for it.
    pub fn give_up_stalled(&self, now: Instant) {
        let mut state = self.lock();
        let stalled = now.saturating_duration_since(state.polled) >= STALLED;
        if state.streaming && stalled && self.mailbox.bytes() > 0 {
            state.stream += 1;
            state.streaming = false;
            state.touched = now;
            self.mailbox.attend(false);
        }
    }

    /// Ends what its client left behind, and puts aside how the rest ended. Nothing, if it has a
    /// stream, its client was active within the grace, or may be at another node.
    pub fn abandon(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.streaming || state.touched.elapsed() < self.limits.grace {
            // It has come back.
            return;
        }
        if !self.may_end(state, Instant::now()) {
            return;
        }
        state.live.values().for_each(ActiveEvent::abandon);
        while let Some(Read { update, weight, .. }) = self.mailbox.try_next() {
            let id = update.event_id();
            let Some(live) = state.live.get_mut(&id) else { continue };
            match live.encoder.keep(&update) {
                // Its client has missed it.
                None => {
                    live.note(&update);
                    live.encoder.doubt();
                }
                Some(ended) => {
                    live.ended();
                    state.live.remove(&id);
                    let number = state.log.number();
                    state.log.end(number, id);
                    // Only one that a reader was waiting for hasn't been measured.
                    let bytes = if weight == 0 { ended.bytes() } else { weight };
                    self.put_aside(id, ended, bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::session::results::BOUNDS;

    fn session() -> Session {
        let limits = SessionLimits {
            results: Results::new(BOUNDS),
            unread: Arc::default(),
            replay: Arc::default(),
            grace: Duration::from_secs(10),
            max_events: 1,
            #[cfg(feature = "cluster")]
            of_cluster: false,
            #[cfg(feature = "cluster")]
            move_away: AtomicBool::new(false),
        };
        let kept = SessionState::new("s".into(), None, None);
        Session::new(Arc::new(kept), Peer::default(), Arc::new(limits))
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_that_its_stream_has_ended_gets_answers_all_the_same() {
        let session = session();
        session.stream_settled().await;
        session.lock().closing = Some(Closing::default());
        let settled = tokio::time::timeout(6 * SETTLING, session.stream_settled()).await;
        assert_eq!(settled, Ok(()));
    }
}
