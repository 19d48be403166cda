//! Who may look at a queue, and who may steer it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{Header, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use actix_web_httpauth::headers::authorization::{Authorization, Basic};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::event::guarded::discard_payload;
use crate::logging::{debug, error, warn};
use crate::web::auth::guard::while_logged_in;
use crate::web::auth::login_guard::LoginGuard;
use crate::web::auth::{AnyAuth, Auth};
use crate::web::peer::address;
use crate::web::rejection::Rejection;
use crate::web::state::Web;

/// An operator's name, and what is cancelled when his login ends, if he has one.
type Known = (Arc<str>, Option<CancellationToken>);

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
/// authentication, or are known by [`Auth::user`], or by the service's own login
/// ([`from_login`](Operators::from_login)).
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
    known_by: KnownBy,
    access: Arc<dyn Fn(&str) -> Access + Send + Sync>,
}

/// How operators are recognized.
#[derive(Clone)]
enum KnownBy {
    Auth(Arc<dyn AnyAuth>),
    Login(Arc<LoginGuard>),
}

impl Operators {
    /// Everybody whom `auth` lets in, with access to all.
    pub fn new(auth: impl Auth) -> Self {
        Operators { known_by: KnownBy::Auth(Arc::new(auth)), access: Arc::new(|_| Access::All) }
    }

    /// Those users of the service whom `access` lets in: who has logged in at `/login`, or is named by
    /// [`trusted_user_header`](crate::WebBuilder::trusted_user_header), is known here too. HTTP's basic
    /// authentication works with the same names and passwords. What is still being sent ends with the login.
    ///
    /// # Panics
    /// When there is no login: neither [`WebBuilder::auth`](crate::WebBuilder::auth) nor
    /// `trusted_user_header` was set.
    ///
    /// ```
    /// use actix_web::App;
    /// use now_serving::{Access, Operators};
    ///
    /// # fn app(web: now_serving::Web) {
    /// let operators = Operators::from_login(&web, |user| match user {
    ///     "ada" => Access::All,
    ///     _ => Access::Forbidden,
    /// });
    /// App::new().configure(web.routes()).configure(web.dashboard("/queues", operators))
    /// # ;
    /// # }
    /// ```
    pub fn from_login(web: &Web, access: impl Fn(&str) -> Access + Send + Sync + 'static) -> Self {
        let Some(login_guard) = web.0.login_guard.clone() else {
            panic!("there is no login; set WebBuilder::auth or trusted_user_header")
        };
        Operators { known_by: KnownBy::Login(login_guard), access: Arc::new(access) }
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

    /// Who sent a request, and where that comes from a login, what is cancelled when it ends.
    async fn operator(&self, request: &HttpRequest) -> Result<Option<Known>, String> {
        let known = match &self.known_by {
            KnownBy::Auth(auth) => auth.user(request).map(|user| (user, None)),
            KnownBy::Login(login_guard) => login_guard.user(request),
        };
        if known.is_some() {
            return Ok(known);
        }
        let Ok(given) = Authorization::<Basic>::parse(request) else { return Ok(None) };
        let name = given.as_ref().user_id();
        let password = given.as_ref().password().unwrap_or_default();
        let right = match &self.known_by {
            KnownBy::Auth(auth) => auth.login(name, password).await?,
            KnownBy::Login(login_guard) => login_guard.verify(name, password).await?,
        };
        if right {
            return Ok(Some((name.into(), None)));
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
    pub name: Arc<str>,
    pub access: Access,
}

fn closed() -> Rejection {
    Rejection::new(StatusCode::UNAUTHORIZED, "Log in as an operator.".into())
}

/// Lets only operators pass.
pub(super) async fn guard<B: MessageBody + 'static>(
    operators: Operators,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, actix_web::Error> {
    let response = match operators.operator(request.request()).await {
        Ok(Some((name, login))) => match operators.access_of(&name) {
            Access::Forbidden => {
                Rejection::not_for_user("You are no operator of this queue.").error_response()
            }
            access => {
                request.extensions_mut().insert(Operator { name, access });
                return while_logged_in(login, closed, next.call(request)).await;
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
    Ok(request.into_response(response))
}
