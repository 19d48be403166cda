//! Tests of the queue that need more than its public API.

mod crashes;
mod faults;
mod journal_trouble;
