//! The messages of a session's stream, to the letter Gradio's.

use serde::Serialize;

use super::content::Content;
use crate::event::id::EventId;
use crate::event::update::{Log, LogLevel, ProgressUnit};

/// A message of the update stream of a session, named as in Gradio.
#[derive(Debug, Serialize)]
#[serde(tag = "msg", rename_all = "snake_case")]
pub(crate) enum Message {
    Estimation {
        event_id: Option<EventId>,
        rank: Option<usize>,
        queue_size: usize,
        rank_eta: Option<f64>,
    },
    ProcessStarts {
        event_id: EventId,
        eta: Option<f64>,
    },
    Progress {
        event_id: EventId,
        progress_data: Vec<ProgressUnit>,
    },
    Log {
        event_id: EventId,
        #[serde(flatten)]
        log: Log,
    },
    ProcessGenerating {
        event_id: EventId,
        output: Content,
        success: bool,
        time_limit: Option<f64>,
    },
    ProcessCompleted {
        event_id: EventId,
        output: Content,
        success: bool,
        title: Option<String>,
        used_cache: Option<String>,
        cache_duration: Option<f64>,
        avg_time: Option<f64>,
    },
    UnexpectedError {
        event_id: Option<EventId>,
        message: String,
        session_not_found: bool,
        success: bool,
    },
    Heartbeat {
        event_id: Option<EventId>,
    },
    CloseStream {
        event_id: Option<EventId>,
    },
}

impl Message {
    pub const HEARTBEAT: Message = Message::Heartbeat { event_id: None };
    pub const CLOSE_STREAM: Message = Message::CloseStream { event_id: None };

    /// Values that an event has yielded are missing. Clients know such messages, and show none that
    /// isn't visible.
    pub fn skipped(event_id: EventId) -> Self {
        let message = "Some values were skipped: there were too many to keep them all.";
        let log = Log { visible: false, ..Log::new(LogLevel::Warning, message) };
        Message::Log { event_id, log }
    }

    pub fn session_not_found() -> Self {
        Message::UnexpectedError {
            event_id: None,
            message: "404: Not Found".into(),
            session_not_found: true,
            success: false,
        }
    }
}
