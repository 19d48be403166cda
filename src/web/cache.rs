//! Results that are kept by their input: a call that was made before passes the queue by.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::output::Output;
use crate::update::{Outcome, Update};

/// The results of one listener; the one that was asked for longest ago goes first.
pub(crate) struct Cache(Mutex<LruCache<String, Arc<Kept>>>);

/// What an event gave.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The values on the way.
    pub items: Vec<Output>,
    pub output: Option<Output>,
}

impl Cache {
    pub fn new(entries: NonZeroUsize) -> Self {
        Cache(Mutex::new(LruCache::new(entries)))
    }

    pub fn find(&self, input: &str) -> Option<Arc<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(input).cloned()
    }

    pub fn keep(&self, input: String, kept: Kept) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(input, Arc::new(kept));
    }

    /// Listens to an event, and keeps what it gives when it completes.
    pub fn recorder(self: &Arc<Self>, input: String) -> impl Fn(&Update) + Send + Sync + use<> {
        let cache = self.clone();
        let items = Mutex::new(Vec::new());
        move |update| {
            let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
            match update {
                Update::ProcessGenerating { output, .. } => items.push(output.share()),
                Update::ProcessCompleted { outcome: Outcome::Completed(output), .. } => {
                    let items = std::mem::take(&mut *items);
                    let output = output.as_ref().map(Output::share);
                    cache.keep(input.clone(), Kept { items, output });
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
