//! What is due is done in time under any load.

use std::future::pending;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use now_serving::{CallError, Listener, Queue};

/// Callers that all call again as soon as they have their answer.
const CALLERS: usize = 3000;

#[actix::test]
async fn a_timeout_fires_although_thousands_of_snapshots_are_asked_for() {
    let limit = Duration::from_millis(50);
    let forever = || async |_: u32| pending::<Result<u32, String>>().await;
    // On this thread, so that the order of what happens is the order in which it is done.
    let queue = Queue::builder()
        .arbiters(0)
        .listener(Listener::new("forever", forever()).concurrency_id("x").concurrency_limit(None))
        .listener(Listener::new("limited", forever()).concurrency_id("x").time_limit(limit))
        .start()
        .unwrap();
    let mut running = Vec::new();
    for n in 0..1000u32 {
        running.push(queue.submit("forever", n).await.unwrap());
    }
    let event = queue.submit("limited", 0u32).await.unwrap();
    let submitted = Instant::now();
    while queue.snapshot().await.concurrency_ids[0].running < 1001 {}
    // Its time is up, and no timer could fire so far.
    while submitted.elapsed() < limit {}
    let mut calls: FuturesUnordered<_> = (0..CALLERS).map(|_| queue.snapshot()).collect();
    assert!(futures::poll!(calls.next()).is_pending());
    let mut result = Box::pin(event.result::<u32>());
    let mut answered = 0;
    let ended = loop {
        futures::select_biased! {
            ended = (&mut result).fuse() => break ended,
            _ = calls.select_next_some() => {
                answered += 1;
                calls.push(queue.snapshot());
            }
        }
    };
    assert_eq!(ended, Err(CallError::TimedOut));
    assert!(answered < CALLERS / 3, "{answered} snapshots came before a timeout that was due");
}
