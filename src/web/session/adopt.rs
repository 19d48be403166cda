//! Events that an earlier process has left, brought to the clients that come back for them.

use std::sync::Arc;

use super::active_event::ActiveEvent;
use super::registry::Sessions;
use super::session::Session;
use crate::event::id::EventId;
use crate::queue::follow::PastEvent;
use crate::queue::recovery::{LeftEvent, LeftEvents};
use crate::web::api::endpoint::Endpoint;
use crate::web::auth::guard::Caller;
use crate::web::protocol::encoder::Audience;
use crate::web::rejection::Rejection;

impl Session {
    /// From now on the event's updates go to this session, those up to now first.
    pub fn adopt(&self, id: EventId, endpoint: &Endpoint, audience: Audience, left: &LeftEvent) {
        // It was let in by the process that accepted it.
        let Some(under_way) = self.kept.begin_event(usize::MAX) else { return };
        let mut live = ActiveEvent::of(endpoint, audience, under_way);
        live.admitted(endpoint.listener_ref.cancel_on_drop(id));
        match self.begin(id, live) {
            Ok(()) => left.hand_over(self.follower()),
            // It came here by its own request meanwhile.
            Err(again) => again.leave(),
        }
    }
}

impl Session {
    /// Gives the end of an event that the journal has kept.
    pub fn give_end(&self, id: EventId, endpoint: &Endpoint, audience: Audience, past: PastEvent) {
        let Some(under_way) = self.kept.begin_event(usize::MAX) else { return };
        let encoder = endpoint.encoder(audience);
        self.begin_ended(
            id,
            ActiveEvent::new(encoder, false, under_way),
            past.outcome,
            past.duration,
        );
    }
}

impl Sessions {
    /// A stream of its own for an event that was left, as a `/call` has one, if there is one that fits.
    ///
    /// # Errors
    /// When there are too many sessions. The event stays where it is.
    pub fn adopt_call(
        &self,
        id: EventId,
        caller: &Caller,
        endpoint: &Endpoint,
        audience: Audience,
        left: &LeftEvents,
        fits: impl Fn(&LeftEvent) -> bool,
    ) -> Result<Option<Arc<Session>>, Rejection> {
        let Some(hash) = left.session_of(id, &fits) else { return Ok(None) };
        let call = self.begin_call(id, caller, hash.as_deref())?;
        let session = call.session.clone();
        // Another may have been faster.
        let Some(left) = left.take_if(id, fits) else { return Ok(None) };
        session.adopt(id, endpoint, audience, &left);
        call.keep();
        Ok(Some(session))
    }
}
