//! What is posted: how an event has ended, as JSON.

use serde::Serialize;

use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::journal::record::{End, Kept};

#[derive(Serialize)]
struct Message<'a> {
    r#type: String,
    data: EndedEvent<'a>,
}

#[derive(Serialize)]
struct EndedEvent<'a> {
    event_id: EventId,
    api_name: &'a str,
    outcome: &'static str,
    output: Option<&'a JsonText>,
    error: Option<Error<'a>>,
    /// Seconds that its last run took.
    duration: f64,
    /// In milliseconds since the Unix epoch.
    ended_at: u64,
}

#[derive(Serialize)]
struct Error<'a> {
    title: &'a str,
    message: &'a str,
}

/// In place of what a bug says, which is for the log.
const HIDDEN: &str = "The event failed.";

pub(super) fn body(kept: &Kept) -> serde_json::Result<String> {
    let (outcome, output, error) = match &kept.ended.end {
        End::Completed(output) => ("completed", output.as_ref(), None),
        End::Failed(failure) => {
            let message = if failure.for_user { &*failure.message } else { HIDDEN };
            ("failed", None, Some(Error { title: &failure.title, message }))
        }
        End::Cancelled => ("cancelled", None, None),
        End::TimedOut => ("timed_out", None, None),
        End::Stopped => ("stopped", None, None),
    };
    serde_json::to_string(&Message {
        r#type: format!("event.{outcome}"),
        data: EndedEvent {
            event_id: kept.ended.event,
            api_name: &kept.listener,
            outcome,
            output,
            error,
            duration: kept.ended.duration,
            ended_at: kept.ended.at,
        },
    })
}
