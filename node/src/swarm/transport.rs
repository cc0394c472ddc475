//! The transport of a node: circuits over relays, and beneath them sockets that leave from the port range.

use std::time::Duration;

use anyhow::Context as _;
use libp2p::{
    PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    identity::Keypair,
    noise,
};
use p2pnode_transports::{Class, Displacer, Family, LimitedProposals, Yamux};

use crate::{
    config,
    swarm::{
        circuit_rtt::{CircuitTimes, Timed},
        circuits::{self, Circuits, Client},
    },
};

/// How long a peer that opens a circuit to this node may take to authenticate. Without a bound, this node and the relay would
/// keep a silent circuit for ever. TCP in `p2pnode-transports` has the same bound.
const CIRCUIT_TIMEOUT: Duration = Duration::from_secs(10);

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// The transport of the swarm, the handle of its sockets, and the relay clients. Each relay client is a behaviour, the other half
/// of a circuit transport.
pub(crate) struct Parts {
    pub(crate) transport: Connections,
    pub(crate) sockets: p2pnode_transports::Handle,
    pub(crate) clients: Clients,
    pub(crate) circuit_times: CircuitTimes,
    /// Ends handshakes of the transport.
    pub(crate) displacer: Displacer,
}

/// The relay clients of the two families.
pub(crate) struct Clients {
    pub(crate) ip4: Client,
    pub(crate) ip6: Client,
}

/// Opens the punch sockets and puts the circuit transport alongside them.
pub(crate) fn build(keypair: &Keypair, dial: &config::Dial) -> anyhow::Result<Parts> {
    let settings = p2pnode_transports::Config {
        range: dial.port_range,
        quic: dial.quic,
        tcp: dial.tcp,
        family: dial.family,
        congestion: dial.congestion,
    };
    let (range, sockets) =
        p2pnode_transports::build(keypair, settings).context("cannot set up the transports")?;
    let times = CircuitTimes::default();
    let noise = noise::Config::new(keypair).context("cannot set up Noise")?;
    sockets.budgets().begin_as(Class::Stranger);
    let upgrade = |circuits: Circuits| {
        let budgets = sockets.budgets().clone();
        let upgraded = circuits
            .map(|circuit, _| LimitedProposals::new(circuit))
            // Lazy negotiation saves a round trip through the relay.
            .upgrade(Version::V1Lazy)
            .authenticate(Timed::new(noise.clone(), times.clone()))
            .multiplex_ext(move |peer, _| Yamux::within(budgets, *peer))
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        TransportTimeout::with_ingoing_timeout(upgraded, CIRCUIT_TIMEOUT).boxed()
    };
    let local = keypair.public().to_peer_id();
    let (circuits_ip4, ip4) = circuits::new(local, Family::Ip4);
    let (circuits_ip6, ip6) = circuits::new(local, Family::Ip6);
    let transport = either(upgrade(circuits_ip4), upgrade(circuits_ip6));
    let displacer = Displacer::default();
    let transport = displacer.wrap(either(transport, range));
    Ok(Parts {
        transport,
        displacer,
        sockets,
        clients: Clients { ip4, ip6 },
        circuit_times: times,
    })
}

/// The first transport that takes an address.
fn either(first: Connections, second: Connections) -> Connections {
    first
        .or_transport(second)
        .map(|either, _| match either {
            futures::future::Either::Left(output) | futures::future::Either::Right(output) => {
                output
            }
        })
        .boxed()
}
