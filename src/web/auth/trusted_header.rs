//! A header that names the user, from proxies that are trusted to set it.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;

use crate::logging::warn;
use crate::web::error::WebError;

/// The header, and whom it is believed from.
#[derive(Clone, Debug)]
pub(crate) struct TrustedHeader {
    name: HeaderName,
    peers: Vec<Network>,
}

/// Given with a request whose peer isn't trusted: this header of it means nothing.
pub(crate) struct Untrusted(pub HeaderName);

impl TrustedHeader {
    pub fn new<'a>(name: &str, peers: impl Iterator<Item = &'a str>) -> Result<Self, WebError> {
        let name = HeaderName::from_str(name).map_err(|_| WebError::HeaderName(name.into()))?;
        let peers = peers.map(|peer| peer.parse().map_err(|()| WebError::Network(peer.into())));
        Ok(TrustedHeader { name, peers: peers.collect::<Result<_, _>>()? })
    }

    fn trusts(&self, request: &HttpRequest) -> bool {
        // The connection's own address: what a header says of it may come from anybody. A Unix socket has
        // none.
        let peer = request.peer_addr();
        peer.is_some_and(|peer| self.peers.iter().any(|network| network.contains(peer.ip())))
    }

    /// That a request has such a header, and must not.
    pub fn untrusted(&self, request: &HttpRequest) -> Option<Untrusted> {
        let forged = request.headers().contains_key(&self.name) && !self.trusts(request);
        forged.then(|| Untrusted(self.name.clone()))
    }

    /// The user of a request that comes from a proxy.
    pub fn user(&self, request: &HttpRequest) -> Option<Arc<str>> {
        if !self.trusts(request) {
            return None;
        }
        let mut values = request.headers().get_all(&self.name);
        let value = values.next()?;
        if values.next().is_some() {
            // One of them may be the client's own, which the proxy should have removed.
            warn!("a request has several {} headers, so that none is believed", self.name);
            return None;
        }
        let user = value.to_str().ok()?.trim();
        (!user.is_empty()).then(|| user.into())
    }
}

/// An address, or all that share its first bits.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl FromStr for Network {
    type Err = ();

    /// As `10.0.0.0/8`, `fd00::/8` or `127.0.0.1`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // A number and nothing else: parse() would take a sign.
            Some(prefix) if prefix.bytes().all(|digit| digit.is_ascii_digit()) => {
                prefix.parse().map_err(drop)?
            }
            Some(_) => return Err(()),
            None => bits,
        };
        if prefix > bits { Err(()) } else { Ok(Network { address, prefix }) }
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        // A socket for both kinds shows IPv4's addresses as IPv6's.
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_network_holds_what_shares_its_first_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.168.1.128/25", "192.168.1.200", "192.168.1.100"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("::1", "::1", "127.0.0.1"),
            ("fd00::/8", "fd12::1", "fe00::1"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/", "::/+8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_counts_once_and_from_a_trusted_peer() {
        let header = TrustedHeader::new("X-User", ["10.0.0.0/8"].into_iter()).unwrap();
        let user = |peer: Option<&str>, values: &[&str]| {
            let request = TestRequest::get();
            let request = match peer {
                Some(peer) => request.peer_addr(format!("{peer}:1").parse().unwrap()),
                None => request,
            };
            let request = values
                .iter()
                .fold(request, |request, value| request.append_header(("x-user", *value)));
            header.user(&request.to_http_request()).map(|user| user.to_string())
        };
        assert_eq!(user(Some("10.1.2.3"), &["ada"]).as_deref(), Some("ada"));
        assert_eq!(user(Some("10.1.2.3"), &[]), None);
        assert_eq!(user(Some("10.1.2.3"), &[" "]), None);
        assert_eq!(user(Some("10.1.2.3"), &["mallory", "ada"]), None);
        assert_eq!(user(Some("11.1.2.3"), &["ada"]), None);
        assert_eq!(user(None, &["ada"]), None);
    }
}
