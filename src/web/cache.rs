//! Results that are kept by their input: a call that was made before passes the queue by.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::holder::Holder;
use super::shares::{Bounds, Shares};
use crate::delivery::unread::Gone;
use crate::event::output::Output;
use crate::event::update::{Outcome, Update};

/// How long a result is kept after it was made.
const TTL: Duration = Duration::from_secs(3600);

/// The maximum of bytes of one listener's results, as JSON.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The largest result that is kept, with its values on the way.
const LARGEST: usize = MAX_BYTES / 4;

/// What a result takes beside its text, in bytes.
const OVERHEAD: usize = 512;

/// The interval between removals of old results.
const SWEEP: Duration = Duration::from_secs(60);

/// The results of one listener. Where there are too many, the holder with the most loses its least
/// recently used.
pub(crate) struct Cache {
    kept: Mutex<Shares<Key, Arc<Kept>>>,
    hashing: [RandomState; 2],
}

/// Stands for an input: a hash of 128 bits under secrets that no client knows, so that none can make
/// two inputs that have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key([u64; 2]);

/// Ends a part of an input. No text has these bytes.
const GIVEN: u8 = 0xff;

const LEFT_OUT: u8 = 0xfe;

/// The maximum of yielded values of one event; a result with more isn't kept.
const MAX_ITEMS: usize = 256;

/// What an event gave.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The yielded values.
    pub items: Vec<Output>,
    pub output: Option<Output>,
}

impl Cache {
    pub fn new(entries: NonZeroUsize) -> Self {
        let hashing = std::array::from_fn(|_| RandomState::new());
        let bounds = Bounds { ttl: TTL, number: entries.get(), bytes: MAX_BYTES };
        Cache { kept: Mutex::new(Shares::new(bounds)), hashing }
    }

    fn lock(&self) -> MutexGuard<'_, Shares<Key, Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands for a user's call with these arguments: the same for the same JSON, whatever
    /// blanks are in it.
    pub fn key(&self, user: Option<&str>, arguments: &[Option<&RawValue>]) -> Key {
        let mut hashers = self.hashing.each_ref().map(BuildHasher::build_hasher);
        let mut write = |bytes: &[u8]| hashers.iter_mut().for_each(|hasher| hasher.write(bytes));
        write(user.unwrap_or_default().as_bytes());
        write(&[if user.is_some() { GIVEN } else { LEFT_OUT }]);
        for argument in arguments {
            match argument {
                Some(json) => {
                    without_blanks(json.get().as_bytes(), &mut write);
                    write(&[GIVEN]);
                }
                None => write(&[LEFT_OUT]),
            }
        }
        Key(hashers.map(|hasher| hasher.finish()))
    }

    pub fn find(&self, input: &Key) -> Option<Arc<Kept>> {
        self.lock().touch(input, Instant::now()).cloned()
    }

    /// Keeps the result of a holder's call, unless it is too large.
    pub fn keep(&self, holder: Holder, input: Key, kept: Kept) {
        let outputs = kept.items.iter().chain(&kept.output);
        let bytes = outputs.map(Output::json_len).sum::<usize>();
        if bytes <= LARGEST {
            // Named, so that no value of the user's is dropped under our lock.
            let _gone =
                self.lock().keep(input, holder, Arc::new(kept), bytes + OVERHEAD, Instant::now());
        }
    }

    /// Follows an event of a holder, and keeps its result when it completes.
    pub fn recorder(
        self: &Arc<Self>,
        holder: Holder,
        input: Key,
    ) -> impl Fn(&Update, &mut Gone) + Send + Sync + use<> {
        let cache = self.clone();
        // None when there have been too many, or too large ones.
        let items = Mutex::new(Some((Vec::new(), 0)));
        move |update, gone| {
            let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
            match update {
                Update::ProcessGenerating { output, .. } => {
                    if let Some((kept, bytes)) = &mut *items {
                        *bytes += output.json_len();
                        if *bytes <= LARGEST && kept.len() < MAX_ITEMS {
                            kept.push(output.clone());
                            return;
                        }
                    }
                    gone.outputs.extend(items.take().into_iter().flat_map(|(kept, _)| kept));
                }
                Update::ProcessCompleted { outcome: Outcome::Completed(output), .. } => {
                    if let Some((items, _)) = items.take() {
                        let output = output.as_ref().cloned();
                        cache.keep(holder.clone(), input, Kept { items, output });
                    }
                }
                _ => {}
            }
        }
    }
}

/// Drops results that are too old, now and then, for as long as there are any caches.
pub(crate) async fn run_sweeper(caches: Vec<Weak<Cache>>) {
    while caches.iter().any(|cache| cache.strong_count() > 0) {
        tokio::time::sleep(SWEEP).await;
        for cache in caches.iter().filter_map(Weak::upgrade) {
            let old = cache.lock().sweep(Instant::now());
            // A value of the service's own may panic when it is dropped.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(old)));
            if dropped.is_err() {
                crate::logging::error!("a value panicked when it was dropped from a cache");
            }
        }
    }
}

/// Gives JSON in pieces, without the blanks between its tokens.
fn without_blanks(json: &[u8], mut give: impl FnMut(&[u8])) {
    let (mut start, mut at) = (0, 0);
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
            }
            b' ' | b'\n' | b'\r' | b'\t' => {
                give(&json[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    give(&json[start.min(json.len())..]);
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::id::EventId;

    fn holder() -> Holder {
        Holder::Session("s".into())
    }

    #[test]
    fn results_are_bounded_in_bytes_and_one_client_s_take_no_other_s_place() {
        let cache = Cache::new(NonZeroUsize::new(100).unwrap());
        let keep = |n: u64, by: &str, bytes: usize| {
            let output = Some(Output::new("x".repeat(bytes)));
            let kept = Kept { items: Vec::new(), output };
            cache.keep(Holder::User(by.into()), Key([n; 2]), kept);
        };
        keep(0, "alice", 10);
        (1..=6).for_each(|n| keep(n, "bob", MAX_BYTES / 5));
        keep(7, "bob", LARGEST);
        let found: Vec<_> = (0..8).filter(|n| cache.find(&Key([*n; 2])).is_some()).collect();
        assert_eq!(found, [0, 3, 4, 5, 6], "the last is too large to be kept");
        assert!(cache.lock().bytes() <= MAX_BYTES);
    }

    #[test]
    fn a_stream_of_too_many_values_is_not_kept() {
        let cache = Arc::new(Cache::new(NonZeroUsize::new(2).unwrap()));
        let event_id = EventId::for_test(1);
        let (some, many) = (Key([0; 2]), Key([1; 2]));
        for (input, count) in [(some, MAX_ITEMS), (many, MAX_ITEMS + 1)] {
            let record = cache.recorder(holder(), input);
            for n in 0..count {
                let output = Output::new(n);
                record(
                    &Update::ProcessGenerating { event_id, output, duration: 0.0 },
                    &mut Gone::default(),
                );
            }
            let outcome = Outcome::Completed(None);
            let (duration, average_duration) = (0.0, None);
            let ended = Update::ProcessCompleted { event_id, outcome, duration, average_duration };
            record(&ended, &mut Gone::default());
        }
        assert_eq!(cache.find(&some).unwrap().items.len(), MAX_ITEMS);
        assert!(cache.find(&many).is_none());
    }

    #[test]
    fn the_one_asked_for_longest_ago_goes() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let keep = |input: u64| {
            cache.keep(holder(), Key([input; 2]), Kept { items: Vec::new(), output: None });
        };
        keep(0);
        keep(1);
        assert!(cache.find(&Key([0; 2])).is_some());
        keep(2);
        let found = [0, 1, 2].map(|input| cache.find(&Key([input; 2])).is_some());
        assert_eq!(found, [true, false, true]);
    }

    #[test]
    fn a_key_is_that_of_the_user_and_every_argument() {
        let cache = Cache::new(NonZeroUsize::MIN);
        let key = |user: Option<&str>, arguments: &[Option<&str>]| {
            let raw = |text| serde_json::from_str::<&RawValue>(text).unwrap();
            let arguments: Vec<_> = arguments.iter().map(|json| json.map(raw)).collect();
            cache.key(user, &arguments)
        };
        let one = key(None, &[Some(r#"{"a b": [1, "\" x"]}"#), None]);
        assert_eq!(key(None, &[Some("{\"a b\":\n[1 ,\"\\\" x\" ] }"), None]), one);
        let others = [
            key(Some(""), &[Some(r#"{"a b": [1, "\" x"]}"#), None]),
            key(None, &[None, Some(r#"{"a b": [1, "\" x"]}"#)]),
            key(None, &[Some(r#"{"a b": [1, "\"  x"]}"#), None]),
            key(None, &[Some(r#"{"ab": [1, "\" x"]}"#), None]),
            key(None, &[Some("1"), Some("2")]),
            key(None, &[Some("12"), None]),
            key(Some("1"), &[Some("2"), None]),
        ];
        for (at, other) in others.iter().enumerate() {
            assert!(*other != one && !others[..at].contains(other), "{at}");
        }
    }
}
