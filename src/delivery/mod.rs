//! Where an event's updates go.

pub(crate) mod bounds;
pub(crate) mod outbox;
pub(crate) mod sender;
pub(crate) mod unread;
pub(crate) mod wake_cell;
