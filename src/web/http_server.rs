//! An `HttpServer` with the settings that update streams need.

use std::fmt::Debug;
use std::time::Duration;

use actix_http::{Request, Response};
use actix_service::IntoServiceFactory;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceFactory};
use actix_web::{Error, HttpServer};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection stays open without a request. Longer than the proxies in front keep theirs
/// (60 seconds, most of them): a request is lost that a proxy sends just as the server hangs up.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long requests under way have after the queue has stopped, in seconds.
const SHUTDOWN_TIMEOUT: u64 = 5;

/// [`HttpServer::new`] with the settings that update streams need. Each can be set otherwise
/// afterwards; bind it, run it, and give it to [`Web::serve`](crate::Web::serve). For a server
/// that has only a queue's routes there is [`Web::serve_on`](crate::Web::serve_on).
///
/// | Setting | Why |
/// |---|---|
/// | [`tcp_nodelay(true)`](HttpServer::tcp_nodelay) | Updates are small; without it the last ones come 40 ms late. |
/// | [`h1_allow_half_closed(false)`](HttpServer::h1_allow_half_closed) | A client that has gone is noticed at once, and not at the next heartbeat. |
/// | [`keep_alive`](HttpServer::keep_alive) of 75 seconds | Longer than a proxy keeps its connections. |
/// | [`client_request_timeout`](HttpServer::client_request_timeout) of 10 seconds | Who begins a request and doesn't go on is cut off. |
/// | [`disable_signals()`](HttpServer::disable_signals) | [`Web::serve`](crate::Web::serve) listens to them, and stops the queue first. |
/// | [`shutdown_timeout(5)`](HttpServer::shutdown_timeout) | What requests under way have once the queue has stopped. |
///
/// ```no_run
/// use std::time::Duration;
///
/// use actix_web::{App, web};
/// use now_serving::{Listener, Queue, Web};
///
/// #[actix_web::main]
/// async fn main() -> std::io::Result<()> {
///     let queue = Queue::builder()
///         .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
///         .start()
///         .map_err(std::io::Error::other)?;
///     let served = Web::new(&queue);
///     let routes = served.clone();
///     let server = now_serving::http_server(move || {
///         App::new()
///             .configure(routes.routes())
///             .route("/", web::get().to(async || "A page of one's own."))
///     });
///     served.serve(server.bind(("127.0.0.1", 7860))?.run(), Duration::from_secs(30)).await
/// }
/// ```
pub fn http_server<F, I, S, B>(factory: F) -> HttpServer<F, I, S, B>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as actix_service::Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    HttpServer::new(factory)
        .tcp_nodelay(true)
        .h1_allow_half_closed(false)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_TIMEOUT)
}
