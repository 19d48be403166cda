//! Calling from inside the process: typed handles, updates, followers, mistakes.

use std::sync::Arc;
use std::sync::Mutex;

use actix::{Actor, Context, Handler};
use futures::StreamExt;
use now_serving::testing::Turnstile;
use now_serving::{CallError, EventId, Listener, Outcome, Queue, SubmitError, Update};

async fn length(text: String) -> Result<usize, String> {
    Ok(text.len())
}

#[actix::test]
async fn an_updates_stream_tells_the_whole_story_and_ends() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().listener(Listener::new("a", turnstile.handler())).start().unwrap();
    let first = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let mut second = queue.submit("a", 1u32).await.unwrap();
    let id = second.id();
    let Some(Update::Estimation { event_id, rank: 0, queue_size: 1, rank_eta: None }) =
        second.next().await
    else {
        panic!("an estimation comes first")
    };
    assert_eq!(event_id, id);
    turnstile.open();
    assert_eq!(first.result::<u32>().await, Ok(0));
    let rest: Vec<Update> = second.collect().await;
    assert!(rest.iter().all(|update| update.event_id() == id));
    let [.., Update::ProcessStarts { eta, .. }, Update::ProcessCompleted { outcome, .. }] =
        rest.as_slice()
    else {
        panic!("{rest:?}")
    };
    assert!(eta.is_some(), "one run has been seen");
    let Outcome::Completed(Some(output)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.get::<u32>(), Some(&1));
}

#[actix::test]
async fn a_handle_goes_to_other_threads() {
    let queue = Queue::builder().listener(Listener::new("length", length)).start().unwrap();
    let handle = queue.listener::<String, usize>("length").unwrap();
    let other = handle.clone();
    let thread = std::thread::spawn(move || {
        futures::executor::block_on(async move { other.call("four".to_string()).await })
    });
    assert_eq!(handle.call("three".to_string()).await, Ok(5));
    assert_eq!(thread.join().unwrap(), Ok(4));
}

#[actix::test]
async fn a_handle_keeps_its_queue_alive() {
    let queue = Queue::builder().listener(Listener::new("length", length)).start().unwrap();
    let handle = queue.listener::<String, usize>("length").unwrap();
    drop(queue);
    assert_eq!(handle.call("three".to_string()).await, Ok(5));
}

#[actix::test]
async fn mistakes_are_named() {
    let queue = Queue::builder().listener(Listener::new("length", length)).start().unwrap();
    let unknown = CallError::Submit(SubmitError::UnknownListener("nobody".into()));
    assert_eq!(queue.call::<_, usize>("nobody", 1u32).await, Err(unknown));
    let wrong = queue.call::<_, usize>("length", 1u32).await.unwrap_err().to_string();
    assert_eq!(wrong, "listener \"length\" takes alloc::string::String, not u32");
    let wrong = queue.listener::<String, u8>("length").unwrap_err().to_string();
    assert_eq!(wrong, "listener \"length\" gives usize, not u8");
    let submission = queue.submit("length", "a".to_string()).await.unwrap();
    assert_eq!(submission.result::<u8>().await, Err(CallError::WrongOutput("u8")));
}

#[derive(Default)]
struct Follower(Arc<Mutex<Vec<(EventId, bool)>>>);

impl Actor for Follower {
    type Context = Context<Self>;
}

impl Handler<Update> for Follower {
    type Result = ();

    fn handle(&mut self, update: Update, _: &mut Self::Context) {
        self.0.lock().unwrap().push((update.event_id(), update.is_terminal()));
    }
}

#[actix::test]
async fn any_actor_can_follow_events() {
    let queue = Queue::builder().listener(Listener::new("length", length)).start().unwrap();
    let follower = Follower::default();
    let heard = follower.0.clone();
    let address = follower.start();
    let mut ids = Vec::new();
    for n in 0..5 {
        let recipient = address.clone().recipient();
        ids.push(queue.submit_to("length", "x".repeat(n), recipient).await.unwrap());
    }
    while heard.lock().unwrap().iter().filter(|(_, terminal)| *terminal).count() < 5 {
        tokio::task::yield_now().await;
    }
    let ended: Vec<EventId> =
        heard.lock().unwrap().iter().filter(|(_, end)| *end).map(|(id, _)| *id).collect();
    assert_eq!(ended, ids);
}

#[actix::test]
async fn an_event_outlives_the_actor_that_followed_it() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().listener(Listener::new("a", turnstile.handler())).start().unwrap();
    let address = Follower::default().start();
    queue.submit_to("a", 0u32, address.clone().recipient()).await.unwrap();
    turnstile.arrived(1).await;
    drop(address);
    turnstile.open();
    assert_eq!(queue.call::<_, u32>("a", 1u32).await, Ok(1));
    assert_eq!(queue.snapshot().await.listener("a").unwrap().completed, 2);
}
