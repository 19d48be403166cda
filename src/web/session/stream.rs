//! A client's reading of its session: one stream carries the updates of all its events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(feature = "cluster")]
use actix_web::HttpMessage;
use actix_web::HttpRequest;
use actix_web::http::header::ACCEPT;
use bytes::Bytes;
use tokio::time::{Sleep, sleep};

use super::mailbox::Piece;
use super::replay_log::Entry;
use super::session::{Session, State};
use crate::delivery::unread;
use crate::event::id::EventId;
use crate::event::update::Update;
use crate::web::protocol::encoder::Ended;
use crate::web::protocol::message::Message;
use crate::web::protocol::sse;
#[cfg(feature = "cluster")]
use crate::web::relayed::Relayed;

/// How long a session's stream stays open after its last event has ended, so that a client that
/// sends the next one at once is served on the same stream: a round trip over usual networks. Only
/// for clients that accept server-sent events by name. Gradio's Python client doesn't, and a
/// program that uses it doesn't end before its stream.
const LINGER: Duration = Duration::from_millis(250);

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Messages of all kinds, values as edits.
    Session,
    /// Named events, whole values.
    Call,
}

/// The format of a stream, and whether its messages are numbered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub form: Form,
    pub numbered: bool,
    /// The client wants the numbers, and not only the node that relays the stream to it.
    pub shown: bool,
}

impl Format {
    /// Numbers are for clients that accept server-sent events by name, as browsers do. Gradio's
    /// Python client doesn't, and understands nothing but data.
    pub fn of(request: &HttpRequest, form: Form) -> Self {
        let shown = accepts_events(request);
        #[cfg(feature = "cluster")]
        let numbered = shown || request.extensions().contains::<Relayed>();
        #[cfg(not(feature = "cluster"))]
        let numbered = shown;
        Format { form, numbered, shown }
    }
}

/// Whether a client accepts server-sent events by name.
pub(crate) fn accepts_events(request: &HttpRequest) -> bool {
    let accepts = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accepts.is_some_and(|kinds| kinds.contains("text/event-stream"))
}

/// The number of the last message that a client has read, as browsers send it when they come back.
/// A page that begins anew sends 0 by `last_event_id`, since a script can't set the header.
pub(crate) fn last_event_id(request: &HttpRequest, query: Option<u64>) -> Option<u64> {
    let header = request.headers().get("last-event-id");
    let header = header.and_then(|number| number.to_str().ok()?.trim().parse().ok());
    header.or(query)
}

/// What became of a stream's poll.
pub(crate) enum Read {
    /// Something was read; it may have made no message.
    Something,
    /// The client has been handed the end of its last event, and, on a session's stream, has not
    /// sent another since. Nothing more comes on this stream.
    Finished,
    /// Another stream reads now.
    TakenOver,
}

/// Something to send to a client that came back. Written only when it is its turn, so that a client
/// that doesn't read costs no more than one that does.
enum Missed {
    Text(Bytes),
    /// Values of an event are missing.
    Values(EventId),
    End {
        number: u64,
        event: EventId,
    },
}

/// A stream that breaks off leaves the events a while for the client to come back.
pub(crate) struct Stream {
    session: Arc<Session>,
    number: u64,
    format: Format,
    /// What a client that came back has missed, and hasn't been handed yet.
    missed: VecDeque<Missed>,
    /// All that there was has been handed out: what comes next shows that it was taken.
    drained: bool,
    /// Runs while there is nothing to wait for.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Begins to read; an earlier stream ends. `after` is the last message that a client that comes
    /// back has read, if it sent one.
    pub fn open(session: &Arc<Session>, format: Format, after: Option<u64>) -> Stream {
        let mut state = session.lock();
        state.stream += 1;
        state.streaming = true;
        // Its client knows of the end of the one before.
        state.closing.take();
        let superseded = state.reader.take();
        state.touched = Instant::now();
        state.polled = Instant::now();
        state.live.values_mut().for_each(|live| live.followed = true);
        session.mailbox.attend(true);
        let number = state.stream;
        let missed = resume(&mut state, format, after);
        drop(state);
        if let Some(superseded) = superseded {
            superseded.wake();
        }
        let session = session.clone();
        Stream { session, number, format, missed, drained: false, linger: None }
    }

    /// Ready when another stream reads instead of this one.
    pub fn poll_superseded(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_superseded_in(&mut self.session.lock(), cx)
    }

    fn poll_superseded_in(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        if state.stream != self.number {
            return Poll::Ready(());
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    pub fn is_numbered(&self) -> bool {
        self.format.shown
    }

    /// Appends the next update, if there is one.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<Read> {
        // Held to the end: what one stream takes, one that takes over must find in the log.
        let session = self.session.clone();
        let mut state = session.lock();
        if self.poll_superseded_in(&mut state, cx).is_ready() {
            return Poll::Ready(Read::TakenOver);
        }
        state.polled = Instant::now();
        match self.session.mailbox.continue_message(text) {
            Piece::Some => return Poll::Ready(Read::Something),
            Piece::Cut => return Poll::Ready(Read::TakenOver),
            Piece::None => {}
        }
        let begin = text.len();
        if let Some(missed) = self.missed.pop_front() {
            match missed {
                Missed::Text(missed) => text.extend_from_slice(&missed),
                Missed::Values(event) => write_skipped(text, self.format, event),
                Missed::End { number, event } => {
                    let ended = self.session.limits.results.find(&self.session.caller(), event);
                    write_end(text, self.format, number, event, ended.as_deref());
                }
            }
            if self.missed.is_empty() {
                state.log.hand_out();
            }
            self.session.mailbox.hold_back(text, begin);
            return Poll::Ready(Read::Something);
        }
        if state.live.is_empty() {
            return self.poll_finished(&mut state, cx).map(|()| Read::Finished);
        }
        self.linger = None;
        let Poll::Ready(unread) = self.session.mailbox.poll_next(cx) else {
            self.drained = true;
            return Poll::Pending;
        };
        if std::mem::take(&mut self.drained) {
            state.log.settle();
        }
        write_update(&self.session, &mut state, self.format, unread, text);
        self.session.mailbox.hold_back(text, begin);
        Poll::Ready(Read::Something)
    }

    /// Whether a stream whose events have all ended is over. A client that sends another event
    /// while its stream is open, as far as it knows, opens no other (Gradio's don't). So under the
    /// session's lock either the event is found here, or it finds that the stream closes.
    fn poll_finished(&mut self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        if self.format.form == Form::Call {
            return Poll::Ready(());
        }
        // What is unread belongs to events that were given up. To be woken by the next event's first.
        while self.session.mailbox.poll_next(cx).is_ready() {}
        if self.format.shown {
            let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            std::task::ready!(linger.as_mut().poll(cx));
        }
        state.streaming = false;
        state.touched = Instant::now();
        state.closing.get_or_insert_default();
        Poll::Ready(())
    }
}

/// Appends an update, and keeps what a client that comes back may need.
fn write_update(
    session: &Session,
    state: &mut State,
    format: Format,
    unread: unread::Read,
    text: &mut Vec<u8>,
) {
    let unread::Read { update, skipped, .. } = unread;
    let id = update.event_id();
    // Updates of events that were given up have no listener any more.
    let Some(live) = state.live.get_mut(&id) else { return };
    let number = state.log.number();
    let numbered = format.numbered.then_some(number);
    if skipped {
        write_skipped(text, format, id);
    }
    let begin = text.len();
    live.note(&update);
    let ended = live.encoder.keep(&update);
    let is_value = matches!(update, Update::ProcessGenerating { .. });
    match format.form {
        Form::Session => sse::write_message(text, numbered, &live.encoder.message(update)),
        Form::Call => {
            if let Some((name, data)) = live.encoder.called(update) {
                sse::write(text, numbered, Some(name), &data);
            }
        }
    }
    if is_value {
        live.first_value.get_or_insert(number);
        match format.numbered {
            true => state.log.value(number, id, Bytes::copy_from_slice(&text[begin..])),
            false => state.log.forget_value(number),
        }
    }
    if let Some(ended) = ended {
        live.ended();
        state.live.remove(&id);
        state.log.end(number, id);
        let bytes = text.len() - begin;
        session.put_aside(id, ended, bytes);
    }
    state.log.hand_out();
}

/// What a client that comes back has missed, and where its events are now. Nothing, for a client that
/// is here for the first time.
fn resume(state: &mut State, format: Format, after: Option<u64>) -> VecDeque<Missed> {
    let mut missed = VecDeque::new();
    let mut now = Vec::new();
    if format.form == Form::Session {
        for (id, live) in &mut state.live {
            // Not numbered: these are sent again whenever a client comes back.
            live.repeat(*id).for_each(|message| sse::write_message(&mut now, None, &message));
        }
    }
    if !now.is_empty() {
        missed.push_back(Missed::Text(now.into()));
    }
    let end = |entry: &Entry| Missed::End { number: entry.number, event: entry.event };
    // A number that was never given is of another session with this hash, such as before a restart.
    let Some(after) = after.filter(|after| *after <= state.log.last()) else {
        // What was handed out last may not have arrived. Better an end twice than never: it is known
        // by its event. A client that wants all exactly once sends `Last-Event-ID`.
        state.live.values_mut().for_each(|live| live.encoder.doubt());
        missed.extend(state.log.unsettled_ends().map(end));
        return missed;
    };
    let complete = state.log.has_values_after(after);
    for entry in state.log.after(after) {
        match &entry.value {
            Some(value) if complete => missed.push_back(Missed::Text(value.clone())),
            Some(_) => {}
            None => {
                if !complete {
                    missed.push_back(Missed::Values(entry.event));
                }
                missed.push_back(end(entry));
            }
        }
    }
    if !complete && format.form == Form::Call {
        missed.extend(state.live.keys().map(|id| Missed::Values(*id)));
    }
    if !complete && format.form == Form::Session {
        for (id, live) in &mut state.live {
            let has_some = live.first_value.is_some_and(|first| first <= after);
            if let Some(message) = live.encoder.repeat(*id, !has_some) {
                missed.push_back(Missed::Values(*id));
                let number = state.log.number();
                let mut text = Vec::new();
                sse::write_message(&mut text, format.numbered.then_some(number), &message);
                let text = Bytes::copy_from_slice(&text);
                state.log.value(number, *id, text.clone());
                missed.push_back(Missed::Text(text));
            }
        }
    }
    missed
}

/// Notifies a client with numbers that values of an event are missing. Others may understand only
/// Gradio's messages.
fn write_skipped(text: &mut Vec<u8>, format: Format, event: EventId) {
    match format {
        Format { shown: false, .. } => {}
        Format { form: Form::Session, .. } => {
            sse::write_message(text, None, &Message::skipped(event));
        }
        Format { form: Form::Call, .. } => {
            sse::write(text, None, Some("skipped"), &serde_json::Value::Null);
        }
    }
}

/// An end once more; for one that isn't kept any more an error, so that nobody waits for it.
fn write_end(
    text: &mut Vec<u8>,
    format: Format,
    number: u64,
    event: EventId,
    ended: Option<&Ended>,
) {
    let numbered = format.numbered.then_some(number);
    let gone = Ended::gone(event);
    let ended = ended.unwrap_or(&gone);
    match format.form {
        Form::Session => sse::write_message(text, numbered, &ended.message()),
        Form::Call => {
            let (name, data) = ended.called();
            sse::write(text, numbered, Some(name), &data);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        if state.stream != self.number {
            return;
        }
        let broke_off = std::mem::take(&mut state.streaming);
        if broke_off {
            state.touched = Instant::now();
        }
        state.closing.take();
        let reader = state.reader.take();
        // What began since a stream was over awaits the next one, as what nobody has followed yet.
        let followed = broke_off && !state.live.is_empty();
        self.session.mailbox.attend(false);
        drop(state);
        drop(reader);
        if followed {
            let (session, number) = (self.session.clone(), self.number);
            actix_web::rt::spawn(async move {
                tokio::time::sleep(session.limits.grace).await;
                if session.lock().stream == number {
                    session.abandon();
                }
            });
        }
    }
}
