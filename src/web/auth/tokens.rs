//! Who has logged in: a token for each login, which its client keeps in a cookie.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio_util::sync::CancellationToken;

/// How long a login holds without a request, by default.
const TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The maximum of logins; the least recently used is dropped first.
const MAX_TOKENS: usize = 100_000;

/// The maximum of logins of one user; the oldest is dropped first. So nobody ends those of others by
/// logging in again and again.
const MAX_OF_USER: usize = 1000;

/// Every login of a queue.
pub(crate) struct Tokens {
    logins: Mutex<Logins>,
    ttl: Duration,
}

struct Logins {
    /// How often all logins of some user were ended by the service.
    ends: u64,
    by_token: LruCache<String, Login>,
    /// The tokens of each user, in the order of their logins.
    by_user: HashMap<Arc<str>, VecDeque<String>>,
}

impl Logins {
    fn add(&mut self, token: String, login: Login) {
        if self.by_token.len() == MAX_TOKENS {
            self.remove_unused(|_| true);
        }
        let own = self.by_user.entry(login.user.clone()).or_default();
        own.push_back(token.clone());
        if own.len() > MAX_OF_USER
            && let Some(oldest) = own.pop_front()
        {
            self.by_token.pop(&oldest);
        }
        self.by_token.put(token, login);
    }

    fn remove(&mut self, token: &str) -> Option<Login> {
        let login = self.by_token.pop(token)?;
        if let Some(own) = self.by_user.get_mut(&login.user) {
            own.retain(|other| other != token);
            if own.is_empty() {
                self.by_user.remove(&login.user);
            }
        }
        Some(login)
    }

    fn remove_all_of(&mut self, user: &str) {
        for token in self.by_user.remove(user).unwrap_or_default() {
            self.by_token.pop(&token);
        }
    }

    /// Removes the login that was unused for longest, if that is to be.
    fn remove_unused(&mut self, if_is: impl FnOnce(&Login) -> bool) -> bool {
        let unused = self.by_token.peek_lru().filter(|(_, login)| if_is(login));
        let Some(token) = unused.map(|(token, _)| token.clone()) else { return false };
        self.remove(&token).is_some()
    }
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
        let logins = Logins { ends: 0, by_token: LruCache::unbounded(), by_user: HashMap::new() };
        Tokens { logins: Mutex::new(logins), ttl: ttl.unwrap_or(TTL) }
    }

    /// How long a login holds without a request.
    #[cfg(feature = "cluster")]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    fn lock(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`issue`](Self::issue) wants to know of the time before a password was verified.
    pub fn ends(&self) -> u64 {
        self.lock().ends
    }

    /// A token of 128 random bits for a user who has just logged in. None where logins have been ended
    /// since the password began to be verified: the store may know better now.
    pub fn issue(&self, user: &str, ends: u64, now: Instant) -> Option<String> {
        let token = format!("{:032x}", rand::random::<u128>());
        let mut logins = self.lock();
        if logins.ends != ends {
            return None;
        }
        while logins.remove_unused(|login| self.is_over(login, now)) {}
        let ended = CancellationToken::new();
        logins.add(token.clone(), Login { user: user.into(), used: now, ended });
        Some(token)
    }

    /// Whose token it is, and what is cancelled when the login ends.
    pub fn user(&self, token: &str, now: Instant) -> Option<(Arc<str>, CancellationToken)> {
        let mut logins = self.lock();
        let login = logins.by_token.get_mut(token)?;
        if self.is_over(login, now) {
            logins.remove(token);
            return None;
        }
        login.used = now;
        Some((login.user.clone(), login.ended.clone()))
    }

    /// Ends one login, or every login of its user.
    pub fn revoke(&self, token: &str, all: bool) {
        let mut logins = self.lock();
        let Some(revoked) = logins.remove(token) else { return };
        if all {
            logins.remove_all_of(&revoked.user);
        }
    }

    /// Ends every login of a user, and those whose password is being verified.
    pub fn revoke_all_of(&self, user: &str) {
        let mut logins = self.lock();
        logins.ends += 1;
        logins.remove_all_of(user);
    }

    fn is_over(&self, login: &Login, now: Instant) -> bool {
        now.saturating_duration_since(login.used) >= self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(tokens: &Tokens, user: &str, now: Instant) -> String {
        tokens.issue(user, tokens.ends(), now).unwrap()
    }

    #[test]
    fn a_login_holds_while_it_is_used() {
        let tokens = Tokens::new(Some(Duration::from_secs(60)));
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let token = issue(&tokens, "alice", at(0));
        let other = issue(&tokens, "bob", at(0));
        assert_ne!(token, other);
        let user = |token: &str, now| tokens.user(token, now).map(|(user, _)| user.to_string());
        assert_eq!(user(&token, at(59)).as_deref(), Some("alice"));
        assert_eq!(user(&token, at(118)).as_deref(), Some("alice"));
        let (_, ended) = tokens.user(&other, at(59)).unwrap();
        assert_eq!(user(&other, at(119)), None);
        assert!(ended.is_cancelled());
        assert_eq!(user("", at(60)), None);
        // What is over goes when somebody logs in.
        issue(&tokens, "carol", at(178));
        let logins = tokens.lock();
        assert_eq!((logins.by_token.len(), logins.by_user.len()), (1, 1));
    }

    #[test]
    fn a_logout_ends_one_login_or_all_of_a_user() {
        let tokens = Tokens::new(None);
        let now = Instant::now();
        let [a, b, c, d] = ["alice", "alice", "alice", "bob"].map(|user| issue(&tokens, user, now));
        tokens.revoke(&a, false);
        let held = |token: &str| tokens.user(token, now).is_some();
        assert_eq!([&a, &b, &c, &d].map(|token| held(token)), [false, true, true, true]);
        tokens.revoke(&b, true);
        assert_eq!([&a, &b, &c, &d].map(|token| held(token)), [false, false, false, true]);
        let ends = tokens.ends();
        tokens.revoke_all_of("bob");
        assert!(!held(&d));
        assert_eq!(tokens.issue("bob", ends, now), None, "he may be no user any more");
    }

    #[test]
    fn who_logs_in_again_and_again_ends_his_own_logins() {
        let tokens = Tokens::new(None);
        let now = Instant::now();
        let (other, first) = (issue(&tokens, "bob", now), issue(&tokens, "alice", now));
        let second = issue(&tokens, "alice", now);
        let held = |token: &str| tokens.user(token, now).is_some();
        for _ in 2..=MAX_OF_USER {
            issue(&tokens, "alice", now);
        }
        assert_eq!([&other, &first, &second].map(|token| held(token)), [true, false, true]);
        assert_eq!(tokens.lock().by_token.len(), MAX_OF_USER + 1);
    }
}
