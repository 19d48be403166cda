//! What a log says, by what is asked for: the events that have not ended, and where in the log the ends
//! are. Pure: it is told what was appended.
//!
//! Events that have not ended are here with all that is recorded of them, which their supervisor has as
//! well. Of an end there is what it is found by; the rest is read from the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::group::{Again, Group, Order};
use crate::event::id::EventId;
use crate::journal::Query;
use crate::journal::record::{Ended, Live, Record, Steered, Webhook};

/// An end, as far as it is found by that.
#[derive(Clone, Debug)]
pub(super) struct KnownEnd {
    pub event: EventId,
    /// The groups that have its admission and its end.
    pub admitted: u64,
    pub ended: u64,
    pub at: u64,
    pub failed: bool,
    pub listener: Arc<str>,
    pub session: Option<Arc<str>>,
    pub user: Option<Arc<str>>,
    pub key: Option<Arc<str>>,
    pub attempts: u32,
    pub webhook: Option<Webhook>,
}

impl KnownEnd {
    /// Whether its input is kept with it.
    pub fn keeps_input(&self) -> bool {
        self.key.is_some() || self.failed
    }
}

/// Who used a key: of which listener, which user, which key.
type KeyOf = (Arc<str>, Option<Arc<str>>, Arc<str>);

#[derive(Debug)]
struct Entry {
    live: Live,
    /// The group that has its admission.
    recorded: u64,
}

/// Ends are numbered as they come.
type Nth = u64;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    live: BTreeMap<Order, Entry>,
    order: HashMap<EventId, Order>,
    ends: BTreeMap<Nth, KnownEnd>,
    next_end: Nth,
    by_event: HashMap<EventId, Nth>,
    by_key: HashMap<KeyOf, BTreeSet<Nth>>,
    by_time: BTreeSet<(u64, Nth)>,
    failed: HashMap<Arc<str>, BTreeSet<(u64, Nth)>>,
    to_call: BTreeSet<(u64, Nth)>,
    /// How many ends need each group.
    needed: BTreeMap<u64, usize>,
    steered: BTreeMap<Arc<str>, (Steered, u64)>,
}

/// What is to be done so that a part of the log can go.
#[derive(Debug, PartialEq)]
pub(super) struct Cleaning {
    /// What of it still stands, to be appended first.
    pub again: Vec<Again>,
    /// All groups before this one go.
    pub before: u64,
}

impl Ledger {
    /// This group stands at `sequence`.
    pub fn take(&mut self, sequence: u64, group: &Group) {
        for (nth, concurrency_id, record) in group.records() {
            self.take_record(sequence, nth, concurrency_id, record);
        }
        for again in &group.again {
            self.take_again(sequence, again);
        }
    }

    fn take_record(&mut self, sequence: u64, nth: u32, id: &Arc<str>, record: &Record) {
        match record {
            Record::Admitted(admitted) => {
                let event = admitted.event;
                if self.order.contains_key(&event) || self.by_event.contains_key(&event) {
                    return;
                }
                let live =
                    Live { admitted: admitted.clone(), attempt: 0, postponed: None, place: None };
                self.order.insert(event, (sequence, nth));
                self.live.insert((sequence, nth), Entry { live, recorded: sequence });
            }
            Record::Started { event, attempt, place } => {
                self.change(*event, *attempt, None, place.clone());
            }
            Record::Postponed { event, attempt, until } => {
                let order = self.order.get(event);
                let live = order.and_then(|order| self.live.get(order));
                if live.is_some_and(|entry| entry.live.attempt > *attempt) {
                    return;
                }
                self.change(*event, *attempt, Some(*until), None);
            }
            Record::Ended(ended) => self.end(sequence, ended),
            Record::Called(called) => {
                let Some(nth) = self.by_event.get(&called.event) else { return };
                let Some(end) = self.ends.get_mut(nth) else { return };
                let Some(webhook) = &mut end.webhook else { return };
                webhook.next.map(|next| self.to_call.remove(&(next, *nth)));
                (webhook.calls, webhook.next) = (called.calls, called.next);
                webhook.next.map(|next| self.to_call.insert((next, *nth)));
            }
            Record::Steered(steered) => {
                self.steered.insert(id.clone(), (*steered, sequence));
            }
        }
    }

    fn take_again(&mut self, sequence: u64, again: &Again) {
        match again {
            Again::Live { order, live } => {
                let event = live.admitted.event;
                if self.by_event.contains_key(&event) {
                    return;
                }
                self.order.insert(event, *order);
                self.live.insert(*order, Entry { live: live.clone(), recorded: sequence });
            }
            Again::Steered { concurrency_id, steered } => {
                self.steered.insert(concurrency_id.clone(), (*steered, sequence));
            }
        }
    }

    fn change(
        &mut self,
        event: EventId,
        attempt: u32,
        postponed: Option<u64>,
        place: Option<Arc<str>>,
    ) {
        let entry = self.order.get(&event).and_then(|order| self.live.get_mut(order));
        if let Some(Entry { live, .. }) = entry {
            (live.attempt, live.postponed, live.place) = (attempt, postponed, place);
        }
    }

    fn end(&mut self, sequence: u64, ended: &Ended) {
        let Some(order) = self.order.remove(&ended.event) else { return };
        let Some(Entry { live, recorded }) = self.live.remove(&order) else { return };
        let Live { admitted, attempt, .. } = live;
        let nth = self.next_end;
        self.next_end += 1;
        let end = KnownEnd {
            event: ended.event,
            admitted: recorded,
            ended: sequence,
            at: ended.at,
            failed: ended.failed(),
            listener: admitted.listener,
            session: admitted.session,
            user: admitted.user,
            key: admitted.key,
            attempts: attempt,
            webhook: admitted.webhook.map(|url| Webhook { url, calls: 0, next: Some(ended.at) }),
        };
        self.by_event.insert(end.event, nth);
        self.by_time.insert((end.at, nth));
        if let Some(key) = key_of(&end) {
            self.by_key.entry(key).or_default().insert(nth);
        }
        if end.failed {
            self.failed.entry(end.listener.clone()).or_default().insert((end.at, nth));
        }
        if let Some(next) = next_call(&end) {
            self.to_call.insert((next, nth));
        }
        for group in needs(&end) {
            *self.needed.entry(group).or_default() += 1;
        }
        self.ends.insert(nth, end);
    }

    fn forget_end(&mut self, nth: Nth) {
        let Some(end) = self.ends.remove(&nth) else { return };
        self.by_event.remove(&end.event);
        self.by_time.remove(&(end.at, nth));
        if let Some(key) = key_of(&end)
            && let Some(same) = self.by_key.get_mut(&key)
        {
            same.remove(&nth);
            if same.is_empty() {
                self.by_key.remove(&key);
            }
        }
        if end.failed
            && let Some(failed) = self.failed.get_mut(&end.listener)
        {
            failed.remove(&(end.at, nth));
            if failed.is_empty() {
                self.failed.remove(&end.listener);
            }
        }
        if let Some(next) = next_call(&end) {
            self.to_call.remove(&(next, nth));
        }
        for group in needs(&end) {
            if let Some(count) = self.needed.get_mut(&group) {
                *count -= 1;
                if *count == 0 {
                    self.needed.remove(&group);
                }
            }
        }
    }

    /// Forgets the ends that were recorded before this moment.
    pub fn forget(&mut self, before: u64) {
        while let Some((at, nth)) = self.by_time.first().copied()
            && at < before
        {
            self.forget_end(nth);
        }
    }

    /// The events that have not ended, in the order of their admission.
    pub fn live(&self) -> Vec<Live> {
        self.live.values().map(|entry| entry.live.clone()).collect()
    }

    pub fn steered(&self) -> Vec<(Arc<str>, Steered)> {
        self.steered.iter().map(|(id, (steered, _))| (id.clone(), *steered)).collect()
    }

    /// The ends that fit, in the order in which they are answered.
    pub fn find(&self, query: &Query) -> Vec<&KnownEnd> {
        let of = |nth: &Nth| self.ends.get(nth);
        match query {
            Query::Event(event) => self.by_event.get(event).and_then(of).into_iter().collect(),
            Query::Key { listener, user, key } => {
                let key = (listener.clone(), user.clone(), key.clone());
                self.by_key.get(&key).into_iter().flatten().filter_map(of).collect()
            }
            Query::Session { user, session, since } => {
                let since = self.by_time.range((*since, 0)..).filter_map(|(_, nth)| of(nth));
                let of =
                    |end: &&KnownEnd| end.session.as_ref() == Some(session) && end.user == *user;
                since.filter(of).collect()
            }
            Query::ToCall(most) => {
                self.to_call.iter().take(*most).filter_map(|(_, nth)| of(nth)).collect()
            }
            Query::Failed { listener, most } => {
                let failed = self.failed.get(listener).into_iter().flatten().rev();
                failed.take(*most).filter_map(|(_, nth)| of(nth)).collect()
            }
        }
    }

    /// The first group that anything needs.
    pub fn needed_from(&self) -> Option<u64> {
        let ends = self.needed.keys().next().copied();
        let live = self.live.values().map(|entry| entry.recorded).min();
        let steered = self.steered.values().map(|(_, sequence)| *sequence).min();
        ends.into_iter().chain(live).chain(steered).min()
    }

    /// Whether a part of the log, whose groups are those from `first` to `last`, is worth the cleaning:
    /// more of it goes than has to be appended again.
    pub fn cleaning(&self, first: u64, last: u64) -> Option<Cleaning> {
        let before = self.needed.first_key_value().map_or(last + 1, |(group, _)| *group);
        let goes = before.checked_sub(first).filter(|goes| *goes >= CLEANED)?;
        let live = self.live.iter().filter(|(_, entry)| entry.recorded < before);
        let live =
            live.map(|(order, entry)| Again::Live { order: *order, live: entry.live.clone() });
        let steered = self.steered.iter().filter(|(_, (_, sequence))| *sequence < before);
        let steered = steered.map(|(id, (steered, _))| Again::Steered {
            concurrency_id: id.clone(),
            steered: *steered,
        });
        // A log of what waits only isn't cleaned again and again.
        let most = usize::try_from(goes / 2).unwrap_or(usize::MAX);
        let again: Vec<Again> = live.chain(steered).take(most + 1).collect();
        (again.len() <= most).then_some(Cleaning { again, before })
    }
}

impl Cleaning {
    /// What still stands, in pieces of about as many bytes: none at all is one, by which the log says who has
    /// it.
    pub fn groups(self, bytes: usize) -> Vec<Group> {
        let (mut groups, mut piece, mut weight) = (Vec::new(), Vec::new(), 0);
        for again in self.again {
            weight += match &again {
                Again::Live { live, .. } => live.admitted.input.get().len() + 256,
                Again::Steered { .. } => 64,
            };
            piece.push(again);
            if weight >= bytes {
                groups.push(Group::again(std::mem::take(&mut piece)));
                weight = 0;
            }
        }
        if !piece.is_empty() || groups.is_empty() {
            groups.push(Group::again(piece));
        }
        groups
    }
}

/// Groups that must be able to go before a log is cleaned.
const CLEANED: u64 = 256;

fn key_of(end: &KnownEnd) -> Option<KeyOf> {
    Some((end.listener.clone(), end.user.clone(), end.key.clone()?))
}

fn next_call(end: &KnownEnd) -> Option<u64> {
    end.webhook.as_ref().and_then(|webhook| webhook.next)
}

/// The groups that an end is read from. What was called later stands behind them.
fn needs(end: &KnownEnd) -> [u64; 2] {
    [end.admitted, end.ended]
}
