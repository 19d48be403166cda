//! Sessions of a cluster whose clients may be at another node: while this one was cut off, another may have become
//! their home. Their events are that one's then, and nothing here may cancel them.

use std::sync::Arc;
use std::time::Instant;

use super::active_event::ActiveEvent;
use super::registry::Sessions;
use super::session::Session;
use crate::event::id::{EventId, EventMap};
use crate::logging::debug;

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
        let is_in_doubt = |(session, _): &(&Arc<Session>, _)| {
            session.is_deserted_for(self.limits.grace, now) && !session.may_be_ended(now)
        };
        let in_doubt = sessions.chain(calls).filter(is_in_doubt);
        in_doubt.map(|(session, call)| Deserted { session: session.clone(), call }).collect()
    }

    /// Forgets one that is at home elsewhere. Its events go on. Not yet where its client has just been here, or an
    /// event of it is being let in.
    pub fn leave_to_another(&self, Deserted { session, call }: Deserted) {
        let mut inner = self.lock();
        let is_it = |found: &Arc<Session>| Arc::ptr_eq(found, &session);
        let key = (session.caller(), session.hash.clone());
        let is_kept = match call {
            Some(id) => inner.calls.get(&id).is_some_and(is_it),
            None => inner.sessions.get(&key).is_some_and(is_it),
        };
        let now = Instant::now();
        if !is_kept || !session.is_deserted_for(self.limits.grace, now) {
            return;
        }
        // Under the lock: no request finds it from now on.
        let Some(events) = session.take_events() else { return };
        let forgotten = match call {
            Some(id) => inner.calls.remove(&id),
            None => inner.sessions.remove(&key),
        };
        // Their end may run code of the service's.
        drop(inner);
        debug!("session {} is at home elsewhere, with {} events", session.hash, events.len());
        for (id, live) in events {
            session.mailbox.forget(id);
            ActiveEvent::leave(live);
        }
        drop(forgotten);
    }
}

impl Session {
    /// Whether it may have events elsewhere that it doesn't know: another node was its home before this one became it,
    /// by this entry, if any was.
    pub fn may_lack_events(&self, taken: Option<u64>) -> bool {
        taken.is_some() && self.lock().looked_at != taken
    }

    /// Its events have been looked for since this node became its home.
    pub fn has_looked(&self, taken: Option<u64>) {
        self.lock().looked_at = taken;
    }

    /// All events that it has, if each has been let in.
    fn take_events(&self) -> Option<EventMap<ActiveEvent>> {
        let mut state = self.lock();
        let all = state.live.values().all(ActiveEvent::is_let_in);
        all.then(|| std::mem::take(&mut state.live))
    }
}

impl Deserted {
    /// This node was its home at this time.
    pub fn stays(self, at: Instant) {
        self.session.lock().at_home = Some(at);
        if self.session.was_followed() {
            self.session.abandon();
        }
    }
}
