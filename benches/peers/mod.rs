//! One event in process: ours, and what one would take otherwise. All on the caller's thread, so that
//! what is compared is the work, not the wake-ups of cores.

use std::hint::black_box;
use std::rc::Rc;

use actix::{Actor, Addr, Context, Handler, Message};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use now_serving::{Limit, Listener, Queue};
use ractor::factory::{
    Factory, FactoryArguments, FactoryRef, Job, Worker, WorkerId, queues, routing, worker_builder,
};
use ractor::{ActorProcessingErr, RpcReplyPort};
use tokio::sync::{Semaphore, oneshot};
use tower::ServiceExt;
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;

/// More than any round has in flight.
const ROOM: usize = 2048;

pub async fn echo(n: u64) -> Result<u64, String> {
    Ok(n)
}

/// Keeps `in_flight` of `call`s going until so many `events` are done.
pub async fn round<F: Future<Output = u64>>(
    in_flight: usize,
    events: usize,
    call: impl Fn(u64) -> F,
) {
    let mut calls: FuturesUnordered<F> = (0..in_flight as u64).map(&call).collect();
    for n in in_flight..events + in_flight {
        black_box(calls.next().await);
        if n < events {
            calls.push(call(n as u64));
        }
    }
}

/// The floor: a semaphore, and a task for each event.
pub async fn semaphore_round(in_flight: usize, events: usize, slots: usize) {
    let semaphore = Rc::new(Semaphore::new(slots));
    round(in_flight, events, |n| {
        let semaphore = semaphore.clone();
        async move {
            let task = actix::spawn(async move {
                let _permit = semaphore.acquire().await;
                echo(n).await.unwrap_or_default()
            });
            task.await.unwrap_or_default()
        }
    })
    .await;
}

/// tower's buffer in front of its limit: what one would take for a bounded queue without ranks.
pub async fn tower_round(in_flight: usize, events: usize, slots: usize) {
    let echo = tower::service_fn(async |n: u64| echo(n).await);
    let limited = ConcurrencyLimit::new(echo, slots);
    let (service, worker) = Buffer::pair(limited, ROOM);
    actix::spawn(worker);
    round(in_flight, events, |n| {
        let service = service.clone();
        async move { service.oneshot(n).await.unwrap_or_default() }
    })
    .await;
}

/// Three actors in a row that do nothing but pass on: what the hops alone cost.
pub struct Hop(Option<Addr<Hop>>);

impl Hop {
    pub fn pipeline() -> Addr<Self> {
        let last = Hop(None).start();
        Hop(Some(Hop(Some(last)).start())).start()
    }
}

impl Actor for Hop {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(ROOM);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub struct Pass(u64, oneshot::Sender<u64>);

impl Handler<Pass> for Hop {
    type Result = ();

    fn handle(&mut self, Pass(n, reply): Pass, _: &mut Self::Context) {
        match &self.0 {
            Some(next) => next.do_send(Pass(n, reply)),
            None => drop(reply.send(n)),
        }
    }
}

pub async fn pipeline_round(in_flight: usize, events: usize, first: &Addr<Hop>) {
    round(in_flight, events, |n| {
        let (reply, answer) = oneshot::channel();
        first.do_send(Pass(n, reply));
        async move { answer.await.unwrap_or_default() }
    })
    .await;
}

/// The nearest relative: a supervisor with a queue and workers, in ractor's words a factory.
pub struct EchoWorker;

pub struct Echo(u64, RpcReplyPort<u64>);

impl Worker for EchoWorker {
    type Key = ();
    type Message = Echo;
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        _: WorkerId,
        _: &FactoryRef<(), Echo>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: WorkerId,
        _: &FactoryRef<(), Echo>,
        Job { msg: Echo(n, reply), .. }: Job<(), Echo>,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        // As in ours, a caller that has gone away is no error.
        let _ = reply.send(echo(n).await?);
        Ok(())
    }
}

type EchoFactory = Factory<
    (),
    Echo,
    (),
    EchoWorker,
    routing::QueuerRouting<(), Echo>,
    queues::DefaultQueue<(), Echo>,
>;

pub async fn factory(workers: usize) -> FactoryRef<(), Echo> {
    let arguments = FactoryArguments::builder()
        .worker_builder(Box::new(worker_builder(|_| (EchoWorker, ()))))
        .num_initial_workers(workers)
        .router(Default::default())
        .queue(Default::default())
        .build();
    match ractor::Actor::spawn(None, EchoFactory::default(), arguments).await {
        Ok((factory, _)) => factory,
        Err(error) => panic!("{error}"),
    }
}

pub async fn factory_round(in_flight: usize, events: usize, factory: &FactoryRef<(), Echo>) {
    round(in_flight, events, |n| async move {
        let answer = factory.call_job((), |reply| Echo(n, reply), None).await;
        match answer {
            Ok(ractor::rpc::CallResult::Success(n)) => n,
            _ => panic!("the factory has not answered"),
        }
    })
    .await;
}

pub async fn queue_round(in_flight: usize, events: usize, queue: &Queue) {
    let Ok(handle) = queue.listener::<u64, u64>("echo") else { return };
    round(in_flight, events, |n| {
        let handle = handle.clone();
        async move { handle.call(n).await.unwrap_or_default() }
    })
    .await;
}

pub fn start(limit: Limit) -> Queue {
    let listener = Listener::new("echo", echo).concurrency_limit(limit);
    match Queue::builder().arbiters(0).listener(listener).start() {
        Ok(queue) => queue,
        Err(error) => panic!("{error}"),
    }
}
