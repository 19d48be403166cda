//! Idempotency keys: the same key of the same user gives the same event of a listener, and its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::delivery::sender::UpdateSender;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;

/// Who has used which key.
pub(crate) type UserKey = (Option<Arc<str>>, Arc<str>);

/// Given with the input of an event that is submitted with a key.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyKey(pub Arc<str>);

/// An event that goes on, and was submitted with a key.
#[derive(Clone, Debug)]
pub(crate) struct KeyedEvent {
    pub event: EventId,
    pub input: JsonText,
    /// Gone once it has ended.
    pub updates: Weak<UpdateSender>,
}

/// The keys of one listener's events that go on. Those of ended ones are in the journal.
#[derive(Debug, Default)]
pub(crate) struct KeyedEvents {
    events: Mutex<HashMap<UserKey, KeyedEvent>>,
    /// Held by whoever looks for a key and then submits: one after the other, so that two of the same key
    /// don't both find it unused.
    pub submitting: tokio::sync::Mutex<()>,
}

impl KeyedEvents {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserKey, KeyedEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event that goes on with this key.
    pub fn find(&self, user_key: &UserKey) -> Option<KeyedEvent> {
        let found = self.lock().get(user_key).cloned()?;
        (found.updates.strong_count() > 0).then_some(found)
    }

    pub fn insert(&self, user_key: UserKey, event: KeyedEvent) {
        let mut events = self.lock();
        if events.len() == events.capacity() {
            // Instead of growing.
            events.retain(|_, event| event.updates.strong_count() > 0);
        }
        events.insert(user_key, event);
    }
}
