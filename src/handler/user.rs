//! Whose event it is: the user of its session, or whom its in-process submitter names.

use std::sync::Arc;

use super::input::Input;
use super::session_state::SessionState;

/// The user of an event without a session; given with the event.
#[derive(Debug)]
pub(crate) struct EventUser(pub Arc<str>);

/// The input of this user's event.
pub(crate) fn with_user(input: Input, user: Option<Arc<str>>) -> Input {
    match user {
        Some(user) => input.with(EventUser(user)),
        None => input,
    }
}

/// The user of an event, by its session or by what was given with it.
pub(crate) fn user_of<'a>(
    session: Option<&'a SessionState>,
    given: Option<&'a EventUser>,
) -> Option<&'a str> {
    let of_session = session.and_then(|session| session.user.as_deref());
    of_session.or_else(|| given.map(|EventUser(user)| &**user))
}
