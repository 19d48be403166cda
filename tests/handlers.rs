//! What can be a handler, and what its context offers.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use now_serving::testing::{Recorder, Turnstile};
use now_serving::{
    CallError, EventContext, Listener, Log, LogLevel, Outcome, Queue, Update, UserError,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Prompt {
    text: String,
    times: usize,
}

/// No JSON could hold this: in-process calls don't go through it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct Painted {
    text: String,
    heat: f64,
}

async fn start<I, O>(listener: Listener<I, O>) -> Queue {
    Queue::builder().listener(listener).start().unwrap()
}

#[actix::test]
async fn an_async_function_with_a_struct() {
    async fn paint(prompt: Prompt) -> Result<Painted, String> {
        tokio::task::yield_now().await;
        Ok(Painted { text: prompt.text.repeat(prompt.times), heat: f64::INFINITY })
    }
    let queue = start(Listener::new("paint", paint)).await;
    let prompt = Prompt { text: "ab".into(), times: 2 };
    let painted: Painted = queue.call("paint", prompt).await.unwrap();
    assert_eq!(painted, Painted { text: "abab".into(), heat: f64::INFINITY });
}

#[actix::test]
async fn a_tuple_a_scalar_and_nothing() {
    let queue = Queue::builder()
        .listener(Listener::new("add", async |(a, b): (u32, u32)| Ok::<_, String>(a + b)))
        .listener(Listener::new("double", async |x: f64| Ok::<_, String>(2.0 * x)))
        .listener(Listener::new("nothing", async |(): ()| Ok::<_, String>(())))
        .start()
        .unwrap();
    assert_eq!(queue.call::<_, u32>("add", (2u32, 3u32)).await, Ok(5));
    assert_eq!(queue.call::<_, f64>("double", 1.5).await, Ok(3.0));
    assert_eq!(queue.call::<_, ()>("nothing", ()).await, Ok(()));
}

#[actix::test]
async fn a_future_that_is_not_send() {
    let handler = async |n: u32| {
        let kept = std::rc::Rc::new(n);
        tokio::task::yield_now().await;
        Ok::<_, String>(*kept)
    };
    assert_eq!(start(Listener::new("a", handler)).await.call::<_, u32>("a", 1u32).await, Ok(1));
}

#[actix::test]
async fn a_blocking_function_runs_on_a_thread_of_its_own() {
    fn slow(n: u32, context: EventContext) -> Result<(u32, bool), String> {
        let blocking = tokio::runtime::Handle::try_current().is_ok();
        std::thread::sleep(Duration::from_millis(5));
        Ok((n + context.slot() as u32, blocking))
    }
    let queue = start(Listener::blocking("slow", slow)).await;
    assert_eq!(queue.call::<_, (u32, bool)>("slow", 7u32).await, Ok((7, true)));
}

fn count(n: u32) -> impl Stream<Item = Result<String, UserError>> {
    stream::iter(0..n).then(async |i| {
        if i == 5 {
            return Err(UserError::new("five is too many"));
        }
        Ok(i.to_string().repeat(3))
    })
}

#[actix::test]
async fn a_stream_gives_each_item_and_the_last_as_the_result() {
    let queue = start(Listener::stream("count", count)).await;
    let updates: Vec<Update> = queue.submit("count", 3u32).await.unwrap().collect().await;
    let mut items = Vec::new();
    for update in updates {
        match update {
            Update::ProcessGenerating { output, .. } => {
                items.push(output.downcast::<String>().unwrap());
            }
            Update::ProcessCompleted { outcome: Outcome::Completed(output), .. } => {
                assert_eq!(output.unwrap().get::<String>().unwrap(), "222");
            }
            Update::Estimation { rank, .. } => assert_eq!(rank, 0),
            Update::ProcessStarts { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(items, ["000", "111", "222"]);
    assert_eq!(queue.call::<_, String>("count", 2u32).await, Ok("111".into()));
}

#[actix::test]
async fn a_stream_without_items_and_one_that_fails_end_too() {
    let queue = start(Listener::stream("count", count)).await;
    assert_eq!(queue.call::<_, String>("count", 0u32).await, Err(CallError::NoOutput));
    let Err(CallError::Failed(failure)) = queue.call::<_, String>("count", 9u32).await else {
        panic!("it fails at the sixth item")
    };
    assert_eq!(failure.message, "five is too many");
    assert_eq!(queue.call::<_, String>("count", 1u32).await, Ok("000".into()));
}

#[actix::test]
async fn a_batch_takes_the_oldest_of_its_listener_and_one_slot() {
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let sizes = async |words: Vec<String>| {
        let size = words.len();
        Ok::<_, String>(words.into_iter().map(|word| format!("{word}/{size}")).collect())
    };
    let queue = Queue::builder()
        .listener(Listener::new("block", gate.handler()).concurrency_id("one"))
        .listener(Listener::batch("sizes", sizes).concurrency_id("one"))
        .start()
        .unwrap();
    let blocker = queue.submit("block", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let mut submissions = Vec::new();
    for n in 0..6 {
        submissions.push(queue.submit("sizes", format!("w{n}")).await.unwrap());
    }
    turnstile.open();
    assert_eq!(blocker.result::<u32>().await, Ok(0));
    let mut results = Vec::new();
    for submission in submissions {
        results.push(submission.result::<String>().await.unwrap());
    }
    // Gradio's default size is four.
    assert_eq!(results, ["w0/4", "w1/4", "w2/4", "w3/4", "w4/2", "w5/2"]);
}

#[actix::test]
async fn a_batch_can_wait_to_be_filled() {
    let size = async |words: Vec<u32>| Ok::<_, String>(vec![words.len(); words.len()]);
    let listener =
        Listener::batch("size", size).max_batch_size(3).max_batch_wait(Duration::from_secs(3600));
    let queue = start(listener).await;
    let first = queue.submit("size", 1u32).await.unwrap();
    let second = queue.submit("size", 2u32).await.unwrap();
    assert_eq!(queue.snapshot().await.concurrency_ids[0].waiting, 2);
    let third = queue.submit("size", 3u32).await.unwrap();
    for submission in [first, second, third] {
        assert_eq!(submission.result::<usize>().await, Ok(3));
    }
}

#[actix::test]
async fn a_batch_with_the_wrong_number_of_results_fails_clearly() {
    let wrong = async |words: Vec<u32>| Ok::<_, String>(words[1..].to_vec());
    let queue = start(Listener::batch("wrong", wrong)).await;
    let error = queue.call::<_, u32>("wrong", 1u32).await.unwrap_err().to_string();
    assert!(error.contains("returned 0 results for 1 events"), "{error}");
    assert_eq!(queue.snapshot().await.listener("wrong").unwrap().failed, 1);
}

#[actix::test]
async fn errors_that_are_meant_for_users_keep_their_title() {
    let fail = async |kind: u32| -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        match kind {
            0 => Err(UserError::new("no good").title("Oh").visible(false).duration(None).into()),
            _ => Err("something broke".into()),
        }
    };
    let queue = start(Listener::new("fail", fail)).await;
    let Err(CallError::Failed(failure)) = queue.call::<_, u32>("fail", 0u32).await else {
        panic!()
    };
    assert_eq!((failure.message.as_str(), failure.title.as_str()), ("no good", "Oh"));
    assert!(failure.for_user && !failure.visible && failure.duration.is_none());
    let Err(CallError::Failed(failure)) = queue.call::<_, u32>("fail", 1u32).await else {
        panic!()
    };
    assert!(!failure.for_user);
    assert_eq!(failure.message, "something broke");
}

#[actix::test]
async fn a_context_says_progress_and_logs_in_order() {
    let talk = async |n: u64, context: EventContext| {
        context.progress(0.25, "warming up");
        for _ in context.track(0..n, "tiles") {
            for _ in context.track(0..2, "rays") {}
        }
        context.info("halfway");
        context.warning("hot");
        context.success("done");
        context.log(Log { visible: false, ..Log::new(LogLevel::Info, "quiet") });
        Ok::<_, String>(n)
    };
    let queue = start(Listener::new("talk", talk)).await;
    let recorder = Recorder::start();
    let id = queue.submit_to("talk", 2u64, recorder.recipient()).await.unwrap();
    let updates = recorder.ended(1).await;
    assert!(updates.iter().all(|update| update.event_id() == id));
    let mut steps = Vec::new();
    let mut logs = Vec::new();
    for update in &updates {
        match update {
            Update::Progress { units, .. } => steps.push(units.clone()),
            Update::Log { log, .. } => logs.push((log.title.clone(), log.message.clone())),
            _ => {}
        }
    }
    assert_eq!(steps[0][0].progress, Some(0.25));
    assert_eq!(steps[0][0].desc.as_deref(), Some("warming up"));
    let last = steps.last().unwrap();
    assert_eq!((last[0].index, last[0].length), (Some(2), Some(2)));
    assert_eq!(last[0].unit.as_deref(), Some("tiles"));
    assert!(steps.iter().any(|units| units.len() == 2 && units[1].index == Some(1)));
    let titles: Vec<_> = logs.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, ["Info", "Warning", "Success", "Info"]);
    assert_eq!(logs[0].1, "halfway");
}

#[actix::test]
async fn loops_and_streams_say_what_they_do() {
    let work = async |n: u32, context: EventContext| {
        let mut tiles = context.track_stream(stream::iter(0..n), "tiles").desc("painting");
        while let Some(tile) = tiles.next().await {
            for _ in context.track(0..tile, "rays").desc("tracing") {}
        }
        Ok::<_, String>(n)
    };
    let queue = start(Listener::new("work", work)).await;
    let recorder = Recorder::start();
    queue.submit_to("work", 3u32, recorder.recipient()).await.unwrap();
    let updates = recorder.ended(1).await;
    let steps = updates.iter().filter_map(|update| match update {
        Update::Progress { units, .. } => Some(units),
        _ => None,
    });
    let steps: Vec<_> = steps.collect();
    let tiles: Vec<_> = steps.iter().filter(|units| units.len() == 1).collect();
    let done: Vec<_> = tiles.iter().map(|units| units[0].index).collect();
    assert_eq!(done, [Some(0), Some(1), Some(2), Some(3)]);
    assert!(steps.iter().all(|units| units[0].length == Some(3)));
    assert!(steps.iter().all(|units| units[0].desc.as_deref() == Some("painting")));
    assert!(steps.iter().any(|units| units.len() == 2 && units[1].index == Some(2)));
    let inner = steps.iter().filter_map(|units| units.get(1));
    assert!(inner.clone().all(|unit| unit.desc.as_deref() == Some("tracing")));
}

#[actix::test]
async fn a_context_knows_its_event_slot_and_deadline() {
    let query = async |(): (), context: EventContext| {
        let left = context.deadline().map(|deadline| deadline - Instant::now());
        Ok::<_, String>((
            context.api_name().to_string(),
            context.slot(),
            context.session().is_none(),
            context.event_id().to_string(),
            left.is_some_and(|left| left > Duration::from_secs(3000)),
        ))
    };
    let listener = Listener::new("query", query).time_limit(Duration::from_secs(3600));
    let queue = start(listener).await;
    let submission = queue.submit("query", ()).await.unwrap();
    let id = submission.id().to_string();
    let known = submission.result::<(String, usize, bool, String, bool)>().await.unwrap();
    assert_eq!(known, ("query".into(), 0, true, id, true));
}

#[actix::test]
async fn a_time_limit_ends_a_run_when_it_is_due() {
    let turnstile = Turnstile::new();
    let listener =
        Listener::new("stuck", turnstile.handler()).time_limit(Duration::from_millis(30));
    let queue = start(listener).await;
    assert_eq!(queue.call::<_, u32>("stuck", 1u32).await, Err(CallError::TimedOut));
    turnstile.empty().await;
    turnstile.open();
    assert_eq!(queue.call::<_, u32>("stuck", 2u32).await, Ok(2));
    assert_eq!(queue.snapshot().await.listener("stuck").unwrap().timed_out, 1);
}

#[actix::test]
async fn a_queue_timeout_ends_a_wait_when_it_is_due() {
    let turnstile = Turnstile::new();
    let listener =
        Listener::new("stuck", turnstile.handler()).queue_timeout(Duration::from_millis(30));
    let queue = start(listener).await;
    let running = queue.submit("stuck", 1u32).await.unwrap();
    turnstile.arrived(1).await;
    assert_eq!(queue.call::<_, u32>("stuck", 2u32).await, Err(CallError::TimedOut));
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(1));
}
