//! What becomes of an event that an earlier process has left.

use super::record::Live;
use crate::event::failure::Failure;

/// How often an event may start, where its process may end meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempts {
    pub max: u32,
    /// Whether one that ran when its process ended may start again.
    pub after_crash: bool,
}

/// What becomes of an event that had not ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It waits, as it did.
    Waits,
    /// It ran, or was to: it starts again, before those that wait.
    Again,
    /// The end of its process has made it fail.
    Over(Failure),
}

pub(crate) fn verdict(live: &Live, attempts: Attempts) -> Verdict {
    if live.attempt == 0 || live.postponed.is_some() {
        return Verdict::Waits;
    }
    let over = |why: String| Verdict::Over(Failure::unexpected(why));
    if !attempts.after_crash {
        return over("the service ended while it ran, and it must not run twice".into());
    }
    if live.attempt >= attempts.max {
        return over(format!("the service ended while it ran, at attempt {}", live.attempt));
    }
    Verdict::Again
}

/// What earlier processes have left, each event with what was given with it.
pub(crate) struct Sorted<T> {
    /// In the order in which they go on.
    pub go_on: Vec<(Live, T)>,
    pub over: Vec<(Live, Failure, T)>,
}

pub(crate) fn sort<T>(events: Vec<(Live, Attempts, T)>) -> Sorted<T> {
    let (mut again, mut waits, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for (live, attempts, with) in events {
        match verdict(&live, attempts) {
            Verdict::Again => again.push((live, with)),
            Verdict::Waits => waits.push((live, with)),
            Verdict::Over(failure) => over.push((live, failure, with)),
        }
    }
    again.append(&mut waits);
    Sorted { go_on: again, over }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::id::EventId;
    use crate::event::json_text::JsonText;
    use crate::journal::record::Admitted;

    const TWICE: Attempts = Attempts { max: 2, after_crash: true };
    const ONCE: Attempts = Attempts { max: 2, after_crash: false };

    fn live(event: u128, attempt: u32, postponed: Option<u64>) -> Live {
        let admitted = Admitted {
            event: EventId::for_test(event),
            listener: "paint".into(),
            session: None,
            user: None,
            key: None,
            webhook: None,
            not_before: None,
            came_to: None,
            at: 0,
            input: JsonText::of(&()).unwrap(),
        };
        Live { admitted, attempt, postponed, place: None }
    }

    #[test]
    fn what_never_started_waits_and_what_ran_starts_again_or_is_over() {
        assert_eq!(verdict(&live(1, 0, None), ONCE), Verdict::Waits);
        assert_eq!(verdict(&live(1, 1, None), TWICE), Verdict::Again);
        assert!(matches!(verdict(&live(1, 1, None), ONCE), Verdict::Over(_)));
        assert!(matches!(verdict(&live(1, 2, None), TWICE), Verdict::Over(_)));
        // It had stopped by itself, and wasn't interrupted.
        assert_eq!(verdict(&live(1, 1, Some(5)), ONCE), Verdict::Waits);
    }

    #[test]
    fn what_ran_comes_before_what_waits() {
        let all = [live(1, 0, None), live(2, 1, None), live(3, 0, None), live(4, 2, None)];
        let all = all.into_iter().map(|live| (live, TWICE, ())).collect();
        let Sorted { go_on, over } = sort(all);
        let go_on: Vec<_> = go_on.into_iter().map(|(live, ())| live.admitted.event).collect();
        assert_eq!(go_on, [2, 1, 3].map(EventId::for_test));
        let over: Vec<_> = over.into_iter().map(|(live, ..)| live.admitted.event).collect();
        assert_eq!(over, [EventId::for_test(4)]);
    }
}
