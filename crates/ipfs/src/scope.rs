//! How far an address reaches, so that an address of a private network is told only to those in one.

use libp2p::{Multiaddr, multiaddr::Protocol};

/// How far an address reaches; wider ones are greater.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// This machine alone.
    Machine,
    /// A private network.
    Private,
    /// The internet.
    Public,
}

impl Scope {
    /// How far `address` reaches. Names of hosts count as public, except `localhost`; a circuit reaches as
    /// far as its relay.
    pub fn of(address: &Multiaddr) -> Self {
        match address.iter().next() {
            Some(Protocol::Ip4(ip)) if ip.is_loopback() => Self::Machine,
            Some(Protocol::Ip4(ip)) if ip.is_private() || ip.is_link_local() || ip.is_unspecified() => {
                Self::Private
            }
            Some(Protocol::Ip6(ip)) if ip.is_loopback() => Self::Machine,
            Some(Protocol::Ip6(ip))
                if ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified() =>
            {
                Self::Private
            }
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name))
                if name == "localhost" || name.ends_with(".localhost") =>
            {
                Self::Machine
            }
            _ => Self::Public,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reaches_as_far_as_its_network() {
        for (address, scope) in [
            ("/ip4/127.0.0.1/tcp/1", Scope::Machine),
            ("/ip6/::1/udp/1/quic-v1", Scope::Machine),
            ("/dns4/localhost/tcp/1", Scope::Machine),
            ("/ip4/192.168.7.1/tcp/1", Scope::Private),
            ("/ip6/fe80::1/tcp/1", Scope::Private),
            ("/ip6/fd00::1/tcp/1", Scope::Private),
            ("/ip4/203.0.113.7/tcp/1", Scope::Public),
            ("/dns4/example.org/tcp/1", Scope::Public),
        ] {
            assert_eq!(Scope::of(&address.parse().unwrap()), scope, "{address}");
        }
        assert!(Scope::Machine < Scope::Private && Scope::Private < Scope::Public);
    }
}
