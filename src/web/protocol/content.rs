//! What messages say of an event's values.

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::layout::Layout;

/// The content of a message.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Generated(Generated),
    Data(Data),
    Json(Value),
}

/// The `output` of a message with values.
#[derive(Debug, Serialize)]
pub(crate) struct Generated {
    data: Data,
    is_generating: bool,
    duration: f64,
    average_duration: f64,
    render_config: (),
    changed_state_ids: [(); 0],
    used_cache: (),
}

impl Generated {
    /// Values that took so many seconds, and on average so many.
    pub fn new(data: Data, duration: f64, average: Option<f64>, is_generating: bool) -> Self {
        Generated {
            data,
            is_generating,
            duration,
            average_duration: average.unwrap_or(duration),
            render_config: (),
            changed_state_ids: [],
            used_cache: (),
        }
    }
}

impl Content {
    /// Appends it as JSON, as its `Serialize` does.
    pub fn write(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        let Content::Generated(Generated {
            data, is_generating, duration, average_duration, ..
        }) = self
        else {
            return serde_json::to_writer(text, self);
        };
        text.extend_from_slice(br#"{"data":"#);
        data.write(text)?;
        field(text, br#","is_generating":"#, is_generating)?;
        field(text, br#","duration":"#, duration)?;
        field(text, br#","average_duration":"#, average_duration)?;
        let rest = br#","render_config":null,"changed_state_ids":[],"used_cache":null}"#;
        text.extend_from_slice(rest);
        Ok(())
    }
}

/// Appends the beginning of a field, up to its colon, and its value.
#[inline]
pub(super) fn field(
    text: &mut Vec<u8>,
    begin: &[u8],
    value: &impl Serialize,
) -> serde_json::Result<()> {
    text.extend_from_slice(begin);
    serde_json::to_writer(text, value)
}

/// Positional data.
#[derive(Debug)]
pub(crate) enum Data {
    Values(Vec<Value>),
    /// The text of the only value.
    One(Box<RawValue>),
    /// The text of the list of all values.
    All(Box<RawValue>),
}

impl Data {
    /// The output of a layout that was written as this text. Without a tree in between, and so for
    /// `serde_json` only.
    pub fn of_text(layout: &Layout, json: Box<RawValue>) -> Self {
        match layout {
            Layout::Nothing => Data::Values(Vec::new()),
            Layout::Tuple(_) if json.get().starts_with('[') => Data::All(json),
            _ => Data::One(json),
        }
    }

    fn write(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Data::Values(values) => return serde_json::to_writer(text, values),
            Data::One(json) => {
                text.push(b'[');
                text.extend_from_slice(json.get().as_bytes());
                text.push(b']');
            }
            Data::All(json) => text.extend_from_slice(json.get().as_bytes()),
        }
        Ok(())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Values(values) => values.serialize(serializer),
            Data::One(json) => [json].serialize(serializer),
            Data::All(json) => json.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_laid_out_as_values_are() {
        for (layout, value) in [
            (Layout::Nothing, json!(null)),
            (Layout::One, json!([1, "a"])),
            (Layout::Tuple(2), json!([1, { "b": null }])),
            (Layout::Tuple(2), json!("no list")),
        ] {
            let text = serde_json::value::to_raw_value(&value).unwrap();
            let text = serde_json::to_string(&Data::of_text(&layout, text)).unwrap();
            assert_eq!(text, json!(layout.split(value)).to_string());
        }
    }
}
