//! A fixed number of events through one process, to be counted rather than timed.
//!
//! `in_process PEER IN_FLIGHT EVENTS` runs so many events and ends. Run under callgrind with two
//! numbers of events, the difference between the counts is what the events took, without what
//! starting up took. A count doesn't depend on how busy the machine is, so that a change of a few per
//! cent shows.

#[path = "../peers/mod.rs"]
mod peers;

use actix::System;
use now_serving::Limit;

const SLOTS: usize = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at)?.parse().ok();
    let (Some(peer), Some(in_flight), Some(events)) = (arguments.first(), number(1), number(2))
    else {
        // As `cargo bench` calls it.
        println!(
            "usage: in_process now-serving|tower|ractor|semaphore|bare-actix IN_FLIGHT EVENTS"
        );
        return;
    };
    let system = System::new();
    system.block_on(async {
        match peer.as_str() {
            "now-serving" => {
                let queue = peers::start(Limit::Slots(SLOTS));
                peers::queue_round(in_flight, events, &queue).await;
            }
            "tower" => peers::tower_round(in_flight, events, SLOTS).await,
            "ractor" => {
                let factory = peers::factory(SLOTS).await;
                peers::factory_round(in_flight, events, &factory).await;
            }
            "semaphore" => peers::semaphore_round(in_flight, events, SLOTS).await,
            "bare-actix" => {
                let first = peers::Hop::pipeline();
                peers::pipeline_round(in_flight, events, &first).await;
            }
            _ => panic!("no peer is called {peer}"),
        }
    });
}
