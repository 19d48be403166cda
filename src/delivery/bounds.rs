//! What a reader may have unread, and what an update weighs.

use crate::event::update::{Outcome, Update};

/// What a reader may have unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Yielded values, and log messages, of one event.
    pub number: u32,
    /// None for readers in this process: what they have unread is theirs.
    pub bytes: Option<ByteBounds>,
}

/// Bytes as JSON, with [`OVERHEAD`] for each value and each message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteBounds {
    /// The values of one event, and its log messages, while somebody reads.
    pub attended: usize,
    /// The same while nobody does.
    pub absent: usize,
    /// Values, messages and results of all events. A single one may be larger.
    pub all: usize,
}

/// For readers in this process.
pub(crate) const UNREAD: Bounds = Bounds { number: 1024, bytes: None };

/// What a value or a message takes beside its text, in bytes.
pub(crate) const OVERHEAD: usize = 256;

/// What an update holds, in bytes. Measuring a value costs as much as writing it.
pub(super) fn weight(update: &Update) -> usize {
    match update {
        Update::Estimation { .. } | Update::ProcessStarts { .. } => 0,
        Update::Progress { units, .. } => {
            let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            units.iter().map(|unit| text(&unit.desc) + text(&unit.unit)).sum()
        }
        Update::Log { log, .. } => log.message.len() + log.title.len() + OVERHEAD,
        Update::ProcessGenerating { output, .. } => output.json_len() + OVERHEAD,
        Update::ProcessCompleted { outcome, .. } => match outcome {
            Outcome::Completed(Some(output)) => output.json_len(),
            Outcome::Failed(failure) => failure.message.len(),
            _ => 0,
        },
    }
}
