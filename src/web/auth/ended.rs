//! Which logins of a cluster have ended, as this node knows, and what ends with them here.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::signed::Claims;

/// So many logins in use are remembered; what is answered to the one that was unused for longest ends then.
const IN_USE: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// The name in the record of one login, or of all of a user's.
pub(super) fn name_of_login(login: &str) -> String {
    name("login", login)
}

pub(super) fn name_of_user(user: &str) -> String {
    name("user", user)
}

/// What a client has chosen doesn't get into a subject.
fn name(kind: &str, text: &str) -> String {
    let digest = Sha256::new().chain_update(kind).chain_update(b"\0").chain_update(text).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What has ended, by the names in the record.
pub(super) struct EndedLogins {
    /// By which revision, and when this node heard of it.
    ended: HashMap<String, (u64, Instant)>,
    in_use: LruCache<String, InUse>,
    swept: Instant,
}

struct InUse {
    user: String,
    after: u64,
    ended: CancellationToken,
}

/// However it ends, what is answered to it ends with it.
impl Drop for InUse {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl EndedLogins {
    pub fn new(now: Instant) -> Self {
        EndedLogins { ended: HashMap::new(), in_use: LruCache::new(IN_USE), swept: now }
    }

    /// This has been recorded.
    pub fn end(&mut self, name: &str, revision: u64, now: Instant) {
        let entry = self.ended.entry(name.into()).or_insert((revision, now));
        *entry = (entry.0.max(revision), now);
        let over: Vec<String> = self
            .in_use
            .iter()
            .filter(|(login, it)| *login == name || it.user == name && it.after < revision)
            .map(|(login, _)| login.clone())
            .collect();
        over.iter().for_each(|login| drop(self.in_use.pop(login)));
    }

    /// By which revision all logins of a user were ended for the last time; 0: never.
    pub fn of_user(&self, user: &str) -> u64 {
        self.ended.get(&name_of_user(user)).map_or(0, |(revision, _)| *revision)
    }

    /// What is cancelled when this login ends, if it hasn't.
    pub fn look_up(&mut self, claims: &Claims) -> Option<CancellationToken> {
        let login = name_of_login(&claims.login);
        if self.ended.contains_key(&login) || claims.after < self.of_user(&claims.user) {
            return None;
        }
        let in_use = || InUse {
            user: name_of_user(&claims.user),
            after: claims.after,
            ended: CancellationToken::new(),
        };
        Some(self.in_use.get_or_insert(login, in_use).ended.clone())
    }

    /// Forgets what ended so long ago that no token of it is left.
    pub fn sweep(&mut self, longest: Duration, now: Instant) {
        if now.saturating_duration_since(self.swept) > longest / 8 {
            self.swept = now;
            let is_new = |at: Instant| now.saturating_duration_since(at) < longest;
            self.ended.retain(|_, (_, heard)| is_new(*heard));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logout_ends_one_login_or_all_that_there_were() {
        let now = Instant::now();
        let mut ended = EndedLogins::new(now);
        let claims = |user: &str, login: &str, after| Claims {
            user: user.into(),
            login: login.into(),
            given: 0,
            after,
        };
        let [a, b, c] = [claims("ada", "1", 0), claims("ada", "2", 0), claims("bob", "3", 0)];
        let tokens = [&a, &b, &c].map(|claims| ended.look_up(claims).expect("it holds"));
        ended.end(&name_of_login("1"), 5, now);
        assert_eq!(tokens.each_ref().map(|it| it.is_cancelled()), [true, false, false]);
        assert!(ended.look_up(&a).is_none() && ended.look_up(&b).is_some());
        ended.end(&name_of_user("ada"), 6, now);
        assert_eq!(tokens.each_ref().map(|it| it.is_cancelled()), [true, true, false]);
        assert!(ended.look_up(&b).is_none() && ended.look_up(&c).is_some());
        assert_eq!((ended.of_user("ada"), ended.of_user("bob")), (6, 0));
        // Who logs in after it isn't meant, though the node hears of it once more.
        let again = ended.look_up(&claims("ada", "4", 6)).expect("it holds");
        ended.end(&name_of_user("ada"), 6, now);
        assert!(!again.is_cancelled());
        ended.sweep(Duration::from_secs(1), now + Duration::from_secs(2));
        assert_eq!(ended.of_user("ada"), 0);
    }
}
