//! Sessions of clients that are elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::wire::OrderedEvent;
use crate::handler::session_state::SessionState;

/// The sessions whose events have run here, for those whose client is elsewhere.
#[derive(Default)]
pub(super) struct Sessions(BTreeMap<Key, Weak<SessionState>>);

/// A user, and a session of his.
type Key = (Option<Arc<str>>, Arc<str>);

impl Sessions {
    pub fn of(&mut self, event: &OrderedEvent) -> Option<Arc<SessionState>> {
        let session = event.session.clone()?;
        let key = (event.user.clone(), session.clone());
        if let Some(known) = self.0.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        self.0.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(SessionState::new(session, event.user.clone(), None));
        self.0.insert(key, Arc::downgrade(&state));
        Some(state)
    }
}
