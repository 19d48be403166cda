//! Tests of what HTTP says that need more than the public API.

mod journal_trouble;
#[cfg(feature = "cluster")]
mod moving;
#[cfg(feature = "cluster")]
mod nodes;
#[cfg(feature = "cluster")]
mod relay;
