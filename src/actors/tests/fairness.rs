//! Several concurrency ids that share a queue-wide bound, on random histories: never more wait than
//! it says, first come first served over all ids, and no place is lost.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::actors::Capacity;
use crate::actors::capacity::Account;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::scheduler::Scheduler;
use crate::scheduler::command::{Arrival, Command, Effect, OutcomeCounts, WhenFull};
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::{ListenerRules, Rules};
use crate::scheduler::wait_queue::Key;

const IDS: usize = 3;

/// The last id has a bound of its own as well.
const OWN: [Option<usize>; IDS] = [None, None, Some(2)];

/// Events of the second id time out in the wait queue.
const TIMEOUTS: [Option<Duration>; IDS] = [None, Some(Duration::from_millis(50)), None];

#[derive(Clone, Debug)]
enum Step {
    Submit {
        id: usize,
        patient: bool,
    },
    Finish(usize),
    Cancel(usize),
    Advance(u64),
    Pause(usize),
    Resume(usize),
    /// An id hears that it was granted places.
    Deliver(usize),
    /// A supervisor has a bug.
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..IDS, prop::bool::weighted(0.8)).prop_map(|(id, patient)| Step::Submit { id, patient }),
        5 => (0..IDS).prop_map(Step::Finish),
        2 => (0..200usize).prop_map(Step::Cancel),
        2 => (1..40u64).prop_map(Step::Advance),
        1 => (0..IDS).prop_map(Step::Pause),
        2 => (0..IDS).prop_map(Step::Resume),
        4 => (0..IDS).prop_map(Step::Deliver),
        1 => (0..IDS).prop_map(Step::Restart),
    ]
}

/// One concurrency id, as its supervisor has it.
struct Member {
    scheduler: Scheduler<usize>,
    account: Account<Key>,
    notified: Arc<AtomicBool>,
    /// Events in the wait queue, and blocked callers, in order.
    wait_queue: Vec<usize>,
    blocked: Vec<usize>,
    running: Option<usize>,
}

struct World {
    capacity: Arc<Capacity>,
    members: Vec<Member>,
    now: Instant,
    /// The concurrency id of each event.
    events: Vec<usize>,
    /// Every notification arrives at once.
    prompt: bool,
}

impl World {
    fn new(max: usize, prompt: bool) -> Self {
        let (now, capacity) = (Instant::now(), Arc::new(Capacity::new(max)));
        let member = |id: usize| {
            let rules = Rules {
                concurrency_id: id.to_string().into(),
                limit: Limit::Slots(1),
                max_size: OWN[id],
                max_eta: None,
                resource: None,
                listeners: vec![ListenerRules {
                    api_name: id.to_string().into(),
                    batch: None,
                    time_limit: None,
                    queue_timeout: TIMEOUTS[id],
                    durable: false,
                }],
                queue_max_size: Some(max),
            };
            let notified = Arc::new(AtomicBool::new(false));
            let notify = notified.clone();
            Member {
                scheduler: Scheduler::new(rules, now),
                account: Account::open(
                    capacity.clone(),
                    Arc::new(move || notify.store(true, SeqCst)),
                ),
                notified,
                wait_queue: Vec::new(),
                blocked: Vec::new(),
                running: None,
            }
        };
        let members = (0..IDS).map(member).collect();
        World { capacity, members, now, events: Vec::new(), prompt }
    }

    fn step(&mut self, step: Step) {
        // No two callers come at the same moment.
        self.now += Duration::from_nanos(1);
        match step {
            Step::Submit { id, patient } => self.submit(id, patient),
            Step::Finish(id) => {
                if let Some(slot) = self.members[id].running.take() {
                    let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
                    self.command(id, Command::Done { slot, counts, ready: true });
                }
            }
            Step::Cancel(n) => {
                let Some(&id) = self.events.get(n) else { return };
                self.command(id, Command::Cancel { listener: 0, id: EventId::for_test(n as u128) });
            }
            Step::Advance(millis) => {
                self.now += Duration::from_millis(millis);
                for id in 0..IDS {
                    self.members[id].scheduler.handle_timeout(self.now);
                    self.settle(id);
                }
            }
            Step::Pause(id) => self.command(id, Command::Pause),
            Step::Resume(id) => self.command(id, Command::Resume),
            Step::Deliver(id) => self.deliver(id),
            Step::Restart(id) => {
                let member = &mut self.members[id];
                member.scheduler = member.scheduler.restarted(self.now, Vec::new());
                member.account.clear();
                (member.wait_queue, member.blocked, member.running) = Default::default();
                self.settle(id);
            }
        }
        while self.prompt
            && let Some(id) = (0..IDS).find(|&id| self.is_notified(id))
        {
            self.deliver(id);
        }
        self.check();
    }

    fn submit(&mut self, id: usize, patient: bool) {
        // As the supervisor does.
        if self.members[id].scheduler.requesting() > 0 {
            self.deliver(id);
        }
        let n = self.events.len();
        self.events.push(id);
        let full = self.capacity.is_full();
        let member = &mut self.members[id];
        let placed = member.scheduler.has_room() && member.account.try_take();
        member.blocked.push(n);
        let arrival = Arrival {
            id: EventId::for_test(n as u128),
            listener: 0,
            watched: true,
            when_full: if patient { WhenFull::Wait } else { WhenFull::Refuse },
            not_before: None,
            placed,
            payload: n,
        };
        self.command(id, Command::Admit(arrival));
        let member = &self.members[id];
        let own =
            OWN[id].is_some_and(|own| member.wait_queue.len() >= own || !member.blocked.is_empty());
        if !patient {
            assert!(!member.blocked.contains(&n), "who doesn't wait is not blocked");
            let admitted = member.wait_queue.contains(&n) || member.running.is_some() && !full;
            assert!(admitted || full || own, "nobody is refused while there is room");
        }
    }

    fn command(&mut self, id: usize, command: Command<usize>) {
        self.members[id].scheduler.handle(self.now, command);
        self.settle(id);
    }

    fn is_notified(&self, id: usize) -> bool {
        self.members[id].notified.load(SeqCst)
    }

    fn deliver(&mut self, id: usize) {
        self.members[id].notified.store(false, SeqCst);
        for key in self.members[id].account.fetch() {
            self.command(id, Command::PlaceGranted(key));
        }
    }

    fn settle(&mut self, id: usize) {
        while let Some(effect) = self.members[id].scheduler.poll_effect() {
            let member = &mut self.members[id];
            match effect {
                Effect::RequestPlace { key, since } => member.account.request(since, key),
                Effect::WithdrawPlace { key, since } => member.account.withdraw(since, key),
                Effect::RetakePlace => member.account.retake(),
                Effect::FreePlaces(places) => member.account.free(places),
                Effect::NotifyRank { key, .. } => {
                    let n = *member.scheduler.waiting_mut(key).expect("it waits");
                    if !member.wait_queue.contains(&n) {
                        self.entered(id, n);
                    }
                }
                Effect::Start { slot, event, .. } => {
                    assert_eq!(member.wait_queue.remove(0), event, "first in, first out");
                    member.running = Some(slot);
                }
                Effect::End { event, .. } => {
                    member.wait_queue.retain(|n| *n != event);
                    member.blocked.retain(|n| *n != event);
                }
                Effect::Refuse { event, refusal } => {
                    member.blocked.retain(|n| *n != event);
                    if let Refusal::QueueFull { max_size, size, .. } = refusal {
                        assert!(size <= max_size, "{size} of {max_size}");
                    }
                }
                _ => {}
            }
        }
    }

    fn entered(&mut self, id: usize, n: usize) {
        let member = &mut self.members[id];
        assert_eq!(member.blocked.remove(0), n, "first come, first served");
        member.wait_queue.push(n);
        for (id, member) in self.members.iter().enumerate() {
            // Who was granted a place and hasn't heard of it passes nobody by.
            let oldest = member.blocked.first().filter(|_| !self.is_notified(id));
            let able = OWN[id].is_none_or(|own| member.wait_queue.len() < own);
            assert!(
                oldest.is_none_or(|oldest| *oldest > n || !able),
                "first come, first served over all ids: {n} passed {oldest:?}"
            );
        }
    }

    fn check(&self) {
        let waiting: usize = self.members.iter().map(|member| member.wait_queue.len()).sum();
        let taken = self.capacity.taken();
        assert!(waiting <= taken && taken <= self.capacity.max(), "{waiting} {taken}");
        let mut pending = false;
        for (id, member) in self.members.iter().enumerate() {
            assert_eq!(member.scheduler.waiting(), member.wait_queue.len());
            assert_eq!(member.scheduler.blocked(), member.blocked.len());
            pending |= self.is_notified(id);
            let able = OWN[id].is_none_or(|own| member.wait_queue.len() < own);
            if !member.blocked.is_empty() && able && !self.is_notified(id) {
                assert_eq!(taken, self.capacity.max(), "nobody is blocked while there is a place");
            }
        }
        assert!(pending || waiting == taken, "no place is lost");
    }

    fn end(mut self) {
        for id in 0..IDS {
            self.command(id, Command::Stop);
            self.members[id].blocked.clear();
        }
        for id in 0..IDS {
            self.deliver(id);
        }
        assert_eq!(self.capacity.taken(), 0, "no place is lost");
        assert!(!self.capacity.is_full());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn first_come_first_served_over_all_ids_and_no_place_is_lost(
        steps in prop::collection::vec(step(), 1..200),
        max in 1..5usize,
        prompt in any::<bool>(),
    ) {
        let mut world = World::new(max, prompt);
        steps.into_iter().for_each(|step| world.step(step));
        world.end();
    }
}

/// A supervisor that is gone leaves its places, those granted to it, and its turn to others.
#[test]
fn who_goes_leaves_everything() {
    let capacity = Arc::new(Capacity::new(1));
    let heard = Arc::new(AtomicBool::new(false));
    let mut gone = Account::open(capacity.clone(), Arc::new(|| {}));
    let notify = heard.clone();
    let mut stays = Account::open(capacity.clone(), Arc::new(move || notify.store(true, SeqCst)));
    let mut scheduler = Scheduler::<()>::new(
        Rules {
            concurrency_id: "a".into(),
            limit: Limit::Slots(1),
            max_size: None,
            max_eta: None,
            resource: None,
            listeners: vec![ListenerRules {
                api_name: "a".into(),
                batch: None,
                time_limit: None,
                queue_timeout: None,
                durable: false,
            }],
            queue_max_size: Some(1),
        },
        Instant::now(),
    );
    let arrival = Arrival {
        id: EventId::for_test(0),
        listener: 0,
        watched: false,
        when_full: WhenFull::Wait,
        not_before: None,
        placed: false,
        payload: (),
    };
    scheduler.handle(Instant::now(), Command::Admit(arrival));
    let Some(Effect::RequestPlace { key, since }) = scheduler.poll_effect() else { panic!() };
    assert!(gone.try_take());
    gone.request(since, key);
    stays.request(since, key);
    assert!(!stays.try_take());
    gone.free(1);
    assert!(!heard.load(SeqCst), "the first was granted the place, and hasn't fetched it");
    drop(gone);
    assert!(heard.load(SeqCst));
    assert_eq!(stays.fetch(), [key]);
    assert_eq!(capacity.taken(), 1);
    stays.free(1);
    assert_eq!(capacity.taken(), 0);
}
