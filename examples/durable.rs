//! Events that outlive their process: this one dies on purpose, and the next one goes on.
//!
//! ```sh
//! cargo run --features journal --example durable     # renders two scenes of five, then dies
//! cargo run --features journal --example durable     # renders the rest
//! ```

use std::path::PathBuf;
use std::time::Duration;

use now_serving::{EventContext, Listener, Queue, Sqlite};

async fn render(scene: String, context: EventContext) -> Result<String, String> {
    println!("{scene}: attempt {}", context.attempt());
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("{scene}: done");
    Ok(format!("{scene}.png"))
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.unwrap_or_else(|| std::env::temp_dir().join("now-serving-durable.db"));
    let queue = Queue::builder()
        .journal(Sqlite::open(&file)?)
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
