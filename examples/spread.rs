//! Two async handlers that compute, on one thread and on two.
//!
//! ```sh
//! cargo run --release --example spread
//! ```
//!
//! Each computes for 600 ms without an await, and two may run at once. On the thread that async
//! handlers of one concurrency id share, the second computes when the first has ended; with
//! `Listener::spread` both compute side by side, if two cores are free.

use std::time::{Duration, Instant};

use now_serving::{Listener, Queue};

/// How long a handler computes, where it has a core for itself.
const WORK: Duration = Duration::from_millis(600);

/// As many rounds of a pseudo-random number generator.
async fn compute(rounds: u64) -> Result<u64, String> {
    Ok((0..rounds).fold(1, |state: u64, round| {
        std::hint::black_box(state.wrapping_mul(6364136223846793005).wrapping_add(round))
    }))
}

/// How many rounds take that long here.
async fn rounds() -> Result<u64, String> {
    let mut rounds = 1 << 16;
    loop {
        let begun = Instant::now();
        compute(rounds).await?;
        let took = begun.elapsed();
        if took > WORK / 4 {
            return Ok((rounds as f64 * WORK.as_secs_f64() / took.as_secs_f64()) as u64);
        }
        rounds *= 2;
    }
}

/// How long two events take together.
async fn time_of_two(
    listener: Listener<u64, u64>,
    rounds: u64,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let queue = Queue::builder().listener(listener.concurrency_limit(2)).start()?;
    let begun = Instant::now();
    let both = futures::join!(queue.call("compute", rounds), queue.call("compute", rounds));
    let (_, _): (u64, u64) = (both.0?, both.1?);
    Ok(begun.elapsed())
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = rounds().await?;
    let one_thread = time_of_two(Listener::new("compute", compute), rounds).await?;
    let spread = time_of_two(Listener::new("compute", compute).spread(), rounds).await?;
    println!("two events of {WORK:?} of computing each, at limit 2");
    println!("  on the thread of their concurrency id: {:.2} s", one_thread.as_secs_f64());
    println!("  with spread():                         {:.2} s", spread.as_secs_f64());
    Ok(())
}
