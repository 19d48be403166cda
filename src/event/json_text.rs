//! JSON as text: what goes to a journal, and comes from it.

use std::sync::Arc;

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

    pub fn get(&self) -> &str {
        self.0.get()
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
