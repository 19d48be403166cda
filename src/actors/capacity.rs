//! The queue-wide `max_size`: the places that the wait queues of all concurrency ids share.
//!
//! Who gets the next place is decided by [`PlaceQueue`]. Here is what lets several threads use it:
//! one atomic number for the usual case, where nobody is blocked, and a mutex for the other.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::place_queue::PlaceQueue;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, PoisonError, SeqCst};

/// Set in [`Capacity::state`] while somebody is blocked. Then places are not taken past them.
const BLOCKED: usize = 1;

/// One place in [`Capacity::state`].
const PLACE: usize = 2;

/// A bound on the events that wait in all wait queues together, as Gradio's `max_size`.
#[derive(Debug)]
pub(crate) struct Capacity<K> {
    max: usize,
    /// The places taken, and whether somebody is blocked, in one number: so a place that comes free
    /// is either seen by who becomes blocked, or its giver sees that somebody is.
    state: AtomicUsize,
    members: Mutex<Members<K>>,
}

struct Members<K> {
    queue: PlaceQueue<K>,
    notify: Vec<Notify>,
}

/// Notifies a member that it has grants to fetch. May be called once too often.
pub(crate) type Notify = Arc<dyn Fn() + Send + Sync>;

impl<K> fmt::Debug for Members<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("len", &self.notify.len()).finish_non_exhaustive()
    }
}

impl<K: Copy + Ord> Capacity<K> {
    pub fn new(max: usize) -> Self {
        let members = Members { queue: PlaceQueue::new(), notify: Vec::new() };
        Capacity {
            max: max.min(usize::MAX / PLACE),
            state: AtomicUsize::new(0),
            members: Mutex::new(members),
        }
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether all places are taken, or promised to callers that are blocked.
    pub fn is_full(&self) -> bool {
        let state = self.state.load(SeqCst);
        state & BLOCKED != 0 || state / PLACE >= self.max
    }

    /// The places that are taken, and those granted.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.state.load(SeqCst) / PLACE
    }

    fn try_take(&self) -> bool {
        let take = |state: usize| {
            (state & BLOCKED == 0 && state / PLACE < self.max).then_some(state + PLACE)
        };
        self.state.fetch_update(SeqCst, SeqCst, take).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Members<K>> {
        // Nothing that is done under the lock calls anything of others.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, places: usize) {
        if places > 0 && self.state.fetch_sub(places * PLACE, SeqCst) & BLOCKED != 0 {
            self.change(|_| 0);
        }
    }

    /// Changes who is blocked; `change` gives the number of places that it freed. Then grants what
    /// is free to who has been blocked for longest, and notifies them.
    fn change(&self, change: impl FnOnce(&mut PlaceQueue<K>) -> usize) {
        let mut notified = Vec::new();
        {
            let mut members = self.lock();
            let freed = change(&mut members.queue);
            if freed > 0 {
                self.state.fetch_sub(freed * PLACE, SeqCst);
            }
            if !members.queue.is_empty() {
                // Before looking for a place: one that comes free later finds this set.
                self.state.fetch_or(BLOCKED, SeqCst);
            }
            let take = |state: usize| (state / PLACE < self.max).then_some(state + PLACE);
            while !members.queue.is_empty() && self.state.fetch_update(SeqCst, SeqCst, take).is_ok()
            {
                if let Some(member) = members.queue.grant() {
                    notified.push(members.notify[member].clone());
                }
            }
            if members.queue.is_empty() {
                self.state.fetch_and(!BLOCKED, SeqCst);
            }
        }
        // Not under the lock: who is notified may call back.
        for notify in notified {
            notify();
        }
    }
}

/// What one supervisor holds of the capacity. Dropped, it gives all of it back.
#[derive(Debug)]
pub(crate) struct Account<K: Copy + Ord> {
    capacity: Arc<Capacity<K>>,
    member: usize,
    held: usize,
}

impl<K: Copy + Ord> Account<K> {
    /// Opens an account. `notify` is called, on any thread, when there are grants to
    /// [`fetch`](Account::fetch).
    pub fn open(capacity: Arc<Capacity<K>>, notify: Notify) -> Self {
        let member = {
            let mut members = capacity.lock();
            members.notify.push(notify);
            members.queue.join()
        };
        Account { capacity, member, held: 0 }
    }

    /// Takes a place, if there is one that nobody blocked has been waiting for.
    pub fn try_take(&mut self) -> bool {
        let taken = self.capacity.try_take();
        self.held += usize::from(taken);
        taken
    }

    /// Takes a place even where there is none: for an event that had one and comes back.
    pub fn retake(&mut self) {
        self.held += 1;
        self.capacity.state.fetch_add(PLACE, SeqCst);
    }

    /// Gives places back.
    pub fn free(&mut self, places: usize) {
        // What isn't held can't be given back, whatever the caller believes.
        let places = places.min(self.held);
        self.held -= places;
        self.capacity.free(places);
    }

    /// Requests a place for a caller that has been blocked since then.
    pub fn request(&self, since: Instant, key: K) {
        self.capacity.change(|queue| {
            queue.request(self.member, since, key);
            0
        });
    }

    /// That caller has gone.
    pub fn withdraw(&self, since: Instant, key: K) {
        self.capacity.change(|queue| usize::from(queue.withdraw(self.member, since, key)));
    }

    /// The callers that were granted a place, which is held from now on.
    pub fn fetch(&mut self) -> VecDeque<K> {
        let granted = self.capacity.lock().queue.fetch(self.member);
        self.held += granted.len();
        granted
    }

    /// Gives everything back, and forgets who requested one.
    pub fn clear(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.capacity.change(|queue| held + queue.forget(self.member));
    }
}

impl<K: Copy + Ord> Drop for Account<K> {
    fn drop(&mut self) {
        self.clear();
    }
}
