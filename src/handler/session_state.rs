//! What a client's session keeps on the server: one value of each type, as `gr.State`.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::guarded::{Guarded, discard_payload};

/// A value that is kept for each session, as Gradio's `gr.State`.
///
/// A session has one value of each type `T`, which all listeners share that take a `State<T>`, as the
/// events of a page share its `gr.State`. What is to be kept apart has a type of its own: wrap it in
/// a struct.
///
/// A handler takes it as an argument after its input. It begins as `T::default()` and is dropped
/// when the session ends; see `WebBuilder::session_ttl` and `WebBuilder::on_session_end`.
/// Calls without a session (in process, or by curl without a `session_hash`) have a new one each
/// time. Events of one session may run at once, of one listener or of several, so the value is reached
/// through short closures, one after another; nothing can be held over an await. Not for [`Listener::batch`], whose events come from several
/// sessions.
///
/// [`Listener::batch`]: crate::Listener::batch
///
/// ```
/// use now_serving::{Listener, State};
///
/// async fn chat(message: String, history: State<Vec<String>>) -> Result<usize, String> {
///     Ok(history.update(|history| {
///         history.push(message);
///         history.len()
///     }))
/// }
///
/// let listener = Listener::new("chat", chat);
/// ```
pub struct State<T>(Arc<Mutex<T>>);

impl<T> State<T> {
    /// Changes or reads the value. The closure must be short: others wait for it.
    ///
    /// # Panics
    /// Calling it again inside the closure panics or blocks for ever.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of the value.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.update(|value| value.clone())
    }

    /// Puts another value in its place.
    pub fn set(&self, value: T) {
        // The old one is dropped after the lock: its `Drop` may read the state.
        let _old = self.update(|old| std::mem::replace(old, value));
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        State(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.update(|value| f.debug_tuple("State").field(value).finish())
    }
}

impl<T: Default> Default for State<T> {
    fn default() -> Self {
        State(Arc::default())
    }
}

/// Called with each session that ends.
pub(crate) type OnEnd = Arc<dyn Fn(EndedSession<'_>) + Send + Sync>;

type Values = HashMap<TypeId, Guarded<Box<dyn Any + Send>>>;

/// One session's identity and values. It ends when nobody holds it any more: the web has forgotten
/// the session, and no event of it runs.
pub(crate) struct SessionState {
    pub id: Arc<str>,
    /// Who logged in, where there is a login.
    pub user: Option<Arc<str>>,
    /// Its client has named it, and may come back to it.
    pub named: bool,
    values: Mutex<Values>,
    /// Its events under way. A count and nothing else: no other memory hangs on it.
    events: Arc<AtomicUsize>,
    on_end: Option<OnEnd>,
}

/// One event of a session under way, over HTTP.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<SessionState>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.events.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SessionState {
    pub fn new(id: Arc<str>, user: Option<Arc<str>>, on_end: Option<OnEnd>) -> Self {
        let (values, events) = (Mutex::default(), Arc::default());
        SessionState { id, user, named: true, values, events, on_end }
    }

    /// One that its client hasn't named.
    pub fn unnamed(id: Arc<str>, user: Option<Arc<str>>) -> Self {
        let mut state = SessionState::new(id, user, None);
        state.named = false;
        state
    }

    /// One whose events count together with those of others.
    pub fn counted_by(mut self, events: Arc<AtomicUsize>) -> Self {
        self.events = events;
        self
    }

    /// One more event, unless that makes too many.
    pub fn begin_event(self: &Arc<Self>, max: usize) -> Option<UnderWay> {
        let begun = UnderWay(self.clone());
        (self.events.fetch_add(1, Ordering::Relaxed) < max).then_some(begun)
    }

    /// The value of a type, begun if it is new.
    pub fn of<T: Default + Send + 'static>(&self) -> State<T> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let value = values.entry(TypeId::of::<T>());
        let value = value.or_insert_with(|| Guarded::new(Box::new(State::<T>::default())));
        value.downcast_ref::<State<T>>().cloned().unwrap_or_default()
    }
}

impl Drop for SessionState {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            let values = self.values.get_mut().unwrap_or_else(PoisonError::into_inner);
            let ended = EndedSession { id: &self.id, user: self.user.as_deref(), values };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| on_end(ended))) {
                crate::logging::error!("the hook for the end of a session panicked");
                discard_payload(payload);
            }
        }
    }
}

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionState").field(&self.id).finish()
    }
}

/// A session that has ended, with what was kept for it: the argument of
/// `WebBuilder::on_session_end`.
pub struct EndedSession<'a> {
    id: &'a str,
    user: Option<&'a str>,
    values: &'a Values,
}

impl EndedSession<'_> {
    /// The session's `session_hash`, as the client chose it.
    pub fn id(&self) -> &str {
        self.id
    }

    /// The user whose session it was; `None` without `WebBuilder::auth`.
    pub fn user(&self) -> Option<&str> {
        self.user
    }

    /// The value of a type, where a listener of the session took a [`State`] of it.
    pub fn state<T: 'static>(&self) -> Option<State<T>> {
        self.values.get(&TypeId::of::<T>())?.downcast_ref::<State<T>>().cloned()
    }
}

impl fmt::Debug for EndedSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedSession").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads its replacement when it is dropped.
    struct Reads(State<Option<Reads>>);

    impl Drop for Reads {
        fn drop(&mut self) {
            assert!(self.0.update(|value| value.is_none()));
        }
    }

    #[test]
    fn a_value_that_is_replaced_may_look_at_what_took_its_place() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let state = State::default();
            state.set(Some(Reads(state.clone())));
            state.set(None);
            done.send(()).expect("the test waits");
        });
        let long = std::time::Duration::from_secs(30);
        is_done.recv_timeout(long).expect("it has not locked itself out");
    }
}
