//! Idempotency keys: the same key of the same user gives the same event of a listener, and its end.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::live_events;
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

impl KeyedEvent {
    fn goes_on(&self) -> bool {
        self.updates.strong_count() > 0
    }
}

/// The keys of one listener's events that go on. Those of ended ones are in the journal.
#[derive(Debug)]
pub(crate) struct KeyedEvents {
    events: Mutex<HashMap<UserKey, KeyedEvent>>,
    /// Each for some of the keys.
    submitting: [tokio::sync::Mutex<()>; SHARES],
    hashes: RandomState,
}

/// How many can submit with a key at once, if chance is kind.
const SHARES: usize = 64;

impl Default for KeyedEvents {
    fn default() -> Self {
        let submitting = std::array::from_fn(|_| tokio::sync::Mutex::default());
        KeyedEvents { events: Mutex::default(), submitting, hashes: RandomState::new() }
    }
}

impl KeyedEvents {
    /// Held by whoever looks for a key and then submits: one after the other, so that two of the same key
    /// don't both find it unused.
    pub async fn submitting(&self, user_key: &UserKey) -> tokio::sync::MutexGuard<'_, ()> {
        let share = self.hashes.hash_one(user_key) % SHARES as u64;
        self.submitting[share as usize].lock().await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserKey, KeyedEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event that goes on with this key.
    pub fn find(&self, user_key: &UserKey) -> Option<KeyedEvent> {
        self.lock().get(user_key).filter(|event| event.goes_on()).cloned()
    }

    pub fn insert(&self, user_key: UserKey, event: KeyedEvent) {
        live_events::insert(&mut self.lock(), user_key, event, KeyedEvent::goes_on);
    }
}
