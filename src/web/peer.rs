//! The other end of a connection, which distinguishes clients without user and session.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;

/// An address. Of IPv6 the first half: a client has the other to itself. None where there is no
/// address, as on a Unix socket. Headers that a proxy sets don't count: a client may set them too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer(Option<IpAddr>);

impl Peer {
    pub fn of(request: &HttpRequest) -> Self {
        Peer(request.peer_addr().map(|address| network(address.ip())))
    }
}

/// The whole address, for the log.
pub(crate) fn address(request: &HttpRequest) -> String {
    let address = request.peer_addr().map(|address| address.ip().to_canonical().to_string());
    address.unwrap_or_else(|| "an unknown address".into())
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_half_of_ipv6() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:5::6"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
