//! Reading a request's JSON body.

use actix_web::web::Bytes;
use serde::de::DeserializeOwned;

use super::refusal::{Detail, Rejection};

/// The body as a `T`, whatever its content type says: curl sends JSON as a form unless told.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Rejection> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.inner();
        let kind = if cause.is_data() { "type_error" } else { "json_invalid" };
        let path: &[&str] = if path == "." { &[] } else { &[&path] };
        Rejection::invalid(Detail::new(kind, path, cause.to_string()))
    })?;
    json.end()
        .map_err(|error| Rejection::invalid(Detail::new("json_invalid", &[], error.to_string())))?;
    Ok(parsed)
}
