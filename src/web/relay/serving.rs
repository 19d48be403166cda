//! Answers what other nodes relay to this one: by the same routes as what comes over HTTP, without a connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::{Arbiter, ArbiterHandle, System};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::AppConfig;
use actix_web::{App, Error, HttpResponse};
use futures::future::{Either, FutureExt, LocalBoxFuture, poll_fn, select};
use tokio::sync::mpsc;

use super::head::{AnswerHead, RequestHead};
use super::node::Relay;
use crate::cluster::handle::ClusterHandle;
use crate::cluster::homes::{HomeKey, Homes};
use crate::cluster::tunnel::{Broken, Exchange, Incoming, Tunnel};
use crate::logging::{debug, error, warn};
use crate::queue::background::Background;
use crate::web::auth::shared;
use crate::web::state::{Web, WebState};

/// On so many threads of their own requests are answered.
const MAX_THREADS: usize = 4;

/// How long the routes are kept that nobody asks for: they keep the queue alive.
const IDLE: Duration = Duration::from_secs(5);

/// How often what is in use is looked for that has to be kept known as this node's.
const RENEWAL: Duration = Duration::from_secs(30 * 60);

const TICK: Duration = Duration::from_secs(1);

/// Among a queue's extensions: one of its `Web`s has what other nodes relay.
struct Begun;

/// Makes a node of what serves a queue of a cluster: it relays, and answers what is relayed to it.
pub(crate) fn start(web: &Web) {
    let extensions = &web.0.queue.inner().extensions;
    let Some(cluster) = extensions.get::<Arc<ClusterHandle>>() else { return };
    let Some(Background(background)) = extensions.get() else { return };
    if !extensions.insert(Begun) {
        warn!(
            "a queue of a cluster has several `Web`s: clients of all but the first must come back \
               to the same node"
        );
        return;
    }
    if let Some(login_guard) = &web.0.login_guard {
        background.spawn(shared::follow(Arc::downgrade(login_guard.share(cluster))));
    }
    begin(web, cluster.clone(), Homes::new(cluster.clone()), background);
}

fn begin(web: &Web, cluster: Arc<ClusterHandle>, homes: Homes, background: &ArbiterHandle) {
    let workers = start_workers(&web.0, background);
    let turn = AtomicUsize::new(0);
    let own = cluster.process.clone();
    let (tunnel, run) = Tunnel::new(cluster, move |incoming| {
        let worker = &workers[turn.fetch_add(1, Relaxed) % workers.len()];
        // One whose thread has ended answers nothing, which the other node notices.
        let _ = worker.send(incoming);
    });
    let relay = Arc::new(Relay { homes, tunnel, own });
    web.0.sessions.limits.move_away.store(true, Relaxed);
    background.spawn(run);
    background.spawn(look_around(Arc::downgrade(&relay), Arc::downgrade(&web.0)));
    background.spawn(look_for_clients(Arc::downgrade(&relay), Arc::downgrade(&web.0)));
    // There was none: this is called once.
    let _ = web.0.relay.set(relay);
}

/// The threads' ends of what is to be answered, at least one.
fn start_workers(
    web: &Arc<WebState>,
    background: &ArbiterHandle,
) -> Vec<mpsc::UnboundedSender<Incoming>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Where there is no system, as on a thread that is no arbiter's, none can be started.
    let own = System::try_current().map_or(0, |_| processors.min(MAX_THREADS));
    let arbiters: Vec<Arbiter> = (0..own).map(|_| Arbiter::new()).collect();
    let mut handles: Vec<_> = arbiters.iter().map(|arbiter| (arbiter.handle(), true)).collect();
    if handles.is_empty() {
        handles.push((background.clone(), false));
    }
    let start = |(arbiter, is_own): (ArbiterHandle, bool)| {
        let (requests, incoming) = mpsc::unbounded_channel();
        let (web, own) = (Arc::downgrade(web), is_own.then(|| arbiter.clone()));
        arbiter.spawn_fn(move || {
            actix_web::rt::spawn(async move {
                work(incoming, web).await;
                if let Some(own) = own {
                    own.stop();
                }
            });
        });
        requests
    };
    handles.into_iter().map(start).collect()
}

/// Notices whether this process hears others, and keeps known what is in use.
async fn look_around(relay: Weak<Relay>, web: Weak<WebState>) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        let Some(relay) = relay.upgrade() else { return };
        relay.homes.tick();
        if renewed.elapsed() >= RENEWAL
            && let Some(web) = web.upgrade()
        {
            renewed = tokio::time::Instant::now();
            let (sessions, calls) = web.sessions.in_use();
            drop(web);
            let sessions = sessions
                .iter()
                .map(|(caller, hash)| HomeKey::of_session(caller.0.as_deref(), hash));
            for key in sessions.chain(calls.into_iter().map(HomeKey::of_call)) {
                relay.homes.tick();
                if let Err(trouble) = relay.homes.renew(key).await {
                    warn!("where sessions are at home can't be recorded again: {trouble}");
                    break;
                }
            }
        }
        drop(relay);
        tokio::time::sleep(TICK).await;
    }
}

/// Finds out of sessions whose clients aren't here whether they are elsewhere. A task of its own: where NATS takes
/// long to answer, nothing else waits for that.
async fn look_for_clients(relay: Weak<Relay>, web: Weak<WebState>) {
    while let Some((relay, web)) = relay.upgrade().zip(web.upgrade()) {
        let mut in_doubt = web.sessions.in_doubt(Instant::now()).into_iter();
        while let Some(deserted) = in_doubt.next() {
            let key = match deserted.call {
                Some(id) => HomeKey::of_call(id),
                None => {
                    let session = &deserted.session;
                    HomeKey::of_session(session.caller().0.as_deref(), &session.hash)
                }
            };
            // It is to be true now.
            relay.homes.forget(key);
            let asked = Instant::now();
            match relay.homes.home(key).await {
                Ok(home) if home == relay.own => catch(|| deserted.stays(asked)),
                Ok(_) => catch(|| web.sessions.leave_to_another(deserted)),
                // As long as nobody can say, their events go on.
                Err(_) => {
                    catch(|| drop((deserted, std::mem::take(&mut in_doubt))));
                }
            }
        }
        drop((relay, web));
        tokio::time::sleep(TICK).await;
    }
}

/// What drops values of the service's own may panic.
fn catch(act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        error!("a value panicked when it was dropped with its session");
    }
}

/// The routes, as a function.
type Routes = dyn Fn(actix_http::Request) -> LocalBoxFuture<'static, Result<HttpResponse, Error>>;

async fn routes(web: Web) -> Option<Rc<Routes>> {
    let app = App::new().configure(web.routes()).into_factory();
    let service = app.new_service(AppConfig::default()).await.ok()?;
    Some(Rc::new(move |request| {
        let answer = service.call(request);
        async move { Ok(answer.await?.into_parts().1.map_into_boxed_body()) }.boxed_local()
    }))
}

/// Answers on one thread. What is kept for that goes when nobody has asked for a while.
async fn work(mut incoming: mpsc::UnboundedReceiver<Incoming>, web: Weak<WebState>) {
    let mut kept: Option<Rc<Routes>> = None;
    loop {
        let next = match kept {
            None => incoming.recv().await,
            Some(_) => match tokio::time::timeout(IDLE, incoming.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    kept = None;
                    continue;
                }
            },
        };
        let Some(Incoming { head, exchange }) = next else { return };
        let Some(state) = web.upgrade() else { return };
        let Some(relay) = state.relay.get().map(Arc::downgrade) else { continue };
        let max_body_size = state.bodies.max_body_size;
        if kept.is_none() {
            kept = routes(Web(state)).await;
        }
        let Some(routes) = kept.clone() else {
            error!("requests of other nodes can't be answered: the routes can't be made");
            return;
        };
        actix_web::rt::spawn(async move {
            let answered = answer(&routes, &relay, &head, max_body_size, exchange);
            if let Err(broken) = answered.await {
                debug!("a relayed request came to nothing: {broken}");
            }
        });
    }
}

async fn answer(
    routes: &Rc<Routes>,
    relay: &Weak<Relay>,
    head: &[u8],
    max_body_size: usize,
    mut exchange: Exchange,
) -> Result<(), Broken> {
    let unreadable = Broken::Lost("the request can't be read");
    let head: RequestHead = serde_json::from_slice(head).map_err(|_| unreadable.clone())?;
    let key = HomeKey::from_text(&head.key).ok_or_else(|| unreadable.clone())?;
    let body = exchange.rest(max_body_size).await?;
    let is_home = match relay.upgrade() {
        // Whoever asks looks again, and hears of the trouble by itself.
        Some(relay) => relay.homes.is_home(key).await.unwrap_or(false),
        None => false,
    };
    if !is_home {
        exchange.send_whole(AnswerHead::Moved.to_bytes()).await?;
        exchange.finish();
        return Ok(());
    }
    let is_named = head.event.is_some();
    let request = head.into_request(body).ok_or(unreadable)?;
    let response = routes(request);
    let response = match select(response, Box::pin(exchange.broken())).await {
        Either::Left((response, _)) => response,
        Either::Right((broken, response)) => {
            // The client waits still, and asks for the same event elsewhere: it isn't to be cancelled here.
            if is_named && broken != Broken::Cancelled {
                actix_web::rt::spawn(response);
            }
            return Err(broken);
        }
    };
    let response = response.unwrap_or_else(|error| error.error_response());
    let head = AnswerHead::of(&response).to_bytes();
    exchange.send_whole(head).await?;
    send_body(response.into_body(), &mut exchange).await?;
    exchange.finish();
    Ok(())
}

async fn send_body(mut body: BoxBody, exchange: &mut Exchange) -> Result<(), Broken> {
    loop {
        let next = poll_fn(|cx| {
            // A client that has gone is noticed while nothing comes.
            if let std::task::Poll::Ready(broken) = exchange.poll_broken(cx) {
                return std::task::Poll::Ready(Err(broken));
            }
            std::pin::Pin::new(&mut body).poll_next(cx).map(Ok)
        });
        match next.await? {
            Some(Ok(bytes)) => exchange.send(bytes).await?,
            Some(Err(_)) => return Err(Broken::Lost("the answer broke off")),
            None => return Ok(()),
        }
    }
}
