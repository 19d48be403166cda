//! Limits under tokio's paused clock: hours pass in a moment, and no sooner than the test wants.

use std::time::Duration;

use futures::StreamExt;
use now_serving::testing::Turnstile;
use now_serving::{CallError, EventContext, Listener, Outcome, Queue, Update};
use tokio::time::{advance, pause, sleep};

const HOUR: Duration = Duration::from_secs(3600);

async fn sleeps(hours: u32) -> Result<u32, String> {
    sleep(hours * HOUR).await;
    Ok(hours)
}

#[actix::test]
async fn a_time_limit_is_over_when_the_clock_says_so() {
    pause();
    let queue = Queue::builder()
        .arbiters(0)
        .listener(Listener::new("sleeps", sleeps).time_limit(3 * HOUR))
        .start()
        .unwrap();
    assert_eq!(queue.call::<u32, u32>("sleeps", 2).await, Ok(2));
    assert_eq!(queue.call::<u32, u32>("sleeps", 4).await, Err(CallError::TimedOut));
    let updates: Vec<Update> = queue.submit("sleeps", 2u32).await.unwrap().collect().await;
    let Some(Update::ProcessCompleted { outcome: Outcome::Completed(_), duration, .. }) =
        updates.last()
    else {
        panic!("{updates:?}")
    };
    assert_eq!(duration.round(), 2.0 * 3600.0, "in the time of the test");
}

#[actix::test]
async fn the_test_moves_the_clock() {
    pause();
    let turnstile = Turnstile::new();
    let remaining = |_: u32, context: EventContext| async move {
        let deadline = context.deadline().ok_or("there is a limit")?;
        let now = tokio::time::Instant::now().into_std();
        Ok::<_, String>(deadline.saturating_duration_since(now).as_secs_f64().round())
    };
    let queue = Queue::builder()
        .arbiters(0)
        .listener(Listener::new("held", turnstile.handler()).time_limit(HOUR))
        .listener(Listener::new("waits", sleeps).concurrency_id("held").queue_timeout(HOUR / 2))
        .listener(Listener::new("remaining", remaining).time_limit(HOUR))
        .start()
        .unwrap();
    assert_eq!(queue.call::<u32, f64>("remaining", 0).await, Ok(3600.0));
    let held = queue.submit("held", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let waits = queue.submit("waits", 1u32).await.unwrap();
    advance(HOUR / 2 + Duration::from_secs(1)).await;
    assert_eq!(waits.result::<u32>().await, Err(CallError::TimedOut));
    turnstile.open();
    assert_eq!(held.result::<u32>().await, Ok(0), "it has half an hour left");
}
