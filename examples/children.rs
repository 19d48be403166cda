//! A child process for each slot: started before the slot takes events, asked by one event at a time,
//! started anew where it has died or nobody knows what is left in its pipe.
//!
//! ```text
//! cargo run --example children
//! ```

use std::process::Stdio;
use std::time::Duration;

use now_serving::{Listener, Queue, QueueBuilder, Slot, SlotResource};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Stands for a real renderer: answers each line with the same in capitals, and dies of "die".
const PROGRAM: &str = r#"while read -r line; do
    [ "$line" = die ] && exit 1
    echo "$line" | tr a-z A-Z
done"#;

pub struct Renderer {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Renderer {
    fn start() -> std::io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let output = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Renderer { child, input, output: BufReader::new(output).lines() })
    }

    async fn ask(&mut self, scene: &str) -> std::io::Result<String> {
        self.input.write_all(format!("{scene}\n").as_bytes()).await?;
        let answer = self.output.next_line().await?;
        answer.ok_or_else(|| std::io::Error::other("the renderer has died"))
    }
}

/// An event that is cancelled in the middle of `ask` leaves an answer in the pipe. Its child is replaced,
/// so that nobody else reads that.
async fn render(scene: String, mut renderer: Slot<Renderer>) -> std::io::Result<String> {
    let rendered = renderer.ask(&scene).await;
    if rendered.is_err() {
        // This handler returns by itself: it must say that its child is of no more use.
        Slot::discard(renderer);
    }
    rendered
}

pub fn queue() -> QueueBuilder {
    let renderer = SlotResource::new(async |_slot| Renderer::start())
        // One that died while its slot was idle fails no event.
        .check(async |renderer: &mut Renderer| matches!(renderer.child.try_wait(), Ok(None)))
        // At the end it sees that its input is closed, and ends by itself.
        .close(async |Renderer { mut child, input, .. }| {
            drop(input);
            // Its slot is busy meanwhile, so that one that hangs is killed.
            if tokio::time::timeout(Duration::from_millis(500), child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        });
    let render = Listener::new("render", render).concurrency_id("renderers").concurrency_limit(2);
    Queue::builder().listener(render).slot_resource("renderers", renderer)
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue = queue().start()?;
    let render = queue.listener::<String, String>("render")?;
    for scene in ["a fox", "die", "the sea", "a hare"] {
        match render.call(scene.into()).await {
            Ok(picture) => println!("{scene}: {picture}"),
            Err(error) => println!("{scene}: {error}"),
        }
    }
    queue.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
