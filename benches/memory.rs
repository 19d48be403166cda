//! What an event costs in memory while it waits.
//!
//! `cargo bench --bench memory` lets a million events wait for one slot and prints the bytes that each
//! takes, by how it was submitted: followed by an actor, by a `Submission`, or by a `call`, whose
//! future is not counted.

use actix::{Actor, Context, Handler};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use now_serving::testing::Turnstile;
use now_serving::{CallError, Listener, Queue, Update};

#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

const EVENTS: usize = 1_000_000;

/// An actor that follows events and drops their updates.
struct Follower;

impl Actor for Follower {
    type Context = Context<Self>;
}

impl Handler<Update> for Follower {
    type Result = ();

    fn handle(&mut self, _: Update, _: &mut Self::Context) {}
}

fn start(turnstile: &Turnstile) -> Queue {
    let listener = Listener::new("wait", turnstile.handler());
    Queue::builder().listener(listener).start().expect("nothing contradicts itself")
}

/// The bytes in use when what is gone has really gone: queues end on threads of their own.
async fn settled() -> usize {
    let mut last = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = MEMORY.allocated();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Waits until all are in the wait queue, and gives the bytes of each since `before`.
async fn each(queue: &Queue, before: usize) -> usize {
    loop {
        let waiting = queue.snapshot().await.concurrency_ids[0].waiting;
        if waiting == EVENTS - 1 {
            return (MEMORY.allocated() - before) / EVENTS;
        }
    }
}

fn main() {
    actix::System::new().block_on(async {
        let turnstile = Turnstile::new();
        {
            let queue = start(&turnstile);
            let follower = Follower.start().recipient();
            let before = settled().await;
            for n in 0..EVENTS as u32 {
                queue.submit_to("wait", n, follower.clone()).await.expect("there is room");
            }
            println!("followed by an actor   {:>5} bytes each", each(&queue, before).await);
        }
        {
            let queue = start(&turnstile);
            let mut submissions = Vec::with_capacity(EVENTS);
            let before = settled().await;
            for n in 0..EVENTS as u32 {
                submissions.push(queue.submit("wait", n).await.expect("there is room"));
            }
            println!("with a Submission      {:>5} bytes each", each(&queue, before).await);
        }
        {
            let queue = start(&turnstile);
            let handle = queue.listener::<u32, u32>("wait").expect("it is there");
            type Call = LocalBoxFuture<'static, Result<u32, CallError>>;
            let mut calls: Vec<Call> = Vec::with_capacity(EVENTS);
            for n in 0..EVENTS as u32 {
                let handle = handle.clone();
                calls.push(async move { handle.call(n).await }.boxed_local());
            }
            let before = settled().await;
            for (n, call) in calls.iter_mut().enumerate() {
                assert!(futures::poll!(call).is_pending());
                if n % 512 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            println!("with a call            {:>5} bytes each", each(&queue, before).await);
        }
    });
}
