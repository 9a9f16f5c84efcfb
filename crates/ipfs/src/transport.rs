//! The way bytes travel: TCP with Noise and yamux, QUIC, and circuits through relays; host names by DNS.

use std::time::Duration;

use libp2p::{
    PeerId, Transport as _,
    core::{
        StreamMuxer,
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    noise, quic, relay, tcp, yamux,
};

use crate::bare_name::{BareNameMuxer, BareNames};

/// Time that one dialled address, or one peer that dials us, has to get through all handshakes.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

type Connected = (PeerId, StreamMuxerBox);

/// Builds the transport, and the behaviour of the relay client that belongs to it.
pub(crate) fn transport(
    identity: &Keypair,
    names: &BareNames,
) -> Result<(Boxed<Connected>, relay::client::Behaviour), noise::Error> {
    let (circuits, relay_client) = relay::client::new(identity.public().to_peer_id());
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(identity)?)
        .multiplex(yamux::Config::default())
        .map(speak_bare_names(names));

    // Circuits come first: TCP and QUIC would take the relay's address for the peer's.
    let any = circuits.or_transport(resolved(identity, names)?).map(|either, _| either.into_inner());
    Ok((TransportTimeout::new(any, HANDSHAKE_MAX).boxed(), relay_client))
}

/// TCP and QUIC, with DNS where the system says how to ask. Where it does not (some phones), only numeric
/// addresses can be dialled: a server that nobody configured would learn whom we look for.
fn resolved(identity: &Keypair, names: &BareNames) -> Result<Boxed<Connected>, noise::Error> {
    match dns::tokio::Transport::system(direct(identity, names)?) {
        Ok(resolving) => Ok(resolving.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no DNS configuration found, host names cannot be dialled");
            direct(identity, names)
        }
    }
}

fn direct(identity: &Keypair, names: &BareNames) -> Result<Boxed<Connected>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(identity)?)
        .multiplex(yamux::Config::default())
        .map(speak_bare_names(names));
    let quic = quic::tokio::Transport::new(quic::Config::new(identity)).map(speak_bare_names(names));
    Ok(quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed())
}

fn speak_bare_names<M, E>(
    names: &BareNames,
) -> impl FnOnce((PeerId, M), E) -> Connected + Clone + Send + 'static
where
    M: StreamMuxer + Unpin + Send + 'static,
    M::Substream: Unpin + Send + 'static,
    M::Error: Send + Sync + 'static,
{
    let names = names.clone();
    move |(peer, muxer), _| (peer, StreamMuxerBox::new(BareNameMuxer::new(muxer, names)))
}
