//! What threads share memory by, in one place: `tests/loom` puts others here, and checks every
//! order in which the threads can run.

pub(crate) use futures::task::AtomicWaker;
pub(crate) use std::sync::atomic::AtomicUsize;
pub(crate) use std::sync::atomic::Ordering::SeqCst;
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
