//! The errors of calls as answers of actix-web, so that `queue.call(..).await?` works in any handler.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use super::rejection::{Rejection, status_of};
use crate::event::update::Outcome;
use crate::logging::error;
use crate::queue::error::{AcquireError, CallError, ControlError, SubmitError};

impl Rejection {
    /// Why an event was not submitted.
    pub fn of_submit(error: &SubmitError) -> Self {
        let answered = |status| Self::new(status, error.to_string().into());
        match error {
            SubmitError::Refused(refusal) => Self::of(refusal.clone(), &[]),
            SubmitError::UnknownListener(name) => Self::unknown_listener(name),
            SubmitError::Forbidden { listener, .. } => Self::forbidden(listener),
            SubmitError::KeyReused(_) => answered(StatusCode::CONFLICT),
            SubmitError::NotFailed(_) => answered(StatusCode::NOT_FOUND),
            SubmitError::NotDurable(_) | SubmitError::Webhook(_) => {
                answered(StatusCode::BAD_REQUEST)
            }
            SubmitError::Journal(_) => answered(StatusCode::SERVICE_UNAVAILABLE),
            SubmitError::WrongType { .. } | SubmitError::WaitsForItself { .. } => Self::bug(error),
        }
    }

    fn of_call(error: &CallError) -> Self {
        let ended = |outcome: Outcome| Self::new(status_of(&outcome), error.to_string().into());
        match error {
            CallError::Submit(error) => Self::of_submit(error),
            CallError::Failed(failure) if failure.for_user => {
                ended(Outcome::Failed(failure.clone()))
            }
            // Its text, which is for no client, is in the log.
            CallError::Failed(_) => Self::internal("The event failed."),
            CallError::Cancelled => ended(Outcome::Cancelled),
            CallError::TimedOut => ended(Outcome::TimedOut),
            CallError::Stopped => ended(Outcome::Stopped),
            CallError::NoOutput | CallError::WrongOutput(_) => Self::bug(error),
        }
    }

    fn of_acquire(error: &AcquireError) -> Self {
        match error {
            AcquireError::Refused(refusal) => Self::of(refusal.clone(), &[]),
            AcquireError::UnknownConcurrencyId(_) => Self::not_found(error.to_string()),
            AcquireError::WaitsForItself { .. } => Self::bug(error),
        }
    }

    /// Why an operator's wish isn't granted.
    pub fn of_control(error: &ControlError) -> Self {
        let status = match error {
            ControlError::UnknownConcurrencyId(_) | ControlError::UnknownListener(_) => {
                StatusCode::NOT_FOUND
            }
            ControlError::ZeroLimit
            | ControlError::ResourceWithoutLimit(_)
            | ControlError::Stopped => StatusCode::BAD_REQUEST,
            ControlError::NotRecorded(_) if error.is_disk_full() => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            ControlError::NotRecorded(_) | ControlError::NotDone(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string().into())
    }

    /// The service has made a mistake, which is for its log and no client.
    fn bug(error: &dyn std::error::Error) -> Self {
        error!("a call can't be answered: {error}");
        Self::internal("The call could not be made.")
    }
}

macro_rules! response_error {
    ($($(#[$doc:meta])* $error:ty: $rejection:ident;)*) => {$(
        $(#[$doc])*
        impl ResponseError for $error {
            fn status_code(&self) -> StatusCode {
                Rejection::$rejection(self).status_code()
            }

            fn error_response(&self) -> HttpResponse {
                Rejection::$rejection(self).error_response()
            }
        }
    )*};
}

response_error! {
    /// With the statuses and bodies of the crate's own routes: 503 with `Retry-After` where the queue
    /// has no room, 422 with each parameter that the validator complains of, 403 where the user
    /// may not call the listener, 404 where there is none of the name. `{"detail": ..}` has the reason.
    SubmitError: of_submit;
    /// As that of [`SubmitError`]; 504 where the event timed out, 503 where it was cancelled or the
    /// queue was stopped, 500 where it failed. Of a failure clients get the text of a
    /// [`UserError`](crate::UserError), and of no other error.
    ///
    /// ```
    /// use actix_web::web;
    /// use now_serving::{CallError, ListenerHandle};
    ///
    /// async fn double(
    ///     double: web::Data<ListenerHandle<u32, u32>>,
    ///     n: web::Path<u32>,
    /// ) -> Result<String, CallError> {
    ///     Ok(double.try_call(*n).await?.to_string())
    /// }
    /// # let _ = web::get().to(double);
    /// ```
    CallError: of_call;
    /// 503 with `Retry-After` where the queue has no room, 404 for an unknown concurrency id.
    AcquireError: of_acquire;
    /// 404 for an unknown concurrency id or listener, otherwise 400.
    ControlError: of_control;
}
