//! A journal of whatever kind, as a queue is given it.

use std::sync::Arc;

use super::Journal;

/// What [`QueueBuilder::journal`](crate::QueueBuilder::journal) takes: made from `Sqlite` (feature
/// `journal`) or `Nats` (feature `cluster`) by `into()`.
#[derive(Clone, Debug)]
pub struct AnyJournal(pub(crate) Arc<dyn Journal>);

#[cfg(feature = "journal")]
impl From<super::sqlite::Sqlite> for AnyJournal {
    fn from(journal: super::sqlite::Sqlite) -> Self {
        AnyJournal(Arc::new(journal))
    }
}

#[cfg(feature = "cluster")]
impl From<super::jetstream::Nats> for AnyJournal {
    fn from(journal: super::jetstream::Nats) -> Self {
        AnyJournal(Arc::new(journal))
    }
}
