//! The gate: an existing actix-web route joins a queue without being rewritten.

use std::any::TypeId;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::Addr;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use bytes::Bytes;
use futures::future::{Either, FutureExt, LocalBoxFuture, select};
use schemars::schema_for;
use tokio::sync::oneshot;

use super::refusal::Rejection;
use crate::actors::{ListenerActor, ServedListener};
use crate::entry::Entry;
use crate::error::{Failure, Refusal};
use crate::facts::{ApiVisibility, Facts};
use crate::handler::{Input, Made, Vec1, Work};
use crate::listener::{InputError, InputType, OutputType};
use crate::queue::Queue;
use crate::scheduler::{ListenerRules, Patience};

/// The name of the listener that stands for the gated requests of a concurrency id.
pub(crate) const NAME: &str = "(gate)";

/// Takes the slot for as long as the receiver's other end lives.
struct Pass {
    granted: oneshot::Sender<Permit>,
}

/// A gated request's hold on its slot.
#[derive(Debug)]
struct Permit {
    _held: oneshot::Sender<()>,
}

/// Where the gate's events stand beside those of listeners.
pub(crate) fn rules() -> ListenerRules {
    ListenerRules { api_name: NAME.into(), batch: None, time_limit: None, queue_timeout: None }
}

/// The handler of the gate's events: gives the permit, and ends when it comes back.
pub(crate) fn served() -> ServedListener {
    ServedListener {
        api_name: NAME.into(),
        number: u16::MAX,
        start: Arc::new(|inputs, _| {
            let pass = match inputs {
                Vec1::One(input) => input.downcast::<Pass>(),
                Vec1::Many(_) => None,
            };
            let pass = pass.ok_or_else(|| Failure::unexpected("a gate takes requests only"))?;
            let (held, released) = oneshot::channel();
            // The request may have gone away; then the permit comes back at once.
            let _ = pass.granted.send(Permit { _held: held });
            let future = async move {
                let _ = released.await;
                Ok(Made::One(None))
            };
            Ok(Work::droppable(future))
        }),
    }
}

pub(crate) fn entry(address: Addr<ListenerActor>) -> Entry {
    Entry {
        api_name: NAME.into(),
        input: InputType {
            id: TypeId::of::<Pass>(),
            name: "a gated request",
            schema: || schema_for!(()),
            from_json: |_| {
                let message = "a gate is no endpoint".into();
                Err(InputError { path: String::new(), message })
            },
        },
        facts: Facts {
            description: None,
            visibility: ApiVisibility::Private,
            queued: true,
            generator: false,
            batch: None,
            takes_state: false,
            cache: None,
            keeps_running: false,
        },
        output: OutputType { id: TypeId::of::<()>(), name: "nothing", schema: || schema_for!(()) },
        address,
    }
}

async fn pass(entry: &Arc<Entry>) -> Result<Permit, Refusal> {
    let (granted, grant) = oneshot::channel();
    let (reply, guard) = entry.ask(Input::new(Pass { granted }), None, Patience::Refuse).await;
    let permit = match select(grant, reply).await {
        Either::Left((Ok(permit), _)) => Ok(permit),
        Either::Left((Err(_), reply)) => Err(reply.await),
        Either::Right((reply, _)) => Err(reply),
    };
    // Dropped before this, the request has gone and the guard takes it out of the line.
    guard.disarm();
    permit.map_err(|reply| match reply {
        Ok(Err(refusal)) => refusal,
        Ok(Ok(_)) | Err(_) => Refusal::Stopped,
    })
}

impl Queue {
    /// Middleware that makes a route of one's own share a concurrency id: a request waits for a
    /// slot, and holds it until its response is made, or, where the body is a stream, until the
    /// body has been sent.
    ///
    /// While the line is full a request is answered 503 with `Retry-After`. A client that goes away
    /// leaves the line; for that the server must notice it, which it does with
    /// [`HttpServer::h1_allow_half_closed(false)`].
    ///
    /// # Panics
    /// When the queue has no such concurrency id; declare one that no listener has with
    /// [`QueueBuilder::concurrency_id`](crate::QueueBuilder::concurrency_id).
    ///
    /// [`HttpServer::h1_allow_half_closed(false)`]: actix_web::HttpServer::h1_allow_half_closed
    ///
    /// ```
    /// use actix_web::{App, HttpServer, web};
    /// use now_serving::Queue;
    ///
    /// async fn render() -> &'static str {
    ///     "a picture"
    /// }
    ///
    /// # async fn serve() -> std::io::Result<()> {
    /// let queue =
    ///     Queue::builder().concurrency_id("gpu_queue", 2).start().map_err(std::io::Error::other)?;
    /// HttpServer::new(move || {
    ///     App::new().service(
    ///         web::resource("/render").wrap(queue.gate("gpu_queue")).get(render),
    ///     )
    /// })
    /// .h1_allow_half_closed(false)
    /// .bind(("127.0.0.1", 8080))?
    /// .run()
    /// .await
    /// # }
    /// ```
    pub fn gate(&self, concurrency_id: &str) -> Gate {
        match self.inner().ids.iter().find(|id| &*id.name == concurrency_id) {
            Some(id) => Gate { entry: id.gate.clone(), queue: self.clone() },
            None => panic!(
                "no concurrency id is named {concurrency_id:?}; declare it with \
                 QueueBuilder::concurrency_id"
            ),
        }
    }
}

/// Middleware from [`Queue::gate`].
#[derive(Clone, Debug)]
pub struct Gate {
    entry: Arc<Entry>,
    /// The queue lives as long as its gates.
    queue: Queue,
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
            let permit = match pass(&gate.entry).await {
                Ok(permit) => permit,
                Err(refusal) => return Ok(request.error_response(Rejection::of(refusal, &[]))),
            };
            let _queue = gate.queue;
            let response = service.call(request).await?;
            Ok(response.map_body(|_, body| match body.size() {
                BodySize::Stream => {
                    BoxBody::new(Held { body: body.boxed(), _permit: Some(permit) })
                }
                // The work is done; a client that reads slowly must not keep the slot.
                BodySize::None | BodySize::Sized(_) => body.boxed(),
            }))
        }
        .boxed_local()
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
