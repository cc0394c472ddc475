//! Whether relays reach the punch ports, by AutoNAT v2.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use futures::{
    StreamExt as _,
    future::{OptionFuture, join, join_all},
    stream::FuturesUnordered,
};
use libp2p::{PeerId, Stream};
use p2pnode_transports::{Family, Handle, Segments, Transport, to_multiaddr};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    path::{MAPPINGS, Target, request},
    tcp, udp,
};
use crate::swarm::autonat::{Nonces, Witness, is_reached};

/// Has a relay dial each punch port, at the address that the relay sees. What is not known is left out.
pub(super) async fn look(
    sockets: &Handle,
    targets: &[Target],
    witnesses: Vec<Witness>,
    nonces: &Nonces,
    deadline: Instant,
) -> Vec<((Transport, Family), (SocketAddr, bool))> {
    let looks = witnesses.into_iter().map(|mut witness| async move {
        let (stream, at) = serves(sockets, targets, &mut witness).await?;
        let of = (witness.transport, witness.family);
        let reached = is_reached(nonces, stream, to_multiaddr(of.0, at)).await?;
        Some((of, (at, reached)))
    });
    let looks = looks.map(|look| timeout_at(deadline, look));
    let looked = join_all(looks).await.into_iter();
    looked.filter_map(|look| look.ok().flatten()).collect()
}

/// A relay that serves AutoNAT, and how it sees the punch port. A relay of another make answers no STUN: there it is what another
/// relay sees.
async fn serves(
    sockets: &Handle,
    targets: &[Target],
    witness: &mut Witness,
) -> Option<(Stream, SocketAddr)> {
    let of = (witness.transport, witness.family);
    let mut streams: BTreeMap<_, _> = witness.streams.drain(..).collect();
    let relays = targets.iter().map(|target| target.relay);
    let relays: BTreeSet<_> = relays.chain(streams.keys().copied()).collect();
    let asked = relays.into_iter().map(|relay| {
        let stream = OptionFuture::from(streams.remove(&relay));
        join(stream, seen(sockets, targets, relay, of))
    });
    let mut asked = asked.collect::<FuturesUnordered<_>>();
    let mut found = (None, None);
    while let Some((stream, at)) = asked.next().await {
        match (stream.flatten(), at) {
            (Some(stream), Some(at)) => return Some((stream, at)),
            (stream, at) => found = (found.0.or(stream), found.1.or(at)),
        }
    }
    found.0.zip(found.1)
}

async fn seen(
    sockets: &Handle,
    targets: &[Target],
    relay: PeerId,
    (transport, family): (Transport, Family),
) -> Option<SocketAddr> {
    let target = |transport| {
        let is_it = |target: &&Target| {
            (target.relay, target.transport) == (relay, transport)
                && Family::from(target.addr.ip()) == family
        };
        targets.iter().find(is_it).map(|target| target.addr)
    };
    let quic = target(Transport::Quic);
    match transport {
        Transport::Quic => over_udp(sockets, quic).await,
        Transport::Tcp => over_tcp(sockets, target(Transport::Tcp), quic).await,
    }
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
