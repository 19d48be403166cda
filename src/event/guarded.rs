//! Values of the service's own types: their `Drop` is foreign code and may panic, anywhere it likes
//! but not through ours.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::logging::error;

/// A value whose `Drop` may panic. Dropped in here, it disturbs nobody.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub fn new(value: T) -> Self {
        Guarded(Some(value))
    }

    pub fn into_inner(mut self) -> T {
        match self.0.take() {
            Some(value) => value,
            None => unreachable!("the value is there until the guard is dropped"),
        }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("the value is there until the guard is dropped"),
        }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("the value is there until the guard is dropped"),
        }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            discard(value);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Drops a value whose `Drop` may panic; false when it did.
pub(crate) fn discard<T>(value: T) -> bool {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(value)));
    if let Err(payload) = dropped {
        error!("a value of the service's own panicked when it was dropped");
        discard_payload(payload);
        return false;
    }
    true
}

/// Drops what a panic was thrown with, which is a value of the service's own too.
pub(crate) fn discard_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Where dropping what was thrown throws again, it is never done.
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Throws itself, so many times.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Bomb(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_drop_that_panics_goes_no_further() {
        for times in 0..4 {
            assert_eq!(discard(Bomb(times)), times == 0);
            drop(Guarded::new(Bomb(times)));
        }
    }

    #[test]
    fn nor_does_one_amid_a_panic() {
        let panicked = catch_unwind(|| {
            let _bomb = Guarded::new(Bomb(2));
            panic!("first");
        });
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"first"));
    }

    #[test]
    fn what_was_taken_out_is_the_takers() {
        assert_eq!(*Guarded::new(1), 1);
        assert_eq!(Guarded::new("a".to_string()).into_inner(), "a");
    }
}
