//! Where a listener asks for it, the handlers of a concurrency id run on several threads.

use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::future::{join, join_all, pending};
use now_serving::testing::Turnstile;
use now_serving::{
    CallError, Listener, Queue, QueueBuilder, QueueSnapshot, Slot, SlotResource, StartError,
};

/// Passes the turnstile, and notes on which thread.
fn noted(turnstile: &Turnstile) -> (Listener<u32, u32>, Arc<Mutex<Vec<ThreadId>>>) {
    let (turnstile, threads) = (turnstile.clone(), Arc::<Mutex<Vec<ThreadId>>>::default());
    let seen = threads.clone();
    let pass = move |n: u32| {
        let (turnstile, seen) = (turnstile.clone(), seen.clone());
        async move {
            // Not Send: it stays where it was made.
            let here = Rc::new(thread::current().id());
            seen.lock().unwrap().push(*here);
            turnstile.pass().await;
            assert_eq!(*here, thread::current().id());
            Ok::<_, String>(n)
        }
    };
    (Listener::new("pass", pass), threads)
}

fn running(snapshot: &QueueSnapshot, id: &str) -> usize {
    snapshot.concurrency_id(id).map(|id| id.running).unwrap()
}

/// The threads of two events that run at once, with that of a listener beside them.
async fn threads_of_two(options: fn(Listener<u32, u32>) -> Listener<u32, u32>) -> [ThreadId; 3] {
    let turnstile = Turnstile::new();
    let (listener, threads) = noted(&turnstile);
    let (ended, ends) = channel();
    let whoami = move |(): ()| {
        ended.send(thread::current().id()).unwrap();
        async { Ok::<_, String>(()) }
    };
    let queue = Queue::builder()
        .arbiters(2)
        .listener(options(listener.concurrency_limit(2)))
        .listener(Listener::new("whoami", whoami))
        .start()
        .unwrap();
    let calls = join(queue.call("pass", 1u32), queue.call("pass", 2u32));
    let check = async {
        turnstile.arrived(2).await;
        turnstile.open();
    };
    let (results, ()) = join(calls, check).await;
    assert_eq!(results, (Ok(1u32), Ok(2u32)));
    assert_eq!(queue.call("whoami", ()).await, Ok(()));
    let threads = threads.lock().unwrap();
    [threads[0], threads[1], ends.recv().unwrap()]
}

#[actix::test]
async fn its_slots_are_on_different_threads_and_on_no_other_ids() {
    let [first, second, other] = threads_of_two(Listener::spread).await;
    assert!(first != second && first != other && second != other);
    assert!(![first, second, other].contains(&thread::current().id()));
    let [first, second, _] = threads_of_two(|listener| listener).await;
    assert_eq!(first, second);
}

#[actix::test]
async fn it_holds_for_all_listeners_of_the_id() {
    let turnstile = Turnstile::new();
    let (listener, threads) = noted(&turnstile);
    let echo = Listener::new("echo", async |n: u32| Ok::<_, String>(n));
    let queue = Queue::builder()
        .arbiters(2)
        .listener(listener.concurrency_id("id").concurrency_limit(2))
        .listener(echo.concurrency_id("id").spread())
        .start()
        .unwrap();
    let calls = join(queue.call("pass", 1u32), queue.call("pass", 2u32));
    let check = async {
        turnstile.arrived(2).await;
        turnstile.open();
    };
    assert_eq!(join(calls, check).await.0, (Ok(1u32), Ok(2u32)));
    let seen = threads.lock().unwrap().clone();
    assert_ne!(seen[0], seen[1]);
    assert_eq!(queue.call("echo", 7u32).await, Ok(7u32));
}

#[actix::test]
async fn handlers_that_compute_run_side_by_side_while_the_queue_answers() {
    // None gets past before all have begun, and each keeps its thread meanwhile.
    let all_begun = Arc::new(Barrier::new(3));
    let begun = all_begun.clone();
    let compute = move |n: u32| {
        begun.wait();
        async move { Ok::<_, String>(n) }
    };
    let queue = Queue::builder()
        .arbiters(2)
        .listener(Listener::new("compute", compute).concurrency_limit(2).spread())
        .start()
        .unwrap();
    let first = queue.submit("compute", 1u32).await.unwrap();
    let second = queue.submit("compute", 2u32).await.unwrap();
    let waiting = queue.submit("compute", 3u32).await.unwrap();
    while running(&queue.snapshot().await, "compute") < 2 {}
    queue.cancel("compute", waiting.id()).unwrap();
    assert_eq!(waiting.result::<u32>().await, Err(CallError::Cancelled));
    assert_eq!(running(&queue.snapshot().await, "compute"), 2);
    all_begun.wait();
    assert_eq!((first.result().await, second.result().await), (Ok(1u32), Ok(2u32)));
}

#[actix::test]
async fn whoever_has_heard_how_an_event_ended_finds_its_slot_free() {
    let echo = |n: u32| async move { if n.is_multiple_of(3) { Err("no") } else { Ok(n) } };
    let queue = Queue::builder()
        .arbiters(2)
        .listener(Listener::new("echo", echo).concurrency_limit(2).max_size(1).spread())
        .start()
        .unwrap();
    for n in 0..500 {
        let two = join(queue.call::<u32, u32>("echo", n), queue.call::<u32, u32>("echo", n + 1));
        let (first, second) = two.await;
        assert_eq!((first.is_ok(), second.is_ok()), (n % 3 > 0, (n + 1) % 3 > 0));
        assert_eq!(running(&queue.snapshot().await, "echo"), 0);
        let permits = (queue.acquire("echo").await.unwrap(), queue.acquire("echo").await.unwrap());
        drop(permits);
    }
}

#[actix::test]
async fn the_limit_holds_and_no_event_is_lost() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let (listener, threads) = noted(&turnstile);
    let queue = Queue::builder()
        .arbiters(2)
        .listener(listener.concurrency_limit(3).spread())
        .start()
        .unwrap();
    let results = join_all((0..400).map(|n| queue.call::<u32, u32>("pass", n))).await;
    assert!(results.into_iter().eq((0..400).map(Ok)));
    assert!(turnstile.most_inside() <= 3);
    // Three slots on two threads.
    let mut threads = threads.lock().unwrap().clone();
    threads.dedup();
    assert!(threads.iter().all(|thread| *thread == threads[0] || *thread == threads[1]));
}

#[actix::test]
async fn a_slot_comes_back_from_cancels_time_limits_and_panics() {
    let turnstile = Turnstile::new();
    let waiting = turnstile.clone();
    let wait = move |n: u32| {
        let waiting = waiting.clone();
        async move {
            if n == 0 {
                panic!("as told");
            }
            waiting.pass().await;
            Ok::<_, String>(n)
        }
    };
    let slow = async |n: u32| {
        pending::<()>().await;
        Ok::<_, String>(n)
    };
    let slow = Listener::new("slow", slow).time_limit(Duration::from_millis(1));
    let queue = Queue::builder()
        .arbiters(2)
        .listener(Listener::new("wait", wait).concurrency_id("id").concurrency_limit(2).spread())
        .listener(slow.concurrency_id("id"))
        .start()
        .unwrap();
    for round in 1..=50 {
        let kept = queue.submit("wait", 1u32).await.unwrap();
        let cancelled = queue.submit("wait", 2u32).await.unwrap();
        turnstile.arrived(2 * round).await;
        queue.cancel("wait", cancelled.id()).unwrap();
        assert_eq!(cancelled.result::<u32>().await, Err(CallError::Cancelled));
        let panicked = queue.call::<u32, u32>("wait", 0).await;
        assert!(panicked.unwrap_err().to_string().contains("as told"));
        assert_eq!(queue.call::<u32, u32>("slow", 1).await, Err(CallError::TimedOut));
        turnstile.let_through(1);
        assert_eq!(kept.result().await, Ok(1u32));
        assert_eq!(running(&queue.snapshot().await, "id"), 0);
    }
    assert_eq!(turnstile.inside(), 0);
}

/// What a slot owns; it can't leave its thread.
struct Local {
    thread: Rc<ThreadId>,
    ended: Sender<ThreadId>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.ended.send(thread::current().id()).unwrap();
        assert_eq!(*self.thread, thread::current().id());
    }
}

#[actix::test]
async fn a_resource_stays_on_its_slots_thread() {
    let (ended, ends) = channel();
    let local = SlotResource::new(move |_| {
        let ended = ended.clone();
        async move { Ok::<_, String>(Local { thread: Rc::new(thread::current().id()), ended }) }
    })
    .check(async |local: &mut Local| *local.thread == thread::current().id())
    .close(async |local: Local| assert_eq!(*local.thread, thread::current().id()));
    let turnstile = Turnstile::new();
    let waiting = turnstile.clone();
    let lend = move |n: u32, local: Slot<Local>| {
        let waiting = waiting.clone();
        async move {
            waiting.pass().await;
            let is_here = *local.thread == thread::current().id();
            Ok::<_, String>(if is_here { n } else { 0 })
        }
    };
    let queue = Queue::builder()
        .arbiters(2)
        .listener(Listener::new("lend", lend).concurrency_limit(2).spread())
        .slot_resource("lend", local)
        .start()
        .unwrap();
    let cut_short = queue.submit("lend", 1u32).await.unwrap();
    let kept = queue.submit("lend", 2u32).await.unwrap();
    turnstile.arrived(2).await;
    queue.cancel("lend", cut_short.id()).unwrap();
    assert_eq!(cut_short.result::<u32>().await, Err(CallError::Cancelled));
    turnstile.open();
    assert_eq!(kept.result().await, Ok(2u32));
    let results = join_all((3..50).map(|n| queue.call::<u32, u32>("lend", n))).await;
    assert!(results.into_iter().eq((3..50).map(Ok)));
    let shutdown = queue.shutdown(Duration::from_secs(60)).await;
    assert!(shutdown.drained && shutdown.stopped && shutdown.closed, "{shutdown:?}");
    // One that was cut short, and one for each of the two slots.
    let mut threads: Vec<_> = ends.try_iter().collect();
    assert_eq!(threads.len(), 3);
    threads.sort_by_key(|thread| format!("{thread:?}"));
    threads.dedup();
    assert_eq!(threads.len(), 2);
}

#[actix::test]
async fn its_limit_can_be_changed() {
    let turnstile = Turnstile::new();
    let (listener, _) = noted(&turnstile);
    let queue = Queue::builder().arbiters(2).listener(listener.spread()).start().unwrap();
    let calls = join_all((0..6).map(|n| queue.call::<u32, u32>("pass", n)));
    let change = async {
        turnstile.arrived(1).await;
        queue.set_concurrency_limit("pass", 4).await.unwrap();
        turnstile.arrived(4).await;
        queue.set_concurrency_limit("pass", 1).await.unwrap();
        turnstile.let_through(4);
        turnstile.arrived(5).await;
        assert_eq!(running(&queue.snapshot().await, "pass"), 1);
        queue.set_concurrency_limit("pass", 2).await.unwrap();
        turnstile.open();
    };
    let (results, ()) = join(calls, change).await;
    assert!(results.into_iter().eq((0..6).map(Ok)));
}

#[actix::test]
async fn its_handlers_end_with_the_queue() {
    let turnstile = Turnstile::new();
    let (listener, _) = noted(&turnstile);
    let listener = listener.concurrency_limit(2).spread();
    let queue = Queue::builder().arbiters(2).listener(listener).start().unwrap();
    let running = join_all((0..3u32).map(|n| queue.submit("pass", n))).await;
    turnstile.arrived(2).await;
    drop(queue);
    turnstile.empty().await;
    for submission in running {
        let result = submission.unwrap().result::<u32>().await;
        assert!(matches!(result, Err(CallError::Failed(_))), "{result:?}");
    }
}

#[actix::test]
async fn a_shutdown_waits_for_them_and_interrupts_them() {
    let turnstile = Turnstile::new();
    let (listener, _) = noted(&turnstile);
    let listener = listener.concurrency_limit(2).spread();
    let queue = Queue::builder().arbiters(2).listener(listener).start().unwrap();
    let first = queue.submit("pass", 1u32).await.unwrap();
    let second = queue.submit("pass", 2u32).await.unwrap();
    turnstile.arrived(2).await;
    turnstile.let_through(1);
    let shutdown = queue.shutdown(Duration::ZERO).await;
    assert!(shutdown.stopped, "{shutdown:?}");
    assert_eq!(turnstile.inside(), 0);
    for result in [first.result::<u32>().await, second.result::<u32>().await] {
        assert!(matches!(result, Ok(_) | Err(CallError::Stopped)), "{result:?}");
    }
}

#[actix::test]
async fn with_one_thread_for_everything_it_has_no_effect() {
    let here = thread::current().id();
    let whoami = move |(): ()| async move { Ok::<_, String>(thread::current().id() == here) };
    let queue = Queue::builder()
        .arbiters(0)
        .listener(Listener::new("whoami", whoami).concurrency_limit(2).spread())
        .start()
        .unwrap();
    assert_eq!(queue.call("whoami", ()).await, Ok(true));
}

#[actix::test]
async fn an_id_with_a_thread_of_its_own_is_not_spread() {
    let listener = |name: &str| Listener::new(name, async |n: u32| Ok::<_, String>(n));
    let refused = |builder: QueueBuilder| builder.start().map(|_| ()).unwrap_err();
    let both = Queue::builder().listener(listener("paint").own_arbiter().spread());
    let expected = StartError::SpreadOnOwnArbiter {
        id: "paint".into(),
        spread: "paint".into(),
        own_arbiter: "paint".into(),
    };
    assert_eq!(refused(both), expected);
    let of_one_id = Queue::builder()
        .listener(listener("paint").concurrency_id("gpu").own_arbiter())
        .listener(listener("draw").concurrency_id("gpu").spread());
    let text = refused(of_one_id).to_string();
    assert!(
        text.starts_with(
            "concurrency id \"gpu\" has spread() on listener \"draw\", but own_arbiter() on \
             listener \"paint\""
        ),
        "{text}"
    );
}
