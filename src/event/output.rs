//! What a handler gave: a value of its own type, turned into JSON only for those who want JSON.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::guarded::{Guarded, discard_payload};
use super::json_text::JsonText;

/// A value that a handler returned or yielded, with its type erased.
///
/// In-process callers take the value out with [`Output::downcast`]; it is never turned into JSON
/// for them. A clone is the same value once more, not a copy: see [`Output::get`].
pub struct Output {
    value: Guarded<Arc<dyn Any + Send + Sync>>,
    methods: &'static Methods,
    /// Reads its text again, where several may want one of their own and its type can't be cloned.
    read: Option<Arc<Reread>>,
}

/// Makes an output of the same type from the text of one.
pub(crate) struct Reread(pub Box<ReadText>);

type ReadText = dyn Fn(&JsonText) -> Result<Output, String> + Send + Sync;

/// Writes a value, if it is of the right type.
type Write<T> = fn(&dyn Any) -> Option<Result<T, serde_json::Error>>;

type CloneValue = fn(&dyn Any) -> Option<Box<dyn Any>>;

/// What can be done to the value without knowing its type.
struct Methods {
    name: fn() -> &'static str,
    to_json: Write<Value>,
    to_text: Write<Box<RawValue>>,
    json_len: fn(&dyn Any) -> Option<usize>,
    schema: fn() -> Schema,
    /// For values that several may hold: who needs one of its own clones it.
    clone: Option<CloneValue>,
}

impl Output {
    /// The value of a handler that returns one.
    pub(crate) fn new<T: Serialize + JsonSchema + Send + Sync + 'static>(value: T) -> Self {
        let methods = const {
            &Methods {
                name: type_name::<T>,
                to_json: to_json::<T>,
                to_text: to_text::<T>,
                json_len: json_len::<T>,
                schema: || schema_for!(T),
                clone: None,
            }
        };
        Output { value: Guarded::new(Arc::new(value)), methods, read: None }
    }

    /// The value of a handler that yields several, which the worker keeps until the next.
    pub(crate) fn shared<T: Serialize + JsonSchema + Clone + Send + Sync + 'static>(
        value: T,
    ) -> Self {
        let methods = const {
            &Methods {
                name: type_name::<T>,
                to_json: to_json::<T>,
                to_text: to_text::<T>,
                json_len: json_len::<T>,
                schema: || schema_for!(T),
                clone: Some(clone::<T>),
            }
        };
        Output { value: Guarded::new(Arc::new(value)), methods, read: None }
    }

    /// The value, if it is a `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let value: &dyn Any = &**self.value;
        value.downcast_ref()
    }

    /// Takes the value out, or gives the output back when it is no `T`, or somebody holds a clone of it
    /// and it is no stream's: of a stream's value everybody takes a copy.
    pub fn downcast<T: Send + Sync + 'static>(self) -> Result<T, Output> {
        let Output { value, methods, read } = self;
        let back = |value| Output { value: Guarded::new(value), methods, read: read.clone() };
        let value = value.into_inner().downcast::<T>().map_err(back)?;
        Arc::try_unwrap(value).or_else(|value| {
            let cloned = methods.clone.and_then(|clone| clone(&*value)?.downcast().ok());
            // Another holder may have gone meanwhile, which makes ours the last.
            let shared = back(value);
            let read = || (read.as_ref()?.0)(&shared.to_text().ok()?.into()).ok()?.downcast().ok();
            match cloned {
                Some(value) => Ok(*value),
                None => read().ok_or(shared),
            }
        })
    }

    /// The same for several who each want one of their own, where what was written can be read.
    pub(crate) fn rereadable(self, read: Arc<Reread>) -> Self {
        Output { read: Some(read), ..self }
    }

    /// The length of its JSON in bytes, without making it.
    pub(crate) fn json_len(&self) -> usize {
        let length = AssertUnwindSafe(|| (self.methods.json_len)(&**self.value));
        match catch_unwind(length) {
            Ok(length) => length.unwrap_or(0),
            Err(payload) => {
                discard_payload(payload);
                0
            }
        }
    }

    /// The JSON schema of its type.
    pub(crate) fn schema(&self) -> Schema {
        (self.methods.schema)()
    }

    /// Distinguishes its type from others.
    pub(crate) fn type_id(&self) -> TypeId {
        let value: &dyn Any = &**self.value;
        value.type_id()
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// When the type's `Serialize` fails or panics, or has map keys that are no strings.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        self.written(self.methods.to_json).unwrap_or(Ok(Value::Null))
    }

    /// The value as the text of its JSON, without a tree in between.
    pub(crate) fn to_text(&self) -> Result<Box<RawValue>, serde_json::Error> {
        self.written(self.methods.to_text).unwrap_or_else(|| to_raw_value(&()))
    }

    fn written<T>(&self, write: Write<T>) -> Option<Result<T, serde_json::Error>> {
        catch_unwind(AssertUnwindSafe(|| write(&**self.value))).unwrap_or_else(|payload| {
            discard_payload(payload);
            Some(Err(serde::ser::Error::custom("its Serialize panicked")))
        })
    }
}

impl Clone for Output {
    fn clone(&self) -> Self {
        let Output { value, methods, read } = self;
        Output { value: Guarded::new(Arc::clone(value)), methods, read: read.clone() }
    }
}

fn to_json<T: Serialize + 'static>(value: &dyn Any) -> Option<Result<Value, serde_json::Error>> {
    value.downcast_ref::<T>().map(serde_json::to_value)
}

fn to_text<T: Serialize + 'static>(
    value: &dyn Any,
) -> Option<Result<Box<RawValue>, serde_json::Error>> {
    value.downcast_ref::<T>().map(to_raw_value)
}

/// Counts what is written to it.
struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The bytes of a value as JSON, without making it; `None` where it can't be written.
pub(crate) fn json_length(value: &impl Serialize) -> Option<usize> {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).ok()?;
    Some(count.0)
}

fn json_len<T: Serialize + 'static>(value: &dyn Any) -> Option<usize> {
    json_length(value.downcast_ref::<T>()?)
}

fn clone<T: Clone + 'static>(value: &dyn Any) -> Option<Box<dyn Any>> {
    Some(Box::new(value.downcast_ref::<T>()?.clone()))
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({})", (self.methods.name)())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_comes_out_as_its_own_type_only() {
        let output = Output::new(vec![1u8, 2]);
        assert_eq!(output.get::<Vec<u8>>(), Some(&vec![1, 2]));
        let output = output.downcast::<String>().unwrap_err();
        assert_eq!(output.downcast::<Vec<u8>>().unwrap(), [1, 2]);
    }

    #[test]
    fn text_is_written_from_the_type_itself() {
        let text = |output: Output| output.to_text().unwrap().get().to_string();
        assert_eq!(text(Output::new(0.1_f32)), "0.1");
        assert_eq!(text(Output::new((1, f64::NAN, "\n"))), r#"[1,null,"\n"]"#);
    }

    #[test]
    fn a_shared_value_can_be_taken_while_others_hold_it() {
        let output = Output::shared("a".to_string());
        let held = output.clone();
        assert_eq!(output.downcast::<String>().unwrap(), "a");
        assert_eq!(held.to_json().unwrap(), "a");
    }
}
