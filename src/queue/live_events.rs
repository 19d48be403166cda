//! The durable events that were submitted in this process and have not ended, for those who come back to
//! one.

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
        if events.len() == events.capacity() {
            // Instead of growing.
            events.retain(|_, live| live.updates.strong_count() > 0);
        }
        events.insert(event, live);
    }

    pub fn find(&self, event: EventId) -> Option<LiveEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&event).cloned()
    }
}
