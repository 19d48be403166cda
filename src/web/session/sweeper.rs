//! The sweeper: abandons the events of clients that have left, and forgets their sessions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::registry::Sessions;
use super::replay_log::ALL_BYTES;
use super::session::Session;
use crate::logging::error;

/// How long a session is kept whose client has never listened.
const UNFOLLOWED: Duration = Duration::from_secs(600);

/// How long the ends of its events are kept in its own memory, and not among the results.
const UNREAD: Duration = Duration::from_secs(60);

/// The shortest and longest interval between sweeps.
const SWEEP_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// Sweeps sessions for as long as their registry lives.
pub(crate) fn run_sweeper(sessions: &Arc<Sessions>) -> impl Future<Output = ()> + Send + use<> {
    let shortest = sessions.ttl.min(sessions.limits.results.ttl()).min(sessions.limits.grace);
    let pause = (shortest / 2).clamp(SWEEP_INTERVAL.0, SWEEP_INTERVAL.1);
    let sessions = Arc::downgrade(sessions);
    async move {
        loop {
            tokio::time::sleep(pause).await;
            match sessions.upgrade() {
                Some(sessions) => {
                    // It drops values of the service's own, which may panic.
                    let sweep = AssertUnwindSafe(|| sessions.sweep(Instant::now()));
                    if catch_unwind(sweep).is_err() {
                        error!("a value panicked when it was dropped with its session");
                    }
                }
                None => return,
            }
        }
    }
}

impl Sessions {
    /// Abandons the events of clients that have left, and forgets sessions that are over. Their
    /// events are cancelled with them.
    fn sweep(&self, now: Instant) {
        self.limits.results.sweep(now);
        let inner = self.lock();
        let all: Vec<_> = inner.sessions.values().chain(inner.calls.values()).cloned().collect();
        drop(inner);
        let results = self.limits.results.ttl();
        let crowded = self.limits.replay.load(Relaxed) > ALL_BYTES;
        for session in all {
            session.give_up_stalled(now);
            let unread = UNREAD.min(self.ttl);
            let timeout = if session.was_followed() { self.limits.grace } else { unread };
            if session.is_deserted_for(timeout, now) {
                session.abandon();
                // A slow client may still be reading what was handed out long ago.
                if crowded || session.is_deserted_for(results, now) {
                    session.forget_values();
                }
            }
        }
        let unfollowed = self.ttl.min(results.max(UNFOLLOWED));
        let ttl = if self.keep_state { self.ttl } else { unfollowed };
        let mut inner = self.lock();
        let old = |_: &_, session: &mut Arc<Session>| {
            let over = session.is_deserted_for(ttl, now) || session.has_left(now);
            over && !session.keeps_running() && session.may_be_ended(now)
        };
        let sessions: Vec<_> = inner.sessions.extract_if(old).collect();
        let old = |_: &_, session: &mut Arc<Session>| {
            // How it ended is among the results.
            let left = session.is_idle() && session.log_bytes() == 0;
            let ttl = if left { self.limits.grace } else { unfollowed };
            let over = session.is_deserted_for(ttl, now);
            over && !session.keeps_running() && session.may_be_ended(now)
        };
        let calls: Vec<_> = inner.calls.extract_if(old).collect();
        // After a flood, its memory goes back.
        if inner.sessions.capacity() > 1024 + 8 * inner.sessions.len() {
            inner.sessions.shrink_to_fit();
        }
        if inner.calls.capacity() > 1024 + 8 * inner.calls.len() {
            inner.calls.shrink_to_fit();
        }
        drop(inner);
        drop((sessions, calls));
    }
}
