//! Durable listeners: what of an event outlives its process, and how often it may start.

use std::any::type_name;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backoff::Backoff;
use super::codec::memory_allowance::Allowance;
use super::codec::{Json, read};
use super::input::Input;
use super::types::{ListenerInput, ListenerOutput};
use crate::event::failure::{Failure, Lost};
use crate::event::json_text::JsonText;
use crate::event::output::{Output, Reread};

/// How often an event of a durable listener may start, unless it says.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// What becomes of an event whose process ended while its handler ran. For
/// [`Listener::on_crash`](crate::Listener::on_crash).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnCrash {
    /// It starts again, before those that wait, until it has started
    /// [`max_attempts`](crate::Listener::max_attempts) times. The default.
    #[default]
    Retry,
    /// It fails. Its start is recorded before the handler starts, so that it never starts twice.
    Fail,
}

/// What recorded values are written and read within, where JSON only names what lies elsewhere. What they
/// name is kept as long as they are.
pub(crate) trait RecordScope: Send + Sync {
    fn within(&self, convert: &mut dyn FnMut());
}

/// Among a queue's extensions: that of its records.
#[derive(Clone)]
pub(crate) struct ScopeOfRecords(pub Arc<dyn RecordScope>);

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread writes or reads a value of a record.
pub(crate) fn is_recording() -> bool {
    RECORDING.get()
}

/// Puts back what was there before, also when the conversion panics.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        RECORDING.set(self.0);
    }
}

/// Converts a value of a record.
fn record<T>(
    scope: Option<&ScopeOfRecords>,
    convert: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let _restore = Restore(RECORDING.replace(true));
    let Some(ScopeOfRecords(scope)) = scope else { return convert() };
    let (mut convert, mut converted) = (Some(convert), None);
    scope.within(&mut || converted = convert.take().map(|convert| convert()));
    // A scope has to convert.
    converted.unwrap_or_else(|| Err("it wasn't converted".into()))
}

/// When an event that has failed starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// After a pause, behind those that wait then.
    After(Duration),
    /// It is next, as it was.
    Next,
}

/// What a durable listener declares.
#[derive(Clone)]
pub(crate) struct Durability {
    pub codec: Codec,
    pub scope: Option<ScopeOfRecords>,
    /// Reads its outputs, for those who each want one of their own. Made once, and not for each event.
    pub reread: Arc<Reread>,
    pub max_attempts: u32,
    pub on_crash: OnCrash,
    pub backoff: Option<Backoff>,
}

impl Durability {
    pub fn write_input(&self, input: &Input) -> Result<JsonText, String> {
        record(self.scope.as_ref(), || (self.codec.write_input)(input))
    }

    pub fn read_input(&self, text: &JsonText) -> Result<Input, String> {
        record(self.scope.as_ref(), || (self.codec.read_input)(text))
    }

    pub fn write_output(&self, output: &Output) -> Result<JsonText, String> {
        let write = || output.to_text().map_err(|error| error.to_string());
        let text = record(self.scope.as_ref(), write);
        let text = text.map_err(|error| format!("its output can't be written as JSON: {error}"))?;
        JsonText::from(text).kept().map_err(|error| format!("its output is too long: {error}"))
    }

    pub fn read_output(&self, text: &JsonText) -> Result<Output, String> {
        (self.reread.0)(text)
    }

    /// Keeps what an input names for as long as its event's end.
    pub fn keep(&self, input: &JsonText) {
        if self.scope.is_some() {
            // One that isn't there any more can't be kept.
            let _ = self.read_input(input);
        }
    }

    /// Whether a start must be on record before it happens.
    pub fn records_first(&self, durable: &Durable) -> bool {
        // What has crashed or failed once may do so again at once, before its start is on record: it would
        // never be counted.
        durable.recovered
            || durable.attempt() > 0
            || self.on_crash == OnCrash::Fail
            || self.max_attempts == 1
    }

    /// When an event that has failed starts again, if it does.
    pub fn retries(&self, durable: &Durable, failure: &Failure) -> Option<Retry> {
        let attempt = durable.attempt();
        if failure.lost == Some(Lost::HasNotBegun) {
            return Some(Retry::Next);
        }
        (attempt < self.max_attempts).then_some(())?;
        if failure.lost.is_some() {
            return (self.on_crash == OnCrash::Retry).then_some(Retry::Next);
        }
        let pause = **failure.transient.as_ref()?;
        let pause = pause.or_else(|| self.backoff.map(|backoff| backoff.pause(attempt)));
        pause.map(Retry::After)
    }

    /// Whether who runs it records its starts, since who has decided doesn't know yet where it will run.
    pub fn is_run_elsewhere(&self) -> bool {
        self.codec.is_verbatim
    }
}

impl fmt::Debug for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durability")
            .field("max_attempts", &self.max_attempts)
            .finish_non_exhaustive()
    }
}

/// How a listener's inputs and outputs are written and read, by their types alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    write_input: fn(&Input) -> Result<JsonText, String>,
    read_input: fn(&JsonText) -> Result<Input, String>,
    read_output: fn(&JsonText) -> Result<Output, String>,
    is_verbatim: bool,
}

impl Codec {
    /// Reads outputs within a scope.
    pub fn reread(self, scope: Option<ScopeOfRecords>) -> Arc<Reread> {
        let read = move |text: &JsonText| record(scope.as_ref(), || (self.read_output)(text));
        Arc::new(Reread(Box::new(read)))
    }

    /// Of values that are JSON, which nobody here reads.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub fn verbatim() -> Self {
        Codec {
            write_input: |input| {
                let text = input.get::<JsonText>().ok_or("the input is of another type")?;
                Ok(text.clone())
            },
            read_input: |text| Ok(Input::new(text.clone())),
            read_output: |text| Ok(Output::new(text.clone())),
            is_verbatim: true,
        }
    }

    pub fn of<I, O>() -> Self
    where
        I: ListenerInput + Serialize,
        O: ListenerOutput + DeserializeOwned,
    {
        Codec {
            write_input: |input| {
                let value = input.get::<I>().ok_or("the input is of another type")?;
                let text = JsonText::of(value).map_err(|error| {
                    format!("its input, a {}, can't be written as JSON: {error}", type_name::<I>())
                })?;
                text.kept().map_err(|error| format!("its input is too long: {error}"))
            },
            read_input: |text| {
                // It was within the bounds when it came.
                let allowance = Allowance::unlimited();
                let read = read::<I>(Json::Whole(&text.0), &allowance);
                read.map(Input::new).map_err(|error| {
                    let (path, message) = (error.path, error.message);
                    format!(
                        "its recorded input is no {} any more: {path}: {message}",
                        type_name::<I>()
                    )
                })
            },
            read_output: |text| {
                serde_json::from_str::<O>(text.get()).map(Output::new).map_err(|error| {
                    format!("its recorded output is no {} any more: {error}", type_name::<O>())
                })
            },
            is_verbatim: false,
        }
    }
}

/// What travels with an event of a durable listener, beside its input.
#[derive(Debug)]
pub(crate) struct Durable {
    /// The input once more, for the journal and for another attempt.
    pub input: JsonText,
    /// The session of its client, where the client named one.
    pub session: Option<Arc<str>>,
    /// The idempotency key.
    pub key: Option<Arc<str>>,
    /// The URL that its end is posted to.
    pub webhook: Option<Arc<str>>,
    /// In milliseconds since the Unix epoch.
    pub not_before: Option<u64>,
    /// The process that it came to, where others may run it.
    pub came_to: Option<Arc<str>>,
    /// It was admitted by an earlier process.
    pub recovered: bool,
    attempts: AtomicU32,
}

impl Durable {
    pub fn new(input: JsonText) -> Self {
        let (session, key, webhook, not_before, came_to) = (None, None, None, None, None);
        let (recovered, attempts) = (false, AtomicU32::new(0));
        Durable { input, session, key, webhook, not_before, came_to, recovered, attempts }
    }

    /// One that has started so often in earlier processes.
    pub fn recovered(self, attempts: u32) -> Self {
        Durable { recovered: true, attempts: AtomicU32::new(attempts), ..self }
    }

    /// The number of its last start, from 1; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempts.load(Relaxed)
    }

    /// It starts once more. Gives the number of this start.
    pub fn start(&self) -> u32 {
        self.attempts.fetch_add(1, Relaxed) + 1
    }

    /// The same for its next attempt.
    pub fn again(&self) -> Self {
        let Durable { input, session, key, webhook, not_before, came_to, recovered, .. } = self;
        Durable {
            input: input.clone(),
            session: session.clone(),
            key: key.clone(),
            webhook: webhook.clone(),
            not_before: *not_before,
            came_to: came_to.clone(),
            recovered: *recovered,
            attempts: AtomicU32::new(self.attempt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_begun_is_tried_again_whatever_is_said_of_crashes() {
        let codec = Codec::of::<u32, u32>();
        let durability = Durability {
            codec,
            scope: None,
            reread: codec.reread(None),
            max_attempts: 1,
            on_crash: OnCrash::Fail,
            backoff: None,
        };
        let durable = Durable::new(JsonText::of(&1).unwrap()).recovered(1);
        let retries = |lost| durability.retries(&durable, &Failure::lost(lost, "its node leaves"));
        assert_eq!(retries(Lost::HasNotBegun), Some(Retry::Next));
        assert_eq!(retries(Lost::MayHaveBegun), None);
    }
}
