//! Who may hold slots of the line that no record tells of, since nobody's event has them: a node that begins to
//! keep the line grants nothing before each of them has said what it holds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cluster::message::{Beat, NodeName, Process};

/// The nodes whose beats were heard not long ago.
pub(super) struct Present {
    /// How long a beat counts.
    lasts: Duration,
    /// And how long that of a node counts which has said that it holds something.
    lasts_holding: Duration,
    nodes: HashMap<NodeName, Heard>,
}

struct Heard {
    boot: u64,
    at: Instant,
    leaving: bool,
    /// It has said that it holds permits.
    holds: bool,
}

impl Present {
    pub fn new(lasts: Duration, lasts_holding: Duration) -> Self {
        Present { lasts, lasts_holding, nodes: HashMap::new() }
    }

    /// A beat has come. Whether it is a process that wasn't known.
    pub fn beat(&mut self, now: Instant, beat: &Beat) -> bool {
        let lasts = self.lasts_holding;
        self.nodes.retain(|_, heard| now - heard.at < lasts);
        // An older process of its name is on its way out.
        if self.nodes.get(&beat.from.node).is_some_and(|heard| heard.boot > beat.from.boot) {
            return false;
        }
        let (boot, leaving) = (beat.from.boot, beat.leaving);
        let known = self.nodes.get(&beat.from.node).filter(|heard| heard.boot == boot);
        let (is_new, holds) = (known.is_none(), known.is_some_and(|heard| heard.holds));
        self.nodes.insert(beat.from.node.clone(), Heard { boot, at: now, leaving, holds });
        is_new
    }

    /// A process has said whether it holds permits.
    pub fn holds(&mut self, process: &Process, holds: bool) {
        let known = self.nodes.get_mut(&process.node);
        if let Some(heard) = known.filter(|heard| heard.boot == process.boot) {
            heard.holds = holds;
        }
    }

    /// Whether it may hold permits: what leaves asks for none any more.
    fn may_hold(&self, now: Instant, node: &NodeName) -> bool {
        let may_hold = |heard: &Heard| match heard.holds {
            true => now - heard.at < self.lasts_holding,
            false => now - heard.at < self.lasts && !heard.leaving,
        };
        self.nodes.get(node).is_some_and(may_hold)
    }
}

/// Those who have not said yet what they hold.
pub(super) struct Census {
    missing: HashMap<NodeName, Missing>,
    /// Before this moment there may be some that were never heard.
    not_before: Instant,
    /// Who has not said it by then counts as holding nothing.
    until: Instant,
}

/// What is still to come from a node.
struct Missing {
    beat: bool,
    permits: bool,
}

impl Census {
    /// Of who is present, and of this node itself.
    pub fn new(this: &NodeName, present: &Present, not_before: Instant, until: Instant) -> Self {
        let nodes = present.nodes.keys().chain([this]);
        let missing = nodes.map(|node| (node.clone(), Missing { beat: true, permits: true }));
        Census { missing: missing.collect(), not_before, until }
    }

    /// A node that has come meanwhile holds nothing yet.
    pub fn beat(&mut self, node: &NodeName) {
        self.said(node, |missing| missing.beat = false);
    }

    pub fn permits(&mut self, node: &NodeName) {
        self.said(node, |missing| missing.permits = false);
    }

    fn said(&mut self, node: &NodeName, said: impl FnOnce(&mut Missing)) {
        if let Some(missing) = self.missing.get_mut(node) {
            said(missing);
            if !missing.beat && !missing.permits {
                self.missing.remove(node);
            }
        }
    }

    /// Who is missing.
    pub fn missing(&self) -> impl Iterator<Item = &NodeName> {
        self.missing.keys()
    }

    /// Whether nobody is missing who may still say something.
    pub fn is_over(&mut self, now: Instant, this: &NodeName, present: &Present) -> bool {
        self.missing.retain(|node, _| node == this || present.may_hold(now, node));
        (self.missing.is_empty() && now >= self.not_before) || now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(3);

    fn process(node: &str) -> Process {
        Process { node: node.into(), boot: 1 }
    }

    fn beat(node: &str, leaving: bool) -> Beat {
        let (from, epoch) = (process(node), 0);
        let (running, stopped, unbegun, slots) = Default::default();
        Beat { from, number: 1, epoch, running, stopped, unbegun, slots, leaving }
    }

    #[test]
    fn all_who_may_hold_something_are_waited_for() {
        let (now, this) = (Instant::now(), NodeName::from("a"));
        let mut present = Present::new(LASTS, 2 * LASTS);
        assert!(present.beat(now, &beat("b", false)));
        assert!(!present.beat(now, &beat("b", false)));
        let later = Beat { from: Process { boot: 2, ..process("b") }, ..beat("b", false) };
        assert!(present.beat(now, &later));
        // The one before goes on for a while.
        assert!(!present.beat(now, &beat("b", false)) && !present.beat(now, &later));
        let mut census = Census::new(&this, &present, now, now + 2 * LASTS);
        for node in ["a", "b"].map(NodeName::from) {
            assert!(!census.is_over(now, &this, &present), "{node}");
            census.permits(&node);
            assert!(!census.is_over(now, &this, &present), "{node}");
            census.beat(&node);
        }
        assert!(census.is_over(now, &this, &present));
    }

    #[test]
    fn who_is_gone_is_waited_for_no_longer() {
        let (now, this) = (Instant::now(), NodeName::from("a"));
        let mut present = Present::new(LASTS, 2 * LASTS);
        for node in ["dead", "leaves", "leaves and holds"] {
            present.beat(now, &beat(node, node != "dead"));
        }
        present.holds(&process("leaves and holds"), true);
        let mut census = Census::new(&this, &present, now, now + 2 * LASTS);
        census.permits(&this);
        census.beat(&this);
        census.permits(&"leaves and holds".into());
        census.beat(&"leaves and holds".into());
        let late = now + LASTS;
        assert!(!census.is_over(late - Duration::from_millis(1), &this, &present));
        assert!(census.is_over(late, &this, &present));
    }

    /// It may be of a version that doesn't.
    #[test]
    fn who_says_nothing_is_not_waited_for_without_end() {
        let (now, this) = (Instant::now(), NodeName::from("a"));
        let mut present = Present::new(LASTS, 2 * LASTS);
        let until = now + 2 * LASTS;
        let mut census = Census::new(&this, &present, now, until);
        present.beat(until, &beat("a", false));
        assert!(!census.is_over(until - Duration::from_millis(1), &this, &present));
        assert!(census.is_over(until, &this, &present));
    }

    #[test]
    fn who_has_just_come_listens_for_a_while() {
        let (now, this) = (Instant::now(), NodeName::from("a"));
        let present = Present::new(LASTS, 2 * LASTS);
        let mut census = Census::new(&this, &present, now + LASTS, now + 2 * LASTS);
        census.permits(&this);
        census.beat(&this);
        assert!(!census.is_over(now, &this, &present));
        assert!(census.is_over(now + LASTS, &this, &present));
    }
}
