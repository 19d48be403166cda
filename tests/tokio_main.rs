//! A queue in a service that runs on tokio's own runtime: its actors on a thread with a system of their
//! own, its handles anywhere.

use std::time::Duration;

use futures::StreamExt;
use now_serving::testing::Turnstile;
use now_serving::{CallError, Listener, Queue, StartError, Update};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_work_from_any_task_and_the_queue_shuts_down() {
    let Err(error) = Queue::builder().start() else { panic!("there is no system") };
    assert_eq!(error, StartError::NoSystem);
    assert!(error.to_string().contains("#[tokio::main]"), "{error}");
    let turnstile = Turnstile::new();
    let (started, queue) = tokio::sync::oneshot::channel::<Result<Queue, StartError>>();
    let handler = turnstile.clone();
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let listener = Listener::new("double", handler.handler()).concurrency_limit(2);
            let _ = started.send(Queue::builder().listener(listener).start());
            std::future::pending::<()>().await
        })
    });
    let queue = queue.await.unwrap().unwrap();
    turnstile.let_through(3);
    let calls = (0..2u32).map(|n| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.call::<u32, u32>("double", n).await })
    });
    let calls: Vec<_> = calls.collect();
    for (n, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), Ok(n));
    }
    let updates: Vec<Update> = queue.submit("double", 2u32).await.unwrap().collect().await;
    assert!(updates.last().unwrap().is_terminal());
    let held = queue.submit("double", 3u32).await.unwrap();
    turnstile.arrived(4).await;
    let stopped = queue.shutdown(Duration::ZERO).await;
    assert!(!stopped.drained && stopped.stopped, "{stopped:?}");
    assert_eq!(held.result::<u32>().await, Err(CallError::Stopped));
}
