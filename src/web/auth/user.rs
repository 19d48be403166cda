//! Who is logged in, for routes of the service's own.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, web};

use super::csrf::refuse_foreign;
use super::login_guard::LoginGuard;
use crate::logging::error;
use crate::web::rejection::Rejection;

/// The user who sent a request: an extractor for routes of one's own, which shares the login of
/// [`WebBuilder::auth`](crate::WebBuilder::auth) or
/// [`trusted_user_header`](crate::WebBuilder::trusted_user_header) with the routes of
/// [`Web::routes`](crate::Web::routes).
///
/// It works on routes of the `App`, or the scope, that [`Web::routes`](crate::Web::routes) configures, and
/// behind [`Web::require_login`](crate::Web::require_login). Without a login the request is answered 401; a
/// route for everybody takes an `Option<User>`. Where there is no login at all, a route that takes a `User` is
/// a mistake of the service's, and answered 500; one that takes an `Option<User>` always gets `None` there.
///
/// A form, plain text or a `POST` without a body that a page of another origin makes its visitor's browser
/// send is answered 403, or without a user where the route takes an `Option<User>`, unless
/// [`allow_origin`](crate::WebBuilder::allow_origin) names the origin. `GET` and `HEAD` have their user, as
/// links do: **a route must not change anything on `GET`**. So has a body that is declared as JSON, which
/// browsers send from elsewhere only where the service's CORS says so.
///
/// ```
/// use actix_web::{App, web};
/// use now_serving::{CallError, Queue, User};
///
/// async fn paint(user: User, queue: web::Data<Queue>) -> Result<String, CallError> {
///     queue.as_user(user).try_call("paint", "a fox".to_string()).await
/// }
///
/// async fn greet(user: Option<User>) -> String {
///     user.map_or("Hello!".into(), |user| format!("Hello, {user}!"))
/// }
///
/// # fn app(web: now_serving::Web) {
/// App::new()
///     .configure(web.routes())
///     .route("/paint", web::post().to(paint))
///     .route("/", web::get().to(greet))
/// # ;
/// # }
/// ```
///
/// # In tests
///
/// A test needs no password: where the service builds its `Web`, the test adds a header that names the user,
/// and says where its requests come from.
///
/// ```
/// use actix_web::App;
/// use actix_web::test::{TestRequest, call_and_read_body, init_service};
/// # use actix_web::web;
/// # use now_serving::{Listener, Queue, User, Users, Web, WebBuilder};
/// # async fn greet(user: User) -> String { format!("Hello, {user}!") }
/// # fn builder(queue: &Queue) -> WebBuilder { Web::builder(queue).auth(Users::new()) }
/// # actix_web::rt::System::new().block_on(async {
/// # let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
/// # let queue = Queue::builder().listener(echo).start().unwrap();
///
/// let web = builder(&queue).trusted_user_header("X-User", ["127.0.0.1"]).start().unwrap();
/// let app = App::new().configure(web.routes()).route("/", web::get().to(greet));
/// let app = init_service(app).await;
///
/// let as_ada = TestRequest::get().uri("/").insert_header(("X-User", "ada"));
/// let as_ada = as_ada.peer_addr(([127, 0, 0, 1], 1).into());
/// assert_eq!(call_and_read_body(&app, as_ada.to_request()).await, "Hello, ada!");
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User(pub(super) Arc<str>);

impl User {
    /// The name with which the user has logged in.
    pub fn name(&self) -> &str {
        &self.0
    }

    fn of(request: &HttpRequest) -> Result<User, Rejection> {
        refuse_foreign(request)?;
        if let Some(user) = request.extensions().get::<User>() {
            return Ok(user.clone());
        }
        let Some(login_guard) = request.app_data::<web::Data<LoginGuard>>() else {
            error!(
                "{}: the route takes a User, but there is no login: set WebBuilder::auth, and configure \
                 Web::routes on the same App, or wrap the route in Web::require_login",
                request.path()
            );
            return Err(Rejection::internal("This route has no login."));
        };
        match login_guard.user(request) {
            Some((user, _)) => Ok(User(user)),
            None => Err(login_guard.closed()),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for User {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// For [`Queue::as_user`](crate::Queue::as_user).
impl From<User> for Arc<str> {
    fn from(User(name): User) -> Self {
        name
    }
}

impl FromRequest for User {
    type Error = Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(User::of(request).map_err(Error::from))
    }
}
