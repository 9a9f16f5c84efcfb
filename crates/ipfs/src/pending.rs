//! Inbound connections whose handshake has not finished, counted by address.
//!
//! Such a connection costs its maker nothing, and may be silent until the handshake is given up. With one limit for
//! all of them, a single machine could take every place (`spec/security.md` N5).

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Inbound connections of one address that may be in their handshake at once: a quarter of all of them.
pub const PENDING_INBOUND_PER_ADDRESS_MAX: usize = 16;

/// There are too many of one address already.
#[derive(Debug, thiserror::Error)]
#[error("{PENDING_INBOUND_PER_ADDRESS_MAX} connections of that address have not finished their handshake")]
pub(crate) struct TooManyPending;

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// At most [`PENDING_INBOUND_MAX`](crate::PENDING_INBOUND_MAX), which is asked first.
    pending: HashMap<ConnectionId, Source>,
}

/// Where a connection comes from: an IPv4 address, or an IPv6 network of 48 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    /// This machine. Its programs share the address, and its owner need not be kept within bounds.
    ThisMachine,
    Ipv4([u8; 4]),
    Ipv6([u8; 6]),
    Other,
}

impl Source {
    fn of(address: &Multiaddr) -> Self {
        let ip = address.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
            _ => None,
        });
        match ip {
            Some(ip) if ip.is_loopback() => Self::ThisMachine,
            Some(IpAddr::V4(ip)) => Self::Ipv4(ip.octets()),
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::Ipv6([a, b, c, d, e, f])
            }
            None => Self::Other,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let source = Source::of(remote);
        let same = self.pending.values().filter(|other| **other == source).count();
        if same >= PENDING_INBOUND_PER_ADDRESS_MAX && source != Source::ThisMachine {
            return Err(ConnectionDenied::new(TooManyPending));
        }
        self.pending.insert(connection, source);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&connection);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(failure) = event {
            self.pending.remove(&failure.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(behaviour: &mut Behaviour, number: usize, from: &str) -> bool {
        let local = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let connection = ConnectionId::new_unchecked(number);
        behaviour.handle_pending_inbound_connection(connection, &local, &from.parse().unwrap()).is_ok()
    }

    #[test]
    fn one_address_takes_a_part_of_the_places_and_gives_them_back() {
        let mut behaviour = Behaviour::default();
        let (one, other) = ("/ip4/192.0.2.1/tcp/5", "/ip4/192.0.2.2/tcp/5");
        let taken = (0..64).filter(|number| knock(&mut behaviour, *number, one)).count();
        assert_eq!(taken, PENDING_INBOUND_PER_ADDRESS_MAX);
        assert!(knock(&mut behaviour, 100, other));
        assert!(!knock(&mut behaviour, 101, "/ip6/::ffff:192.0.2.1/udp/5/quic-v1"), "it is the same address");

        let address: Multiaddr = one.parse().unwrap();
        let connection = ConnectionId::new_unchecked(0);
        behaviour
            .handle_established_inbound_connection(connection, PeerId::random(), &address, &address)
            .unwrap();
        assert!(knock(&mut behaviour, 102, one));
        for number in 0..64 {
            assert!(knock(&mut behaviour, 200 + number, &format!("/ip4/198.51.100.{number}/tcp/5")));
        }
    }
}
