//! Where the updates of one event go, and the guard that it gets exactly one terminal update.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::Recipient;
use actix::dev::SendError;
use tokio::sync::oneshot;

use super::outbox::Outbox;
use super::unread::Gone;
use crate::clock;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::{Finished, Outcome, Reply, Update};

/// Somebody who follows events.
#[derive(Debug)]
pub(crate) enum Follower {
    /// A reader in this process.
    Outbox(Arc<Outbox>),
    /// A function.
    Function(Function),
    /// An actor.
    Recipient(Recipient<Update>),
    /// Two of them.
    Both(Box<(Follower, Follower)>),
}

/// Takes the updates of an event, and hands back what has given way.
pub(crate) struct Function(pub Box<Take>);

type Take = dyn Fn(Update, &mut Gone) + Send + Sync;

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl Follower {
    /// Sends what somebody else hasn't read.
    pub fn send_unread(&self, unread: &Outbox, gone: &mut Gone) {
        while let Some(read) = unread.try_next() {
            self.send(read.update, gone);
        }
    }

    /// Puts another in the place of the reader of this outbox. Gives that one back if there is none of it.
    fn replace(&mut self, unread: &Arc<Outbox>, with: Follower) -> Option<Follower> {
        match self {
            Follower::Outbox(outbox) if Arc::ptr_eq(outbox, unread) => {
                *self = with;
                None
            }
            Follower::Both(both) => {
                both.0.replace(unread, with).and_then(|with| both.1.replace(unread, with))
            }
            Follower::Outbox(_) | Follower::Function(_) | Follower::Recipient(_) => Some(with),
        }
    }

    fn send(&self, update: Update, gone: &mut Gone) {
        match self {
            Follower::Outbox(outbox) => {
                outbox.push(update, gone);
            }
            Follower::Function(Function(take)) => take(update, gone),
            Follower::Both(both) => {
                both.0.send(update.clone(), gone);
                both.1.send(update, gone);
            }
            Follower::Recipient(recipient) => match recipient.try_send(update) {
                Ok(()) => {}
                // Past the mailbox' capacity on purpose: a terminal update must not be lost, and what
                // one event can send is bounded by its handler, not by a flood of events.
                Err(SendError::Full(update)) => recipient.do_send(update),
                Err(SendError::Closed(update)) => gone.updates.push(update),
            },
        }
    }
}

/// Sends updates of an event until its terminal one. Shared with its handler's context,
/// which may live on in a blocking thread after the event has ended; then it sends nothing more.
#[derive(Debug)]
pub(crate) struct UpdateSender {
    event_id: EventId,
    follower: Mutex<Option<Follower>>,
    /// The thread that holds the follower and sends, or 0.
    sending: AtomicUsize,
    /// What that thread sends meanwhile: a value's `Serialize` may send updates of its own event,
    /// and runs when the value is weighed.
    meanwhile: Mutex<Vec<Update>>,
}

impl UpdateSender {
    fn new(event_id: EventId, follower: Follower) -> Self {
        let follower = Mutex::new(Some(follower));
        UpdateSender {
            event_id,
            follower,
            sending: AtomicUsize::new(0),
            meanwhile: Mutex::default(),
        }
    }

    pub fn send(&self, update: impl FnOnce(EventId) -> Update) {
        let update = update(self.event_id);
        let thread = this_thread();
        // Only this thread ever stores its own number, so no order is needed.
        if self.sending.load(Relaxed) == thread {
            return self.meanwhile().push(update);
        }
        // Dropped after the lock: a replaced update may send one of its own when it is dropped.
        let mut gone = Gone::default();
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.as_ref() {
            let sending = Sending::begin(&self.sending, thread);
            follower.send(update, &mut gone);
            while let Some(update) = self.first_of_meanwhile() {
                follower.send(update, &mut gone);
            }
            drop(sending);
        }
        drop(follower);
    }

    /// Lets one more follow from now on, unless the event has ended.
    pub fn add(&self, another: Follower) -> bool {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = follower.take() else { return false };
        *follower = Some(Follower::Both(Box::new((first, another))));
        true
    }

    /// Lets another follow in place of the reader of this outbox, who has what is unread there first. Whoever else
    /// follows goes on.
    pub fn hand_over(&self, unread: &Arc<Outbox>, to: Follower) {
        // Dropped after the lock, as in `send`.
        let mut gone = Gone::default();
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let sending = Sending::begin(&self.sending, this_thread());
        to.send_unread(unread, &mut gone);
        while let Some(update) = self.first_of_meanwhile() {
            to.send(update, &mut gone);
        }
        drop(sending);
        let over = match follower.take() {
            Some(mut others) => {
                *follower = Some(match others.replace(unread, to) {
                    None => others,
                    Some(to) => Follower::Both(Box::new((others, to))),
                });
                None
            }
            // It has ended, as has just been said.
            None => Some(to),
        };
        drop(follower);
        drop(over);
    }

    /// Sends the last one. Whoever wants to take the place of somebody who follows meanwhile finds it sent.
    fn end(&self, update: Update) {
        let mut gone = Gone::default();
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.as_ref() {
            let sending = Sending::begin(&self.sending, this_thread());
            follower.send(update, &mut gone);
            drop(sending);
            // Nothing comes after it.
            gone.updates.append(&mut self.meanwhile());
        }
        // Dropped after the lock, as in `send`.
        let over = follower.take();
        drop(follower);
        drop((over, gone));
    }

    fn meanwhile(&self) -> MutexGuard<'_, Vec<Update>> {
        self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_of_meanwhile(&self) -> Option<Update> {
        let mut meanwhile = self.meanwhile();
        (!meanwhile.is_empty()).then(|| meanwhile.remove(0))
    }

    fn take_follower(&self) -> Option<Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A number for each living thread, never 0.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.try_with(|here| std::ptr::from_ref(here).addr()).unwrap_or(usize::MAX)
}

/// A thread holds the follower and sends.
struct Sending<'a>(&'a AtomicUsize);

impl<'a> Sending<'a> {
    fn begin(sending: &'a AtomicUsize, thread: usize) -> Self {
        sending.store(thread, Relaxed);
        Sending(sending)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

/// The sending end of one event, held by whoever owns the event. Dropped before the event has
/// ended, it reports that the event was lost, so that nobody waits for ever.
#[derive(Debug)]
pub(crate) struct EventSender(State);

#[derive(Debug)]
enum State {
    /// Nobody follows; the caller wants the result.
    Reply(oneshot::Sender<Reply>),
    /// Somebody follows. The caller waits until the event is admitted.
    UpdateSender(Arc<UpdateSender>, Option<oneshot::Sender<Result<(), Refusal>>>),
    Ended,
}

impl EventSender {
    pub fn reply(sender: oneshot::Sender<Reply>) -> Self {
        EventSender(State::Reply(sender))
    }

    pub fn follow(
        event_id: EventId,
        follower: Follower,
        admitted: oneshot::Sender<Result<(), Refusal>>,
    ) -> Self {
        let updates = Arc::new(UpdateSender::new(event_id, follower));
        EventSender(State::UpdateSender(updates, Some(admitted)))
    }

    /// Whether anybody follows.
    pub fn is_watched(&self) -> bool {
        matches!(self.0, State::UpdateSender(..))
    }

    pub fn updates(&self) -> Option<&Arc<UpdateSender>> {
        match &self.0 {
            State::UpdateSender(updates, _) => Some(updates),
            State::Reply(_) | State::Ended => None,
        }
    }

    pub fn send(&self, update: impl FnOnce(EventId) -> Update) {
        if let Some(updates) = self.updates() {
            updates.send(update);
        }
    }

    /// Notifies the caller that the event is in the wait queue.
    pub fn admit(&mut self) {
        if let State::UpdateSender(_, admitted) = &mut self.0
            && let Some(admitted) = admitted.take()
        {
            // The caller may have gone; its handle then cancels the event.
            let _ = admitted.send(Ok(()));
        }
    }

    /// Whether somebody still waits to hear whether the event is let in.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub fn awaits_admission(&self) -> bool {
        match &self.0 {
            State::Reply(_) => true,
            State::UpdateSender(_, admitted) => {
                admitted.as_ref().is_some_and(|admitted| !admitted.is_closed())
            }
            State::Ended => false,
        }
    }

    pub fn refuse(mut self, refusal: Refusal) {
        match std::mem::replace(&mut self.0, State::Ended) {
            State::Reply(reply) => drop(reply.send(Err(refusal))),
            State::UpdateSender(updates, admitted) => {
                updates.take_follower();
                if let Some(admitted) = admitted {
                    let _ = admitted.send(Err(refusal));
                }
            }
            State::Ended => {}
        }
    }

    /// Sends the terminal update of an event whose run started then, and takes `average` seconds.
    pub fn end(mut self, outcome: Outcome, started: Instant, average: Option<f64>) {
        self.finish(outcome, Some(started), average);
    }

    /// Sends the terminal update of an event that never ran.
    pub fn end_unstarted(mut self, outcome: Outcome) {
        self.finish(outcome, None, None);
    }

    fn finish(
        &mut self,
        outcome: Outcome,
        started: Option<Instant>,
        average_duration: Option<f64>,
    ) {
        match std::mem::replace(&mut self.0, State::Ended) {
            State::Reply(reply) => {
                drop(reply.send(Ok(Finished { outcome, started, average_duration })));
            }
            State::UpdateSender(updates, admitted) => {
                // Ended while blocked: the caller still waits for its admission.
                if let Some(admitted) = admitted {
                    let _ = admitted.send(Ok(()));
                }
                let event_id = updates.event_id;
                let duration = started.map_or(Duration::ZERO, clock::since).as_secs_f64();
                updates.end(Update::ProcessCompleted {
                    event_id,
                    outcome,
                    duration,
                    average_duration,
                });
            }
            State::Ended => {}
        }
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        if !matches!(self.0, State::Ended) {
            let lost = Failure::unexpected("the event was lost: the actor that held it is gone");
            self.finish(Outcome::Failed(lost), None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::bounds::{UNREAD, weight};
    use crate::event::output::Output;
    use crate::event::update::Log;
    use crate::event::update::LogLevel;
    use std::sync::mpsc::channel;

    /// Sends an update of its own event when it is dropped.
    #[derive(serde::Serialize, schemars::JsonSchema)]
    struct Loud {
        #[serde(skip)]
        updates: Arc<UpdateSender>,
    }

    impl Drop for Loud {
        fn drop(&mut self) {
            let log = Log::new(LogLevel::Info, "dropped");
            self.updates.send(|event_id| Update::Log { event_id, log });
        }
    }

    fn updates(follower: Follower) -> Arc<UpdateSender> {
        let sender = EventSender::follow(EventId::for_test(1), follower, oneshot::channel().0);
        let updates = sender.updates().expect("somebody follows").clone();
        // The event goes on.
        std::mem::forget(sender);
        updates
    }

    /// Does something that would wait for itself for ever if it took a lock twice.
    fn ends(act: impl FnOnce() + Send + 'static) {
        let (done, is_done) = channel();
        std::thread::spawn(move || {
            act();
            done.send(()).expect("the test waits");
        });
        is_done.recv_timeout(Duration::from_secs(30)).expect("it has not locked itself out");
    }

    fn say_values(updates: &Arc<UpdateSender>, count: u32) {
        for _ in 0..count {
            let output = Output::new(Loud { updates: updates.clone() });
            updates.send(|event_id| Update::ProcessGenerating { event_id, output, duration: 0.0 });
        }
    }

    #[test]
    fn a_value_that_gives_way_may_speak_of_its_own_event() {
        let outbox = Arc::new(Outbox::new(UNREAD));
        let updates = updates(Follower::Outbox(outbox.clone()));
        ends(move || say_values(&updates, UNREAD.number + 2));
        // All before the first is dropped, which would send as well.
        let reads: Vec<_> = std::iter::from_fn(|| outbox.try_next()).collect();
        let logs = reads.iter().filter(|read| matches!(read.update, Update::Log { .. })).count();
        assert_eq!(logs, 2, "both that gave way have spoken");
    }

    /// One who comes later, and hands over to somebody else, takes nobody else's place.
    #[test]
    fn who_hands_over_takes_only_his_own_place() {
        let [first, second, third, to] = [0; 4].map(|_| Arc::new(Outbox::new(UNREAD)));
        let updates = updates(Follower::Outbox(first.clone()));
        assert!(updates.add(Follower::Outbox(second.clone())));
        assert!(updates.add(Follower::Outbox(third.clone())));
        let say = || {
            let log = Log::new(LogLevel::Info, "said");
            updates.send(|event_id| Update::Log { event_id, log });
        };
        say();
        updates.hand_over(&second, Follower::Outbox(to.clone()));
        say();
        let read = |outbox: &Outbox| std::iter::from_fn(|| outbox.try_next()).count();
        assert_eq!([&first, &second, &third, &to].map(|outbox| read(outbox)), [2, 0, 2, 2]);
    }

    /// Sends an update of its own event when it is weighed.
    #[derive(schemars::JsonSchema)]
    struct Talkative {
        #[serde(skip)]
        updates: Arc<UpdateSender>,
    }

    impl serde::Serialize for Talkative {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let log = Log::new(LogLevel::Info, "weighed");
            self.updates.send(|event_id| Update::Log { event_id, log });
            serializer.serialize_unit()
        }
    }

    #[test]
    fn a_value_that_is_weighed_may_speak_of_its_own_event() {
        let taken: Arc<Mutex<Vec<&str>>> = Arc::default();
        let seen = taken.clone();
        let updates = updates(Follower::Function(Function(Box::new(move |update, _| {
            weight(&update);
            seen.lock().unwrap().push(match update {
                Update::ProcessGenerating { .. } => "value",
                Update::Log { .. } => "log",
                other => panic!("{other:?}"),
            });
        }))));
        ends(move || {
            for _ in 0..2 {
                let output = Output::new(Talkative { updates: updates.clone() });
                updates.send(|event_id| Update::ProcessGenerating {
                    event_id,
                    output,
                    duration: 0.0,
                });
            }
        });
        assert_eq!(*taken.lock().unwrap(), ["value", "log", "value", "log"]);
    }

    #[test]
    fn a_value_that_an_actor_has_no_mailbox_for_may_speak_of_its_own_event() {
        struct Gone;
        impl actix::Actor for Gone {
            type Context = actix::Context<Self>;
        }
        impl actix::Handler<Update> for Gone {
            type Result = ();
            fn handle(&mut self, _: Update, _: &mut Self::Context) {}
        }
        let address = {
            use actix::Actor;
            actix::System::new().block_on(async { Gone.start() })
        };
        assert!(!address.connected());
        let updates = updates(Follower::Recipient(address.recipient()));
        ends(move || say_values(&updates, 1));
    }
}
