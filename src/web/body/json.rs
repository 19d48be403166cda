//! Reading a request's JSON body.
//!
//! A body is read in one pass over its bytes for each of its layers, never into a tree: what a call
//! gives its listener stays text until the listener's own type reads it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use actix_web::web;
use actix_web::web::Bytes;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_path_to_error::Deserializer as Tracking;
use serde_path_to_error::{Segment, Track};
use tokio::sync::Semaphore;

use super::received::Body;
use super::size::is_large;
use crate::handler::codec::brief::Brief;
use crate::handler::codec::counting_deserializer::Metered;
use crate::handler::codec::memory_allowance::Allowance;
use crate::web::rejection::{Detail, Rejection};

/// How deep JSON may be nested: as deep as `serde_json` reads what it doesn't skip.
const DEEPEST: usize = 127;

/// Has a call's body read: here if it is short, otherwise on a thread for such. Only a few are read at
/// once, so that they leave processors to everybody else.
pub(crate) async fn read<T: Send + 'static>(
    readers: &Arc<Semaphore>,
    body: Body,
    read: impl FnOnce(&str) -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    if !is_large(body.len()) {
        return read(text(&body)?);
    }
    // Never closed.
    let permit = readers.clone().acquire_owned().await;
    let done = web::block(move || {
        let _permit = permit;
        let body = body.shrunk();
        read(text(&body)?)
    });
    done.await.unwrap_or_else(|_| Err(Rejection::internal("The input could not be read.")))
}

/// The body as a `T`, whatever its content type: curl sends JSON as a form by default.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Rejection> {
    from_text(text(bytes)?)
}

/// The body's text as a `T`, which may borrow from it.
pub(crate) fn from_text<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Rejection> {
    with_seed(PhantomData::<T>, text)
}

/// The body's text, which must be an object, as what a seed makes of it.
pub(crate) fn with_seed<'a, S: DeserializeSeed<'a> + Copy>(
    seed: S,
    text: &'a str,
) -> Result<S::Value, Rejection> {
    // Few are wrong: where, and how it is said, is found by reading once more. Not for long ones, which
    // a plain error may repeat.
    if !is_large(text.len())
        && is_object(text)
        && let Ok(parsed) = read_plainly(seed, text)
    {
        return Ok(parsed);
    }
    read_for_errors(seed, text)
}

fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}

fn read_plainly<'a, S: DeserializeSeed<'a>>(
    seed: S,
    text: &'a str,
) -> Result<S::Value, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = seed.deserialize(&mut json)?;
    json.end().map(|()| parsed)
}

fn read_for_errors<'a, S: DeserializeSeed<'a>>(
    seed: S,
    text: &'a str,
) -> Result<S::Value, Rejection> {
    if !is_object(text) {
        // A derived type would take a list as its fields.
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| invalid(&error))?;
        let detail = Detail::new("type_error", &[], "the body must be a JSON object");
        return Err(Rejection::invalid(detail));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    // What we take of it ourselves is bounded by its length.
    let allowance = Allowance::unlimited();
    let mut track = Track::new();
    let tracking = Tracking::new(Metered::new(&mut json, &allowance), &mut track);
    let parsed = seed.deserialize(tracking).map_err(|error| {
        let message = Brief::of(&error);
        if !error.is_data() {
            return Rejection::invalid(Detail::new("json_invalid", &[], message));
        }
        let detail = Detail::new("type_error", &[], message);
        Rejection::invalid(track.path().iter().fold(detail, |detail, segment| match segment {
            Segment::Seq { index } => detail.at((*index).into()),
            Segment::Map { key } => detail.at(Brief::of(key).into()),
            Segment::Enum { .. } | Segment::Unknown => detail,
        }))
    })?;
    json.end().map_err(|error| invalid(&error))?;
    Ok(parsed)
}

/// The rejection of JSON that would take far more memory than it has bytes.
pub(crate) fn too_much(bytes: usize) -> Rejection {
    Rejection::too_large(format!(
        "These {bytes} bytes of JSON would take too much memory: there are too many small values for \
         their types. Send fewer, or send them as a file."
    ))
}

fn invalid(error: &dyn fmt::Display) -> Rejection {
    Rejection::invalid(Detail::new("json_invalid", &[], Brief::of(error)))
}

/// The body's text, if nothing in it is nested too deep: also what is skipped.
fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    let text = std::str::from_utf8(bytes).map_err(|error| invalid(&error))?;
    // Most have too few brackets for that.
    if openings(bytes) > DEEPEST && depth(bytes) > DEEPEST {
        return Err(invalid(&"recursion limit exceeded"));
    }
    Ok(text)
}

/// How many brackets there are that open something, or stand in strings. Counted in bytes, so that many
/// are looked at at once.
fn openings(text: &[u8]) -> usize {
    let in_chunk =
        |chunk: &[u8]| chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    text.chunks(255).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// How deep JSON is nested.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => drop(bytes.next()),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    deepest
}

/// The positional `data` of a call, not yet read.
#[derive(Debug, Default)]
pub(crate) struct Data<'a>(Option<&'a RawValue>);

impl<'a, 'de: 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('[') {
            return Err(D::Error::custom("invalid type: expected a list of inputs"));
        }
        Ok(Data(Some(raw)))
    }
}

impl<'a> Data<'a> {
    /// At most the first `max` values of it, and how many there are.
    pub fn values(&self, max: usize) -> Result<(Vec<&'a RawValue>, usize), Rejection> {
        let Some(raw) = self.0 else { return Ok((Vec::new(), 0)) };
        let mut json = serde_json::Deserializer::from_str(raw.get());
        json.deserialize_seq(Values { max }).map_err(|error| invalid(&error))
    }
}

struct Values {
    max: usize,
}

impl<'de> Visitor<'de> for Values {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of inputs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut given) = (Vec::new(), 0);
        while values.len() < self.max
            && let Some(value) = items.next_element()?
        {
            values.push(value);
            given += 1;
        }
        while items.next_element::<IgnoredAny>()?.is_some() {
            given += 1;
        }
        Ok((values, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_no_brackets_in_strings() {
        for (json, expected) in
            [("1", 0), ("[[], {}]", 2), (r#"{"[\"[": ["[\\"]}"#, 2), ("]][", 1), ("\"[", 0)]
        {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
        assert_eq!(openings("[{]}\"".repeat(1000).as_bytes()), 2000);
    }

    #[test]
    fn data_is_counted_and_taken_as_far_as_wanted() {
        let data: Data<'_> = serde_json::from_str(r#"[1, "a", [2]]"#).unwrap();
        let (values, given) = data.values(2).unwrap();
        let values: Vec<_> = values.into_iter().map(RawValue::get).collect();
        assert_eq!((values, given), (vec!["1", "\"a\""], 3));
        assert_eq!(Data::default().values(2).unwrap().1, 0);
        assert!(serde_json::from_str::<Data<'_>>("3").is_err());
    }
}
