//! JSON as text: what goes to a journal, and comes from it.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// JSON that is kept as the text that it is. Cheap to clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct JsonText(pub Arc<RawValue>);

impl JsonText {
    /// The JSON of a value.
    ///
    /// # Errors
    /// When its `Serialize` fails, or has map keys that are no strings.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(JsonText::from)
    }

    /// Gives it back where it is short enough to be kept.
    ///
    /// # Errors
    /// Where it isn't.
    pub fn kept(self) -> Result<Self, TooLong> {
        self.within(MAX)
    }

    fn within(self, max: usize) -> Result<Self, TooLong> {
        let bytes = self.get().len();
        if bytes > max { Err(TooLong { bytes, max }) } else { Ok(self) }
    }

    pub fn get(&self) -> &str {
        self.0.get()
    }
}

/// The most bytes of one value that are kept: what keeps it has bounds of its own, and not keeping one
/// value must not be an error of the whole.
const MAX: usize = 256 << 20;

/// Why a value isn't kept.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "it takes {bytes} bytes as JSON, and at most {max} can be recorded; keep it in a file, and name that"
)]
pub(crate) struct TooLong {
    bytes: usize,
    max: usize,
}

impl JsonSchema for JsonText {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

impl From<Box<RawValue>> for JsonText {
    fn from(raw: Box<RawValue>) -> Self {
        JsonText(raw.into())
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_says_by_how_much() {
        let text = || JsonText::of(&"abc").expect("it is text");
        assert_eq!(text().within(5), Ok(text()));
        let refused = text().within(4).expect_err("it has five bytes");
        assert!(refused.to_string().starts_with("it takes 5 bytes as JSON, and at most 4 can"));
    }
}
