//! Events that outlive their process: this one dies on purpose, and the next one goes on.
//!
//! ```sh
//! cargo run --features journal --example durable     # renders two scenes of five, then dies
//! cargo run --features journal --example durable     # renders the rest
//! ```
//!
//! It takes the path of its file. With `--features journal,cluster`, it takes the URL of a NATS server instead,
//! as nats://127.0.0.1:4222: then the next process may be on another machine.

use std::error::Error;
use std::time::Duration;

use now_serving::{AnyJournal, EventContext, Listener, Queue, Sqlite};

async fn render(scene: String, context: EventContext) -> Result<String, String> {
    println!("{scene}: attempt {}", context.attempt());
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("{scene}: done");
    Ok(format!("{scene}.png"))
}

async fn journal(at: Option<String>) -> Result<AnyJournal, Box<dyn Error>> {
    #[cfg(feature = "cluster")]
    if let Some(url) = at.as_ref().filter(|at| at.starts_with("nats://")) {
        return Ok(now_serving::Nats::connect(url).name("durable").await?.into());
    }
    let file = at.map_or_else(|| std::env::temp_dir().join("now-serving-durable.db"), Into::into);
    Ok(Sqlite::open(file)?.into())
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let queue = Queue::builder()
        .journal(journal(std::env::args().nth(1)).await?)
        .listener(Listener::new("render", render).durable())
        .start()?;

    let snapshot = queue.snapshot().await;
    let left = snapshot.concurrency_ids[0].waiting + snapshot.concurrency_ids[0].running;
    if left > 0 {
        println!("{left} scenes are left of the process before.");
        // What is left goes on by itself; `Queue::follow` gives the result of one whose id was noted.
        while queue.snapshot().await.listener("render").is_some_and(|l| l.completed < left as u64) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        queue.shutdown(Duration::from_secs(10)).await;
        return Ok(());
    }

    let mut submitted = Vec::new();
    for scene in ["dawn", "noon", "dusk", "night", "stars"] {
        submitted.push(queue.submit("render", scene.to_string()).await?);
    }
    // Each is on record by now. Two have their results …
    for submission in submitted.drain(..2) {
        println!("{}", submission.result::<String>().await?);
    }
    println!("The process dies. Start it again.");
    // … and nothing is told, stopped or cleaned up.
    std::process::exit(1)
}
