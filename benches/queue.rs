//! One event through listener, supervisor and worker, beside what one would take otherwise.
//!
//! `cargo bench --bench queue` prints the time of a round of events for each. Everything runs on one
//! thread, so that what is compared is the work, not the wake-ups of cores.

mod peers;

use std::time::Duration;

use actix::System;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use now_serving::{Limit, Listener, Queue};
use peers::{
    Hop, echo, factory, factory_round, pipeline_round, queue_round, round, semaphore_round, start,
    tower_round,
};
use tokio::sync::Semaphore;

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Events in one measured round.
const ROUND: usize = 4096;

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
                bencher.iter(|| system.block_on(semaphore_round(in_flight, ROUND, slots)));
            });
            group.bench_function(BenchmarkId::new("tower", in_flight), |bencher| {
                bencher.iter(|| system.block_on(tower_round(in_flight, ROUND, slots)));
            });
            group.bench_function(BenchmarkId::new("bare actix", in_flight), |bencher| {
                let first = system.block_on(async { Hop::pipeline() });
                bencher.iter(|| system.block_on(pipeline_round(in_flight, ROUND, &first)));
            });
            // A factory has as many workers as it is given.
            if let Limit::Slots(workers) = limit {
                group.bench_function(BenchmarkId::new("ractor", in_flight), |bencher| {
                    let factory = system.block_on(factory(workers));
                    bencher.iter(|| system.block_on(factory_round(in_flight, ROUND, &factory)));
                    factory.stop(None);
                });
            }
            group.bench_function(BenchmarkId::new("now-serving", in_flight), |bencher| {
                let queue = system.block_on(async { start(limit) });
                bencher.iter(|| system.block_on(queue_round(in_flight, ROUND, &queue)));
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
                system.block_on(round(IN_FLIGHT[2], ROUND, |n| {
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
