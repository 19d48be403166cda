//! Everything HTTP: Gradio's protocol on [`Web::routes`], and the gate for routes of one's own.
//!
//! An event's way is the same as in process; this module turns requests into events and updates
//! into bytes.

pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod base_url;
pub(crate) mod body;
pub(crate) mod builder;
pub(crate) mod cache;
pub(crate) mod error;
pub(crate) mod event_data;
pub(crate) mod gate;
pub(crate) mod holder;
pub(crate) mod http_server;
pub(crate) mod listener_options;
pub(crate) mod operator;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod protocol;
mod ranking;
pub(crate) mod rejection;
#[cfg(feature = "cluster")]
pub(crate) mod relay;
#[cfg(feature = "cluster")]
pub(crate) mod relayed;
pub(crate) mod request;
pub(crate) mod require_login;
mod response_error;
pub(crate) mod routes;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod shares;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod upload_tracker;

use actix_web::middleware::from_fn;
use actix_web::web;
use actix_web::web::ServiceConfig;

use crate::web::auth::guard;
use crate::web::protocol::sse;
use crate::web::routes::{
    call, cancel, config, data, file, heartbeat, info, join, login, openapi, run, status, upload,
    upload_progress,
};
use crate::web::state::Web;

impl Web {
    /// The routes of Gradio's protocol, for `App::configure`: `/config`, and under `/gradio_api`
    /// `info`, `openapi.json`, `app_id`, `heartbeat/{session_hash}`, `queue/join`, `queue/data`,
    /// `queue/status`, `cancel`, `reset`, `call/{api_name}`, `call/v2/{api_name}`,
    /// `call/{api_name}/{event_id}`, `run/{api_name}`, `api/{api_name}`, `upload`, `upload_progress` and
    /// `file={path}`; with [`auth`](crate::WebBuilder::auth) also `/login`, `/logout` and
    /// `login_check`. They may stand in a scope, and behind a proxy that forwards the host.
    ///
    /// A client whose stream breaks off has [`reconnect_grace`] to come back before its events are
    /// cancelled. It goes on after the last message that it was handed; one that sends its id
    /// (`Last-Event-ID`, as browsers do, or the parameter `last_event_id`) gets each result and each
    /// yielded value exactly once, as far as they are kept: 4 MiB of each event's values that no stream
    /// has taken, and 1 MiB of a session's that one has. Where some are missing, the newest stands for
    /// them, after a `log` message that isn't visible, or on a `call` an event named `skipped`. For
    /// that, messages have numbers where the request accepts `text/event-stream` by name. The server
    /// notices at once with [`HttpServer::h1_allow_half_closed(false)`], otherwise at the next
    /// heartbeat, after 15 seconds at most. [`http_server`](crate::http_server) has this setting and
    /// the others that streams need.
    ///
    /// A session's stream stays open for a quarter of a second after its last event has ended, so
    /// that the next one finds it open, if the request accepts `text/event-stream` by name. Then it
    /// sends `close_stream` and waits up to half a second for the client to disconnect, as Gradio's
    /// clients do at once; until then `queue/join` of the same session isn't answered, since a
    /// client that learns of its event before the stream's end waits on that stream for ever.
    ///
    /// [`HttpServer::h1_allow_half_closed(false)`]: actix_web::HttpServer::h1_allow_half_closed
    /// [`reconnect_grace`]: crate::WebBuilder::reconnect_grace
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use actix_web::App;
    /// use now_serving::{Listener, Queue, Web, http_server};
    ///
    /// # async fn serve() -> std::io::Result<()> {
    /// let queue = Queue::builder()
    ///     .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
    ///     .start()
    ///     .map_err(std::io::Error::other)?;
    /// let web = Web::new(&queue);
    /// let routes = web.clone();
    /// let server = http_server(move || App::new().configure(routes.routes()));
    /// web.serve(server.bind(("127.0.0.1", 7860))?.run(), Duration::from_secs(30)).await
    /// # }
    /// ```
    pub fn routes(&self) -> impl FnOnce(&mut ServiceConfig) + use<> {
        let state = web::Data::from(self.0.clone());
        let bodies = web::Data::from(self.0.bodies.clone());
        let origins = web::Data::from(self.0.origins.clone());
        move |service| {
            // The two requests of every event stand before the scope, which is a layer more.
            let resource = |path| {
                let resource = web::resource(path).app_data(state.clone());
                resource.app_data(bodies.clone()).app_data(origins.clone())
            };
            let join = resource("/gradio_api/queue/join").post(join::join);
            let data = resource("/gradio_api/queue/data").get(data::data).head(sse::head);
            let scope = web::scope("/gradio_api")
                .app_data(state.clone())
                .app_data(bodies.clone())
                .app_data(origins.clone())
                .service(web::resource("/queue/status").get(status::status).head(status::status))
                .service(web::resource("/cancel").post(cancel::cancel))
                .service(web::resource(["/reset", "/reset/"]).post(cancel::reset))
                .service(
                    web::resource("/heartbeat/{session_hash}")
                        .get(heartbeat::heartbeat)
                        .head(sse::head),
                )
                .service(web::resource(["/upload", "/upload/"]).post(upload::upload))
                .service(
                    web::resource("/upload_progress")
                        .get(upload_progress::upload_progress)
                        .head(sse::head),
                )
                .service(web::resource("/file={path:.*}").get(file::file).head(file::file))
                .service(web::resource("/app_id").get(config::app_id).head(config::app_id))
                .service(web::resource(["/info", "/info/"]).get(info::info).head(info::info))
                .service(
                    web::resource("/openapi.json").get(openapi::openapi).head(openapi::openapi),
                )
                .service(
                    web::resource([
                        "/run/{api_name}",
                        "/run/{api_name}/",
                        "/api/{api_name}",
                        "/api/{api_name}/",
                    ])
                    .post(run::run),
                )
                .service(
                    web::resource(["/call/v2/{api_name}", "/call/v2/{api_name}/"])
                        .post(call::start_named),
                )
                .service(
                    web::resource("/call/v2/{api_name}/{event_id}")
                        .get(call::follow)
                        .head(sse::head),
                )
                .service(web::resource(["/call/{api_name}", "/call/{api_name}/"]).post(call::start))
                .service(
                    web::resource("/call/{api_name}/{event_id}").get(call::follow).head(sse::head),
                );
            let about = web::resource(["/config", "/config/"]).app_data(state.clone());
            let about = about.app_data(origins.clone());
            let about = about.get(config::config).head(config::config);
            let Some(login_guard) = &state.login_guard else {
                service.service(join).service(data).service(scope).service(about);
                return;
            };
            // For a `User` on routes of the service's own.
            service.app_data(web::Data::from(login_guard.clone())).app_data(origins.clone());
            let guard = || {
                let login_guard = login_guard.clone();
                from_fn(move |request, next| guard::guard(login_guard.clone(), request, next))
            };
            let scope = scope.service(
                web::resource(["/login_check", "/login_check/"])
                    .get(login::login_check)
                    .head(login::login_check),
            );
            service.service(join.wrap(guard())).service(data.wrap(guard()));
            service.service(scope.wrap(guard())).service(about.wrap(guard()));
            let login_guard = web::Data::from(login_guard.clone());
            let login = web::resource(["/login", "/login/"]).app_data(login_guard.clone());
            let login = login.app_data(origins.clone()).app_data(bodies);
            service.service(login.post(login::login));
            let logout = web::resource("/logout").app_data(login_guard).app_data(origins);
            let logout = logout.app_data(state.clone());
            // Not HEAD, which changes nothing.
            service.service(logout.get(login::logout).post(login::logout));
        }
    }
}
