//! The gate: an existing actix-web route joins a queue without being rewritten.

use std::cell::RefCell;
use std::future::{Ready, ready};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::ErrorInternalServerError;
use actix_web::{FromRequest, HttpMessage, HttpRequest, rt};
use bytes::Bytes;
use futures::future::{FutureExt, LocalBoxFuture};

use super::rejection::Rejection;
use crate::queue::Queue;
use crate::queue::error::AcquireError;
use crate::queue::permit::Permit;
use crate::web::state::Web;

impl Web {
    /// Middleware that makes a route of one's own share a concurrency id: a request waits for a
    /// slot as with [`Queue::acquire`], and holds the [`Permit`] until its response is made, or, where
    /// the body is a stream, until the body has been sent.
    ///
    /// **A route that works on another thread must take the permit there.** When a client goes away,
    /// its handler is dropped, and with it the permit; but a closure in `web::block` goes on, beyond
    /// the limit. A handler that takes the [`Permit`] as an argument has it to itself, and moves it to
    /// where the work is:
    ///
    /// ```
    /// use actix_web::{Error, web};
    /// use now_serving::Permit;
    ///
    /// async fn render(permit: Permit) -> Result<String, Error> {
    ///     let rendered = web::block(move || {
    ///         // The slot is busy until this closure returns.
    ///         let _permit = permit;
    ///         "a picture".to_string()
    ///     });
    ///     Ok(rendered.await?)
    /// }
    /// ```
    ///
    /// Or let the route run to its end, whether its client has gone or not:
    /// [`Gate::run_to_end`].
    ///
    /// While the wait queue is full a request is answered 503 with `Retry-After`. A client that goes away
    /// leaves the wait queue; for that the server must notice it, which it does with
    /// [`HttpServer::h1_allow_half_closed(false)`].
    ///
    /// # Panics
    /// When the queue has no such concurrency id; declare one that no listener has with
    /// [`QueueBuilder::permits`](crate::QueueBuilder::permits).
    ///
    /// [`HttpServer::h1_allow_half_closed(false)`]: actix_web::HttpServer::h1_allow_half_closed
    ///
    /// ```
    /// use actix_web::{App, HttpServer, web};
    /// use now_serving::{Queue, Web};
    ///
    /// async fn render() -> &'static str {
    ///     "a picture"
    /// }
    ///
    /// # async fn serve() -> std::io::Result<()> {
    /// let queue =
    ///     Queue::builder().permits("gpu_queue", 2).start().map_err(std::io::Error::other)?;
    /// let queued = Web::new(&queue);
    /// HttpServer::new(move || {
    ///     App::new().service(
    ///         web::resource("/render").wrap(queued.gate("gpu_queue")).get(render),
    ///     )
    /// })
    /// .h1_allow_half_closed(false)
    /// .bind(("127.0.0.1", 8080))?
    /// .run()
    /// .await
    /// # }
    /// ```
    pub fn gate(&self, concurrency_id: &str) -> Gate {
        let queue = &self.0.queue;
        match queue.inner().ids.iter().find(|id| &*id.name == concurrency_id) {
            Some(id) => Gate { id: id.name.clone(), run_to_end: false, queue: queue.clone() },
            None => panic!(
                "no concurrency id is named {concurrency_id:?}; declare it with \
                 QueueBuilder::permits"
            ),
        }
    }
}

/// Middleware from [`Web::gate`].
#[derive(Clone, Debug)]
pub struct Gate {
    /// Its concurrency id.
    id: Arc<str>,
    run_to_end: bool,
    /// The queue lives as long as its gates.
    queue: Queue,
}

impl Gate {
    /// Lets a route that has its slot run to its end, although its client goes away meanwhile; the
    /// slot is busy until then. Without, its handler is dropped at its next await, and what it has
    /// given to other threads goes on without a slot, unless it took the [`Permit`] there.
    ///
    /// A body that is a stream ends with its client all the same.
    ///
    /// ```
    /// use actix_web::web;
    /// # fn resource(queued: now_serving::Web) -> impl Sized {
    /// async fn render() -> Result<&'static str, actix_web::Error> {
    ///     Ok(web::block(|| "a picture").await?)
    /// }
    ///
    /// web::resource("/render").wrap(queued.gate("gpu_queue").run_to_end()).get(render)
    /// # }
    /// ```
    #[must_use = "it gives the gate back"]
    pub fn run_to_end(self) -> Self {
        Gate { run_to_end: true, ..self }
    }
}

impl<S, B> Transform<S, ServiceRequest> for Gate
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = actix_web::Error;
    type Transform = GateService<S>;
    type InitError = ();
    type Future = Ready<Result<GateService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(GateService { service: Rc::new(service), gate: self.clone() }))
    }
}

/// A route behind a [`Gate`].
#[derive(Debug)]
pub struct GateService<S> {
    service: Rc<S>,
    gate: Gate,
}

impl<S, B> Service<ServiceRequest> for GateService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (service, gate) = (self.service.clone(), self.gate.clone());
        async move {
            let permit = match gate.queue.acquire(&gate.id).await {
                Ok(permit) => permit,
                Err(AcquireError::Refused(refusal)) => {
                    return Ok(request.error_response(Rejection::of(refusal, &[])));
                }
                // The gate was made for one that there is.
                Err(error) => return Err(ErrorInternalServerError(error)),
            };
            if !gate.run_to_end {
                return run(service, request, permit).await;
            }
            match rt::spawn(run(service, request, permit)).await {
                Ok(response) => response,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The server's thread ends.
                Err(error) => Err(ErrorInternalServerError(error)),
            }
        }
        .boxed_local()
    }
}

async fn run<S, B>(
    service: Rc<S>,
    request: ServiceRequest,
    permit: Permit,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody + 'static,
{
    let offered = Offered(Rc::new(RefCell::new(Some(permit))));
    request.extensions_mut().insert(offered.clone());
    let response = service.call(request).await;
    // Gone where the handler took it. The request may live on with its response.
    let permit = offered.take();
    Ok(response?.map_body(|_, body| match body.size() {
        BodySize::Stream => BoxBody::new(Held { body: body.boxed(), _permit: permit }),
        // The work is done; a client that reads slowly must not keep the slot.
        BodySize::None | BodySize::Sized(_) => body.boxed(),
    }))
}

/// The permit of a request, in its extensions, for the handler that wants it.
#[derive(Clone)]
struct Offered(Rc<RefCell<Option<Permit>>>);

impl Offered {
    fn take(&self) -> Option<Permit> {
        self.0.borrow_mut().take()
    }
}

/// Takes the permit that the route's gate holds, the innermost of several; from then on it is the
/// handler's alone. Fails with status 500 on a route without a [gate](Web::gate), and when it was
/// taken before; as `Option<Permit>` it doesn't.
impl FromRequest for Permit {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let permit = request.extensions().get::<Offered>().and_then(Offered::take);
        ready(permit.ok_or_else(|| {
            crate::logging::error!(
                "{}: there is no permit to take; wrap the route in a gate",
                request.path()
            );
            ErrorInternalServerError("This route has no permit.")
        }))
    }
}

/// A body whose making is part of the work.
struct Held {
    body: BoxBody,
    _permit: Option<Permit>,
}

impl MessageBody for Held {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let chunk = std::task::ready!(Pin::new(&mut self.body).poll_next(cx));
        if chunk.is_none() {
            self._permit = None;
        }
        Poll::Ready(chunk)
    }
}
