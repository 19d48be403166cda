//! What threads share memory by, in one place: `tests/loom` puts others here, and looks at every order
//! in which the threads can run.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use futures::task::AtomicWaker;
