//! Handlers that call listeners of their own queue: what would wait for itself for ever is refused, and
//! nothing else.

use futures::executor::block_on;
use futures::{Stream, StreamExt, stream};
use now_serving::testing::{Recorder, Turnstile};
use now_serving::{AcquireError, CallError, EventContext, Listener, Queue, SubmitError};

/// Calls a listener of the queue that the handler runs in.
async fn call(context: &EventContext, listener: &str, n: u32) -> Result<u32, CallError> {
    context.queue()?.call(listener, n).await
}

/// A handler that calls the listener `next` with one less, down to 0.
fn down(next: &'static str) -> impl AsyncCall {
    move |n: u32, context: EventContext| async move {
        match n {
            0 => Ok(0),
            _ => call(&context, next, n - 1).await.map(|depth| depth + 1),
        }
    }
}

trait AsyncCall: now_serving::Handler<u32, (EventContext,), Output = Self::Future> {
    type Future: Future<Output = Result<u32, CallError>> + 'static;
}

impl<F, T> AsyncCall for T
where
    F: Future<Output = Result<u32, CallError>> + 'static,
    T: now_serving::Handler<u32, (EventContext,), Output = F>,
{
    type Future = F;
}

/// The error of a call, or of one of the calls that it made.
fn waits_for_itself(ended: Result<u32, CallError>, id: &str, limit: usize) {
    let Err(error) = ended else { panic!("{ended:?}") };
    let error = error.to_string();
    assert!(error.contains("would wait for itself"), "{error}");
    assert!(error.contains(&format!("concurrency id {id:?} (limit {limit})")), "{error}");
}

#[actix::test]
async fn a_handler_that_calls_its_own_id_is_told_when_no_slot_can_come_free() {
    let queue = Queue::builder()
        .listener(Listener::new("one", down("one")))
        .listener(Listener::new("two", down("two")).concurrency_limit(2))
        .listener(Listener::new("any", down("any")).concurrency_limit(None))
        .listener(Listener::new("a", down("b")))
        .listener(Listener::new("b", down("a")))
        .listener(Listener::new("shares", down("one")).concurrency_id("one"))
        .start()
        .unwrap();
    assert_eq!(queue.call("one", 0u32).await, Ok(0u32));
    waits_for_itself(queue.call("one", 1u32).await, "one", 1);
    waits_for_itself(queue.call("shares", 1u32).await, "one", 1);
    assert_eq!(queue.call("two", 1u32).await, Ok(1u32));
    waits_for_itself(queue.call("two", 2u32).await, "two", 2);
    assert_eq!(queue.call("any", 100u32).await, Ok(100u32));
    assert_eq!(queue.call("a", 1u32).await, Ok(1u32));
    waits_for_itself(queue.call("a", 2u32).await, "a", 1);
    waits_for_itself(queue.call("b", 2u32).await, "b", 1);
    // The limit as it is now.
    queue.set_concurrency_limit("one", 3).await.unwrap();
    assert_eq!(queue.call("one", 2u32).await, Ok(2u32));
    waits_for_itself(queue.call("one", 3u32).await, "one", 3);
    queue.set_concurrency_limit("one", None).await.unwrap();
    assert_eq!(queue.call("one", 10u32).await, Ok(10u32));
}

#[actix::test]
async fn every_kind_of_handler_is_told() {
    fn blocks(n: u32, context: EventContext) -> Result<u32, CallError> {
        block_on(call(&context, "blocking", n))
    }
    fn streams(n: u32, context: EventContext) -> impl Stream<Item = Result<u32, CallError>> {
        stream::once(async move { call(&context, "stream", n).await })
    }
    async fn batch(inputs: Vec<u32>, context: EventContext) -> Result<Vec<u32>, CallError> {
        let ended = call(&context, "batch", 0).await?;
        Ok(vec![ended; inputs.len()])
    }
    async fn permit(n: u32, context: EventContext) -> Result<u32, AcquireError> {
        context.queue()?.acquire("permit").await.map(|_| n)
    }
    let queue = Queue::builder()
        .listener(Listener::blocking("blocking", blocks))
        .listener(Listener::stream("stream", streams))
        .listener(Listener::batch("batch", batch))
        .listener(Listener::new("permit", permit))
        .start()
        .unwrap();
    for listener in ["blocking", "stream", "batch"] {
        waits_for_itself(queue.call(listener, 1u32).await, listener, 1);
    }
    let Err(CallError::Failed(failure)) = queue.call::<_, u32>("permit", 1u32).await else {
        panic!("it would have waited for ever")
    };
    let expected = AcquireError::WaitsForItself { concurrency_id: "permit".into(), slots: 1 };
    assert_eq!(failure.message, expected.to_string());
}

#[actix::test]
async fn what_nobody_waits_for_runs_when_the_handler_has_returned() {
    async fn spawn(n: u32, context: EventContext) -> Result<u32, CallError> {
        if n > 0 {
            // Its end is nobody's business.
            actix::spawn(async move { call(&context, "spawn", n - 1).await });
        }
        Ok(n)
    }
    let recorder = Recorder::start();
    let recipient = recorder.recipient();
    let again = move |n: u32, context: EventContext| {
        let recipient = recipient.clone();
        async move {
            if n > 0 {
                context.queue()?.submit_to("again", n - 1, recipient).await?;
            }
            Ok::<_, SubmitError>(n)
        }
    };
    let queue = Queue::builder()
        .listener(Listener::new("again", again))
        .listener(Listener::new("spawn", spawn))
        .start()
        .unwrap();
    assert_eq!(queue.call("again", 3u32).await, Ok(3u32));
    recorder.ended(3).await;
    assert_eq!(queue.call("spawn", 3u32).await, Ok(3u32));
    while queue.snapshot().await.listener("spawn").unwrap().completed < 4 {}
}

#[actix::test]
async fn an_event_whose_submitter_goes_on_may_wait_for_its_slot() {
    /// Waits until the first has returned, which doesn't wait for it.
    async fn second(n: u32, context: EventContext) -> Result<u32, CallError> {
        call(&context, "first", 0).await.map(|_| n)
    }
    let turnstile = Turnstile::new();
    let held = turnstile.clone();
    let first = move |n: u32, context: EventContext| {
        let held = held.clone();
        async move {
            if n > 0 {
                context.queue()?.submit("second", n).await?.detach();
                held.pass().await;
            }
            Ok::<_, SubmitError>(n)
        }
    };
    let queue = Queue::builder()
        .listener(Listener::new("first", first))
        .listener(Listener::new("second", second))
        .start()
        .unwrap();
    let first = queue.submit("first", 1u32).await.unwrap();
    turnstile.arrived(1).await;
    while queue.snapshot().await.concurrency_id("first").unwrap().waiting < 1 {}
    turnstile.open();
    assert_eq!(first.result::<u32>().await, Ok(1));
    while queue.snapshot().await.listener("second").unwrap().completed < 1 {}
    assert_eq!(queue.snapshot().await.listener("second").unwrap().failed, 0);
    let _ = queue.submit("first", 0u32).await.unwrap().collect::<Vec<_>>().await;
}
