//! A run on its way from the line to a node.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::wire::EventEnd;
use crate::cluster::message::{Attempt, Process};
use crate::delivery::sender::UpdateSender;
use crate::event::failure::Lost;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::queue::blueprint::ListenerBlueprint;

/// A run that is to be placed.
#[derive(Debug)]
pub(super) struct Placing {
    pub listener: ListenerBlueprint,
    pub events: Vec<PlacedEvent>,
    pub results: UnboundedSender<(EventId, RunResult)>,
}

#[derive(Debug)]
pub(super) struct PlacedEvent {
    pub event: EventId,
    pub attempt: u32,
    pub input: JsonText,
    pub session: Option<Arc<str>>,
    pub user: Option<Arc<str>>,
    /// It may run already.
    pub adopts: bool,
    pub from: Option<Process>,
    pub updates: Option<Arc<UpdateSender>>,
}

impl PlacedEvent {
    pub fn attempt(&self) -> Attempt {
        Attempt { event: self.event, number: self.attempt }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum RunResult {
    Ended(EventEnd),
    /// Its process is gone, or has stopped it.
    Lost(Lost),
    /// It was interrupted, as was wanted.
    Stopped,
}
