//! Results that are kept by their input: a call that was made before passes the queue by.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::output::Output;
use crate::update::{Outcome, Update};

/// The results of one listener; the one that was asked for longest ago goes first.
pub(crate) struct Cache {
    kept: Mutex<LruCache<String, Arc<Kept>>>,
    entries: NonZeroUsize,
}

/// The most values on the way of one event; a result with more isn't kept.
const MOST_ITEMS: usize = 256;

/// What an event gave.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The values on the way.
    pub items: Vec<Output>,
    pub output: Option<Output>,
}

impl Cache {
    pub fn new(entries: NonZeroUsize) -> Self {
        // Not made for so many at once: they may never come.
        Cache { kept: Mutex::new(LruCache::unbounded()), entries }
    }

    pub fn find(&self, input: &str) -> Option<Arc<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(input).cloned()
    }

    pub fn keep(&self, input: String, kept: Kept) {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.put(input, Arc::new(kept));
        if all.len() > self.entries.get() {
            all.pop_lru();
        }
    }

    /// Listens to an event, and keeps what it gives when it completes.
    pub fn recorder(self: &Arc<Self>, input: String) -> impl Fn(&Update) + Send + Sync + use<> {
        let cache = self.clone();
        // None when there have been too many.
        let items = Mutex::new(Some(Vec::new()));
        move |update| {
            let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
            match update {
                Update::ProcessGenerating { output, .. } => match &mut *items {
                    Some(kept) if kept.len() < MOST_ITEMS => kept.push(output.share()),
                    _ => *items = None,
                },
                Update::ProcessCompleted { outcome: Outcome::Completed(output), .. } => {
                    if let Some(items) = items.take() {
                        let output = output.as_ref().map(Output::share);
                        cache.keep(input.clone(), Kept { items, output });
                    }
                }
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;

    #[test]
    fn a_stream_of_too_many_values_is_not_kept() {
        let cache = Arc::new(Cache::new(NonZeroUsize::new(2).unwrap()));
        let event_id = EventId::for_test(1);
        for (input, count) in [("some", MOST_ITEMS), ("many", MOST_ITEMS + 1)] {
            let record = cache.recorder(input.into());
            for n in 0..count {
                let output = Output::new(n);
                record(&Update::ProcessGenerating { event_id, output, duration: 0.0 });
            }
            let outcome = Outcome::Completed(None);
            let (duration, average_duration) = (0.0, None);
            record(&Update::ProcessCompleted { event_id, outcome, duration, average_duration });
        }
        assert_eq!(cache.find("some").unwrap().items.len(), MOST_ITEMS);
        assert!(cache.find("many").is_none());
    }

    #[test]
    fn the_one_asked_for_longest_ago_goes() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let keep = |input: &str| {
            cache.keep(input.into(), Kept { items: Vec::new(), output: None });
        };
        keep("a");
        keep("b");
        assert!(cache.find("a").is_some());
        keep("c");
        let found = ["a", "b", "c"].map(|input| cache.find(input).is_some());
        assert_eq!(found, [true, false, true]);
    }
}
