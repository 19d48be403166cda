//! Everything HTTP: Gradio's protocol on [`Queue::routes`], and the gate for routes of one's own.
//!
//! An event's way is the same as in process; this module turns requests into events and updates
//! into bytes.

mod body;
mod call;
mod cancel;
mod data;
mod diff;
mod endpoint;
pub(crate) mod gate;
mod join;
mod parameters;
mod refusal;
mod session;
mod sse;
mod status;
mod wire;

use actix_web::web::{self, PayloadConfig, ServiceConfig};

pub(crate) use endpoint::Endpoint;
pub use gate::{Gate, GateService};
pub(crate) use session::Sessions;

use crate::queue::Queue;

/// The largest body of a request, in bytes: room for a text of some MiB in JSON's escapes.
const MAX_BODY: usize = 16 * 1024 * 1024;

impl Queue {
    /// The routes of Gradio's protocol, for `App::configure`, under `/gradio_api`: `queue/join`,
    /// `queue/data`, `queue/status`, `cancel`, `call/{api_name}` and
    /// `call/{api_name}/{event_id}`.
    ///
    /// A client whose stream breaks off has ten seconds to come back before its events are
    /// cancelled. The server notices at once with [`HttpServer::h1_allow_half_closed(false)`],
    /// otherwise at the next heartbeat, after 15 seconds at most.
    ///
    /// [`HttpServer::h1_allow_half_closed(false)`]: actix_web::HttpServer::h1_allow_half_closed
    ///
    /// ```
    /// use actix_web::{App, HttpServer};
    /// use now_serving::{Listener, Queue};
    ///
    /// # async fn serve() -> std::io::Result<()> {
    /// let queue = Queue::builder()
    ///     .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
    ///     .start()
    ///     .map_err(std::io::Error::other)?;
    /// HttpServer::new(move || App::new().configure(queue.routes()))
    ///     .bind(("127.0.0.1", 7860))?
    ///     .run()
    ///     .await
    /// # }
    /// ```
    pub fn routes(&self) -> impl FnOnce(&mut ServiceConfig) + use<> {
        let queue = web::Data::new(self.clone());
        move |config| {
            let scope = web::scope("/gradio_api")
                .app_data(queue)
                .app_data(PayloadConfig::new(MAX_BODY))
                .service(web::resource("/queue/join").post(join::join))
                .service(web::resource("/queue/data").get(data::data))
                .service(web::resource("/queue/status").get(status::status))
                .service(web::resource("/cancel").post(cancel::cancel))
                .service(web::resource("/call/{api_name}").post(call::start))
                .service(web::resource("/call/{api_name}/{event_id}").get(call::follow));
            config.service(scope);
        }
    }
}
