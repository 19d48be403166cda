//! The bytes of all bodies that are being read or have not been parsed yet: bounded over all, and for
//! each client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::web::peer::Peer;
use crate::web::rejection::Rejection;

/// How many of the largest bodies one client, and all together, may have under way.
const OF_ONE: usize = 4;

const OF_ALL: usize = 16;

/// Counts what bodies hold.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// The largest body, in bytes.
    pub max_body_size: usize,
    held: Mutex<Held>,
    of_one: usize,
    of_all: usize,
}

#[derive(Debug, Default)]
struct Held {
    by_peer: HashMap<Peer, usize>,
    all: usize,
}

impl Bodies {
    /// For bodies of at most so many bytes.
    pub fn new(max_body_size: usize) -> Self {
        Bodies {
            max_body_size,
            held: Mutex::default(),
            of_one: max_body_size.saturating_mul(OF_ONE),
            of_all: max_body_size.saturating_mul(OF_ALL),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body begins that holds nothing yet.
    pub fn begin(self: &Arc<Self>, peer: Peer) -> BodyShare {
        BodyShare { bodies: self.clone(), peer, bytes: 0 }
    }
}

/// What one body holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct BodyShare {
    bodies: Arc<Bodies>,
    peer: Peer,
    bytes: usize,
}

impl BodyShare {
    /// More of it has come.
    ///
    /// # Errors
    /// When its client, or all together, have too much under way.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let Bodies { of_one, of_all, .. } = *self.bodies;
        let mut held = self.bodies.lock();
        if held.all.saturating_add(bytes) > of_all {
            let message = "The server reads enough requests; try again later.";
            return Err(Rejection::crowded(message.into()));
        }
        let own = held.by_peer.entry(self.peer).or_default();
        if own.saturating_add(bytes) > of_one {
            let message = "You send enough at once; let some requests end first.";
            return Err(Rejection::too_many(message.into()));
        }
        *own += bytes;
        held.all += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        let mut held = self.bodies.lock();
        held.all -= self.bytes;
        if let Some(own) = held.by_peer.get_mut(&self.peer) {
            *own -= self.bytes;
            if *own == 0 {
                held.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn peer(n: u8) -> Peer {
        let address = std::net::SocketAddr::from(([10, 0, 0, n], 1));
        Peer::of(&TestRequest::default().peer_addr(address).to_http_request())
    }

    #[test]
    fn a_client_has_its_share_and_all_have_theirs() {
        let bodies = Arc::new(Bodies::new(100));
        let begin = |n: u8, bytes: usize| {
            let mut share = bodies.begin(peer(n));
            share.grow(bytes).map(|()| share)
        };
        let first = begin(1, 400).unwrap();
        assert!(begin(1, 1).is_err());
        let others: Vec<_> = (2..5).map(|n| begin(n, 400).unwrap()).collect();
        assert!(begin(9, 1).is_err());
        drop(first);
        assert!(begin(9, 100).is_ok());
        drop(others);
        assert!(bodies.lock().by_peer.is_empty());
        assert_eq!(bodies.lock().all, 0);
    }
}
