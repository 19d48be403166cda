//! How a session's events begin: submitted, answered from a cache, or failed at once.

use super::active_event::ActiveEvent;
use super::session::Session;
use crate::delivery::sender::{Follower, Function};
use crate::delivery::unread::Gone;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::update::{Outcome, Update};
use crate::scheduler::command::WhenFull;
use crate::web::api::endpoint::{Endpoint, Prepared};
use crate::web::cache::Kept;
use crate::web::protocol::encoder::Audience;
use crate::web::rejection::Rejection;

impl Session {
    /// Submits an event whose updates go to this session.
    pub async fn submit(
        &self,
        id: EventId,
        endpoint: &Endpoint,
        input: Prepared,
        audience: Audience,
    ) -> Result<(), Rejection> {
        let under_way = self.kept.begin_event(self.limits.max_events);
        let under_way =
            under_way.ok_or_else(|| Rejection::too_many_events(self.limits.max_events))?;
        let live = ActiveEvent::of(endpoint, audience, under_way);
        if let Some(kept) = input.kept(endpoint) {
            self.give(id, &kept, live.cached());
            return Ok(());
        }
        let (input, keep) = input.split(endpoint);
        // Before it is admitted: its first updates may be read before `submit` returns.
        self.begin(id, live);
        let unregister = Unregister { session: self, id, armed: true };
        let follower = match keep {
            None => self.follower(),
            Some((cache, key)) => {
                let record = cache.recorder(self.holder(), key);
                let mailbox = self.mailbox.clone();
                Follower::Function(Function(Box::new(move |update, gone| {
                    record(&update, gone);
                    mailbox.push(update, gone);
                })))
            }
        };
        let session = Some(self.kept.clone());
        let submitted =
            endpoint.listener_ref.submit(id, input, session, follower, WhenFull::Refuse).await;
        let guard = submitted.map_err(|r| Rejection::of(r, &endpoint.parameter_names()))?;
        unregister.disarm();
        match self.lock().live.get_mut(&id) {
            Some(live) => live.admitted(guard),
            // Its end has been read already.
            None => guard.disarm(),
        }
        Ok(())
    }

    /// Takes an event whose updates are about to come.
    pub(super) fn begin(&self, id: EventId, live: ActiveEvent) {
        let mut state = self.lock();
        state.begin(id, live);
        self.mailbox.begin(id);
    }

    /// Takes the updates of events.
    pub(super) fn follower(&self) -> Follower {
        let mailbox = self.mailbox.clone();
        Follower::Function(Function(Box::new(move |update, gone| mailbox.push(update, gone))))
    }

    /// Takes an update while no lock is held.
    fn push(&self, update: Update) {
        self.mailbox.push(update, &mut Gone::default());
    }

    /// Gives what an event of the same input gave.
    fn give(&self, event_id: EventId, kept: &Kept, live: ActiveEvent) {
        self.begin(event_id, live);
        for item in &kept.items {
            let output = item.clone();
            self.push(Update::ProcessGenerating { event_id, output, duration: 0.0 });
        }
        let outcome = Outcome::Completed(kept.output.clone());
        let (duration, average_duration) = (0.0, None);
        self.push(Update::ProcessCompleted { event_id, outcome, duration, average_duration });
    }

    /// Takes an event whose input is wrong: it fails at once.
    pub fn fail(
        &self,
        event_id: EventId,
        endpoint: &Endpoint,
        failure: Failure,
        audience: Audience,
    ) -> Result<(), Rejection> {
        let under_way = self.kept.begin_event(self.limits.max_events);
        let under_way =
            under_way.ok_or_else(|| Rejection::too_many_events(self.limits.max_events))?;
        let live = ActiveEvent::new(endpoint.encoder(audience), false, under_way);
        self.begin_ended(event_id, live, Outcome::Failed(failure), 0.0);
        Ok(())
    }

    /// Takes an event that has ended.
    pub(super) fn begin_ended(
        &self,
        event_id: EventId,
        live: ActiveEvent,
        outcome: Outcome,
        duration: f64,
    ) {
        self.begin(event_id, live);
        let average_duration = None;
        self.push(Update::ProcessCompleted { event_id, outcome, duration, average_duration });
    }
}

/// Takes an event off the session again when it wasn't admitted, or the request went away.
struct Unregister<'a> {
    session: &'a Session,
    id: EventId,
    armed: bool,
}

impl Unregister<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Unregister<'_> {
    fn drop(&mut self) {
        if self.armed {
            // Before its listener: what comes meanwhile finds none.
            self.session.mailbox.forget(self.id);
            let _live = self.session.lock().live.remove(&self.id);
            // A stream that has nothing left to wait for must notice.
            self.session.mailbox.wake();
        }
    }
}
