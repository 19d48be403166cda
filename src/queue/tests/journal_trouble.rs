//! What becomes of events and operators' wishes while the journal can't be written.

use futures::StreamExt;

use crate::event::refusal::Refusal;
use crate::event::update::{Outcome, Update};
use crate::handler::durable::OnCrash;
use crate::journal::error::JournalError;
use crate::journal::fake::FakeJournal;
use crate::queue::Queue;
use crate::queue::error::{ControlError, SubmitError};
use crate::queue::listener::Listener;
use crate::queue::submission::Submission;
use crate::testing::Turnstile;

fn start(journal: &FakeJournal, turnstile: &Turnstile) -> Queue {
    let listener = Listener::new("wait", turnstile.handler())
        .concurrency_limit(2)
        .durable()
        .on_crash(OnCrash::Fail);
    let echo = Listener::new("echo", async |n: u32| Ok::<_, String>(n));
    let builder = Queue::builder().arbiters(0).listener(listener).listener(echo);
    builder.test_journal(std::sync::Arc::new(journal.clone())).start().expect("it starts")
}

async fn end(mut submission: Submission) -> Outcome {
    while let Some(update) = submission.next().await {
        if let Update::ProcessCompleted { outcome, .. } = update {
            return outcome;
        }
    }
    panic!("it has an end")
}

#[actix::test]
async fn when_it_breaks_nothing_is_admitted_and_what_was_goes_on_in_the_next_process() {
    let (journal, turnstile) = (FakeJournal::new(), Turnstile::new());
    let queue = start(&journal, &turnstile);
    let running = queue.submit("wait", 1u32).await.expect("it is accepted");
    turnstile.arrived(1).await;
    let (id, other) = (running.id(), queue.submit("wait", 2u32).await.expect("it is accepted"));
    turnstile.arrived(2).await;
    let waiting = queue.submit("wait", 3u32).await.expect("it is accepted");
    journal.break_down(false);

    // What runs may finish; its end can't be recorded.
    turnstile.open();
    assert!(matches!(end(running).await, Outcome::Stopped), "to its client it was stopped");
    assert!(matches!(end(other).await, Outcome::Stopped));
    assert!(matches!(end(waiting).await, Outcome::Stopped), "it doesn't start any more");
    let refused = queue.submit("wait", 4u32).await.expect_err("nothing is admitted");
    let SubmitError::Refused(Refusal::NotRecorded { reason, full: false }) = refused else {
        panic!("{refused}")
    };
    assert!(reason.contains("restart the service"), "{reason}");
    let snapshot = queue.snapshot().await;
    let trouble = snapshot.concurrency_ids[0].journal_trouble.as_deref();
    assert!(trouble.is_some_and(|trouble| trouble.contains("a cable was pulled")), "{trouble:?}");
    assert_eq!(queue.call("echo", 5u32).await, Ok(5u32), "others don't need it");
    let refused = queue.pause("wait").await.expect_err("it isn't recorded");
    assert!(matches!(refused, ControlError::NotRecorded(JournalError::Broken(_))), "{refused}");
    drop(queue);

    let journal = journal.die(0);
    let turnstile = Turnstile::new();
    let queue = start(&journal, &turnstile);
    turnstile.arrived(1).await;
    turnstile.open();
    let again = queue.follow(id).await.expect("it is known");
    let Outcome::Failed(failure) = end(again).await else { panic!("it must not run twice") };
    assert!(failure.message.contains("must not run twice"), "{failure}");
    while !journal.disk().kept.live.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.disk().kept.ends.len(), 3);
}

/// What runs is interrupted: its end couldn't be kept, and the other process runs it too.
#[actix::test]
async fn when_another_process_takes_over_what_is_here_stops_and_goes_on_there() {
    let (journal, turnstile) = (FakeJournal::new(), Turnstile::new());
    let queue = start(&journal, &turnstile);
    let running = queue.submit("wait", 1u32).await.expect("it is accepted");
    turnstile.arrived(1).await;
    let other = queue.submit("wait", 2u32).await.expect("it is accepted");
    turnstile.arrived(2).await;
    let waiting = queue.submit("wait", 3u32).await.expect("it is accepted");
    // Nothing is to be recorded, and nobody lets the handlers return.
    journal.take_over();
    for submission in [running, other, waiting] {
        assert!(matches!(end(submission).await, Outcome::Stopped));
    }
    let refused = queue.submit("wait", 4u32).await.expect_err("nothing is admitted");
    assert!(refused.to_string().contains("taken over by another"), "{refused}");
    assert_eq!(queue.call("echo", 5u32).await, Ok(5u32), "others don't need it");
    let there = &journal.disk().kept;
    assert_eq!((there.live.len(), there.ends.len()), (3, 0), "they go on there");
}

#[actix::test]
async fn a_pause_is_acknowledged_once_it_is_on_record() {
    let (journal, turnstile) = (FakeJournal::stepped(), Turnstile::new());
    let queue = start(&journal, &turnstile);
    let mut pause = std::pin::pin!(queue.pause("wait"));
    assert!(futures::poll!(&mut pause).is_pending());
    while journal.on_their_way() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(&mut pause).is_pending());
    journal.settle_one();
    assert!(journal.disk().kept.steered[0].1.paused);
    pause.await.expect("it is on record");
}

#[actix::test]
async fn a_pause_that_a_full_disk_does_not_take_holds_and_is_recorded_later() {
    tokio::time::pause();
    let (journal, turnstile) = (FakeJournal::new(), Turnstile::new());
    let queue = start(&journal, &turnstile);
    journal.disk().trouble = Some(JournalError::Full);
    let refused = queue.pause("wait").await;
    assert_eq!(refused, Err(ControlError::NotRecorded(JournalError::Full)));
    assert!(queue.snapshot().await.concurrency_ids[0].paused, "it holds");
    journal.disk().trouble = None;
    // Virtual time goes on to the next attempt as soon as nothing else is to be done.
    while journal.disk().kept.steered.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(journal.disk().kept.steered[0].1.paused);
}
