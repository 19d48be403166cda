//! Durable events with the journal on NATS, from submit to end, beside a bare publish to a stream like the
//! journal's and beside a work queue of JetStream's own: a stream from which a consumer with as many
//! unacknowledged messages as there are slots takes them. Prints one line of JSON a measurement; `run` starts
//! the servers and makes a table.
//!
//! ```sh
//! cargo bench --features cluster --bench nats -- nats://127.0.0.1:4222
//! ```

#[path = "work_queue.rs"]
mod work_queue;

use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use now_serving::{Limit, Listener, ListenerHandle, Nats, Queue};
use work_queue::WorkQueue;

/// How long each is measured.
const TIME: Duration = Duration::from_secs(4);

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

const INPUT: &str = "a scene at dawn";

fn say(who: &str, in_flight: usize, what: &str, value: f64) {
    println!(r#"{{"who": "{who}", "in_flight": {in_flight}, "{what}": {value}}}"#);
}

/// As many callers, each with one call after the other, until the time is up. Gives events a second.
async fn rate<F: Future<Output = ()>>(
    in_flight: usize,
    time: Duration,
    call: impl Fn() -> F,
) -> f64 {
    let begun = Instant::now();
    let callers = (0..in_flight).map(|_| async {
        let mut events = 0u64;
        while begun.elapsed() < time {
            call().await;
            events += 1;
        }
        events
    });
    let events: u64 = futures::future::join_all(callers).await.into_iter().sum();
    events as f64 / begun.elapsed().as_secs_f64()
}

/// The median and the 99th of a hundred, in microseconds.
fn say_times(who: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
    say(who, 1, "microseconds at p50", at(0.5));
    say(who, 1, "microseconds at p99", at(0.99));
}

async fn queue(url: &str, name: &str) -> Queue {
    let journal = Nats::connect(url).name(name).await.expect("it connects");
    let render = async |scene: String| Ok::<_, String>(scene);
    let render = Listener::new("render", render).concurrency_limit(Limit::Unlimited).durable();
    Queue::builder().journal(journal).listener(render).start().expect("nothing contradicts itself")
}

async fn call(handle: &ListenerHandle<String, String>) {
    handle.call(INPUT.into()).await.expect("it is rendered");
}

/// From `submit` to its return, alone.
async fn admissions(queue: &Queue) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        let submission = queue.submit("render", INPUT.to_string()).await;
        times.push(begun.elapsed());
        submission.expect("it is accepted").result::<String>().await.expect("it is rendered");
    }
    times
}

/// One message after the other, each acknowledged by the servers that keep it.
async fn publishes(context: &jetstream::Context, replicas: usize) -> Vec<Duration> {
    let config = Config {
        name: "bare".into(),
        subjects: vec!["bare.*".into()],
        num_replicas: replicas,
        ..Config::default()
    };
    context.create_stream(config).await.expect("it can be made");
    // As long as what an admission records.
    let message = vec![b'x'; 300];
    let mut times = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        let sent = context.publish("bare.1", message.clone().into()).await;
        sent.expect("it is sent").await.expect("it is kept");
        times.push(begun.elapsed());
    }
    times
}

async fn work_queue_rate(context: &jetstream::Context, replicas: usize, in_flight: usize) -> f64 {
    let name = format!("jobs-{in_flight}");
    let queue = Rc::new(WorkQueue::open(context, &name, replicas, in_flight).await);
    let worker = Rc::clone(&queue);
    let worker = actix::spawn(async move { worker.work(|input| input).await });
    let call = || async {
        queue.submit(INPUT.into()).await.await;
    };
    rate(in_flight, TIME / 10, call).await;
    let measured = rate(in_flight, TIME, call).await;
    worker.abort();
    let _ = worker.await;
    Rc::into_inner(queue).expect("nobody else has it").delete().await;
    measured
}

fn main() {
    let url = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let Some(url) = url else {
        // As `cargo bench` calls it.
        println!("usage: nats URL[,URL…]");
        return;
    };
    let replicas = if url.contains(',') { 3 } else { 1 };
    actix::System::new().block_on(async {
        let servers: Vec<&str> = url.split(',').collect();
        let client = async_nats::connect(servers).await.expect("it connects");
        let context = jetstream::new(client);
        let _ = context.delete_stream("bare").await;
        say_times("a publish", publishes(&context, replicas).await);
        let lone = queue(&url, &format!("lone-{}", std::process::id())).await;
        say_times("an admission", admissions(&lone).await);
        drop(lone);
        for in_flight in IN_FLIGHT {
            let queue = queue(&url, &format!("{in_flight}-{}", std::process::id())).await;
            let handle = queue.listener("render").expect("it is declared");
            rate(in_flight, TIME / 10, || call(&handle)).await;
            let measured = rate(in_flight, TIME, || call(&handle)).await;
            say("now-serving, journal on NATS", in_flight, "events_per_second", measured);
            let measured = work_queue_rate(&context, replicas, in_flight).await;
            say("a work queue of JetStream's", in_flight, "events_per_second", measured);
        }
    });
}
