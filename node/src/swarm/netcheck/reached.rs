//! Whether relays reach the punch ports, by AutoNAT v2.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{join_all, ready},
    stream::FuturesUnordered,
};
use libp2p::{PeerId, Stream};
use p2pnode_transports::{Family, Handle, Segments, Transport, to_multiaddr};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    path::{MAPPINGS, Target, request},
    tcp, udp,
};
use crate::{
    core::sights::is_hidden,
    swarm::autonat::{Nonces, Witness, is_reached},
};

/// How long a relay that serves AutoNAT has to answer STUN as well, once another one has.
const SAME: Duration = Duration::from_millis(300);

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

/// What comes from a relay.
enum News {
    /// It serves AutoNAT.
    Serves(PeerId, Stream),
    /// It sees the punch port there.
    Sees(PeerId, SocketAddr),
}

/// A relay that serves AutoNAT, and how it sees the punch port. A relay of another make answers no STUN: there it is what another
/// relay sees.
async fn serves(
    sockets: &Handle,
    targets: &[Target],
    witness: &mut Witness,
) -> Option<(Stream, SocketAddr)> {
    let of = (witness.transport, witness.family);
    let opened = witness
        .streams
        .drain(..)
        .map(|(relay, stream)| async move { Some(News::Serves(relay, stream.await?)) }.boxed());
    let relays: BTreeSet<PeerId> = targets.iter().map(|target| target.relay).collect();
    let looked = relays.into_iter().map(|relay| {
        async move { Some(News::Sees(relay, seen(sockets, targets, relay, of).await?)) }.boxed()
    });
    let news = opened.chain(looked).collect::<FuturesUnordered<_>>();
    let mut news = news.filter_map(ready);
    let (mut streams, mut sees) = (BTreeMap::new(), BTreeMap::new());
    let mut until = None;
    loop {
        let both = streams.keys().find(|relay| sees.contains_key(*relay));
        if let Some(relay) = both.copied() {
            return streams.remove(&relay).zip(sees.remove(&relay));
        }
        if !streams.is_empty() && !sees.is_empty() {
            let until = until.get_or_insert_with(|| Instant::now() + SAME);
            let Ok(Some(came)) = timeout_at(*until, news.next()).await else {
                return Some((streams.pop_first()?.1, sees.pop_first()?.1));
            };
            note(came, &mut streams, &mut sees);
        } else {
            note(news.next().await?, &mut streams, &mut sees);
        }
    }
}

fn note(
    news: News,
    streams: &mut BTreeMap<PeerId, Stream>,
    sees: &mut BTreeMap<PeerId, SocketAddr>,
) {
    match news {
        News::Serves(relay, stream) => drop(streams.insert(relay, stream)),
        News::Sees(relay, at) => {
            sees.insert(relay, at);
        }
    }
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
    let (by, at) = match transport {
        Transport::Quic => (quic?, over_udp(sockets, quic).await?),
        Transport::Tcp => {
            let tcp = target(Transport::Tcp);
            (tcp?, over_tcp(sockets, tcp, quic).await?)
        }
    };
    let own = sockets.source_ip(by.ip());
    (!is_hidden(by.ip(), at.ip(), |ip| own == Some(ip))).then_some(at)
}

async fn over_udp(sockets: &Handle, at: Option<SocketAddr>) -> Option<SocketAddr> {
    let got = udp::ask(sockets.stun(), at?, &request(), MAPPINGS).await?;
    got.message.shown()
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
    tcp::ask(stream, &request(), MAPPINGS).await?.1.shown()
}
