//! The gate: an existing actix-web route joins a queue without being rewritten.

use std::cell::RefCell;
use std::fmt;
use std::future::{Ready, poll_fn, ready};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::ErrorInternalServerError;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError, rt};
use bytes::Bytes;
use futures::future::{Either, FutureExt, LocalBoxFuture, select};
use tokio::time::{Sleep, sleep};

use super::rejection::Rejection;
use crate::event::refusal::Refusal;
use crate::handler::nesting::{IdSlots, PendingCall, Running};
use crate::queue::Queue;
use crate::queue::error::AcquireError;
use crate::queue::permit::Permit;
use crate::scheduler::snapshot::PERMIT;
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
    /// While the wait queue is full a request is answered 503 with `Retry-After`; a
    /// [`queue_timeout`](Gate::queue_timeout), a [`time_limit`](Gate::time_limit) and a response of one's
    /// own ([`on_refusal`](Gate::on_refusal)) are options. A call from such a route for a slot that only it
    /// could free is refused, as a handler's ([`ListenerHandle::call`](crate::ListenerHandle::call)), unless
    /// the handler has taken the permit. A client that goes away
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
        match queue.inner().id(concurrency_id) {
            Some(id) => Gate {
                id: id.name.clone(),
                slots: id.slots.clone(),
                label: PERMIT.into(),
                queue_timeout: None,
                time_limit: None,
                run_to_end: false,
                refused: None,
                queue: queue.clone(),
            },
            None => panic!(
                "no concurrency id is named {concurrency_id:?}; declare it with \
                 QueueBuilder::permits"
            ),
        }
    }
}

/// Middleware from [`Web::gate`].
#[derive(Clone)]
pub struct Gate {
    /// Its concurrency id.
    id: Arc<str>,
    slots: Arc<IdSlots>,
    /// What its permits are counted as.
    label: Arc<str>,
    queue_timeout: Option<Duration>,
    time_limit: Option<Duration>,
    run_to_end: bool,
    /// Answers those who don't get a slot.
    refused: Option<Arc<Refused>>,
    /// The queue lives as long as its gates.
    queue: Queue,
}

type Refused = dyn Fn(&HttpRequest, &Refusal) -> HttpResponse + Send + Sync;

impl Gate {
    /// Counts its requests by themselves in metrics, snapshots and the dashboard, under this name in
    /// parentheses: `listener="(render)"`. Gates of one concurrency id that have the same name count
    /// together; by default it is `permit`, which [`Queue::acquire`] counts as too.
    #[must_use = "it gives the gate back"]
    pub fn name(self, name: &str) -> Self {
        // No listener can be named so.
        Gate { label: format!("({name})").into(), ..self }
    }

    async fn permit(&self) -> Result<Permit, AcquireError> {
        self.queue.acquire_as(&self.id, self.label.clone(), self.queue_timeout).await
    }

    /// How long a request may wait for its slot; after that it is answered 503, as one that was
    /// [`Refusal::QueueTimeout`]. Without, for ever.
    #[must_use = "it gives the gate back"]
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        Gate { queue_timeout: Some(timeout), ..self }
    }

    /// How long the route may take once it has its slot; after that the request is answered 504. Its
    /// handler is dropped at its next await and the slot is free, as when its client goes away: a handler
    /// that works on another thread must take the [`Permit`] there. One that is to [run to its
    /// end](Gate::run_to_end) goes on, and keeps its slot until then. A body that is a stream breaks off
    /// at the limit, with its connection. Without, for ever.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use actix_web::{HttpResponse, web};
    /// # fn resource(queued: now_serving::Web) -> impl Sized {
    /// let gate = queued
    ///     .gate("gpu_queue")
    ///     .name("render")
    ///     .queue_timeout(Duration::from_secs(60))
    ///     .time_limit(Duration::from_secs(300))
    ///     .on_refusal(|_, refusal| {
    ///         HttpResponse::ServiceUnavailable().body(format!("All GPUs are busy. {refusal}"))
    ///     });
    /// web::resource("/render").wrap(gate).get(async || "a picture")
    /// # }
    /// ```
    #[must_use = "it gives the gate back"]
    pub fn time_limit(self, limit: Duration) -> Self {
        Gate { time_limit: Some(limit), ..self }
    }

    /// Makes the response for a request that gets no slot, such as a page of the service's own. By default
    /// it is a 503 with the reason as JSON; whatever stands in its place, `Retry-After` is added where
    /// it is a 503 without one.
    #[must_use = "it gives the gate back"]
    pub fn on_refusal(
        self,
        refused: impl Fn(&HttpRequest, &Refusal) -> HttpResponse + Send + Sync + 'static,
    ) -> Self {
        Gate { refused: Some(Arc::new(refused)), ..self }
    }

    fn refuse(&self, request: ServiceRequest, refusal: Refusal) -> ServiceResponse<BoxBody> {
        let by_itself = |refusal| Rejection::of(refusal, &[]).error_response();
        let Some(refused) = &self.refused else {
            return request.into_response(by_itself(refusal));
        };
        let mut response = refused(request.request(), &refusal);
        if response.status() == StatusCode::SERVICE_UNAVAILABLE
            && !response.headers().contains_key(RETRY_AFTER)
            && let Some(wait) = by_itself(refusal).headers().get(RETRY_AFTER)
        {
            response.headers_mut().insert(RETRY_AFTER, wait.clone());
        }
        request.into_response(response)
    }

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

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("concurrency_id", &self.id).finish_non_exhaustive()
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
            let permit = match gate.permit().await {
                Ok(permit) => permit,
                Err(AcquireError::Refused(refusal)) => return Ok(gate.refuse(request, refusal)),
                // The gate was made for an id that there is: a route waits for itself.
                Err(error) => return Err(error.into()),
            };
            pass(service, request, &gate, permit).await
        }
        .boxed_local()
    }
}

/// A request that has its slot.
async fn pass<S, B>(
    service: Rc<S>,
    request: ServiceRequest,
    gate: &Gate,
    permit: Permit,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    let limit = gate.time_limit.map(|limit| Box::pin(sleep(limit)));
    // By the gate before this one, where a route has several.
    let outer = PendingCall::begin();
    let callers = outer.iter().map(Arc::downgrade).collect();
    let work = work(service, request, permit, Running::new(&gate.slots, callers));
    let work = async move {
        let _outer = outer;
        work.await
    };
    let work = if gate.run_to_end { to_end(work).boxed_local() } else { work.boxed_local() };
    let (worked, limit) = match limit {
        None => (work.await?, None),
        Some(limit) => match select(work, limit).await {
            Either::Left((worked, limit)) => (worked?, Some(limit)),
            Either::Right(_) => return Err(Rejection::timed_out().into()),
        },
    };
    let Worked { response, permit, running } = worked;
    Ok(response.map_body(|_, body| match body.size() {
        BodySize::Stream => BoxBody::new(Held { body: body.boxed(), permit, running, limit }),
        // The work is done; a client that reads slowly must not keep the slot.
        BodySize::None | BodySize::Sized(_) => body.boxed(),
    }))
}

/// A response, with what its body may still need.
struct Worked<B> {
    response: ServiceResponse<B>,
    /// Gone where the handler took it.
    permit: Option<Permit>,
    running: Running,
}

/// Goes on when whoever waits for it has gone.
async fn to_end<T: 'static>(
    work: impl Future<Output = Result<T, actix_web::Error>> + 'static,
) -> Result<T, actix_web::Error> {
    match rt::spawn(work).await {
        Ok(worked) => worked,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The server's thread ends.
        Err(error) => Err(ErrorInternalServerError(error)),
    }
}

async fn work<S, B>(
    service: Rc<S>,
    request: ServiceRequest,
    permit: Permit,
    mut running: Running,
) -> Result<Worked<B>, actix_web::Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
{
    let offered = Offered(Rc::new(RefCell::new(Some(permit))));
    // Dropped early, it must not leave the permit behind with a request that lives on.
    let offered = Withdraw(offered);
    request.extensions_mut().insert(offered.0.clone());
    let mut route = async move { service.call(request).await }.boxed_local();
    let response = poll_fn(|cx| {
        if offered.0.is_taken() {
            running.release();
        }
        // So that a call from here for this very slot is refused instead of waiting for ever.
        let _running = running.enter();
        route.as_mut().poll(cx)
    });
    let response = response.await?;
    drop(route);
    Ok(Worked { response, permit: offered.0.take(), running })
}

/// The permit of a request, in its extensions, for the handler that wants it.
#[derive(Clone)]
struct Offered(Rc<RefCell<Option<Permit>>>);

impl Offered {
    fn take(&self) -> Option<Permit> {
        self.0.borrow_mut().take()
    }

    fn is_taken(&self) -> bool {
        self.0.borrow().is_none()
    }
}

struct Withdraw(Offered);

impl Drop for Withdraw {
    fn drop(&mut self) {
        drop(self.0.take());
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
        if permit.is_some() {
            // Where it is now, it may come free while the handler waits for a slot.
            Running::release_of_thread();
        }
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
    permit: Option<Permit>,
    running: Running,
    limit: Option<Pin<Box<Sleep>>>,
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
        let Held { body, permit, running, limit } = &mut *self;
        if permit.is_none() {
            running.release();
        }
        let polled = {
            let _running = running.enter();
            Pin::new(&mut *body).poll_next(cx)
        };
        let late = polled.is_pending()
            && limit.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready());
        if late {
            // What makes it must stop now, and not when the connection has been closed.
            (*body, *permit) = (BoxBody::new(()), None);
            return Poll::Ready(Some(Err("the route took longer than its time limit".into())));
        }
        let chunk = std::task::ready!(polled);
        if chunk.is_none() {
            *permit = None;
        }
        Poll::Ready(chunk)
    }
}
