//! Who has logged in: a token for each login, which its client keeps in a cookie.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio_util::sync::CancellationToken;

/// How long a login holds without a request, by default.
const TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The maximum of logins; the least recently used is dropped first.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// Every login of a queue, by its token.
pub(crate) struct Tokens {
    logins: Mutex<LruCache<String, Login>>,
    ttl: Duration,
}

struct Login {
    user: Arc<str>,
    used: Instant,
    ended: CancellationToken,
}

/// However it ends, what was answered to it and still goes on ends with it.
impl Drop for Login {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Tokens {
    pub fn new(ttl: Option<Duration>) -> Self {
        Tokens { logins: Mutex::new(LruCache::new(MAX_TOKENS)), ttl: ttl.unwrap_or(TTL) }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token of 128 random bits for a user who has just logged in.
    pub fn issue(&self, user: &str, now: Instant) -> String {
        let token = format!("{:032x}", rand::random::<u128>());
        let mut logins = self.lock();
        while logins.peek_lru().is_some_and(|(_, login)| self.is_over(login, now)) {
            logins.pop_lru();
        }
        logins.put(
            token.clone(),
            Login { user: user.into(), used: now, ended: CancellationToken::new() },
        );
        token
    }

    /// Whose token it is, and what is cancelled when the login ends.
    pub fn user(&self, token: &str, now: Instant) -> Option<(Arc<str>, CancellationToken)> {
        let mut logins = self.lock();
        let login = logins.get_mut(token)?;
        if self.is_over(login, now) {
            logins.pop(token);
            return None;
        }
        login.used = now;
        Some((login.user.clone(), login.ended.clone()))
    }

    /// Ends one login, or every login of its user.
    pub fn revoke(&self, token: &str, all: bool) {
        let mut logins = self.lock();
        let Some(revoked) = logins.pop(token) else { return };
        if all {
            let own = logins.iter().filter(|(_, login)| login.user == revoked.user);
            let own: Vec<String> = own.map(|(token, _)| token.clone()).collect();
            own.iter().for_each(|token| drop(logins.pop(token)));
        }
    }

    fn is_over(&self, login: &Login, now: Instant) -> bool {
        now.saturating_duration_since(login.used) >= self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_holds_while_it_is_used() {
        let tokens = Tokens::new(Some(Duration::from_secs(60)));
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let token = tokens.issue("alice", at(0));
        let other = tokens.issue("bob", at(0));
        assert_ne!(token, other);
        let user = |token: &str, now| tokens.user(token, now).map(|(user, _)| user.to_string());
        assert_eq!(user(&token, at(59)).as_deref(), Some("alice"));
        assert_eq!(user(&token, at(118)).as_deref(), Some("alice"));
        let (_, ended) = tokens.user(&other, at(59)).unwrap();
        assert_eq!(user(&other, at(119)), None);
        assert!(ended.is_cancelled());
        assert_eq!(user("", at(60)), None);
        // What is over goes when somebody logs in.
        tokens.issue("carol", at(178));
        assert_eq!(tokens.lock().len(), 1);
    }

    #[test]
    fn a_logout_ends_one_login_or_all_of_a_user() {
        let tokens = Tokens::new(None);
        let now = Instant::now();
        let [a, b, c, d] = ["alice", "alice", "alice", "bob"].map(|user| tokens.issue(user, now));
        tokens.revoke(&a, false);
        let held = |token: &str| tokens.user(token, now).is_some();
        assert_eq!([&a, &b, &c, &d].map(|token| held(token)), [false, true, true, true]);
        tokens.revoke(&b, true);
        assert_eq!([&a, &b, &c, &d].map(|token| held(token)), [false, false, false, true]);
    }
}
