//! Gradio's messages: the one place that encodes updates for the wire.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::content::{Content, Data, Generated};
use super::diff::diff;
use super::layout::Layout;
use super::message::Message;
use crate::clock;
use crate::delivery::unread::not_kept;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::output::Output;
use crate::event::update::{Finished, Outcome, Update};
use crate::files::scope::writing;
use crate::logging::error;

/// The state of one event's encoding: the layout of its outputs, and the values last sent.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The listener's; none where only the event is known.
    api_name: Option<Arc<str>>,
    output: Layout,
    audience: Audience,
    /// The values last sent; after the first, a stream carries edits against them.
    generated: Option<Vec<Value>>,
    /// Whether the client has got these is uncertain; the next edits don't build on them.
    uncertain: bool,
    /// Its result was made for an earlier event.
    is_cached: bool,
    /// A stop of the queue doesn't end it: it is on record, and goes on in the next process.
    is_durable: bool,
    /// Values that are sent whole are written as text at once: for streams and answers, which are
    /// nothing else.
    as_text: bool,
}

/// What a client may see, and where it finds files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audience {
    pub show_error: bool,
    /// The URL before the path of a file, where the listener gives files.
    pub files_at: Option<Arc<str>>,
}

/// What a `/call` stream sends for an update: an event's name and its data.
pub(crate) type Called = (&'static str, Content);

impl Encoder {
    pub fn new(api_name: Arc<str>, output: Layout, audience: Audience) -> Self {
        Encoder { api_name: Some(api_name), audience, as_text: true, ..Encoder::of_update(output) }
    }

    /// For updates outside of a stream, without a listener or a client.
    pub fn of_update(output: Layout) -> Self {
        Encoder {
            api_name: None,
            output,
            audience: Audience::default(),
            generated: None,
            uncertain: false,
            is_cached: false,
            is_durable: false,
            as_text: false,
        }
    }

    /// Of a durable event.
    pub fn durable(mut self, is_durable: bool) -> Self {
        self.is_durable = is_durable;
        self
    }

    /// Whether the event may be one of this listener.
    pub fn is_of(&self, api_name: &str) -> bool {
        self.api_name.as_deref().is_none_or(|own| own == api_name)
    }

    /// The client may have missed what was sent last, if anything was.
    pub fn doubt(&mut self) {
        self.uncertain = self.generated.is_some();
    }

    /// The values last sent, once more and whole: as the first, or to a client that had some before.
    pub fn repeat(&mut self, event_id: EventId, as_first: bool) -> Option<Message> {
        let values = self.generated.clone()?;
        self.uncertain = false;
        let values = if as_first { values } else { replaced(&values) };
        let output = generated(Data::Values(values), 0.0, None, true);
        Some(Message::ProcessGenerating { event_id, output, success: true, time_limit: None })
    }

    /// Marks the result as one from the cache.
    pub fn mark_cached(&mut self) {
        self.is_cached = true;
    }

    /// The update as a session's stream carries it.
    pub fn message(&mut self, update: Update) -> Message {
        match update {
            Update::Estimation { event_id, rank, queue_size, rank_eta } => Message::Estimation {
                event_id: Some(event_id),
                rank: Some(rank),
                queue_size,
                rank_eta,
            },
            Update::ProcessStarts { event_id, eta } => Message::ProcessStarts { event_id, eta },
            Update::Progress { event_id, units } => {
                Message::Progress { event_id, progress_data: units }
            }
            Update::Log { event_id, log } => Message::Log { event_id, log },
            Update::ProcessGenerating { event_id, output, duration } => {
                let values = self.values(&output).and_then(|values| self.edits(values));
                let (output, success) = match values {
                    Ok(values) => (generated(Data::Values(values), duration, None, true), true),
                    Err(failure) => (Content::Json(self.error(failure)), false),
                };
                Message::ProcessGenerating { event_id, output, success, time_limit: None }
            }
            Update::ProcessCompleted { event_id, outcome, duration, average_duration } => {
                self.completed(event_id, outcome, duration, average_duration)
            }
        }
    }

    /// Keeps how an event ended, to be sent again.
    pub fn keep(&self, update: &Update) -> Option<Ended> {
        let Update::ProcessCompleted { event_id, outcome, duration, average_duration } = update
        else {
            return None;
        };
        Some(Ended {
            encoder: Encoder {
                api_name: self.api_name.clone(),
                output: self.output.clone(),
                audience: self.audience.clone(),
                generated: None,
                uncertain: false,
                is_cached: self.is_cached,
                is_durable: self.is_durable,
                as_text: self.as_text,
            },
            event_id: *event_id,
            outcome: outcome.clone(),
            duration: *duration,
            average: *average_duration,
        })
    }

    fn completed(
        &self,
        event_id: EventId,
        outcome: Outcome,
        duration: f64,
        average: Option<f64>,
    ) -> Message {
        let (output, success, title) = match self.result(outcome) {
            Ok(data) => (generated(data, duration, average, false), true, None),
            Err(failure) => {
                let title = Some(failure.title.clone());
                (Content::Json(self.error(failure)), false, title)
            }
        };
        Message::ProcessCompleted {
            event_id,
            output,
            success,
            title,
            used_cache: self.is_cached.then(|| "full".into()),
            cache_duration: success.then_some(duration),
            avg_time: success.then_some(average.unwrap_or(duration)),
        }
    }

    /// The update as the stream of a `/call` carries it: values are always whole, and ranks and
    /// progress are not sent.
    pub fn called(&mut self, update: Update) -> Option<Called> {
        match update {
            Update::ProcessGenerating { output, .. } => Some(match self.data(&output) {
                Ok(data) => ("generating", Content::Data(data)),
                Err(failure) => ("error", Content::Json(self.error(failure))),
            }),
            Update::ProcessCompleted { outcome, .. } => Some(self.called_end(outcome)),
            _ => None,
        }
    }

    fn called_end(&self, outcome: Outcome) -> Called {
        match self.ended(outcome) {
            Ok(data) => ("complete", data.map_or(Content::Json(Value::Null), Content::Data)),
            Err(failure) => ("error", Content::Json(self.error(failure))),
        }
    }

    /// The answer to a `run`, `None` for a cancelled one, and the error's where it failed.
    pub fn answered(&self, finished: Finished) -> Result<Option<Generated>, Value> {
        let Finished { outcome, started, average_duration } = finished;
        let duration = started.map_or(Duration::ZERO, clock::since).as_secs_f64();
        match self.ended(outcome) {
            Ok(data) => {
                Ok(data.map(|data| Generated::new(data, duration, average_duration, false)))
            }
            Err(failure) if self.shows(&failure) => Err(self.error(failure)),
            // All that Gradio sends.
            Err(_) => Err(json!({ "error": null })),
        }
    }

    /// The values of an event that ended, or what its client is shown in their place.
    pub(super) fn result(&self, outcome: Outcome) -> Result<Data, Failure> {
        self.ended(outcome).and_then(|data| data.ok_or_else(cancelled))
    }

    /// The values of an event that ended, `None` for a cancelled one.
    fn ended(&self, outcome: Outcome) -> Result<Option<Data>, Failure> {
        let error = |text: &str| Err(crate::event::failure::UserError::new(text).into());
        match outcome {
            Outcome::Completed(Some(output)) => self.data(&output).map(Some),
            // A stream without a value still has its outputs.
            Outcome::Completed(None) => {
                Ok(Some(Data::Values(vec![Value::Null; self.output.parameters()])))
            }
            Outcome::Failed(failure) => Err(failure),
            Outcome::Cancelled => Ok(None),
            Outcome::TimedOut => error("The event timed out."),
            Outcome::Stopped if self.is_durable => error(
                "The service is stopping. The event is recorded and goes on once the service is \
                 back: its event_id finds it then.",
            ),
            Outcome::Stopped => error("Queue is stopped."),
        }
    }

    fn data(&self, output: &Output) -> Result<Data, Failure> {
        if self.as_text {
            let text = self.written(|| output.to_text())?;
            // JSON that a type writes as it came may contain line breaks, which end a message.
            if !text.get().bytes().fold(false, |found, byte| found | (byte < b' ')) {
                return Ok(Data::of_text(&self.output, text));
            }
        }
        self.values(output).map(Data::Values)
    }

    fn values(&self, output: &Output) -> Result<Vec<Value>, Failure> {
        self.written(|| output.to_json()).map(|value| self.output.split(value))
    }

    /// Has an output written for the client.
    fn written<T>(&self, write: impl FnOnce() -> serde_json::Result<T>) -> Result<T, Failure> {
        let written = match &self.audience.files_at {
            Some(base) => writing(base, write),
            None => write(),
        };
        written.map_err(|error| {
            let listener = self.api_name.as_deref().unwrap_or_default();
            error!("an output of listener {listener:?} is no JSON: {error}");
            Failure::unexpected(format!("the output is no JSON: {error}"))
        })
    }

    /// The first values are sent whole, later ones as a list of edits for each output.
    fn edits(&mut self, values: Vec<Value>) -> Result<Vec<Value>, Failure> {
        let Some(last) = self.generated.take() else {
            self.generated = Some(values.clone());
            return Ok(values);
        };
        if std::mem::take(&mut self.uncertain) {
            let whole = replaced(&values);
            self.generated = Some(values);
            return Ok(whole);
        }
        let edits = last.iter().zip(&values).map(|(old, new)| serde_json::to_value(diff(old, new)));
        let edits = edits
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::unexpected(format!("the edits are no JSON: {error}")));
        self.generated = Some(values);
        edits
    }

    fn shows(&self, failure: &Failure) -> bool {
        failure.for_user || self.audience.show_error
    }

    /// Unexpected errors keep their text to themselves unless `show_error` is on.
    pub(super) fn error(&self, failure: Failure) -> Value {
        let shown = self.shows(&failure);
        json!({
            "error": shown.then_some(failure.message),
            "duration": failure.duration,
            "visible": failure.visible,
            "title": failure.title,
        })
    }
}

/// What the client of a cancelled event gets. Gradio sends a success, with an empty object as
/// output: its JavaScript client fails on that and gives up its whole stream, with all other events
/// on it.
fn cancelled() -> Failure {
    crate::event::failure::UserError::new("The event was cancelled.")
        .title("Cancelled")
        .visible(false)
        .into()
}

/// Edits that put values in the place of whatever the client has.
fn replaced(values: &[Value]) -> Vec<Value> {
    values.iter().map(|value| json!([["replace", [], value]])).collect()
}

/// How an event ended, for clients that fetch it again.
#[derive(Debug)]
pub(crate) struct Ended {
    encoder: Encoder,
    event_id: EventId,
    outcome: Outcome,
    duration: f64,
    average: Option<f64>,
}

impl Ended {
    /// One that comes from elsewhere than a session.
    pub fn of(encoder: Encoder, event_id: EventId, outcome: Outcome, duration: f64) -> Self {
        Ended { encoder, event_id, outcome, duration, average: None }
    }

    /// Whether the event may be one of this listener.
    pub fn is_of(&self, api_name: &str) -> bool {
        self.encoder.is_of(api_name)
    }

    /// As a session's stream carries it.
    pub fn message(&self) -> Message {
        self.encoder.completed(self.event_id, self.outcome.clone(), self.duration, self.average)
    }

    /// As the stream of a `/call` carries it.
    pub fn called(&self) -> Called {
        self.encoder.called_end(self.outcome.clone())
    }

    /// The length of its value as JSON, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Completed(Some(output)) => output.json_len(),
            Outcome::Failed(failure) => failure.message.len(),
            _ => 0,
        }
    }

    /// An end that isn't kept any more.
    pub fn gone(event_id: EventId) -> Self {
        let encoder = Encoder::of_update(Layout::Nothing);
        let outcome = Outcome::Failed(not_kept());
        Ended { encoder, event_id, outcome, duration: 0.0, average: None }
    }
}

fn generated(data: Data, duration: f64, average: Option<f64>, more: bool) -> Content {
    Content::Generated(Generated::new(data, duration, average, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_no_event_are_gradio_s_to_the_letter() {
        let written = |message: &Message| serde_json::to_string(message).unwrap_or_default();
        assert_eq!(written(&Message::HEARTBEAT), r#"{"msg":"heartbeat","event_id":null}"#);
        assert_eq!(written(&Message::CLOSE_STREAM), r#"{"msg":"close_stream","event_id":null}"#);
        let unknown = r#"{"msg":"unexpected_error","event_id":null,"message":"404: Not Found","session_not_found":true,"success":false}"#;
        assert_eq!(written(&Message::session_not_found()), unknown);
    }
}
