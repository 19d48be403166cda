//! An event that somebody on this node follows, and what is to be said of it until it is known to be in the line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deliver::Of;
use super::out::{Out, To};
use super::wire::{Admit, Message};
use crate::delivery::sender::EventSender;
use crate::event::failure::Failure;
use crate::event::refusal::Refusal;
use crate::event::update::Outcome;
use crate::handler::input::Input;
use crate::handler::session_state::SessionState;

/// How long an answer may take before it is asked for again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// How long it may take at most.
const LONGEST: Duration = Duration::from_secs(4);

/// An event that somebody here follows.
pub(super) struct Followed {
    pub listener: Arc<str>,
    pub sender: EventSender,
    /// Who came later.
    pub others: Vec<EventSender>,
    /// As it was submitted here, until it runs here.
    pub input: Option<Input>,
    pub session: Option<Arc<SessionState>>,
    /// Until it is known whether it was let in.
    pub admit: Option<Box<Admit>>,
    /// When that was asked last.
    pub asked: Option<Instant>,
    /// How long an answer may take until it is asked again: longer each time, so that what is answered slowly is
    /// answered before.
    pub pause: Duration,
    /// It may have been let in: somebody has been asked.
    pub may_be_in: bool,
    /// It is to be ended.
    pub is_cancelled: bool,
    /// It has started, as far as is known here.
    pub runs: bool,
    pub of: Of,
}

impl Followed {
    pub fn new(
        listener: Arc<str>,
        sender: EventSender,
        session: Option<Arc<SessionState>>,
        of: Of,
    ) -> Self {
        Followed {
            listener,
            sender,
            others: Vec::new(),
            input: None,
            session,
            admit: None,
            asked: None,
            pause: AGAIN,
            may_be_in: true,
            is_cancelled: false,
            runs: false,
            of,
        }
    }

    /// All who follow it.
    pub fn senders(self) -> impl Iterator<Item = EventSender> {
        std::iter::once(self.sender).chain(self.others)
    }

    /// It is in the line, as all who follow it hear the first time.
    pub fn let_in(&mut self) {
        if self.admit.take().is_some() {
            self.pause = AGAIN;
            self.sender.admit();
            self.others.iter_mut().for_each(EventSender::admit);
        }
    }

    /// It isn't in the line. Who doesn't wait for that, but follows what others have submitted, hears of an end.
    pub fn refuse(self, refusal: &Refusal) {
        for sender in self.senders() {
            match sender.awaits_admission() {
                true => sender.refuse(refusal.clone()),
                false => {
                    let failure = Failure::unexpected(refusal.to_string());
                    sender.end_unstarted(Outcome::Failed(failure));
                }
            }
        }
    }

    /// It is asked for, where it isn't known yet whether it was let in. Whether it was asked for.
    pub fn ask(&mut self, now: Instant, asks: &mut u64, is_heard: bool, out: &mut Out) -> bool {
        let Some(admit) = &mut self.admit else { return false };
        self.asked = Some(now);
        self.pause = (2 * self.pause).min(LONGEST);
        *asks += 1;
        admit.ask = *asks;
        admit.again |= self.may_be_in;
        self.may_be_in |= is_heard;
        out.push((To::Keeper, Message::Admit(admit.clone())));
        true
    }
}
