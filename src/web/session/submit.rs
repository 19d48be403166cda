//! How a session's events begin: submitted, answered from a cache, or failed at once.

use std::pin::pin;

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
    /// Submits an event whose updates go to this session. One that is being submitted already, since its request
    /// came here twice, is submitted once: both hear whether it is let in.
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
        let mut begun = self.begin(id, live);
        while let Err(again) = begun {
            if self.is_let_in(id).await {
                return Ok(());
            }
            begun = self.begin(id, *again);
        }
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
        self.admissions.notify_waiters();
        Ok(())
    }

    /// Waits until an event is let in that is being submitted. Whether it was.
    async fn is_let_in(&self, id: EventId) -> bool {
        loop {
            let mut changed = pin!(self.admissions.notified());
            changed.as_mut().enable();
            match self.lock().live.get(&id).map(ActiveEvent::is_let_in) {
                Some(false) => {}
                Some(true) => return true,
                None => return false,
            }
            changed.await;
        }
    }

    /// Takes an event whose updates are about to come. Gives it back if the session has it already.
    pub(super) fn begin(&self, id: EventId, live: ActiveEvent) -> Result<(), Box<ActiveEvent>> {
        let mut state = self.lock();
        state.begin(id, live)?;
        self.mailbox.begin(id);
        Ok(())
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
        if self.begin(event_id, live.let_in()).is_err() {
            return;
        }
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

    /// Takes an event that has ended, or the end of one that it has: only the first one counts.
    pub(super) fn begin_ended(
        &self,
        event_id: EventId,
        live: ActiveEvent,
        outcome: Outcome,
        duration: f64,
    ) {
        if let Err(again) = self.begin(event_id, live.let_in()) {
            again.leave();
        }
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
            self.session.admissions.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use futures::future::join;
    use tokio::sync::Notify;

    use crate::Listener;
    use crate::event::id::EventId;
    use crate::event::update::{Outcome, Update};
    use crate::queue::Queue;
    use crate::web::auth::guard::Caller;
    use crate::web::state::Web;

    /// Another node sends an event again where it has lost the first answer, and both may come here.
    #[actix::test]
    async fn an_event_whose_request_comes_twice_runs_once_and_is_not_cancelled() {
        let (runs, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (began, ends) = (runs.clone(), over.clone());
        let work = move |(): ()| {
            let (began, ends) = (began.clone(), ends.clone());
            async move {
                began.fetch_add(1, SeqCst);
                ends.notified().await;
                Ok::<_, String>(())
            }
        };
        let queue = Queue::builder().listener(Listener::new("work", work)).start().unwrap();
        let web = Web::new(&queue);
        let state = &web.0;
        let endpoint = state.known("work").unwrap();
        let caller = Caller::default();
        let session = state.sessions.begin(&caller, "s").unwrap().keep();
        let id = EventId::random();
        let submit = || {
            let input = endpoint.input_from_named("{}", &state.files, &caller).unwrap();
            session.submit(id, endpoint, input, Default::default())
        };
        let (first, second) = join(submit(), submit()).await;
        assert!(first.is_ok() && second.is_ok());
        // And once more, when it has been let in.
        assert!(submit().await.is_ok());
        over.notify_one();
        let end = loop {
            match session.mailbox.try_next() {
                Some(read) if read.update.is_terminal() => break read.update,
                _ => tokio::task::yield_now().await,
            }
        };
        let Update::ProcessCompleted { outcome, .. } = end else { panic!("{end:?}") };
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
        assert_eq!(runs.load(SeqCst), 1);
    }
}
