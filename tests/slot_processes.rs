//! A child process for each slot: what is left in its pipe reaches nobody else, and one that dies
//! costs at most the event that saw it.
#![cfg(unix)]

use std::process::Stdio;
use std::time::Duration;

use now_serving::testing::Turnstile;
use now_serving::{CallError, Listener, Queue, QueueBuilder, Slot, SlotResource};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Answers each line with the same line, when it gets one more word.
struct Renderer {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

const PROGRAM: &str = r#"while read -r text; do
    [ "$text" = die ] && exit 1
    read -r go
    echo "$text"
done"#;

impl Renderer {
    fn start() -> std::io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Ok(Renderer { child, input, output })
    }

    async fn send(&mut self, line: &str) -> std::io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        self.input.flush().await
    }

    async fn answer(&mut self) -> Result<String, String> {
        let line = self.output.next_line().await.map_err(|error| error.to_string())?;
        line.ok_or_else(|| "the child has died".into())
    }
}

async fn render(text: String, mut child: Slot<Renderer>) -> Result<String, String> {
    let sent = async {
        child.send(&text).await?;
        child.send("go").await
    };
    let answer = match sent.await {
        Ok(()) => child.answer().await,
        Err(error) => Err(error.to_string()),
    };
    if answer.is_err() {
        Slot::discard(child);
    }
    answer
}

/// Leaves a dead child behind.
async fn crash(_: String, mut child: Slot<Renderer>) -> std::io::Result<()> {
    child.send("die").await?;
    child.child.wait().await?;
    Ok(())
}

/// With a listener that sends and waits at the turnstile before it reads the answer.
fn builder(turnstile: &Turnstile) -> QueueBuilder {
    let gate = turnstile.clone();
    let hang = move |text: String, mut child: Slot<Renderer>| {
        let gate = gate.clone();
        async move {
            child.send(&text).await.map_err(|error| error.to_string())?;
            child.send("go").await.map_err(|error| error.to_string())?;
            gate.pass().await;
            child.answer().await
        }
    };
    Queue::builder()
        .listener(Listener::new("render", render).concurrency_id("children"))
        .listener(Listener::new("crash", crash).concurrency_id("children"))
        .listener(Listener::new("hang", hang).concurrency_id("children"))
}

async fn rendered(queue: &Queue, text: &str) -> Result<String, CallError> {
    queue.call("render", text.to_string()).await
}

#[actix::test]
async fn nobody_gets_the_answer_to_somebody_else() {
    let turnstile = Turnstile::new();
    let builder = builder(&turnstile).slots("children", |_| async { Renderer::start() });
    let queue = builder.start().unwrap();
    let cut_short = queue.submit("hang", "a secret".to_string()).await.unwrap();
    turnstile.arrived(1).await;
    drop(cut_short);
    for text in ["B0", "B1", "B2"] {
        assert_eq!(rendered(&queue, text).await, Ok(text.to_string()));
    }
}

#[actix::test]
async fn a_child_that_died_fails_nobody_where_it_is_asked_first() {
    let child = SlotResource::new(|_| async { Renderer::start() })
        .check(async |child: &mut Renderer| matches!(child.child.try_wait(), Ok(None)));
    let queue = builder(&Turnstile::new()).slot_resource("children", child).start().unwrap();
    for round in 0..3 {
        assert_eq!(queue.call::<_, ()>("crash", String::new()).await, Ok(()));
        let text = format!("C{round}");
        assert_eq!(rendered(&queue, &text).await, Ok(text));
    }
}

#[actix::test]
async fn a_child_that_died_fails_one_event_where_its_handler_discards_it() {
    let builder = builder(&Turnstile::new()).slots("children", |_| async { Renderer::start() });
    let queue = builder.start().unwrap();
    assert_eq!(queue.call::<_, ()>("crash", String::new()).await, Ok(()));
    assert!(matches!(rendered(&queue, "C0").await, Err(CallError::Failed(_))));
    for text in ["C1", "C2", "C3"] {
        assert_eq!(rendered(&queue, text).await, Ok(text.to_string()));
    }
}

#[actix::test]
async fn a_shutdown_asks_children_to_end_and_waits_for_that() {
    let (sender, ended) = std::sync::mpsc::channel();
    let child = SlotResource::new(|_| async { Renderer::start() }).close(
        async move |mut child: Renderer| {
            let sent = child.send("die").await;
            let status = child.child.wait().await;
            let _ = sender.send((sent.is_ok(), status.ok().and_then(|status| status.code())));
        },
    );
    let queue = builder(&Turnstile::new()).slot_resource("children", child).start().unwrap();
    assert_eq!(rendered(&queue, "A").await, Ok("A".to_string()));
    let down = queue.shutdown(Duration::from_secs(5)).await;
    assert!(down.drained && down.closed);
    assert_eq!(ended.try_recv(), Ok((true, Some(1))));
}
