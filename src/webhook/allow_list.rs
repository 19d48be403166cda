//! Which URLs may be called.

use awc::http::Uri;
use awc::http::uri::Scheme;

/// The longest URL, in bytes.
const MAX_LEN: usize = 2048;

/// Why a URL may not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    #[error("it is no URL that begins with https:// or http://")]
    NoUrl,
    #[error("it is longer than {MAX_LEN} bytes")]
    TooLong,
    #[error("it names a user, which is for nobody to send")]
    User,
    #[error("it has a path with dots for a directory")]
    Dots,
    #[error("the service doesn't allow it; ask its operator to allow where it leads")]
    Unlisted,
}

/// A URL by its parts, in the spelling by which they are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    https: bool,
    host: String,
    port: u16,
    path: String,
}

impl Parts {
    fn of(url: &str) -> Result<Self, NotAllowed> {
        if url.len() > MAX_LEN {
            return Err(NotAllowed::TooLong);
        }
        let url: Uri = url.parse().map_err(|_| NotAllowed::NoUrl)?;
        let https = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(NotAllowed::NoUrl),
        };
        let authority = url.authority().ok_or(NotAllowed::NoUrl)?;
        if authority.as_str().contains('@') {
            return Err(NotAllowed::User);
        }
        let port = match (authority.port(), https) {
            (Some(port), _) => port.as_u16(),
            (None, true) => 443,
            (None, false) => 80,
        };
        // What is in the place of a port and is none would be passed over.
        let host = authority.host().to_ascii_lowercase();
        if authority.port().is_none() && authority.as_str().len() != authority.host().len() {
            return Err(NotAllowed::NoUrl);
        }
        let path = url.path();
        let is_dots = |part: &str| {
            let part = part.to_ascii_lowercase().replace("%2e", ".");
            part == "." || part == ".."
        };
        // A server may take either for a separator.
        let parts = path.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/");
        if parts.split(['/', '\\']).any(is_dots) {
            return Err(NotAllowed::Dots);
        }
        Ok(Parts { https, host, port, path: path.to_string() })
    }

    /// Whether the other is this one or below it.
    fn covers(&self, other: &Parts) -> bool {
        let same = (self.https, &self.host, self.port) == (other.https, &other.host, other.port);
        same && other.path.strip_prefix(&*self.path).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
        })
    }
}

/// The URLs that may be called, each with those below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowList(Vec<Parts>);

impl AllowList {
    /// # Errors
    /// When it can't be called at all.
    pub fn add(&mut self, url: &str) -> Result<(), NotAllowed> {
        self.0.push(Parts::of(url)?);
        Ok(())
    }

    /// # Errors
    /// When it may not be called.
    pub fn check(&self, url: &str) -> Result<(), NotAllowed> {
        let url = Parts::of(url)?;
        let listed = self.0.iter().any(|allowed| allowed.covers(&url));
        if listed { Ok(()) } else { Err(NotAllowed::Unlisted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_and_what_is_below_may_be_called_and_nothing_else() {
        let mut list = AllowList::default();
        for url in ["https://a.org/hooks", "http://localhost:3000", "https://b.org/in/"] {
            list.add(url).unwrap();
        }
        for url in [
            "https://a.org/hooks",
            "https://A.org:443/hooks/7?x=1",
            "https://a.org/hooks?x=1",
            "http://localhost:3000/",
            "http://localhost:3000/any/thing",
            "https://b.org/in/7",
        ] {
            assert_eq!(list.check(url), Ok(()), "{url}");
        }
        for url in [
            "https://a.org/hooksy",
            "https://a.org/",
            "https://a.org/Hooks",
            "http://a.org/hooks",
            "https://a.org:8443/hooks",
            "https://a.org.evil.org/hooks",
            "https://b.org/in",
            "http://localhost/",
            "http://127.0.0.1:3000/",
        ] {
            assert_eq!(list.check(url), Err(NotAllowed::Unlisted), "{url}");
        }
    }

    #[test]
    fn what_only_looks_like_a_listed_one_is_refused() {
        let mut list = AllowList::default();
        list.add("https://a.org/hooks").unwrap();
        for (url, why) in [
            ("https://a.org@evil.org/hooks", NotAllowed::User),
            ("https://user:word@a.org/hooks", NotAllowed::User),
            ("https://a.org/hooks/../admin", NotAllowed::Dots),
            ("https://a.org/hooks/%2E%2e/admin", NotAllowed::Dots),
            ("https://a.org/hooks/..%2fadmin", NotAllowed::Dots),
            ("https://a.org/hooks/..%5cadmin", NotAllowed::Dots),
            ("ftp://a.org/hooks", NotAllowed::NoUrl),
            ("a.org/hooks", NotAllowed::NoUrl),
            ("/hooks", NotAllowed::NoUrl),
            ("https:///hooks", NotAllowed::NoUrl),
            ("https://a.org:/hooks", NotAllowed::NoUrl),
            ("https://a.org:99999/hooks", NotAllowed::NoUrl),
            ("https://a.org/hooks\r\nx: y", NotAllowed::NoUrl),
            ("", NotAllowed::NoUrl),
        ] {
            assert_eq!(list.check(url), Err(why), "{url}");
        }
        let long = format!("https://a.org/hooks/{}", "x".repeat(MAX_LEN));
        assert_eq!(list.check(&long), Err(NotAllowed::TooLong));
    }
}
