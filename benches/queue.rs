//! One event through listener, supervisor and worker, beside what one would take otherwise.
//!
//! `cargo bench --bench queue` prints the time of a round of events for each. Everything runs on one
//! thread, so that what is compared is the work, not the wake-ups of cores.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, System};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use now_serving::{Limit, Listener, Queue};
use tokio::sync::{Semaphore, oneshot};
use tower::ServiceExt;
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Events in one measured round.
const ROUND: usize = 4096;

async fn echo(n: u64) -> Result<u64, String> {
    Ok(n)
}

/// Keeps `in_flight` of `call`s going until a round is done.
async fn round<F: Future<Output = u64>>(in_flight: usize, call: impl Fn(u64) -> F) {
    let mut calls: FuturesUnordered<F> = (0..in_flight as u64).map(&call).collect();
    for n in in_flight..ROUND + in_flight {
        black_box(calls.next().await);
        if n < ROUND {
            calls.push(call(n as u64));
        }
    }
}

/// The floor: a semaphore, and a task for each event.
async fn semaphore_round(in_flight: usize, slots: usize) {
    let semaphore = Rc::new(Semaphore::new(slots));
    round(in_flight, |n| {
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
async fn tower_round(in_flight: usize, slots: usize) {
    let echo = tower::service_fn(async |n: u64| echo(n).await);
    let limited = ConcurrencyLimit::new(echo, slots);
    let (service, worker) = Buffer::pair(limited, 2 * IN_FLIGHT[2]);
    actix::spawn(worker);
    round(in_flight, |n| {
        let service = service.clone();
        async move { service.oneshot(n).await.unwrap_or_default() }
    })
    .await;
}

/// Three actors in a row that do nothing but pass on: what the hops alone cost.
struct Hop(Option<Addr<Hop>>);

impl Actor for Hop {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(2 * IN_FLIGHT[2]);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Pass(u64, oneshot::Sender<u64>);

impl Handler<Pass> for Hop {
    type Result = ();

    fn handle(&mut self, Pass(n, reply): Pass, _: &mut Self::Context) {
        match &self.0 {
            Some(next) => next.do_send(Pass(n, reply)),
            None => drop(reply.send(n)),
        }
    }
}

async fn pipeline_round(in_flight: usize, first: &Addr<Hop>) {
    round(in_flight, |n| {
        let (reply, answer) = oneshot::channel();
        first.do_send(Pass(n, reply));
        async move { answer.await.unwrap_or_default() }
    })
    .await;
}

async fn queue_round(in_flight: usize, queue: &Queue) {
    let Ok(handle) = queue.listener::<u64, u64>("echo") else { return };
    round(in_flight, |n| {
        let handle = handle.clone();
        async move { handle.call(n).await.unwrap_or_default() }
    })
    .await;
}

fn start(limit: Limit) -> Queue {
    let listener = Listener::new("echo", echo).concurrency_limit(limit);
    match Queue::builder().arbiters(0).listener(listener).start() {
        Ok(queue) => queue,
        Err(error) => panic!("{error}"),
    }
}

fn events(criterion: &mut Criterion) {
    let system = System::new();
    for (name, limit) in
        [("1 slot", Limit::Slots(1)), ("8 slots", Limit::Slots(8)), ("unlimited", Limit::Unlimited)]
    {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(ROUND as u64));
        group.sample_size(20).measurement_time(Duration::from_secs(3));
        let slots = match limit {
            Limit::Slots(slots) => slots,
            Limit::Unlimited => Semaphore::MAX_PERMITS,
        };
        for in_flight in IN_FLIGHT {
            group.bench_function(BenchmarkId::new("semaphore", in_flight), |bencher| {
                bencher.iter(|| system.block_on(semaphore_round(in_flight, slots)));
            });
            group.bench_function(BenchmarkId::new("tower", in_flight), |bencher| {
                bencher.iter(|| system.block_on(tower_round(in_flight, slots)));
            });
            group.bench_function(BenchmarkId::new("bare actix", in_flight), |bencher| {
                let first = system.block_on(async {
                    let last = Hop(None).start();
                    Hop(Some(Hop(Some(last)).start())).start()
                });
                bencher.iter(|| system.block_on(pipeline_round(in_flight, &first)));
            });
            group.bench_function(BenchmarkId::new("now-serving", in_flight), |bencher| {
                let queue = system.block_on(async { start(limit) });
                bencher.iter(|| system.block_on(queue_round(in_flight, &queue)));
            });
        }
        group.finish();
    }
}

const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Eight concurrency ids beside one, over arbiters on every core: callers on a thread of their own.
fn ids(criterion: &mut Criterion) {
    let system = System::new();
    let mut group = criterion.benchmark_group("arbiters");
    group.throughput(Throughput::Elements(ROUND as u64));
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for names in [&IDS[..1], &IDS[..]] {
        let queue = names
            .iter()
            .fold(Queue::builder(), |builder, name| builder.listener(Listener::new(*name, echo)));
        let queue = match system.block_on(async { queue.start() }) {
            Ok(queue) => queue,
            Err(error) => panic!("{error}"),
        };
        let handles: Vec<_> =
            names.iter().filter_map(|name| queue.listener::<u64, u64>(name).ok()).collect();
        group.bench_function(BenchmarkId::new("ids", names.len()), |bencher| {
            bencher.iter(|| {
                system.block_on(round(IN_FLIGHT[2], |n| {
                    let handle = handles[n as usize % handles.len()].clone();
                    async move { handle.call(n).await.unwrap_or_default() }
                }));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, events, ids);
criterion_main!(benches);
