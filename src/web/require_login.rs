//! The login, before routes of the service's own.

use std::fmt;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::header::{ACCEPT, LOCATION};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use futures::future::{FutureExt, LocalBoxFuture};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::queue::allow::Allow;
use crate::web::auth::csrf::{AllowedOrigins, is_foreign};
use crate::web::auth::guard::guarded;
use crate::web::auth::login_guard::LoginGuard;
use crate::web::auth::user::User;
use crate::web::rejection::Rejection;
use crate::web::state::Web;

impl Web {
    /// Middleware for routes of one's own: only those pass who are logged in, as on the routes of
    /// [`Web::routes`]; others are answered 401, or led to a [`login_page`](RequireLogin::login_page).
    /// Behind it handlers take the [`User`]. A response that is still being sent ends with its login.
    ///
    /// # Panics
    /// When there is no login: neither [`WebBuilder::auth`](crate::WebBuilder::auth) nor
    /// [`trusted_user_header`](crate::WebBuilder::trusted_user_header) was set.
    ///
    /// ```
    /// use actix_web::{App, web};
    /// use now_serving::User;
    ///
    /// async fn gallery(user: User) -> String {
    ///     format!("The pictures of {user}")
    /// }
    ///
    /// # fn app(web: now_serving::Web) {
    /// let members = web::scope("/members").wrap(web.require_login().login_page("/"));
    /// let admins = web::scope("/admin").wrap(web.require_login().allow(|user| user == "ada"));
    /// App::new()
    ///     .configure(web.routes())
    ///     .service(members.route("/gallery", web::get().to(gallery)))
    ///     .service(admins)
    /// # ;
    /// # }
    /// ```
    pub fn require_login(&self) -> RequireLogin {
        let Some(login_guard) = self.0.login_guard.clone() else {
            panic!("there is no login to require; set WebBuilder::auth or trusted_user_header")
        };
        let origins = self.0.origins.clone();
        RequireLogin { login_guard, origins, login_page: None, allow: None }
    }
}

/// Middleware from [`Web::require_login`].
#[derive(Clone)]
pub struct RequireLogin {
    login_guard: Arc<LoginGuard>,
    origins: Arc<AllowedOrigins>,
    login_page: Option<Arc<str>>,
    allow: Option<Allow>,
}

impl RequireLogin {
    /// Leads browsers that ask for a page, by `GET` with `text/html` in `Accept`, to the service's own page
    /// for logging in, instead of answering 401. It finds the path and query that were asked for in the
    /// parameter `next`. Anybody may link to the page with another `next`: it must lead to this server only.
    ///
    /// The page sends its form to `/login` by `fetch`, since the answer is JSON, and then goes to `next`:
    ///
    /// ```html
    /// <form id="login">
    ///   <input name="username" autocomplete="username">
    ///   <input name="password" type="password" autocomplete="current-password">
    ///   <button>Log in</button> <output id="said"></output>
    /// </form>
    /// <script>
    ///   login.onsubmit = async event => {
    ///     event.preventDefault();
    ///     const answer = await fetch("/login", { method: "POST", body: new FormData(login) });
    ///     if (!answer.ok) return said.value = (await answer.json()).detail;
    ///     const asked = new URLSearchParams(location.search).get("next") ?? "/";
    ///     const next = new URL(asked, location.origin);
    ///     location = next.origin === location.origin ? next : "/";
    ///   };
    /// </script>
    /// ```
    #[must_use = "it gives the middleware back"]
    pub fn login_page(self, path: &str) -> Self {
        RequireLogin { login_page: Some(path.into()), ..self }
    }

    /// Lets only those users pass for whom the function returns true; other users are answered 403. As
    /// [`Listener::allow`](crate::Listener::allow).
    #[must_use = "it gives the middleware back"]
    pub fn allow(self, allow: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        // Behind the login there is always a user.
        let allow = Allow::new(move |user| user.is_some_and(&allow));
        RequireLogin { allow: Some(allow), ..self }
    }

    fn allows(&self, request: &ServiceRequest) -> bool {
        let Some(allow) = &self.allow else { return true };
        let user = request.extensions().get::<User>().cloned();
        user.is_some_and(|user| allow.allows(Some(user.name())))
    }

    fn closed(&self, request: &HttpRequest) -> HttpResponse {
        let accepts = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
        let asks_for_page = request.method().is_safe()
            && accepts.flat_map(|value| value.split(',')).any(|kind| {
                kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/html")
            });
        let Some(page) = self.login_page.as_ref().filter(|_| asks_for_page) else {
            return self.login_guard.closed().error_response();
        };
        let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
        let next = utf8_percent_encode(asked, NON_ALPHANUMERIC);
        let separator = if page.contains('?') { '&' } else { '?' };
        let location = format!("{page}{separator}next={next}");
        HttpResponse::Found().insert_header((LOCATION, location)).finish()
    }
}

impl fmt::Debug for RequireLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLogin").field("login_page", &self.login_page).finish_non_exhaustive()
    }
}

impl<S, B> Transform<S, ServiceRequest> for RequireLogin
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = actix_web::Error;
    type Transform = RequireLoginService<S>;
    type InitError = ();
    type Future = Ready<Result<RequireLoginService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(RequireLoginService { service: Rc::new(service), required: self.clone() }))
    }
}

/// A route behind a [`RequireLogin`].
#[derive(Debug)]
pub struct RequireLoginService<S> {
    service: Rc<S>,
    required: RequireLogin,
}

impl<S, B> Service<ServiceRequest> for RequireLoginService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (service, required) = (self.service.clone(), self.required.clone());
        async move {
            if is_foreign(request.request(), &required.origins.0) {
                return Ok(request.into_response(Rejection::foreign().error_response()));
            }
            let pass = async |request: ServiceRequest| {
                if required.allows(&request) {
                    let response = service.call(request).await;
                    return response.map(ServiceResponse::map_into_boxed_body);
                }
                let refused = Rejection::not_for_user("You may not use this route.");
                Ok(request.into_response(refused.error_response()))
            };
            let closed = |request: &HttpRequest| required.closed(request);
            guarded(&required.login_guard, request, closed, pass).await
        }
        .boxed_local()
    }
}
