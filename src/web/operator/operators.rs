//! Who may look at a queue, and who may steer it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{Header, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use actix_web_httpauth::headers::authorization::{Authorization, Basic};
use serde_json::json;

use crate::event::guarded::discard_payload;
use crate::logging::{debug, error, warn};
use crate::web::auth::{AnyAuth, Auth};
use crate::web::peer::address;
use crate::web::rejection::Rejection;

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Look and steer: cancel, pause, resume, change limits, drain.
    All,
    /// Look. The dashboard shows no actions, and one that is sent all the same is answered 403.
    ReadOnly,
    /// Nothing: everything is answered 403.
    Forbidden,
}

/// Who operates a queue: [`Web::dashboard`](crate::Web::dashboard) and
/// [`Web::metrics_for`](crate::Web::metrics_for) are for them only. They log in by HTTP's basic
/// authentication, or are known by [`Auth::user`].
///
/// From an [`Auth`] alone, everybody whom it lets in may do everything.
///
/// ```
/// use actix_web::App;
/// use now_serving::{Access, Operators, Users};
///
/// # fn app(web: now_serving::Web, [ada, bob]: [String; 2]) {
/// let operators = Operators::new(Users::new().user("ada", ada).user("bob", bob))
///     .access(|user| if user == "ada" { Access::All } else { Access::ReadOnly });
/// App::new()
///     .configure(web.dashboard("/queues", operators.clone()))
///     .configure(web.metrics_for("/metrics", operators))
/// # ;
/// # }
/// ```
#[derive(Clone)]
pub struct Operators {
    auth: Arc<dyn AnyAuth>,
    access: Arc<dyn Fn(&str) -> Access + Send + Sync>,
}

impl Operators {
    /// Everybody whom `auth` lets in, with access to all.
    pub fn new(auth: impl Auth) -> Self {
        Operators { auth: Arc::new(auth), access: Arc::new(|_| Access::All) }
    }

    /// What each of them may do. Called for each request; where it panics, the request is refused.
    #[must_use = "it gives the operators back"]
    pub fn access(self, access: impl Fn(&str) -> Access + Send + Sync + 'static) -> Self {
        Operators { access: Arc::new(access), ..self }
    }

    fn access_of(&self, name: &str) -> Access {
        catch_unwind(AssertUnwindSafe(|| (self.access)(name))).unwrap_or_else(|payload| {
            discard_payload(payload);
            error!("the function that was given to Operators::access panicked; access is refused");
            Access::Forbidden
        })
    }

    async fn name(&self, request: &HttpRequest) -> Result<Option<String>, String> {
        if let Some(user) = self.auth.user(request) {
            return Ok(Some(user.to_string()));
        }
        let Ok(given) = Authorization::<Basic>::parse(request) else { return Ok(None) };
        let (name, password) = (given.as_ref().user_id(), given.as_ref().password());
        if self.auth.login(name, password.unwrap_or_default()).await? {
            return Ok(Some(name.to_owned()));
        }
        warn!("operators: a login from {} was refused", address(request));
        // Not above debug: people type their password there.
        debug!("operators: the login that was refused was of {name:?}");
        Ok(None)
    }
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operators").finish_non_exhaustive()
    }
}

impl<A: Auth> From<A> for Operators {
    fn from(auth: A) -> Self {
        Operators::new(auth)
    }
}

/// Who does something here, and what else this one may; in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub name: String,
    pub access: Access,
}

/// Lets only operators pass.
pub(super) async fn guard<B: MessageBody>(
    operators: Operators,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let response = match operators.name(request.request()).await {
        Ok(Some(name)) => match operators.access_of(&name) {
            Access::Forbidden => {
                Rejection::not_for_user("You are no operator of this queue.").error_response()
            }
            access => {
                request.extensions_mut().insert(Operator { name, access });
                return next.call(request).await.map(ServiceResponse::map_into_left_body);
            }
        },
        Ok(None) => HttpResponse::Unauthorized()
            .insert_header((WWW_AUTHENTICATE, "Basic realm=\"queues\", charset=\"UTF-8\""))
            .json(json!({ "error": "Log in as an operator." })),
        Err(trouble) => {
            error!("operators: the store of users failed: {trouble}");
            let message = "Nobody can log in now; try again later.";
            Rejection::new(StatusCode::SERVICE_UNAVAILABLE, message.into()).error_response()
        }
    };
    Ok(request.into_response(response).map_into_right_body())
}
