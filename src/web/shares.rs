//! Values that are kept for many clients: bounded in number, in bytes and in time, so that one
//! client can't take what is kept for others. When there is too much, the holder with the most
//! loses its oldest; of several that have as much, the one with the oldest.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

use super::holder::Holder;
use super::ranking::Ranking;

/// How long, how many and how many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub ttl: Duration,
    pub number: usize,
    pub bytes: usize,
}

/// Values by their keys.
#[derive(Debug)]
pub(crate) struct Shares<K, V, S = RandomState> {
    bounds: Bounds,
    /// The sequence number of each in `kept`.
    seqs: HashMap<K, u64, S>,
    /// In the order in which they came, or were last used.
    kept: BTreeMap<u64, Kept<K, V>>,
    /// Who holds most, by bytes and by number: known only where a good part of the bound is used.
    by_bytes: Option<Ranking>,
    by_number: Option<Ranking>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Kept<K, V> {
    key: K,
    holder: Holder,
    value: V,
    bytes: usize,
    since: Instant,
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher + Default> Shares<K, V, S> {
    pub fn new(bounds: Bounds) -> Self {
        Shares {
            bounds,
            seqs: HashMap::default(),
            kept: BTreeMap::new(),
            by_bytes: None,
            by_number: None,
            bytes: 0,
            next: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a value of so many bytes; gives those that went for it, to be dropped without a lock.
    pub fn keep(&mut self, key: K, holder: Holder, value: V, bytes: usize, now: Instant) -> Vec<V> {
        let mut gone = Vec::new();
        if let Some(&seq) = self.seqs.get(&key) {
            gone.extend(self.remove(seq));
        }
        if bytes > self.bounds.bytes {
            // It would displace all else of its holder's, and not stay.
            gone.push(value);
            return gone;
        }
        self.put(Kept { key, holder, value, bytes, since: now });
        self.trim(now, &mut gone);
        gone
    }

    /// A value that isn't too old.
    pub fn find(&self, key: &K, now: Instant) -> Option<&V> {
        let kept = self.kept.get(self.seqs.get(key)?)?;
        (!self.is_over(kept, now)).then_some(&kept.value)
    }

    /// The same, which is now the last of its holder's that goes.
    pub fn touch(&mut self, key: &K, now: Instant) -> Option<&V> {
        self.find(key, now)?;
        let kept = self.take(*self.seqs.get(key)?)?;
        let seq = self.put(kept);
        self.kept.get(&seq).map(|kept| &kept.value)
    }

    /// Gives what is too old, to be dropped without a lock.
    pub fn sweep(&mut self, now: Instant) -> Vec<V> {
        let mut gone = Vec::new();
        self.trim(now, &mut gone);
        gone
    }

    fn is_over(&self, kept: &Kept<K, V>, now: Instant) -> bool {
        now.saturating_duration_since(kept.since) >= self.bounds.ttl
    }

    fn trim(&mut self, now: Instant, gone: &mut Vec<V>) {
        while let Some((&seq, kept)) = self.kept.first_key_value()
            && self.is_over(kept, now)
        {
            gone.extend(self.remove(seq));
        }
        while let Some(seq) = self.surplus() {
            gone.extend(self.remove(seq));
        }
        if self.kept.is_empty() && self.seqs.capacity() > 1024 {
            // After a flood, its memory goes back.
            self.seqs = HashMap::default();
        }
    }

    /// The oldest of the holder with the most, if there is too much.
    fn surplus(&self) -> Option<u64> {
        let ranking = if self.bytes > self.bounds.bytes {
            &self.by_bytes
        } else if self.kept.len() > self.bounds.number {
            &self.by_number
        } else {
            return None;
        };
        ranking.as_ref()?.surplus()
    }

    fn put(&mut self, kept: Kept<K, V>) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.seqs.insert(kept.key.clone(), seq);
        self.bytes += kept.bytes;
        if let Some(ranking) = &mut self.by_bytes {
            ranking.add(&kept.holder, seq, kept.bytes);
        }
        if let Some(ranking) = &mut self.by_number {
            ranking.add(&kept.holder, seq, 1);
        }
        self.kept.insert(seq, kept);
        self.rank();
        seq
    }

    fn take(&mut self, seq: u64) -> Option<Kept<K, V>> {
        let kept = self.kept.remove(&seq)?;
        self.seqs.remove(&kept.key);
        self.bytes -= kept.bytes;
        if let Some(ranking) = &mut self.by_bytes {
            ranking.remove(&kept.holder, seq, kept.bytes);
        }
        if let Some(ranking) = &mut self.by_number {
            ranking.remove(&kept.holder, seq, 1);
        }
        Some(kept)
    }

    fn remove(&mut self, seq: u64) -> Option<V> {
        self.take(seq).map(|kept| kept.value)
    }

    /// Ranks the holders once more than half of a bound is used, and until it is a quarter again.
    fn rank(&mut self) {
        let Bounds { bytes, number, .. } = self.bounds;
        update(&mut self.by_bytes, self.bytes, bytes, &self.kept, |kept| kept.bytes);
        update(&mut self.by_number, self.kept.len(), number, &self.kept, |_| 1);
    }
}

fn update<K, V>(
    ranking: &mut Option<Ranking>,
    used: usize,
    bound: usize,
    kept: &BTreeMap<u64, Kept<K, V>>,
    weight: impl Fn(&Kept<K, V>) -> usize,
) {
    if ranking.is_some() {
        ranking.take_if(|_| used <= bound / 4);
    } else if used > bound / 2 {
        let new = ranking.insert(Ranking::default());
        kept.iter().for_each(|(&seq, kept)| new.add(&kept.holder, seq, weight(kept)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { ttl: Duration::from_secs(60), number: 6, bytes: 1000 };

    fn holder(n: u8) -> Holder {
        Holder::Session(n.to_string().into())
    }

    fn kept(shares: &Shares<u32, u32>, keys: std::ops::Range<u32>) -> Vec<u32> {
        keys.filter(|key| shares.seqs.contains_key(key)).collect()
    }

    #[test]
    fn whoever_holds_most_loses_its_own_oldest() {
        let mut shares = Shares::new(BOUNDS);
        let now = Instant::now();
        shares.keep(0, holder(1), 0, 100, now);
        for key in 1..10 {
            shares.keep(key, holder(2), key, 290, now);
        }
        assert_eq!(kept(&shares, 0..10), [0, 7, 8, 9]);
        // Many small ones of another: the holder with the most of them; of two that have as many, the
        // one with the oldest.
        for key in 10..20 {
            shares.keep(key, holder(3), key, 1, now);
        }
        assert_eq!(kept(&shares, 0..20), [0, 8, 9, 17, 18, 19]);
        // One that is larger than the bounds doesn't stay, and displaces no other.
        shares.keep(20, holder(4), 0, 1001, now);
        assert_eq!(kept(&shares, 0..21), [0, 8, 9, 17, 18, 19]);
    }

    #[test]
    fn who_is_asked_for_stays_and_who_is_too_old_goes() {
        let mut shares = Shares::new(Bounds { number: 2, ..BOUNDS });
        let begun = Instant::now();
        shares.keep(0, holder(1), 0, 1, begun);
        shares.keep(1, holder(1), 1, 1, begun);
        assert_eq!(shares.touch(&0, begun), Some(&0));
        shares.keep(2, holder(1), 2, 1, begun + Duration::from_secs(30));
        assert_eq!(kept(&shares, 0..3), [0, 2]);
        let later = begun + BOUNDS.ttl;
        assert_eq!(shares.touch(&0, later), None, "used or not");
        assert_eq!(shares.touch(&2, later), Some(&2));
        assert_eq!(shares.sweep(later), [0]);
        assert_eq!(shares.sweep(later + BOUNDS.ttl), [2]);
    }

    proptest! {
        #[test]
        fn the_books_balance(
            steps in prop::collection::vec((0..20u32, 0..4u8, 0..500usize, 0..20u64, 0..3u8), 0..200)
        ) {
            let mut shares = Shares::<_, _>::new(BOUNDS);
            let mut now = Instant::now();
            for (key, by, bytes, seconds, what) in steps {
                match what {
                    0 => drop(shares.touch(&key, now)),
                    1 => drop(shares.sweep(now)),
                    _ => drop(shares.keep(key, holder(by), key, bytes, now)),
                }
                now += Duration::from_secs(seconds);
                prop_assert!(shares.len() <= BOUNDS.number && shares.bytes <= BOUNDS.bytes);
                prop_assert_eq!(shares.seqs.len(), shares.kept.len());
                let bytes: usize = shares.kept.values().map(|kept| kept.bytes).sum();
                prop_assert_eq!(bytes, shares.bytes);
                if let Some(ranking) = &shares.by_bytes {
                    prop_assert_eq!(ranking.totals(), (shares.len(), bytes));
                }
                if let Some(ranking) = &shares.by_number {
                    prop_assert_eq!(ranking.totals(), (shares.len(), shares.len()));
                }
            }
        }
    }
}
