//! Listening, but not where somebody else listens.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket},
};

use libp2p::{Multiaddr, Swarm, TransportError, multiaddr::Protocol};

use crate::behaviour::Behaviour;

/// Makes the swarm listen on an address that nobody listens on.
pub(crate) fn listen(
    swarm: &mut Swarm<Behaviour>,
    address: Multiaddr,
) -> Result<(), TransportError<io::Error>> {
    nobody_listens(&address).map_err(TransportError::Other)?;
    swarm.listen_on(address).map(drop)
}

/// Whether an address was refused because somebody listens there.
pub(crate) fn is_in_use(error: &TransportError<io::Error>) -> bool {
    matches!(error, TransportError::Other(error) if error.kind() == ErrorKind::AddrInUse)
}

/// Fails if somebody listens on an address.
///
/// libp2p dials from the port of TCP that it listens on, and for that lets other sockets share it: a second
/// program of the same user would be let in as well, and each of the two would get some of the connections.
/// A socket that shares nothing shows whether there is one. Two programs that start within the same
/// millisecond may still both be let in. Ports of QUIC are not shared, but libp2p does not say why it cannot
/// have one.
fn nobody_listens(address: &Multiaddr) -> io::Result<()> {
    if address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        // The port is the relay's.
        return Ok(());
    }
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        // On all addresses this socket would also take the port of IPv4, which libp2p leaves alone. A
        // program that listens on all addresses listens on this one too.
        Some(Protocol::Ip6(Ipv6Addr::UNSPECIFIED)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let tried = match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => UdpSocket::bind((ip, port)).map(drop),
        _ => return Ok(()),
    };
    match tried {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(error),
        // Whatever else is wrong with the address, libp2p says better.
        Ok(()) | Err(_) => Ok(()),
    }
}
