//! Actors only, no HTTP: an artist orders three pictures, follows each order by messages, changes
//! its mind about one, and leaves when the last has ended.
//!
//! ```text
//! cargo run --example actors
//! ```

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use now_serving::{EventContext, EventId, Listener, ListenerHandle, Outcome, Queue, Update};

/// The heavy work: a handler is a plain async function. It runs on a worker actor, on the slot that
/// its concurrency id gave it.
async fn paint(subject: String, context: EventContext) -> Result<String, String> {
    for stroke in 1..=4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        context.progress(f64::from(stroke) / 4.0, format!("stroke {stroke}"));
    }
    Ok(format!("a picture of {subject}, painted on slot {}", context.slot()))
}

/// An actor of our own. It owns its state, and nobody else ever touches it: that is why there is no
/// lock around `orders`.
struct Artist {
    paint: ListenerHandle<String, String>,
    orders: HashMap<EventId, &'static str>,
}

impl Actor for Artist {
    type Context = Context<Self>;

    /// Called once, when the actor's mailbox is open.
    fn started(&mut self, context: &mut Self::Context) {
        let paint = self.paint.clone();
        // An address is all that others know of an actor. A recipient is an address for one kind of
        // message; the queue sends every update of an event to it.
        let follower = context.address().recipient();
        let orders = async move {
            let mut orders = Vec::new();
            for subject in ["a fox", "the sea", "a mistake"] {
                match paint.submit_to(subject.to_string(), follower.clone()).await {
                    Ok(id) => orders.push((id, subject)),
                    Err(refusal) => println!("{subject}: {refusal}"),
                }
            }
            orders
        };
        // Submitting is asynchronous. `wait` lets the actor handle no message until it is done, so
        // that no update can come for an order that the actor doesn't know yet.
        let ordered = orders.into_actor(self).map(|orders, artist, context| {
            artist.orders.extend(orders);
            for (id, subject) in &artist.orders {
                if *subject == "a mistake" {
                    artist.paint.cancel(*id);
                }
            }
            if artist.orders.is_empty() {
                context.stop();
            }
        });
        context.wait(ordered);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        System::current().stop();
    }
}

/// What the actor does with a message. Messages are handled one at a time, in order.
impl Handler<Update> for Artist {
    type Result = ();

    fn handle(&mut self, update: Update, context: &mut Self::Context) {
        let id = update.event_id();
        let subject = self.orders.get(&id).copied().unwrap_or("?");
        match update {
            Update::Estimation { rank, .. } => println!("{subject}: {rank} ahead"),
            Update::ProcessStarts { .. } => println!("{subject}: now serving"),
            Update::Progress { units, .. } => {
                println!("{subject}: {}", units[0].desc.as_deref().unwrap_or_default());
            }
            // Every admitted event gets exactly one of these, and nothing after it.
            Update::ProcessCompleted { outcome, .. } => {
                match outcome {
                    // The value has the handler's own type; it was never turned into JSON.
                    Outcome::Completed(Some(picture)) => match picture.downcast::<String>() {
                        Ok(picture) => println!("{subject}: {picture}"),
                        Err(other) => println!("{subject}: {other:?}"),
                    },
                    other => println!("{subject}: {other:?}"),
                }
                self.orders.remove(&id);
                if self.orders.is_empty() {
                    context.stop();
                }
            }
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let system = System::new();
    // One supervisor actor owns the wait queue of "paint"; the limit gives it two worker actors.
    let queue = system.block_on(async {
        Queue::builder().listener(Listener::new("paint", paint).concurrency_limit(2)).start()
    })?;
    let paint = queue.listener("paint")?;
    system.block_on(async { Artist { paint, orders: HashMap::new() }.start() });
    system.run()?;
    Ok(())
}
