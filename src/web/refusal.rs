//! What a client is told when its request is refused: FastAPI's shape, which clients know.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

use crate::error::Refusal;

/// One thing wrong with a request's body.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Detail {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: Vec<Value>,
    msg: String,
}

impl Detail {
    pub fn new(kind: &'static str, path: &[&str], msg: impl Into<String>) -> Self {
        let loc = std::iter::once("body").chain(path.iter().copied()).map(Value::from).collect();
        Detail { kind, loc, msg: msg.into() }
    }

    pub fn at(mut self, position: Value) -> Self {
        self.loc.push(position);
        self
    }

    pub fn prefix(mut self, prefix: &str) -> Self {
        self.msg.insert_str(0, prefix);
        self
    }
}

/// A refused request.
#[derive(Debug)]
pub(crate) struct Rejection {
    status: StatusCode,
    detail: Value,
    retry_after: Option<Duration>,
}

impl Rejection {
    fn new(status: StatusCode, detail: Value) -> Self {
        Rejection { status, detail, retry_after: None }
    }

    pub fn invalid(detail: Detail) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!([detail]))
    }

    pub fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail.into())
    }

    pub fn not_found(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail.into())
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let retry_after = match &refusal {
            Refusal::QueueFull { retry_after, .. } => Some(retry_after.unwrap_or_default()),
            Refusal::WaitTooLong { eta, max_eta } => Some(eta.saturating_sub(*max_eta)),
            Refusal::Stopped => None,
        };
        let detail = refusal.to_string().into();
        Rejection { status: StatusCode::SERVICE_UNAVAILABLE, detail, retry_after }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status).json(json!({ "detail": self.detail }));
        if let Some(wait) = self.retry_after {
            // Whole seconds; 0 would be an invitation to hammer.
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
