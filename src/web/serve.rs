//! Running a server until a signal, and stopping it so that running events finish.

use std::io;
use std::net::ToSocketAddrs;
use std::pin::pin;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::{App, rt};
use futures::future::{Either, select};

use super::http_server::http_server;
use crate::logging::{info, warn};
use crate::web::state::Web;

/// How long running events have to finish when [`Web::serve_on`] stops.
const GRACE: Duration = Duration::from_secs(30);

impl Web {
    /// Serves the queue's [`routes`](Web::routes) over HTTP/1.1, with the settings of
    /// [`http_server`], until SIGTERM, SIGINT or Ctrl-C; then stops in good order, as
    /// [`Web::serve`] with a grace of 30 seconds.
    ///
    /// # Errors
    /// When it can't listen on the address; also as [`Web::serve`].
    ///
    /// [`http_server`]: crate::http_server
    ///
    /// ```no_run
    /// use now_serving::{Listener, Queue, Web};
    ///
    /// #[actix_web::main]
    /// async fn main() -> std::io::Result<()> {
    ///     let queue = Queue::builder()
    ///         .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
    ///         .start()
    ///         .map_err(std::io::Error::other)?;
    ///     Web::new(&queue).serve_on(("127.0.0.1", 7860)).await
    /// }
    /// ```
    pub async fn serve_on(&self, address: impl ToSocketAddrs) -> io::Result<()> {
        let web = self.clone();
        let server = http_server(move || App::new().configure(web.routes())).bind(address)?;
        self.serve(server.run(), GRACE).await
    }

    /// Runs an actix-web server until SIGTERM, SIGINT or Ctrl-C, then stops in good order: new
    /// events are answered 503, waiting ones are stopped, running ones have `grace` to finish,
    /// update streams and heartbeats close, the server ends, and the files go that are in no
    /// [`cache_dir`](crate::WebBuilder::cache_dir). A second signal ends it at once.
    ///
    /// Take a server from [`http_server`]. Another must leave signals alone
    /// ([`HttpServer::disable_signals`]). Once the queue has stopped, requests under way have the
    /// server's own [`shutdown_timeout`].
    ///
    /// Call it on the `Web` whose routes the server has, or on a clone: another one of the same queue
    /// doesn't know their streams, and can't close them.
    ///
    /// # Errors
    /// Those of the server; when signals can't be listened to.
    ///
    /// [`http_server`]: crate::http_server
    /// [`HttpServer::disable_signals`]: actix_web::HttpServer::disable_signals
    /// [`shutdown_timeout`]: actix_web::HttpServer::shutdown_timeout
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use actix_web::App;
    /// use now_serving::{Listener, Queue, Web, http_server};
    ///
    /// #[actix_web::main]
    /// async fn main() -> std::io::Result<()> {
    ///     let queue = Queue::builder()
    ///         .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
    ///         .start()
    ///         .map_err(std::io::Error::other)?;
    ///     let web = Web::new(&queue);
    ///     let routes = web.clone();
    ///     let server = http_server(move || App::new().configure(routes.routes()))
    ///         .bind(("127.0.0.1", 7860))?
    ///         .run();
    ///     web.serve(server, Duration::from_secs(30)).await
    /// }
    /// ```
    pub async fn serve(&self, server: Server, grace: Duration) -> io::Result<()> {
        let signals = Signals::listen()?;
        let control = rt::spawn(stop_on_signal(self.clone(), server.handle(), signals, grace));
        let ended = server.await;
        control.abort();
        // Some thread may hold the queue to the process' end: it may never be dropped.
        let files = self.0.files.clone();
        if let Err(error) = rt::task::spawn_blocking(move || files.close()).await {
            warn!("stopping: the files could not be removed: {error}");
        }
        ended
    }
}

async fn stop_on_signal(web: Web, server: ServerHandle, mut signals: Signals, grace: Duration) {
    signals.next().await;
    info!("stopping: running events have {grace:?} to finish; a second signal stops at once");
    let drain = async {
        let stopped = web.0.queue.shutdown(grace).await;
        if !stopped.drained {
            warn!("stopping: not every handler finished in time; they were interrupted");
        }
        web.0.closing.cancel();
        server.stop(true).await;
    };
    let (drain, again) = (pin!(drain), pin!(signals.next()));
    if let Either::Right(_) = select(drain, again).await {
        warn!("stopping at once");
        server.stop(false).await;
    }
}

/// The signals that end a program.
struct Signals {
    #[cfg(unix)]
    terminate: rt::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: rt::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use rt::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        select(pin!(self.terminate.recv()), pin!(self.interrupt.recv())).await;
    }

    #[cfg(not(unix))]
    fn listen() -> io::Result<Self> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = rt::signal::ctrl_c().await;
    }
}
