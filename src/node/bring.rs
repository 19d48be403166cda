//! An event that goes on elsewhere, for a client who asks for it here.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::input::Input;
use super::wire::GoesOn;
use crate::delivery::bounds::UNREAD;
use crate::delivery::outbox::Outbox;
use crate::delivery::sender::{EventSender, Follower};
use crate::handler::session_state::SessionState;
use crate::queue::Inner;
use crate::queue::recovery::LeftEvent;

/// From now on it is among those that were left here, with its updates from now on.
pub(super) fn bring(queue: &Inner, event: GoesOn, input: &UnboundedSender<Input>) {
    let GoesOn { event, listener: name, user, session, ended } = event;
    let Some(&listener) = queue.by_name.get(&name) else { return };
    if queue.left.has(event) {
        return;
    }
    if ended {
        if let Some(session) = session {
            queue.left.leave_ended(event, listener, user, session);
        }
        return;
    }
    let outbox = Arc::new(Outbox::new(UNREAD));
    let follower = Follower::Outbox(outbox.clone());
    // Where it was submitted here, it is known here.
    let live = queue.live.find(event).map(|live| live.updates);
    let session = session.map(|session| Arc::new(SessionState::new(session, user.clone(), None)));
    let here = live.and_then(|live| live.upgrade());
    let updates = match here {
        Some(updates) => {
            if !updates.add(follower) {
                // It has just ended.
                if let Some(session) = session {
                    let session = session.id.clone();
                    queue.left.leave_ended(event, listener, user, session);
                }
                return;
            }
            Arc::downgrade(&updates)
        }
        None => {
            let sender = EventSender::follow(event, follower, oneshot::channel().0);
            let updates = sender.updates().map(Arc::downgrade).unwrap_or_default();
            let session = session.clone();
            let follow = Input::Follow { event, listener: name, session, sender };
            if input.send(follow).is_err() {
                return;
            }
            updates
        }
    };
    queue.left.leave(event, LeftEvent { listener, session, user, outbox, updates });
}
