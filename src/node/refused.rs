//! The events that whoever keeps the line has refused not long ago. What a node has asked before it heard that may
//! come later, and isn't let in then: it would run for nobody.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::wire::Admit;
use crate::cluster::message::Process;
use crate::event::id::EventId;

/// So many are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// A process that has asked for an event to be let in, and the number of what it has asked last.
pub(super) type Asking = (Process, u64);

pub(super) struct Refused(LruCache<EventId, Vec<Asking>>);

impl Default for Refused {
    fn default() -> Self {
        Refused(LruCache::new(REMEMBERED))
    }
}

impl Refused {
    pub fn put(&mut self, event: EventId, asking: Vec<Asking>) {
        self.0.put(event, asking);
    }

    /// Whether this was asked before what was refused.
    pub fn covers(&self, from: &Process, admit: &Admit) -> bool {
        let mut asking = self.0.peek(&admit.event).into_iter().flatten();
        asking.any(|(process, ask)| process == from && admit.ask <= *ask)
    }
}
