//! Updates as JSON, for services that forward them over a connection of their own: each stands for
//! itself, in the form in which a session's stream carries it.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::encoder::Encoder;
use super::layout::Layout;
use crate::event::output::Output;
use crate::event::update::{Outcome, Update};

thread_local! {
    /// Making a schema takes longer than writing most outputs. There are as many as types of outputs.
    static LAYOUTS: RefCell<HashMap<TypeId, Layout>> = RefCell::default();
}

fn layout_of(output: &Output) -> Layout {
    let id = output.type_id();
    if let Some(layout) = LAYOUTS.with_borrow(|layouts| layouts.get(&id).cloned()) {
        return layout;
    }
    // Not under the borrow: a schema is made by code of the service's.
    let layout = Layout::of_output(&output.schema());
    LAYOUTS.with_borrow_mut(|layouts| layouts.insert(id, layout.clone()));
    layout
}

/// The audience without special rights: the text of unexpected errors is hidden.
fn encoder(output: Option<&Output>) -> Encoder {
    // A stream that ended without a value has no type; one output is the usual case.
    Encoder::of_update(output.map_or(Layout::One, layout_of))
}

impl Outcome {
    fn output(&self) -> Option<&Output> {
        match self {
            Outcome::Completed(output) => output.as_ref(),
            _ => None,
        }
    }
}

/// The message of Gradio's protocol: an object whose `msg` says which it is.
///
/// What a handler yields is always whole, where a session's stream sends edits after the first value.
/// Unexpected errors keep their text to themselves. A [`FileData`](crate::FileData) has no `url`: only
/// the service knows where it has put the routes; clients find it at `gradio_api/file=` and its `path`.
impl Serialize for Update {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let output = match self {
            Update::ProcessGenerating { output, .. } => Some(output),
            Update::ProcessCompleted { outcome, .. } => outcome.output(),
            _ => None,
        };
        encoder(output).message(self.clone()).serialize(serializer)
    }
}

/// The part of the message `process_completed` about it: `output`, `success` and `title`.
impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoder = encoder(self.output());
        let (output, title) = match encoder.result(self.clone()) {
            Ok(data) => (json!({ "data": data, "is_generating": false }), None),
            Err(failure) => {
                let title = failure.title.clone();
                (encoder.error(failure), Some(title))
            }
        };
        let mut fields = serializer.serialize_struct("Outcome", 3)?;
        fields.serialize_field("output", &output)?;
        fields.serialize_field("success", &title.is_none())?;
        fields.serialize_field("title", &title)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::failure::{Failure, UserError};
    use crate::event::id::EventId;
    use crate::event::update::{Log, LogLevel, ProgressUnit};

    fn completed(outcome: Outcome) -> serde_json::Value {
        let event_id = EventId::for_test(7);
        let average_duration = Some(2.0);
        let update =
            Update::ProcessCompleted { event_id, outcome, duration: 1.5, average_duration };
        serde_json::to_value(update).unwrap()
    }

    #[test]
    fn an_update_is_the_message_that_a_session_would_get() {
        let event_id = EventId::for_test(7);
        let id = "00000000000000000000000000000007";
        let estimation =
            Update::Estimation { event_id, rank: 2, queue_size: 3, rank_eta: Some(4.5) };
        let expected = json!({"msg": "estimation", "event_id": id, "rank": 2, "queue_size": 3, "rank_eta": 4.5});
        assert_eq!(serde_json::to_value(&estimation).unwrap(), expected);
        let units = vec![ProgressUnit { index: Some(1), length: Some(4), ..Default::default() }];
        let progress = serde_json::to_value(Update::Progress { event_id, units }).unwrap();
        assert_eq!(progress["progress_data"][0]["length"], 4);
        let log = Update::Log { event_id, log: Log::new(LogLevel::Info, "hi") };
        assert_eq!(serde_json::to_value(&log).unwrap()["log"], "hi");
        for (value, data) in [
            (Output::new(("a".to_string(), 1)), json!(["a", 1])),
            (Output::new(vec![1, 2]), json!([[1, 2]])),
            (Output::new(()), json!([])),
        ] {
            // Whole each time, though it follows another.
            for _ in 0..2 {
                let output = value.clone();
                let generating = Update::ProcessGenerating { event_id, output, duration: 0.5 };
                let generating = serde_json::to_value(&generating).unwrap();
                assert_eq!(generating["output"]["data"], data);
                assert_eq!(generating["output"]["is_generating"], true);
            }
            let ended = completed(Outcome::Completed(Some(value)));
            assert_eq!(ended["msg"], "process_completed");
            assert_eq!((&ended["output"]["data"], &ended["success"]), (&data, &json!(true)));
            assert_eq!(
                (&ended["output"]["duration"], &ended["avg_time"]),
                (&json!(1.5), &json!(2.0))
            );
        }
        assert_eq!(completed(Outcome::Completed(None))["output"]["data"], json!([null]));
    }

    #[test]
    fn unexpected_errors_keep_their_text_to_themselves() {
        let failed = completed(Outcome::Failed(Failure::unexpected("the password is 1234")));
        assert_eq!((&failed["output"]["error"], &failed["success"]), (&json!(null), &json!(false)));
        let meant = Outcome::Failed(UserError::new("no fox").title("Oh").into());
        let meant = serde_json::to_value(meant).unwrap();
        let error = json!({"error": "no fox", "duration": 10.0, "visible": true, "title": "Oh"});
        assert_eq!(meant, json!({"output": error, "success": false, "title": "Oh"}));
        let cancelled = serde_json::to_value(Outcome::Cancelled).unwrap();
        assert_eq!(
            (&cancelled["success"], &cancelled["title"]),
            (&json!(false), &json!("Cancelled"))
        );
        let one = serde_json::to_value(Outcome::Completed(Some(Output::new(1)))).unwrap();
        let output = json!({"data": [1], "is_generating": false});
        assert_eq!(one, json!({"output": output, "success": true, "title": null}));
    }
}
