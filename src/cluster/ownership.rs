//! Who is to own a concurrency id. Each node decides by itself, from the nodes that it hears: nothing depends
//! on all deciding alike, since the record lets one claim stand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::{Epoch, NodeName, Times};

/// For how many beats no owner must have been heard before a node claims: as long as a node counts that is silent.
pub(crate) const SILENCE: u32 = 3;

/// No turn comes later.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a node knows of the others, and of the owners.
#[derive(Debug)]
pub(crate) struct Candidate {
    times: Times,
    this: NodeName,
    heard: BTreeMap<NodeName, Instant>,
    owner_heard: Instant,
    /// Since when nobody owns it, where that is known, and of which epoch the last owner can have been.
    free: Option<(Instant, Epoch)>,
}

impl Candidate {
    pub fn new(times: Times, this: NodeName, now: Instant) -> Self {
        let heard = BTreeMap::new();
        Candidate { times, this, heard, owner_heard: now, free: None }
    }

    /// A node has been heard.
    pub fn hear(&mut self, node: NodeName, now: Instant) {
        let live = self.times.beat * SILENCE;
        self.heard.retain(|_, at| now - *at < live);
        self.heard.insert(node, now);
    }

    /// A node doesn't claim any more.
    pub fn forget(&mut self, node: &NodeName) {
        self.heard.remove(node);
    }

    /// An owner that counts has been heard, or a claim of somebody's has been seen.
    pub fn hear_owner(&mut self, now: Instant) {
        (self.owner_heard, self.free) = (now, None);
    }

    /// Whoever owned it until this epoch has left it.
    pub fn left(&mut self, now: Instant, until: Epoch) {
        let (_, known) = self.free.get_or_insert((now, until));
        *known = until.max(*known);
    }

    /// Up to which epoch its owners have left it, where that is why this node claims it: of a later one, it is
    /// not free.
    pub fn left_until(&self) -> Option<Epoch> {
        self.free.map(|(_, until)| until)
    }

    /// When this node claims the concurrency id, if nobody owns it until then: whoever comes first in its
    /// order three beats after the owner was last heard, each further one two beats later. One that was left is
    /// claimed at once, by each further one a quarter of a beat later.
    pub fn claims_at(&self, concurrency_id: &str, now: Instant) -> Instant {
        let is_live = |at: &Instant| now - *at < self.times.beat * SILENCE;
        let mine = weight(concurrency_id, &self.this);
        let others = self.heard.iter().filter(|(node, at)| **node != self.this && is_live(at));
        let before = others.filter(|(node, _)| weight(concurrency_id, node) > mine).count();
        let silent = self.owner_heard + self.turns(before);
        let after = u32::try_from(before).unwrap_or(u32::MAX);
        let free = |since| since + (self.times.beat / 4).saturating_mul(after).min(LONGEST);
        self.free.map(|(since, _)| free(since)).map_or(silent, |free| free.min(silent))
    }

    /// The same for one that is about to leave, and does so only where nobody else does.
    pub fn claims_last_at(&self, concurrency_id: &str, now: Instant) -> Instant {
        let silent =
            Candidate { free: None, heard: self.heard.clone(), this: self.this.clone(), ..*self };
        silent.claims_at(concurrency_id, now)
    }

    fn turns(&self, before: usize) -> Duration {
        let turns = SILENCE.saturating_add(u32::try_from(2 * before).unwrap_or(u32::MAX));
        self.times.beat.saturating_mul(turns).min(LONGEST)
    }
}

/// By rendezvous hashing, so that concurrency ids spread over the nodes, and only those of a node that is gone
/// move. The same on every machine and in every version.
fn weight(concurrency_id: &str, node: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = concurrency_id.bytes().chain([0xff]).chain(node.bytes());
    let mut hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    // What differs in the last bytes only is to differ everywhere.
    for shift in [33, 29, 32] {
        hash = (hash ^ (hash >> shift)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> Times {
        Times::default()
    }

    fn first(id: &str, nodes: &[&str]) -> String {
        let now = Instant::now();
        let turn = |this: &&&str| {
            let mut candidate = Candidate::new(times(), (**this).into(), now);
            nodes.iter().for_each(|node| candidate.hear((*node).into(), now));
            candidate.claims_at(id, now)
        };
        nodes.iter().min_by_key(turn).expect("there are nodes").to_string()
    }

    #[test]
    fn ids_spread_and_only_those_of_a_node_that_is_gone_move() {
        let (all, without_b) = (["a", "b", "c"], ["a", "c"]);
        let mut owned = BTreeMap::<String, usize>::new();
        for id in (0..300).map(|n| format!("id {n}")) {
            let owner = first(&id, &all);
            if owner != "b" {
                assert_eq!(first(&id, &without_b), owner);
            }
            *owned.entry(owner).or_default() += 1;
        }
        assert!(all.iter().all(|node| owned[*node] > 60), "{owned:?}");
    }

    #[test]
    fn what_was_left_is_claimed_at_once_by_one_of_those_that_stay() {
        let (now, beat) = (Instant::now(), times().beat);
        let turns = ["a", "b", "c"].map(|this| {
            let mut candidate = Candidate::new(times(), this.into(), now);
            ["a", "b", "c"].into_iter().for_each(|node| candidate.hear(node.into(), now));
            candidate.forget(&"b".into());
            candidate.left(now, 1);
            candidate.claims_at("gpu", now)
        });
        let mut others = [turns[0], turns[2]];
        others.sort();
        assert_eq!(others, [now, now + beat / 4]);
    }

    #[test]
    fn one_claims_after_the_other() {
        let now = Instant::now();
        let beat = times().beat;
        let mut alone = Candidate::new(times(), "a".into(), now);
        assert_eq!(alone.claims_at("gpu", now), now + 3 * beat);
        alone.hear_owner(now + beat);
        assert_eq!(alone.claims_at("gpu", now + beat), now + 4 * beat);
        let turns: Vec<Instant> = ["a", "b", "c"]
            .into_iter()
            .map(|this| {
                let mut candidate = Candidate::new(times(), this.into(), now);
                ["a", "b", "c"].into_iter().for_each(|node| candidate.hear(node.into(), now));
                candidate.claims_at("gpu", now)
            })
            .collect();
        for turn in [3, 5, 7] {
            assert!(turns.contains(&(now + turn * beat)), "{turns:?}");
        }
    }
}
