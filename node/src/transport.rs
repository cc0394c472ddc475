//! The transport of a node: circuits over relays, and beneath them sockets that leave from the port range.

use anyhow::Context as _;
use libp2p::{
    PeerId, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, relay, yamux,
};

use crate::{
    circuit_rtt::{CircuitTimes, Timed},
    config,
};

/// What the swarm dials and listens with, what sees the sockets beneath it, and the relay client's behaviour, which is the
/// other half of the circuit transport.
pub(crate) struct Parts {
    pub(crate) transport: Boxed<(PeerId, StreamMuxerBox)>,
    pub(crate) sockets: p2pnode_transports::Handle,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) circuit_times: CircuitTimes,
}

/// Opens the punch sockets and puts the circuit transport beside them.
pub(crate) fn build(keypair: &Keypair, dial: &config::Dial) -> anyhow::Result<Parts> {
    let settings = p2pnode_transports::Config {
        range: dial.port_range,
        quic: dial.quic,
        tcp: dial.tcp,
        family: dial.family,
    };
    let (range, sockets) =
        p2pnode_transports::build(keypair, settings).context("cannot set up the transports")?;
    let times = CircuitTimes::default();
    let noise = noise::Config::new(keypair).context("cannot set up Noise")?;
    let (circuits, relay_client) = relay::client::new(keypair.public().to_peer_id());
    let circuits = circuits
        // Lazy negotiation saves a round trip through the relay.
        .upgrade(Version::V1Lazy)
        .authenticate(Timed::new(noise, times.clone()))
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let transport = circuits
        .or_transport(range)
        .map(|either, _| match either {
            futures::future::Either::Left(output) | futures::future::Either::Right(output) => {
                output
            }
        })
        .boxed();
    Ok(Parts {
        transport,
        sockets,
        relay_client,
        circuit_times: times,
    })
}
