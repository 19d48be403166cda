//! What becomes of a queue's actors, events and resources when the last clone is dropped, or when
//! its actix system ends.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use now_serving::testing::Turnstile;
use now_serving::{CallError, EventContext, Listener, Queue, Refusal, Shutdown, Slot};
use tokio::sync::oneshot;

/// Notifies when it is dropped.
struct Resource(Option<oneshot::Sender<()>>);

impl Drop for Resource {
    fn drop(&mut self) {
        let _ = self.0.take().map(|dropped| dropped.send(()));
    }
}

fn assert_lost(ended: Result<u32, CallError>) {
    let Err(CallError::Failed(failure)) = ended else { panic!("{ended:?}") };
    assert!(failure.message.contains("was lost"), "{failure}");
}

#[actix::test]
async fn the_last_clone_takes_actors_events_and_resources_with_it() {
    for arbiters in [0, 1] {
        let turnstile = Turnstile::new();
        let (dropped, is_dropped) = oneshot::channel();
        let resource = Arc::new(Mutex::new(Some(Resource(Some(dropped)))));
        let held = turnstile.clone();
        let run = move |n: u32, _: Slot<Resource>| {
            let turnstile = held.clone();
            async move {
                turnstile.pass().await;
                Ok::<_, String>(n)
            }
        };
        let queue = Queue::builder()
            .arbiters(arbiters)
            .listener(Listener::new("run", run).concurrency_id("one").concurrency_limit(1))
            .slots("one", move |_| {
                let resource = resource.lock().unwrap().take();
                async move { resource.ok_or("there is one only") }
            })
            .start()
            .unwrap();
        let running = queue.submit("run", 1u32).await.unwrap();
        turnstile.arrived(1).await;
        let waiting = queue.submit("run", 2u32).await.unwrap();
        drop(queue);
        assert_lost(running.result().await);
        assert_lost(waiting.result().await);
        turnstile.empty().await;
        is_dropped.await.unwrap();
    }
}

#[actix::test]
async fn a_blocking_handler_learns_that_its_queue_is_gone() {
    let (learned, has_learned) = oneshot::channel();
    let (begun, has_begun) = oneshot::channel();
    let both = Arc::new(Mutex::new(Some((begun, learned))));
    let run = move |n: u32, context: EventContext| {
        let (begun, learned) = both.lock().unwrap().take().unwrap();
        begun.send(()).unwrap();
        block_on(context.cancellation_token().cancelled());
        learned.send(context.queue().map(|_| ())).unwrap();
        Ok::<_, String>(n)
    };
    let queue =
        Queue::builder().arbiters(0).listener(Listener::blocking("run", run)).start().unwrap();
    let running = queue.submit("run", 1u32).await.unwrap();
    has_begun.await.unwrap();
    drop(queue);
    assert_lost(running.result().await);
    assert_eq!(has_learned.await, Ok(Err(Refusal::Stopped)));
}

#[actix::test]
async fn a_queue_ends_when_the_handler_that_has_it_returns() {
    for arbiters in [0, 1] {
        let turnstile = Turnstile::new();
        let (dropped, is_dropped) = oneshot::channel();
        let resource = Arc::new(Mutex::new(Some(Resource(Some(dropped)))));
        let held = turnstile.clone();
        let run = move |n: u32, context: EventContext, _: Slot<Resource>| {
            let turnstile = held.clone();
            async move {
                let queue = context.queue()?;
                turnstile.pass().await;
                queue.call::<u32, u32>("double", n).await
            }
        };
        let double = async |n: u32| Ok::<_, String>(2 * n);
        let queue = Queue::builder()
            .arbiters(arbiters)
            .listener(Listener::new("run", run).concurrency_id("one").concurrency_limit(1))
            .listener(Listener::new("double", double))
            .slots("one", move |_| {
                let resource = resource.lock().unwrap().take();
                async move { resource.ok_or("there is one only") }
            })
            .start()
            .unwrap();
        let running = queue.submit("run", 1u32).await.unwrap();
        turnstile.arrived(1).await;
        drop(queue);
        turnstile.open();
        assert_eq!(running.result().await, Ok(2u32));
        is_dropped.await.unwrap();
    }
}

#[test]
fn a_shutdown_after_the_systems_end_says_what_still_runs() {
    for arbiters in [0, 1] {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let (begun, has_begun) = oneshot::channel();
        let begun = Mutex::new(Some(begun));
        let both = Arc::new((wait, begun));
        let run = move |n: u32| {
            let (wait, begun) = &*both;
            begun.lock().unwrap().take().unwrap().send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
            Ok::<_, String>(n)
        };
        let system = actix::System::new();
        let (queue, running) = system.block_on(async {
            let listener = Listener::blocking("run", run);
            let queue = Queue::builder().arbiters(arbiters).listener(listener).start().unwrap();
            let running = queue.submit("run", 1u32).await.unwrap();
            has_begun.await.unwrap();
            actix::System::current().stop();
            (queue, running)
        });
        system.run().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert_lost(running.result().await);
            let Shutdown { drained, stopped, .. } = queue.shutdown(Duration::ZERO).await;
            assert_eq!((drained, stopped), (false, false));
            drop(go_on);
            let Shutdown { drained, stopped, .. } = queue.shutdown(Duration::from_secs(60)).await;
            assert_eq!((drained, stopped), (false, true));
        });
    }
}
