//! How much of its throughput a queue keeps while it refuses a flood.
//!
//! `cargo bench --bench flood`: 64 callers keep eight slots busy with events of a millisecond,
//! first alone, then while 20,000 joins over HTTP are refused at a wait queue that is full: the one
//! of another concurrency id, and the work's own. Prints events per second, medians of five rounds,
//! and ratios.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix_web::{App, rt};
use awc::Client;
use futures::future::join_all;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, Web};

const ROUNDS: usize = 5;
const FLOOD: usize = 20_000;
const CALLERS: usize = 64;
const FLOODERS: usize = 32;

async fn work(n: u32) -> Result<u32, String> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(n)
}

/// Sends joins until so many have been refused.
async fn flood(address: &str, fn_index: usize) {
    let refused = AtomicUsize::new(0);
    let url = format!("http://{address}/gradio_api/queue/join");
    let body = format!(r#"{{"data":[1],"fn_index":{fn_index},"session_hash":"flood"}}"#);
    let flooder = async || {
        let client = Client::default();
        while refused.load(Relaxed) < FLOOD {
            let mut answer = client.post(&url).send_body(body.clone()).await.expect("an answer");
            answer.body().await.expect("its body");
            match answer.status().as_u16() {
                503 => drop(refused.fetch_add(1, Relaxed)),
                // There was room in the work's own queue; it is full again at once.
                200 | 429 => {}
                status => panic!("answered {status}"),
            }
        }
    };
    join_all((0..FLOODERS).map(|_| flooder())).await;
}

/// The work's events per second for as long as something else takes.
async fn throughput(queue: &Queue, meanwhile: impl Future<Output = ()>) -> f64 {
    let over = Arc::new(AtomicBool::new(false));
    let (queue, stop) = (queue.clone(), over.clone());
    // On a thread of its own, as another user's process.
    let callers = std::thread::spawn(move || {
        rt::System::new().block_on(async {
            let done = AtomicUsize::new(0);
            let began = Instant::now();
            let call = async || {
                while !stop.load(Relaxed) {
                    queue.call::<u32, u32>("work", 1).await.expect("a result");
                    done.fetch_add(1, Relaxed);
                }
            };
            join_all((0..CALLERS).map(|_| call())).await;
            done.load(Relaxed) as f64 / began.elapsed().as_secs_f64()
        })
    });
    meanwhile.await;
    over.store(true, Relaxed);
    callers.join().expect("callers don't panic")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // Cargo passes arguments that are for criterion.
    rt::System::new().block_on(async {
        let turnstile = Turnstile::new();
        let queue = Queue::builder()
            .listener(Listener::new("work", work).concurrency_limit(8).max_size(CALLERS - 8))
            .listener(Listener::new("full", turnstile.handler()).max_size(1))
            .start()
            .expect("nothing contradicts itself");
        for n in 0..2u32 {
            queue.submit("full", n).await.expect("there is room").detach();
        }
        turnstile.arrived(1).await;
        let routes = Web::new(&queue);
        let server = now_serving::http_server(move || App::new().configure(routes.routes()))
            .workers(1)
            .bind(("127.0.0.1", 0))
            .expect("a port");
        let address = server.addrs()[0].to_string();
        let server = server.run();
        let handle = server.handle();
        rt::spawn(server);
        let [mut alone, mut beside, mut own] = [const { Vec::new() }; 3];
        for round in 1..=ROUNDS {
            alone.push(throughput(&queue, tokio::time::sleep(Duration::from_secs(2))).await);
            beside.push(throughput(&queue, flood(&address, 1)).await);
            own.push(throughput(&queue, flood(&address, 0)).await);
            eprintln!("round {round} of {ROUNDS}");
        }
        let (alone, beside, own) = (median(alone), median(beside), median(own));
        println!("work alone                                     {alone:>8.0} events/s");
        println!(
            "while 20,000 joins of another id are refused   {beside:>8.0} events/s  ({:.0} %)",
            100.0 * beside / alone
        );
        println!(
            "while 20,000 joins of its own id are refused   {own:>8.0} events/s  ({:.0} %)",
            100.0 * own / alone
        );
        turnstile.open();
        handle.stop(false).await;
    });
}
