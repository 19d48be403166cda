//! A file in Gradio's JSON.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::file_data::FileData;
use super::key::Key;
use super::scope;
use crate::handler::durable::is_recording;

/// Distinguishes a file from another object with a path.
const TYPE: &str = "gradio.FileData";

/// Before the path in the URL of a file.
const ROUTE: &str = "/gradio_api/file=";

#[derive(Serialize)]
struct Written<'a> {
    path: String,
    url: Option<String>,
    size: Option<u64>,
    orig_name: &'a str,
    mime_type: Option<&'static str>,
    is_stream: bool,
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    _type: &'static str,
}

#[derive(Deserialize)]
#[serde(expecting = "a file: an object whose path is what the upload answered")]
struct Read {
    path: String,
    orig_name: Option<String>,
}

/// What stays as it is in a URL's path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'/');

impl Serialize for FileData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if is_recording() {
            let files = scope::recorded().ok_or_else(|| {
                S::Error::custom(
                    "files of durable events must outlive the process; give the queue a directory \
                     for them with QueueBuilder::cache_dir",
                )
            })?;
            files.keep(self).map_err(S::Error::custom)?;
        }
        let path = self.key().to_string();
        let url = scope::base().map(|base| format!("{base}{}", utf8_percent_encode(&path, PLAIN)));
        Written {
            path,
            url,
            size: self.size(),
            orig_name: self.name(),
            mime_type: self.mime_type(),
            is_stream: false,
            meta: Meta { _type: TYPE },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FileData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { path, orig_name } = Read::deserialize(deserializer)?;
        let files = scope::store().ok_or_else(|| {
            D::Error::custom("a file can be read from the body of a call of a listener only")
        })?;
        // A client may give the URL that we gave it.
        let key = match path.split_once(ROUTE) {
            Some((_, path)) => percent_decode_str(path).decode_utf8().unwrap_or_default(),
            None => Cow::Borrowed(&*path),
        };
        let file = Key::parse(&key).and_then(|key| files.find(key)).ok_or_else(|| {
            D::Error::custom(
                "there is no such file here; send it to /gradio_api/upload first, and give the path \
                 that comes back",
            )
        })?;
        if is_recording() {
            files.keep(&file).map_err(D::Error::custom)?;
        }
        Ok(match orig_name {
            Some(name) => file.called(&name),
            None => file,
        })
    }
}

impl JsonSchema for FileData {
    fn inline_schema() -> bool {
        // Gradio's clients look for it in the parameter's own schema.
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FileData".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let or_null = |kind: &str| json!({ "oneOf": [{ "type": "null" }, { "type": kind }] });
        json_schema!({
            "type": "object",
            "properties": {
                "path": { "type": "string" },
                "url": or_null("string"),
                "size": or_null("integer"),
                "orig_name": or_null("string"),
                "mime_type": or_null("string"),
                "is_stream": { "type": "boolean" },
                "meta": {
                    "type": "object",
                    "properties": { "_type": { "const": TYPE } },
                    "required": ["_type"],
                },
            },
            "required": ["path", "meta"],
        })
    }
}

/// Whether a schema is that of a file.
pub(crate) fn is_file(schema: &Value) -> bool {
    schema.pointer("/properties/meta/properties/_type/const").is_some_and(|kind| kind == TYPE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::files::scope::reading;
    use crate::files::scope::writing;
    use crate::files::store::Files;

    #[test]
    fn json_names_a_file_of_the_store_and_no_other() {
        let files = Files::new(None, None, None).unwrap();
        let file = files.save("a b.png", "12345").unwrap();
        let base: Arc<str> = "http://a.org/gradio_api/file=".into();
        let written = writing(&base, || serde_json::to_value(&file)).unwrap();
        let path = file.key().to_string();
        let url = format!("http://a.org/gradio_api/file={}", path.replace(' ', "%20"));
        let expected = json!({
            "path": path, "url": url, "size": 5, "orig_name": "a b.png", "mime_type": "image/png",
            "is_stream": false, "meta": { "_type": "gradio.FileData" },
        });
        assert_eq!(written, expected);

        let read = |value: Value| reading(&files, || serde_json::from_value::<FileData>(value));
        assert_eq!(read(written.clone()).unwrap().path(), file.path());
        let again = read(json!({ "path": url, "orig_name": "../other.png" })).unwrap();
        assert_eq!((again.path(), again.name()), (file.path(), "other.png"));
        for path in ["/etc/passwd", "https://a.org/fox.png", "../a b.png", ""] {
            let error = read(json!({ "path": path })).unwrap_err().to_string();
            assert!(error.contains("/gradio_api/upload"), "{error}");
        }
        let outside = serde_json::from_value::<FileData>(written).unwrap_err();
        assert!(outside.to_string().contains("body of a call"));
    }

    #[test]
    fn its_schema_is_known() {
        let schema = schemars::schema_for!(FileData);
        assert!(is_file(schema.as_value()));
        assert!(!is_file(schemars::schema_for!(String).as_value()));
    }
}
