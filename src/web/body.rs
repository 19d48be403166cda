//! Reading a request's JSON body.

use actix_web::web::Bytes;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::refusal::{Detail, Rejection};

/// The body as a `T`, whatever its content type says: curl sends JSON as a form unless told.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Rejection> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let message = error.inner().to_string();
        if !error.inner().is_data() {
            return Rejection::invalid(Detail::new("json_invalid", &[], message));
        }
        let detail = Detail::new("type_error", &[], message);
        Rejection::invalid(error.path().iter().fold(detail, |detail, segment| match segment {
            Segment::Seq { index } => detail.at((*index).into()),
            Segment::Map { key } => detail.at(key.as_str().into()),
            Segment::Enum { .. } | Segment::Unknown => detail,
        }))
    })?;
    json.end()
        .map_err(|error| Rejection::invalid(Detail::new("json_invalid", &[], error.to_string())))?;
    Ok(parsed)
}
