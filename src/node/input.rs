//! What comes to the agent, from wherever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::frame::Envelope;
use super::placing::Placing;
use super::wire::{Acquire, Admit, Answer, EventEnd, Question, Said};
use crate::actors::messages::Submit;
use crate::actors::supervisor::Supervisor;
use crate::cluster::message::{Attempt, Epoch, Process};
use crate::delivery::sender::EventSender;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::Update;
use crate::handler::durable::Durability;
use crate::handler::session_state::SessionState;
use crate::journal::Journal;
use crate::journal::error::JournalError;
use crate::journal::jetstream::LastKept;
use crate::queue::Queue;
use crate::queue::blueprint::Blueprint;
use crate::queue::elsewhere::RecordedRun;
use crate::queue::error::AcquireError;
use crate::queue::permit::Permit;

/// What comes to the agent.
pub(super) enum Input {
    /// From a process of the cluster.
    Came(Box<Envelope>),
    Tick,
    /// The queue has started.
    Started {
        listeners: Vec<(Arc<str>, Listener)>,
        blueprint: Box<Blueprint>,
    },
    Submit(Arc<str>, Box<Submit>),
    Cancel(Arc<str>, EventId),
    Follow {
        event: EventId,
        listener: Arc<str>,
        session: Option<Arc<SessionState>>,
        sender: EventSender,
    },
    /// To whoever keeps the line, for somebody here.
    Ask(Question, oneshot::Sender<Result<Answer, String>>),
    Acquire(Acquire, oneshot::Sender<Result<(usize, Release), Refusal>>),
    Release(u64),
    Leave {
        grace: Duration,
        done: oneshot::Sender<bool>,
    },

    /// Of a run here.
    RunSaid {
        attempt: Attempt,
        event: EventId,
        said: Box<Said>,
    },
    RunEnded {
        attempt: Attempt,
        end: Box<EventEnd>,
    },
    RunFailed(Attempt, String),
    RunOver(Attempt),

    /// The line is this node's to keep, or not.
    Claimed(Result<Box<Kept>, JournalError>),
    Lost(Epoch, JournalError),
    /// Where its record ends, and whether by that nobody keeps it.
    RecordEnds {
        last: Epoch,
        is_released: bool,
    },

    /// Of the line that this node keeps.
    Place(Epoch, Box<Placing>),
    Interrupt(Epoch, Attempt),
    LineSaid(Epoch, Box<Update>),
    StartRecorded(Epoch, Attempt, Process, Result<(), JournalError>),
    Settled(Epoch, Attempt, Result<(), JournalError>),
    Admitted(Epoch, EventId, Result<(), Refusal>),
    Found(Epoch, Process, EventId, Said),
    Admits(Epoch, Process, Box<Admit>),
    Answered(Process, u64, Result<Answer, String>),
    PermitDecided(Epoch, Process, u64, Box<Result<Permit, AcquireError>>),
}

/// A listener of this node.
#[derive(Clone)]
pub(super) struct Listener {
    /// Its number among those of its concurrency id.
    pub lane: usize,
    pub durability: Durability,
    /// Where its runs go.
    pub supervisor: Addr<Supervisor>,
}

/// What a node has once it keeps the line.
pub(super) struct Kept {
    pub epoch: Epoch,
    pub queue: Queue,
    pub journal: Arc<dyn Journal>,
    pub last_kept: LastKept,
    /// When its claim began.
    pub began: Instant,
    pub recorded: Vec<RecordedRun>,
    pub blueprint: Blueprint,
}

/// Frees the slot when it is dropped.
#[derive(Debug)]
pub(super) struct Release {
    pub permit: u64,
    pub input: UnboundedSender<Input>,
}

impl Drop for Release {
    fn drop(&mut self) {
        // The agent ends with the process only.
        let _ = self.input.send(Input::Release(self.permit));
    }
}
