//! Two plain libp2p swarms on loopback. One dials the other over QUIC and TCP from a range of ports, and the other prints the
//! source port that it sees.
//!
//! ```text
//! cargo run -p p2pnode-transports --example swarm
//! ```

#![allow(clippy::print_stdout, reason = "what the example is for")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a swarm has many events, and the example needs three"
)]

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    identity::Keypair,
    multiaddr::Protocol,
    swarm::{SwarmEvent, dummy},
};
use p2pnode_transports::{
    Config, Congestion, FamilyPolicy, Handle, PortRange, Transport, build, to_socket_addr,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A swarm without behaviours whose dials leave from `range`.
fn swarm(range: PortRange) -> Result<(Swarm<dummy::Behaviour>, Handle), Failure> {
    let keypair = Keypair::generate_ed25519();
    let config = Config {
        range,
        quic: true,
        tcp: true,
        family: FamilyPolicy::Auto,
        congestion: Congestion::Cubic,
    };
    let (transport, handle) = build(&keypair, config)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|_| transport)?
        .with_behaviour(|_| dummy::Behaviour)?
        .build();
    Ok((swarm, handle))
}

/// Listens on `addr`, dials it from `range`, and returns the port that the listener sees.
async fn source_port(addr: Multiaddr, range: PortRange) -> Result<u16, Failure> {
    let (mut listener, _) = swarm("47100-47109".parse()?)?;
    let (mut dialer, handle) = swarm(range)?;
    println!("punch ports: {:?}", handle.punch_ports());
    let expected = *listener.local_peer_id();
    listener.listen_on(addr)?;
    loop {
        tokio::select! {
            event = listener.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    dialer.dial(address.with(Protocol::P2p(expected)))?;
                }
                SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                    let from = to_socket_addr(endpoint.get_remote_address());
                    return Ok(from.ok_or("an address without a socket")?.port());
                }
                SwarmEvent::IncomingConnectionError { error, .. } => return Err(error.into()),
                _ => {}
            },
            event = dialer.select_next_some() => {
                if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                    return Err(error.into());
                }
            }
        }
    }
}

/// Ends by itself. A test runs it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Failure> {
    let range: PortRange = "47000-47009".parse()?;
    for (transport, addr) in [
        (Transport::Quic, "/ip4/127.0.0.1/udp/0/quic-v1"),
        (Transport::Tcp, "/ip4/127.0.0.1/tcp/0"),
    ] {
        let port = source_port(addr.parse()?, range).await?;
        println!("{transport}: the listener sees source port {port} of {range}");
        assert!(range.contains(port), "{port} is not in {range}");
    }
    Ok(())
}
