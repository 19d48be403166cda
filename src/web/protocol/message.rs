//! The messages of a session's stream, to the letter Gradio's.

use serde::Serialize;

use super::content::{Content, field};
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

    /// Appends it as JSON, as its `Serialize` does. What each event has is put together here, since a
    /// serializer looks at every letter of every key.
    pub fn write(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Message::Estimation { event_id: Some(event_id), rank, queue_size, rank_eta } => {
                text.extend_from_slice(br#"{"msg":"estimation","event_id":""#);
                event_id.write_to(text);
                field(text, br#"","rank":"#, rank)?;
                field(text, br#","queue_size":"#, queue_size)?;
                field(text, br#","rank_eta":"#, rank_eta)?;
            }
            Message::ProcessStarts { event_id, eta } => {
                text.extend_from_slice(br#"{"msg":"process_starts","event_id":""#);
                event_id.write_to(text);
                field(text, br#"","eta":"#, eta)?;
            }
            Message::ProcessGenerating { event_id, output, success, time_limit } => {
                text.extend_from_slice(br#"{"msg":"process_generating","event_id":""#);
                event_id.write_to(text);
                text.extend_from_slice(br#"","output":"#);
                output.write(text)?;
                field(text, br#","success":"#, success)?;
                field(text, br#","time_limit":"#, time_limit)?;
            }
            Message::ProcessCompleted {
                event_id,
                output,
                success,
                title,
                used_cache,
                cache_duration,
                avg_time,
            } => {
                text.extend_from_slice(br#"{"msg":"process_completed","event_id":""#);
                event_id.write_to(text);
                text.extend_from_slice(br#"","output":"#);
                output.write(text)?;
                field(text, br#","success":"#, success)?;
                field(text, br#","title":"#, title)?;
                field(text, br#","used_cache":"#, used_cache)?;
                field(text, br#","cache_duration":"#, cache_duration)?;
                field(text, br#","avg_time":"#, avg_time)?;
            }
            Message::CloseStream { event_id: None } => {
                text.extend_from_slice(br#"{"msg":"close_stream","event_id":null"#);
            }
            seldom => return serde_json::to_writer(text, seldom),
        }
        text.push(b'}');
        Ok(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::protocol::content::{Data, Generated};
    use crate::web::protocol::layout::Layout;
    use serde_json::json;
    use serde_json::value::to_raw_value;

    #[test]
    fn what_is_put_together_is_what_a_serializer_writes() {
        let event_id = EventId::for_test(0xabc);
        let text = |layout| Data::of_text(&layout, to_raw_value(&json!(["\"a\n", 1.5])).unwrap());
        let generated = |data| Content::Generated(Generated::new(data, 0.25, Some(1e-7), false));
        let outputs = || {
            [
                generated(text(Layout::One)),
                generated(text(Layout::Tuple(2))),
                generated(Data::Values(vec![json!({ "b": null })])),
                Content::Generated(Generated::new(Data::Values(Vec::new()), f64::NAN, None, true)),
                Content::Json(json!({ "error": "\u{1}" })),
            ]
        };
        let estimations = [(None, None), (Some(3), Some(4.0))].map(|(rank, rank_eta)| {
            Message::Estimation { event_id: Some(event_id), rank, queue_size: 7, rank_eta }
        });
        let starts = [None, Some(0.1)].map(|eta| Message::ProcessStarts { event_id, eta });
        let generating = outputs().map(|output| {
            let (success, time_limit) = (true, None);
            Message::ProcessGenerating { event_id, output, success, time_limit }
        });
        let completed = outputs().map(|output| Message::ProcessCompleted {
            event_id,
            output,
            success: false,
            title: Some("\"".into()),
            used_cache: Some("full".into()),
            cache_duration: None,
            avg_time: Some(2.0),
        });
        let others = [
            Message::HEARTBEAT,
            Message::CLOSE_STREAM,
            Message::session_not_found(),
            Message::skipped(event_id),
        ];
        let all = estimations.into_iter().chain(starts).chain(generating).chain(completed);
        for message in all.chain(others) {
            let mut text = Vec::new();
            message.write(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text, serde_json::to_string(&message).unwrap());
        }
    }
}
