//! Sessions of a cluster whose clients may be at another node: while this one was cut off, another may have become
//! their home. Their events are that one's then, and nothing here may cancel them.

use std::sync::Arc;
use std::time::Instant;

use super::active_event::ActiveEvent;
use super::registry::Sessions;
use super::session::Session;
use crate::event::id::EventId;

/// A session whose client isn't here.
pub(crate) struct Deserted {
    pub session: Arc<Session>,
    /// The event, if it is that of a call.
    pub call: Option<EventId>,
}

impl Sessions {
    /// Those that would be ended for their clients' absence, and events with them, once it is known that they are
    /// at home here.
    pub fn in_doubt(&self, now: Instant) -> Vec<Deserted> {
        let inner = self.lock();
        let sessions = inner.sessions.values().map(|session| (session, None));
        let calls = inner.calls.iter().map(|(id, session)| (session, Some(*id)));
        let all: Vec<_> = sessions.chain(calls).map(|(it, call)| (it.clone(), call)).collect();
        drop(inner);
        let is_in_doubt = |session: &Session| {
            session.is_deserted_for(self.limits.grace, now) && !session.may_be_ended(now)
        };
        let in_doubt = all.into_iter().filter(|(session, _)| is_in_doubt(session));
        in_doubt.map(|(session, call)| Deserted { session, call }).collect()
    }

    /// Forgets one that is at home elsewhere. Its events go on.
    pub fn leave_to_another(&self, Deserted { session, call }: &Deserted) {
        if !session.leave_events() {
            return;
        }
        let mut inner = self.lock();
        let is_it = |found: &Arc<Session>| Arc::ptr_eq(found, session);
        let forgotten = match call {
            Some(id) => inner.calls.get(id).is_some_and(is_it).then(|| inner.calls.remove(id)),
            None => {
                let key = (session.caller(), session.hash.clone());
                inner.sessions.get(&key).is_some_and(is_it).then(|| inner.sessions.remove(&key))
            }
        };
        // Its end may run code of the service's.
        drop(inner);
        drop(forgotten);
    }
}

impl Session {
    /// Nothing that is here cancels its events any more. Not if its client has come back.
    fn leave_events(&self) -> bool {
        let mut state = self.lock();
        if !state.is_deserted() {
            return false;
        }
        let left: Vec<_> = state.live.drain().collect();
        drop(state);
        for (id, live) in left {
            self.mailbox.forget(id);
            ActiveEvent::leave(live);
        }
        true
    }

    /// This node is its home.
    pub fn is_at_home(&self, now: Instant) {
        self.lock().at_home = Some(now);
    }
}
