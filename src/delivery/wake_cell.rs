//! Something that any thread writes to and one task reads from, which sleeps while there is nothing.

use std::task::{Context, Poll};

use crate::sync::{AtomicWaker, Mutex, MutexGuard, PoisonError};

/// A plain mutex: every hold is short and waits for nothing.
#[derive(Debug)]
pub(crate) struct WakeCell<T> {
    value: Mutex<T>,
    reader: AtomicWaker,
}

impl<T> WakeCell<T> {
    pub fn new(value: T) -> Self {
        WakeCell { value: Mutex::new(value), reader: AtomicWaker::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        // A holder that panicked has at worst lost what it was about to write.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something for the reader.
    pub fn write(&self, write: impl FnOnce(&mut T)) {
        write(&mut self.lock());
        self.reader.wake();
    }

    /// What there is to read. The latest caller is woken when there is something.
    pub fn poll<R>(&self, cx: &mut Context<'_>, read: impl Fn(&mut T) -> Option<R>) -> Poll<R> {
        if let Some(found) = read(&mut self.lock()) {
            return Poll::Ready(found);
        }
        self.reader.register(cx.waker());
        // Once more: what was written before the registration woke nobody.
        match read(&mut self.lock()) {
            Some(found) => Poll::Ready(found),
            None => Poll::Pending,
        }
    }
}
