//! Values as their listeners' own types, on a thread apart: reading and writing them is the service's code, which
//! may take its time, and must not keep a node from saying that it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::wire::Said;
use crate::clock;
use crate::delivery::sender::{EventSender, UpdateSender};
use crate::event::id::EventId;
use crate::event::update::Update;
use crate::handler::durable::Durability;
use crate::journal::record::End;
use crate::queue::follow::outcome;

/// How many bytes of values of one event may wait to be read. What comes while there are more is left out: the
/// next one stands for it, or the end, which has the last.
const UNREAD: usize = 4 << 20;

/// Brings updates to who follows an event, in order.
#[derive(Clone, Debug)]
pub(super) struct Deliver(UnboundedSender<Due>);

#[derive(Debug)]
enum Due {
    Update { event: EventId, to: Arc<UpdateSender>, said: Said, of: Of },
    End { to: EventSender, end: End, duration: f64, average: Option<f64>, of: Of },
}

/// Of an event.
#[derive(Clone, Debug)]
pub(super) struct Of {
    durability: Option<Durability>,
    /// Bytes of its values that wait.
    unread: Arc<AtomicUsize>,
}

impl Of {
    pub fn new(durability: Option<Durability>) -> Self {
        Of { durability, unread: Arc::default() }
    }
}

impl Deliver {
    /// Also gives what is to run on a thread for that.
    pub fn new() -> (Self, impl Future<Output = ()> + use<>) {
        let (due, is_due) = unbounded_channel();
        (Deliver(due), deliver(is_due))
    }

    pub fn update(&self, event: EventId, to: &Arc<UpdateSender>, said: Said, of: &Of) {
        if let Said::Generating { output, .. } = &said {
            let bytes = output.get().len();
            if of.unread.load(Relaxed) > UNREAD {
                return;
            }
            of.unread.fetch_add(bytes, Relaxed);
        }
        // It ends with the process only.
        let _ = self.0.send(Due::Update { event, to: to.clone(), said, of: of.clone() });
    }

    pub fn end(&self, to: EventSender, end: End, duration: f64, average: Option<f64>, of: Of) {
        let _ = self.0.send(Due::End { to, end, duration, average, of });
    }
}

async fn deliver(mut is_due: UnboundedReceiver<Due>) {
    while let Some(due) = is_due.recv().await {
        match due {
            Due::Update { event, to, said, of } => {
                if let Some(update) = update_of(event, said, &of) {
                    to.send(|_| update);
                }
            }
            Due::End { to, end, duration, average, of } => {
                let outcome = outcome(of.durability.as_ref(), end);
                if duration > 0.0 || average.is_some() {
                    let took = Duration::try_from_secs_f64(duration).unwrap_or_default();
                    let now = clock::now();
                    to.end(outcome, now.checked_sub(took).unwrap_or(now), average);
                } else {
                    to.end_unstarted(outcome);
                }
            }
        }
        // Others may have something to do here.
        tokio::task::yield_now().await;
    }
}

fn update_of(event_id: EventId, said: Said, of: &Of) -> Option<Update> {
    Some(match said {
        Said::Rank { rank, queue_size, rank_eta } => {
            Update::Estimation { event_id, rank, queue_size, rank_eta }
        }
        Said::Starts { eta } => Update::ProcessStarts { event_id, eta },
        Said::Progress(units) => Update::Progress { event_id, units },
        Said::Log(log) => Update::Log { event_id, log },
        Said::Generating { output, duration } => {
            of.unread.fetch_sub(output.get().len(), Relaxed);
            let output = of.durability.as_ref()?.read_output(&output).ok()?;
            Update::ProcessGenerating { event_id, output, duration }
        }
        Said::Ended { .. } | Said::Unknown => return None,
    })
}
