//! The HTTP status and body of an error: FastAPI's shape, which clients know.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::event::failure::{Failure, UserError};
use crate::event::refusal::Refusal;
use crate::event::update::Outcome;

/// One thing wrong with a request's body.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Detail {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: Vec<Value>,
    msg: String,
    /// The same in the form of Gradio's validators: its Python client shows nothing else.
    #[serde(flatten)]
    validation: Option<Validation>,
}

#[derive(Clone, Debug, Serialize)]
struct Validation {
    #[serde(rename = "__type__")]
    kind: &'static str,
    is_valid: bool,
    parameter_name: String,
    message: String,
}

impl Detail {
    pub fn new(kind: &'static str, path: &[&str], msg: impl Into<String>) -> Self {
        let loc = std::iter::once("body").chain(path.iter().copied()).map(Value::from).collect();
        Detail { kind, loc, msg: msg.into(), validation: None }
    }

    pub fn at(mut self, position: Value) -> Self {
        self.loc.push(position);
        self
    }

    pub fn prefix(mut self, prefix: &str) -> Self {
        self.msg.insert_str(0, prefix);
        self
    }

    /// What is wrong, as the end of an event.
    pub fn failure(self) -> Failure {
        UserError::new(self.msg).into()
    }

    /// Names the parameter that is wrong.
    pub fn of_parameter(mut self, name: &str) -> Self {
        self.validation = Some(Validation {
            kind: "validate",
            is_valid: false,
            parameter_name: name.into(),
            message: self.msg.clone(),
        });
        self
    }
}

/// A refused request.
pub(crate) struct Rejection {
    status: StatusCode,
    detail: Value,
    retry_after: Option<Duration>,
    /// The message also as `error`, where Gradio's clients read it.
    with_error: bool,
}

/// Its detail may quote input, which is for no log.
impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Rejection {
    pub fn new(status: StatusCode, detail: Value) -> Self {
        Rejection { status, detail, retry_after: None, with_error: false }
    }

    pub fn invalid(detail: Detail) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!([detail]))
    }

    pub fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail.into())
    }

    pub fn internal(detail: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail.into())
    }

    pub fn too_large(detail: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail.into())
    }

    /// The client sends too slowly.
    pub fn too_slow() -> Self {
        let message = "The body came too slowly.";
        Self::new(StatusCode::REQUEST_TIMEOUT, message.into())
    }

    pub fn too_many_events(max: usize) -> Self {
        Self::too_many(format!("This session has {max} events under way; let some end first."))
    }

    /// One that may be over in so many seconds.
    fn passing(status: StatusCode, detail: String, seconds: u64) -> Self {
        let retry_after = Some(Duration::from_secs(seconds));
        Rejection { retry_after, ..Self::new(status, detail.into()) }
    }

    /// The client has more than its share.
    pub fn too_many(detail: String) -> Self {
        Self::passing(StatusCode::TOO_MANY_REQUESTS, detail, 1)
    }

    /// The server has no room for more clients.
    pub fn crowded(detail: String) -> Self {
        Self::passing(StatusCode::SERVICE_UNAVAILABLE, detail, 5)
    }

    /// The same, where what was asked may be done all the same: another node may have taken it, which can't be asked
    /// any more. Gateways answer so for what they have lost.
    #[cfg(feature = "cluster")]
    pub fn uncertain(self) -> Self {
        let Value::String(detail) = &self.detail else { return self };
        if self.status != StatusCode::SERVICE_UNAVAILABLE {
            return self;
        }
        let detail = format!("{detail} The request may have been taken all the same.").into();
        Rejection { status: StatusCode::BAD_GATEWAY, detail, ..self }
    }

    /// There is no room for more files.
    pub fn no_room(detail: String) -> Self {
        Self::passing(StatusCode::INSUFFICIENT_STORAGE, detail, 60)
    }

    pub fn unknown_listener(api_name: &str) -> Self {
        Self::not_found(format!("No listener is named /{api_name}."))
    }

    /// A page of another origin made its visitor's browser send it.
    pub fn foreign() -> Self {
        let detail = "Pages of other origins must send JSON, declared as such.";
        Self::not_for_user(detail)
    }

    pub fn not_for_user(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail.into())
    }

    /// A route behind a gate has taken longer than it may.
    pub fn timed_out() -> Self {
        let detail = "The request took longer than its time limit.";
        Self::new(StatusCode::GATEWAY_TIMEOUT, detail.into())
    }

    /// The user may not call this listener.
    pub fn forbidden(api_name: &str) -> Self {
        Self::not_for_user(&format!("You may not call /{api_name}."))
    }

    pub fn with_error(mut self) -> Self {
        self.with_error = true;
        self
    }

    pub fn not_found(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail.into())
    }
}

/// A validator's result for every parameter, in the order in which clients know them: that of
/// `names`.
fn validated(validation: &crate::event::validation::Validation, names: &[&str]) -> Value {
    let named = |name: &str| {
        let complaint = validation.complaints().find(|(complained, _)| *complained == name);
        let message = complaint.map(|(_, message)| message).unwrap_or_default();
        json!({
            "__type__": "validate",
            "is_valid": complaint.is_none(),
            "message": message,
            "parameter_name": name,
        })
    };
    let others = validation.complaints().map(|(name, _)| name);
    let others = others.filter(|other| !names.contains(other));
    names.iter().copied().chain(others).map(named).collect()
}

impl Rejection {
    /// What became of an event that was not admitted. `names` are its listener's parameters.
    pub fn of(refusal: Refusal, names: &[&str]) -> Self {
        if let Refusal::Invalid(validation) = &refusal {
            let detail = validated(validation, names);
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        }
        let retry_after = match &refusal {
            Refusal::QueueFull { retry_after, .. } | Refusal::QueueTimeout { retry_after, .. } => {
                Some(retry_after.unwrap_or_default())
            }
            Refusal::WaitTooLong { eta, max_eta } => Some(eta.saturating_sub(*max_eta)),
            Refusal::Unavailable { retry_after, .. } => Some(*retry_after),
            Refusal::ValidatorPanicked => return Self::internal(&refusal.to_string()),
            Refusal::NotRecorded { full: true, .. } => {
                let detail = refusal.to_string().into();
                return Self::new(StatusCode::INSUFFICIENT_STORAGE, detail);
            }
            Refusal::NotRecorded { .. } | Refusal::Stopped | Refusal::Invalid(_) => None,
        };
        let detail = refusal.to_string().into();
        Rejection { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }
}

/// The status of an answer about an event that was admitted and gave no result.
pub(crate) fn status_of(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Outcome::Cancelled | Outcome::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        // One that completed has an output that is no JSON.
        Outcome::Failed(_) | Outcome::Completed(_) => StatusCode::INTERNAL_SERVER_ERROR,
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
        let mut body = json!({ "detail": self.detail });
        if self.with_error {
            let details = self.detail.as_array().map(Vec::as_slice).unwrap_or_default();
            let text = |detail: &'_ Value| {
                let text = detail.get("msg").or_else(|| detail.get("message"))?.as_str()?;
                Some(text.to_string()).filter(|text| !text.is_empty())
            };
            let text = details.iter().find_map(text).map(Value::from);
            body["error"] = text.unwrap_or_else(|| self.detail.clone());
        }
        let mut response = HttpResponse::build(self.status).json(body);
        if let Some(wait) = self.retry_after {
            // Whole seconds; 0 would be an invitation to hammer.
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
