//! Events that an earlier process has left, brought to the clients that come back for them.

use std::sync::Arc;

use super::active_event::ActiveEvent;
use super::registry::Sessions;
use super::session::Session;
use crate::event::id::EventId;
use crate::queue::recovery::LeftEvent;
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
        self.begin(id, live);
        left.hand_over(self.follower());
    }
}

impl Sessions {
    /// A stream of its own for an event that was left, as a `/call` has one.
    ///
    /// # Errors
    /// When there are too many sessions.
    pub fn adopt_call(
        &self,
        id: EventId,
        caller: &Caller,
        endpoint: &Endpoint,
        audience: Audience,
        left: &LeftEvent,
    ) -> Result<Arc<Session>, Rejection> {
        let hash = left.session.as_ref().map(|session| session.id.clone());
        let call = self.begin_call(id, caller, hash.as_deref())?;
        let session = call.session.clone();
        session.adopt(id, endpoint, audience, left);
        call.keep();
        Ok(session)
    }
}
