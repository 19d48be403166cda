//! The durable events that were submitted in this process and have not ended, for those who come back to
//! one.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::delivery::sender::UpdateSender;
use crate::event::id::{EventId, EventMap};

/// A durable event that goes on.
#[derive(Clone, Debug)]
pub(crate) struct LiveEvent {
    /// The name of its listener.
    pub listener: Arc<str>,
    pub user: Option<Arc<str>>,
    /// Gone once it has ended.
    pub updates: Weak<UpdateSender>,
}

/// Those of all listeners.
#[derive(Debug, Default)]
pub(crate) struct LiveEvents(Mutex<EventMap<LiveEvent>>);

impl LiveEvents {
    pub fn insert(&self, event: EventId, live: LiveEvent) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        insert(&mut events, event, live, |live| live.updates.strong_count() > 0);
    }

    pub fn find(&self, event: EventId) -> Option<LiveEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&event).cloned()
    }
}

/// Puts one in; instead of growing, those that have ended go first.
pub(super) fn insert<K: Eq + Hash, V, S: BuildHasher>(
    events: &mut HashMap<K, V, S>,
    key: K,
    event: V,
    goes_on: impl Fn(&V) -> bool,
) {
    if events.len() == events.capacity() {
        events.retain(|_, event| goes_on(event));
    }
    events.insert(key, event);
}
