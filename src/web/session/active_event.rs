//! An event of a session whose end its client hasn't received: what was last sent of it, and the
//! means to cancel it.

use crate::event::id::EventId;
use crate::event::update::{ProgressUnit, Update};
use crate::handler::session_state::UnderWay;
use crate::queue::listener_ref::CancelOnDrop;
use crate::web::api::endpoint::Endpoint;
use crate::web::listener_options::OnDisconnect;
use crate::web::protocol::encoder::{Audience, Encoder};
use crate::web::protocol::message::Message;

pub(crate) struct ActiveEvent {
    pub encoder: Encoder,
    /// The number of the first value that was handed out.
    pub first_value: Option<u64>,
    /// A stream has been open since it began.
    pub followed: bool,
    last: LastNotified,
    is_let_in: bool,
    /// Comes with the admission; dropped before the end, it cancels.
    guard: Option<CancelOnDrop>,
    /// Goes on when its client doesn't come back.
    keep: bool,
    _under_way: UnderWay,
}

/// What is sent again to a client that comes back: where the event is now.
#[derive(Default)]
struct LastNotified {
    position: Option<Position>,
    progress: Option<Vec<ProgressUnit>>,
}

#[derive(Clone, Copy)]
enum Position {
    Waiting { rank: usize, queue_size: usize, rank_eta: Option<f64> },
    Running { eta: Option<f64> },
}

impl ActiveEvent {
    /// One of this listener's.
    pub fn of(endpoint: &Endpoint, audience: Audience, under_way: UnderWay) -> Self {
        let keep_running = endpoint.http.on_disconnect == OnDisconnect::KeepRunning;
        ActiveEvent::new(endpoint.encoder(audience), keep_running, under_way)
    }

    pub fn new(encoder: Encoder, keep: bool, under_way: UnderWay) -> Self {
        ActiveEvent {
            encoder,
            first_value: None,
            followed: false,
            last: LastNotified::default(),
            is_let_in: false,
            guard: None,
            keep,
            _under_way: under_way,
        }
    }

    /// Its result was kept from an earlier event.
    pub fn cached(mut self) -> Self {
        self.encoder.mark_cached();
        self
    }

    pub fn admitted(&mut self, guard: CancelOnDrop) {
        self.is_let_in = true;
        self.guard = Some(guard);
    }

    /// It waits for nobody to let it in.
    pub fn let_in(mut self) -> Self {
        self.is_let_in = true;
        self
    }

    pub fn is_let_in(&self) -> bool {
        self.is_let_in
    }

    pub fn cancel(&self) {
        if let Some(guard) = &self.guard {
            guard.cancel();
        }
    }

    /// It would be cancelled if its session ended.
    #[cfg(feature = "cluster")]
    pub fn is_bound(&self) -> bool {
        self.guard.is_some() && !self.keep
    }

    /// Its client has gone. One that was never followed may still be requested.
    pub fn abandon(&self) {
        if self.followed && !self.keep {
            self.cancel();
        }
    }

    /// Whether it goes on without its client.
    pub fn keeps_running(&self) -> bool {
        self.keep
    }

    /// It goes on without this.
    pub fn leave(mut self) {
        self.ended();
    }

    /// It has ended: nothing is left to cancel.
    pub fn ended(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }

    /// Remembers where the event is.
    pub fn note(&mut self, update: &Update) {
        match update {
            Update::Estimation { rank, queue_size, rank_eta, .. } => {
                let (rank, queue_size, rank_eta) = (*rank, *queue_size, *rank_eta);
                self.last.position = Some(Position::Waiting { rank, queue_size, rank_eta });
            }
            Update::ProcessStarts { eta, .. } => {
                self.last.position = Some(Position::Running { eta: *eta });
            }
            Update::Progress { units, .. } => self.last.progress = Some(units.clone()),
            _ => {}
        }
    }

    /// Where the event is, once more.
    pub fn repeat(&mut self, event_id: EventId) -> impl Iterator<Item = Message> {
        let position = self.last.position.map(|position| match position {
            Position::Waiting { rank, queue_size, rank_eta } => {
                Update::Estimation { event_id, rank, queue_size, rank_eta }
            }
            Position::Running { eta } => Update::ProcessStarts { event_id, eta },
        });
        let progress = self.last.progress.clone();
        let progress = progress.map(|units| Update::Progress { event_id, units });
        let encoder = &mut self.encoder;
        position.into_iter().chain(progress).map(|update| encoder.message(update))
    }
}

impl Drop for ActiveEvent {
    fn drop(&mut self) {
        if self.keep {
            self.ended();
        }
    }
}
