//! Files of durable events: kept as long as the events and their ends, in later processes too.
#![cfg(all(feature = "journal", feature = "web"))]

mod common;
mod disk;

use std::path::Path;
use std::time::Duration;

use awc::http::StatusCode;
use common::Server;
use disk::Disk;
use now_serving::testing::Turnstile;
use now_serving::{
    EventContext, EventId, FileData, Files, Listener, Queue, Refusal, SubmitError, Web,
};
use serde_json::{Value, json};

/// Much shorter than ends are kept.
const CACHE_TTL: Duration = Duration::from_millis(60);

/// Gives the file in capitals; `!` alone fails.
fn shout(turnstile: &Turnstile) -> Listener<FileData, FileData> {
    let turnstile = turnstile.clone();
    let work = move |text: FileData, context: EventContext| {
        let turnstile = turnstile.clone();
        async move {
            turnstile.pass().await;
            let text = String::from_utf8(text.read().await?).unwrap().to_uppercase();
            match &*text {
                "!" => Err(std::io::Error::other("it can't be louder")),
                _ => context.files().save_async("loud.txt", text).await,
            }
        }
    };
    Listener::new("shout", work).durable()
}

fn start(disk: &Disk, files: &Path, turnstile: &Turnstile) -> (Queue, Server) {
    let builder = disk.open().cache_dir(files).listener(shout(turnstile));
    let queue = builder.start().unwrap();
    let web = Web::builder(&queue).cache_ttl(CACHE_TTL).show_error(true).start().unwrap();
    let server = Server::start(&web);
    (queue, server)
}

/// Waits until a file of no event's, made now, is gone: those that nothing keeps are swept by then.
async fn swept(queue: &Queue) {
    let file = Files::of(queue).save("any.txt", "any").unwrap();
    let path = file.path().to_path_buf();
    drop(file);
    while path.exists() {
        actix::clock::sleep(Duration::from_millis(5)).await;
    }
}

async fn submit(queue: &Queue, text: &str) -> EventId {
    let file = Files::of(queue).save("text.txt", text).unwrap();
    let submission = queue.submit("shout", file).await.unwrap();
    let id = submission.id();
    submission.detach();
    id
}

async fn end(server: &Server, event: EventId) -> Value {
    let mut stream = server.stream(&format!("/gradio_api/call/shout/{event}")).await;
    stream.rest().await.pop().expect("it has an end").data
}

#[actix::test]
async fn what_an_event_names_is_there_when_it_runs_and_as_long_as_its_end() {
    let (disk, directory, turnstile) =
        (Disk::new(), tempfile::tempdir().unwrap(), Turnstile::new());
    let (first, server) = start(&disk, directory.path(), &turnstile);
    let done = submit(&first, "done").await;
    turnstile.let_through(1);
    end(&server, done).await;
    let failed = submit(&first, "!").await;
    turnstile.let_through(1);
    end(&server, failed).await;
    let (runs, waits) = (submit(&first, "runs").await, submit(&first, "waits").await);
    turnstile.arrived(3).await;
    swept(&first).await;

    // The first process dies, with its files where they are.
    let (disk, turnstile) = (disk.as_it_is(), Turnstile::new());
    drop((first, server));
    let (second, server) = start(&disk, directory.path(), &turnstile);
    swept(&second).await;
    turnstile.open();
    for (event, expected) in [(done, "DONE"), (runs, "RUNS"), (waits, "WAITS")] {
        let end = end(&server, event).await;
        swept(&second).await;
        let url = end[0]["url"].as_str().unwrap_or_else(|| panic!("{expected}: {end}"));
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{expected}");
        assert_eq!(answer.body().await.unwrap(), expected);
    }
    // What has failed can be submitted again, with its file.
    let again = second.resubmit(failed).await.unwrap();
    let failure = again.result::<FileData>().await.unwrap_err();
    assert!(failure.to_string().contains("it can't be louder"), "{failure}");
}

#[actix::test]
async fn without_a_directory_for_them_files_of_durable_events_are_refused_in_words() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let queue = disk.open().listener(shout(&turnstile)).start().unwrap();
    let file = Files::of(&queue).save("text.txt", "text").unwrap();
    let refused = queue.submit("shout", file).await.expect_err("its file wouldn't be kept");
    let SubmitError::Refused(Refusal::NotRecorded { reason, .. }) = refused else {
        panic!("{refused}")
    };
    assert!(reason.contains("QueueBuilder::cache_dir"), "{reason}");
}

#[actix::test]
async fn the_directory_is_set_in_one_place() {
    let (disk, directory) = (Disk::new(), tempfile::tempdir().unwrap());
    let queue = disk.open().cache_dir(directory.path()).listener(shout(&Turnstile::new()));
    let queue = queue.start().unwrap();
    let refused = Web::builder(&queue).cache_dir(directory.path()).start();
    assert!(refused.is_err());
    assert!(json!(Web::new(&queue).snapshot().await).is_object());
}
