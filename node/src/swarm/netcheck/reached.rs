//! Whether relays reach the punch ports, by AutoNAT v2.

use std::net::SocketAddr;

use futures::future::join_all;
use p2pnode_transports::{Family, Handle, Segments, Transport, to_multiaddr};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    path::{MAPPINGS, Target, request},
    tcp, udp,
};
use crate::swarm::autonat::{Nonces, Witness, is_reached};

/// Has each relay dial a punch port at the address that the relay sees. What is not known is left out.
pub(super) async fn look(
    sockets: &Handle,
    targets: &[Target],
    witnesses: Vec<Witness>,
    nonces: &Nonces,
    deadline: Instant,
) -> Vec<((Transport, Family), (SocketAddr, bool))> {
    let looks = witnesses.into_iter().map(|witness| async move {
        let of = (witness.transport, witness.family);
        let relay = witness.relay;
        let target = |transport| {
            let is_it = |target: &&Target| {
                (target.relay, target.transport) == (relay, transport)
                    && Family::from(target.addr.ip()) == of.1
            };
            targets.iter().find(is_it).map(|target| target.addr)
        };
        let at = match witness.transport {
            Transport::Quic => over_udp(sockets, target(Transport::Quic)).await,
            Transport::Tcp => {
                over_tcp(sockets, target(Transport::Tcp), target(Transport::Quic)).await
            }
        }?;
        let address = to_multiaddr(witness.transport, at);
        let reached = is_reached(nonces, witness, address).await?;
        Some((of, (at, reached)))
    });
    let looks = looks.map(|look| timeout_at(deadline, look));
    let looked = join_all(looks).await.into_iter();
    looked.filter_map(|look| look.ok().flatten()).collect()
}

async fn over_udp(sockets: &Handle, at: Option<SocketAddr>) -> Option<SocketAddr> {
    let got = udp::ask(sockets.stun(), at?, &request(), MAPPINGS).await?;
    got.message.mapped
}

/// At the second port of the relay: the node's own connection may have the 4-tuple towards the first one.
async fn over_tcp(
    sockets: &Handle,
    at: Option<SocketAddr>,
    quic: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let mut at = at?;
    if let Some(quic) = quic {
        at.set_port(udp::second_port(sockets, quic).await.unwrap_or(at.port()));
    }
    let connecting = timeout(MAPPINGS, sockets.connect_from_punch(at, Segments::Full));
    let stream = connecting.await.ok()?.ok()?;
    tcp::ask(stream, &request(), MAPPINGS).await?.1.mapped
}
