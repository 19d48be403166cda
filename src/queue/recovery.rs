//! What earlier processes have left in the journal, taken back at the start.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::declarations::Declarations;
use super::elsewhere::{Adopt, RecordedRun};
use super::keyed::{KeyedEvent, KeyedEvents};
use super::plan::Plan;
use crate::actors::durable_end::DurableEnd;
use crate::actors::messages::Job;
use crate::actors::recording::{Recovered, RecoveredEvent};
use crate::clock;
use crate::delivery::bounds::UNREAD;
use crate::delivery::outbox::Outbox;
use crate::delivery::sender::{EventSender, Follower, UpdateSender};
use crate::delivery::unread::Gone;
use crate::event::failure::Failure;
use crate::event::id::{EventId, EventMap};
use crate::event::update::Outcome;
use crate::handler::durable::{Durable, OnCrash};
use crate::handler::session_state::SessionState;
use crate::handler::user::with_user;
use crate::journal::Loaded;
use crate::journal::error::JournalError;
use crate::journal::record::{Admitted, Live};
use crate::journal::recovery::{Attempts, Sorted, sort};
use crate::logging::{info, warn};

/// An event that an earlier process has left, and whom nobody follows yet.
#[derive(Debug)]
pub(crate) struct LeftEvent {
    /// The number of its listener.
    pub listener: usize,
    /// That of the client who named it.
    pub session: Option<Arc<SessionState>>,
    pub user: Option<Arc<str>>,
    /// Its updates up to now.
    pub outbox: Arc<Outbox>,
    /// Gone once it has ended.
    pub updates: Weak<UpdateSender>,
}

impl LeftEvent {
    /// Lets another follow it, who has its updates up to now first.
    pub fn hand_over(&self, to: Follower) {
        match self.updates.upgrade() {
            Some(updates) => updates.hand_over(&self.outbox, to),
            None => to.send_unread(&self.outbox, &mut Gone::default()),
        }
    }
}

/// Those that nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct LeftEvents(Mutex<Left>);

#[derive(Debug, Default)]
struct Left {
    events: EventMap<LeftEvent>,
    /// Those of each session, oldest first. What somebody else has taken since is still in here.
    by_session: HashMap<UserSession, Vec<OfSession>>,
}

/// An event of a session.
#[derive(Debug)]
struct OfSession {
    event: EventId,
    listener: usize,
    /// When it was found to have ended: from then on its end is looked for in the journal.
    ended: Option<Instant>,
}

impl Left {
    fn insert(&mut self, event: EventId, left: LeftEvent) {
        if let Some(session) = &left.session {
            let key = (left.user.clone(), session.id.clone());
            let of_session = OfSession { event, listener: left.listener, ended: None };
            self.by_session.entry(key).or_default().push(of_session);
        }
        self.events.insert(event, left);
    }
}

impl LeftEvents {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, for whoever follows them from now on.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub fn take_all(&self) -> Vec<(EventId, LeftEvent)> {
        let left = std::mem::take(&mut *self.lock());
        left.events.into_iter().collect()
    }

    /// One more.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub fn leave(&self, event: EventId, left: LeftEvent) {
        self.lock().insert(event, left);
    }

    /// One of a session that has ended.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub fn leave_ended(
        &self,
        event: EventId,
        listener: usize,
        user: Option<Arc<str>>,
        session: Arc<str>,
    ) {
        let mut left = self.lock();
        let of_session = left.by_session.entry((user, session)).or_default();
        match of_session.iter_mut().find(|it| it.event == event) {
            Some(known) => known.ended = Some(clock::now()),
            None => of_session.push(OfSession { event, listener, ended: Some(clock::now()) }),
        }
    }

    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub fn has(&self, event: EventId) -> bool {
        self.lock().events.contains_key(&event)
    }

    /// The session of one that fits, if its client named one. `None` where none fits.
    pub fn session_of(
        &self,
        event: EventId,
        fits: impl Fn(&LeftEvent) -> bool,
    ) -> Option<Option<Arc<str>>> {
        let left = self.lock();
        let event = left.events.get(&event).filter(|event| fits(event))?;
        Some(event.session.as_ref().map(|session| session.id.clone()))
    }

    /// For whoever follows it from now on, if it fits.
    pub fn take_if(&self, event: EventId, fits: impl Fn(&LeftEvent) -> bool) -> Option<LeftEvent> {
        let mut left = self.lock();
        fits(left.events.get(&event)?).then(|| left.events.remove(&event)).flatten()
    }

    /// Whether a client's session has left any.
    pub fn has_session(&self, user: Option<&Arc<str>>, session: &str) -> bool {
        let left = self.lock();
        !left.by_session.is_empty()
            && left.by_session.contains_key(&(user.cloned(), session.into()))
    }

    /// Those of a client's session whose updates are here, oldest first. That others have ended is known still.
    pub fn take_session(
        &self,
        user: Option<&Arc<str>>,
        session: &str,
    ) -> Vec<(EventId, LeftEvent)> {
        let mut left = self.lock();
        let Left { events, by_session } = &mut *left;
        let mut here = Vec::new();
        retain(by_session, (user.cloned(), session.into()), |it| match events.remove(&it.event) {
            Some(event) => {
                here.push((it.event, event));
                false
            }
            // Otherwise somebody else follows it.
            None => it.ended.is_some(),
        });
        here
    }

    /// Those of a client's session that have ended, with the numbers of their listeners.
    pub fn ended_of_session(
        &self,
        user: Option<&Arc<str>>,
        session: &str,
    ) -> Vec<(EventId, usize)> {
        let left = self.lock();
        let of_session = left.by_session.get(&(user.cloned(), session.into()));
        let ended = of_session.into_iter().flatten().filter(|it| it.ended.is_some());
        ended.map(|it| (it.event, it.listener)).collect()
    }

    /// Its client knows how it has ended.
    pub fn forget_ended(&self, user: Option<&Arc<str>>, session: &str, event: EventId) {
        let key = (user.cloned(), session.into());
        retain(&mut self.lock().by_session, key, |it| it.event != event);
    }

    /// Forgets the updates of those that have ended: their ends are in the journal. That they were a
    /// session's is known for so long.
    pub fn sweep(&self, ttl: Duration) {
        let mut left = self.lock();
        if left.events.is_empty() && left.by_session.is_empty() {
            return;
        }
        let now = clock::now();
        let Left { events, by_session } = &mut *left;
        let over: EventMap<()> = events
            .extract_if(|_, event| event.updates.strong_count() == 0)
            .map(|(event, _)| (event, ()))
            .collect();
        by_session.retain(|_, of_session| {
            of_session.retain_mut(|it| {
                if over.contains_key(&it.event) {
                    it.ended = Some(now);
                }
                match it.ended {
                    Some(ended) => now.saturating_duration_since(ended) < ttl,
                    None => events.contains_key(&it.event),
                }
            });
            !of_session.is_empty()
        });
    }
}

/// Forgets those of a session that don't stay, and with the last of them the session.
fn retain(
    by_session: &mut HashMap<UserSession, Vec<OfSession>>,
    session: UserSession,
    stays: impl FnMut(&OfSession) -> bool,
) {
    if let Entry::Occupied(mut of_session) = by_session.entry(session) {
        of_session.get_mut().retain(stays);
        if of_session.get().is_empty() {
            of_session.remove();
        }
    }
}

/// A user, and the name of a session of the user's.
type UserSession = (Option<Arc<str>>, Arc<str>);

/// What the supervisors take back, by concurrency id, and who may be asked for.
pub(crate) struct Recovery {
    /// By user and name.
    sessions: HashMap<UserSession, Arc<SessionState>>,
    /// By the number of their listener.
    keyed: HashMap<usize, KeyedEvents>,
    by_id: HashMap<Arc<str>, Recovered>,
    pub left: LeftEvents,
}

impl Recovery {
    /// The idempotency keys of a listener.
    pub fn keyed(&mut self, listener: usize) -> KeyedEvents {
        self.keyed.remove(&listener).unwrap_or_default()
    }

    /// An event that somebody may come back to.
    fn leave(
        &mut self,
        listener: usize,
        admitted: &Admitted,
    ) -> (EventSender, Option<Arc<SessionState>>) {
        let Admitted { event, session, user, key, input, .. } = admitted;
        let session = session.clone().map(|session| {
            let state = self.sessions.entry((user.clone(), session.clone()));
            let new = || Arc::new(SessionState::new(session, user.clone(), None));
            state.or_insert_with(new).clone()
        });
        let outbox = Arc::new(Outbox::new(UNREAD));
        let follower = Follower::Outbox(outbox.clone());
        let sender = EventSender::follow(*event, follower, oneshot::channel().0);
        let updates = sender.updates().map(Arc::downgrade).unwrap_or_default();
        if let Some(key) = key {
            let keyed = self.keyed.entry(listener).or_default();
            let (updates, input) = (updates.clone(), input.clone());
            let keyed_event = KeyedEvent { event: *event, input, updates };
            keyed.insert((user.clone(), key.clone()), keyed_event);
        }
        let (session_of_event, user) = (session.clone(), user.clone());
        let left = LeftEvent { listener, session: session_of_event, user, outbox, updates };
        self.left.0.get_mut().unwrap_or_else(PoisonError::into_inner).insert(*event, left);
        (sender, session)
    }

    /// What one concurrency id takes back.
    pub fn of_id(&mut self, id: &str) -> Recovered {
        self.by_id.remove(id).unwrap_or_default()
    }
}

/// Reads the journal, if there is one. Each concurrency id with a durable listener gets it.
///
/// # Errors
/// When it can't be read.
pub(crate) fn recover(declared: &Declarations, plans: &[Plan]) -> Result<Recovery, JournalError> {
    let mut recovery = Recovery {
        sessions: HashMap::new(),
        keyed: HashMap::new(),
        by_id: HashMap::new(),
        left: LeftEvents::default(),
    };
    let Some(journal) = &declared.journal else { return Ok(recovery) };
    let Loaded { events, steered } = journal.load()?;
    let (at, now) = (clock::unix_millis(), clock::now());
    let mut by_listener: HashMap<Arc<str>, Vec<(usize, Live)>> = HashMap::new();
    for (number, live) in events.into_iter().enumerate() {
        by_listener.entry(live.admitted.listener.clone()).or_default().push((number, live));
    }
    for plan in plans {
        let id = &plan.rules.concurrency_id;
        let (mut of_id, mut is_durable) = (Vec::new(), false);
        for (lane, &member) in plan.members.iter().enumerate() {
            let listener = &declared.listeners[member];
            let Some(durability) = listener.durability(&declared.data) else { continue };
            is_durable = true;
            // Where runs outlive whoever keeps the line, it isn't known yet what becomes of them.
            let may_run = declared.recorded.is_some();
            let attempts = Attempts {
                max: if may_run { u32::MAX } else { durability.max_attempts },
                after_crash: may_run || durability.on_crash == OnCrash::Retry,
            };
            for (number, live) in by_listener.remove(&listener.api_name).unwrap_or_default() {
                of_id.push((number, (live, attempts, (lane, member, durability.clone()))));
            }
        }
        if !is_durable {
            continue;
        }
        // One after the other as they came, whichever listener's they are.
        of_id.sort_by_key(|(number, _)| *number);
        let Sorted { go_on, over } = sort(of_id.into_iter().map(|(_, event)| event).collect());
        if !go_on.is_empty() {
            info!("{id}: {} events go on that an earlier process has left", go_on.len());
        }
        let set = steered.iter().find(|(name, _)| name == id).map(|(_, set)| *set);
        let mut recovered = Recovered {
            awaits_room: declared.recorded.is_some(),
            journal: Some(journal.clone()),
            ended: Vec::with_capacity(over.len()),
            steered: set.unwrap_or_default(),
            events: Vec::with_capacity(go_on.len()),
        };
        for (live, failure, (_, member, _)) in over {
            let event = live.admitted.event;
            warn!("{id}: event {event} fails: {failure}");
            let (sender, _) = recovery.leave(member, &live.admitted);
            let outcome = Outcome::Failed(failure);
            recovered.ended.push(DurableEnd::unstarted(event, sender, outcome));
        }
        for (live, (lane, member, durability)) in go_on {
            let event = live.admitted.event;
            let (sender, session) = recovery.leave(member, &live.admitted);
            let since = ago(now, at.saturating_sub(live.admitted.at));
            let not_before = live.postponed.or(live.admitted.not_before);
            let not_before = not_before.and_then(clock::from_unix_millis);
            let input = match durability.read_input(&live.admitted.input) {
                Ok(input) => input,
                Err(trouble) => {
                    // What is wrong may quote the input, which is for no log.
                    warn!("{id}: event {event} fails: its recorded input can't be read any more");
                    let outcome = Outcome::Failed(Failure::unexpected(trouble));
                    recovered.ended.push(DurableEnd::unstarted(event, sender, outcome));
                    continue;
                }
            };
            let Admitted {
                session: named,
                user,
                key,
                webhook,
                not_before: admitted_for,
                came_to,
                input: text,
                ..
            } = live.admitted;
            let runs = declared.recorded.as_ref().filter(|_| live.attempt > 0);
            let runs = runs.filter(|_| live.postponed.is_none());
            // The attempt that is on record goes on as itself.
            let started = live.attempt - u32::from(runs.is_some());
            let mut durable = Durable::new(text).recovered(started);
            (durable.session, durable.key, durable.not_before) = (named, key, admitted_for);
            (durable.webhook, durable.came_to) = (webhook, came_to);
            let mut input = with_user(input.with(durable), user);
            let may_run = runs.is_some();
            if let Some(runs) = runs {
                let (attempt, concurrency_id) = (live.attempt, id.clone());
                runs.push(RecordedRun { event, attempt, concurrency_id, place: live.place });
                input = input.with(Adopt);
            }
            let job = Box::new(Job { id: event, session, input, sender });
            let runs = may_run;
            recovered.events.push(RecoveredEvent { listener: lane, job, since, not_before, runs });
        }
        recovery.by_id.insert(id.clone(), recovered);
    }
    for (listener, events) in by_listener {
        warn!(
            "the journal has {} events of listener {listener:?}, which this queue doesn't have as a \
             durable one; they stay there",
            events.len()
        );
    }
    Ok(recovery)
}

/// The moment that many milliseconds ago, or as far back as this process can tell.
fn ago(now: Instant, millis: u64) -> Instant {
    now.checked_sub(Duration::from_millis(millis)).unwrap_or(now)
}
