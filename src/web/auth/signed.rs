//! A login as a text that any node of a cluster can check: what it says, and a signature. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What a login's token says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Claims {
    pub user: String,
    /// Which login it is: random, and the same however often the token is given anew.
    pub login: String,
    /// When this token was given, in milliseconds since the Unix epoch.
    pub given: u64,
    /// The last time that all logins of the user had been ended before it, as a revision of the record of
    /// that; 0: never.
    pub after: u64,
}

/// Longer ones are none of ours.
const LONGEST: usize = 16 * 1024;

fn mac(key: &[u8], text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(b"now-serving login 1\n");
    mac.update(text.as_bytes());
    Some(mac)
}

impl Claims {
    pub fn sign(&self, key: &[u8]) -> Option<String> {
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).ok()?);
        let signature = URL_SAFE_NO_PAD.encode(mac(key, &text)?.finalize().into_bytes());
        Some(format!("{text}.{signature}"))
    }

    /// None of what wasn't signed by this key.
    pub fn verify(key: &[u8], token: &str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let (text, signature) = token.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        mac(key, text)?.verify_slice(&signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_counts() {
        let claims = Claims { user: "ada ä\"".into(), login: "1".into(), given: 7, after: 3 };
        let token = claims.sign(b"key").expect("it can be signed");
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
        assert_eq!(Claims::verify(b"key", &token), Some(claims.clone()));
        assert_eq!(Claims::verify(b"kez", &token), None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("it is ASCII");
            assert_eq!(Claims::verify(b"key", &changed), None, "{at}");
            assert_eq!(Claims::verify(b"key", &token[..at]), None, "{at}");
        }
        assert_eq!(Claims::verify(b"key", &"a".repeat(100_000)), None);
        let other = Claims { user: "bob".into(), ..claims }.sign(b"key").expect("it can be");
        let mixed = format!(
            "{}.{}",
            other.split_once('.').expect("it has two").0,
            token.split_once('.').expect("it has two").1
        );
        assert_eq!(Claims::verify(b"key", &mixed), None);
    }
}
