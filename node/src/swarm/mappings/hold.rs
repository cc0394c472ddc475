//! Keeps what a NAT gives to a port, by STUN from the port itself: over UDP, or on a TCP connection that stays open.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::SocketAddr,
    sync::Arc,
};

use libp2p::PeerId;
use p2pnode_protocol::{mapping::Protocol, stun::Message};
use p2pnode_transports::{ClaimedTcp, ClaimedUdp, Handle, Segments, Transport};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    core::mappings::Inside,
    swarm::netcheck::{AGAIN, MAPPINGS, Plan, Target, ask, ask_on, request, second_port},
};

/// The port that is held.
#[derive(Debug, Clone)]
pub(super) enum Port {
    Punch,
    Udp(Arc<ClaimedUdp>),
    Tcp(Arc<ClaimedTcp>),
}

/// How a relay sees a port, and the TCP connection over which it was asked.
struct Seen {
    relay: PeerId,
    at: SocketAddr,
    stream: Option<TcpStream>,
}

/// The ports that are held.
pub(super) struct Holder {
    plan: Plan,
    /// Whom each was asked from, and the connection to it.
    held: BTreeMap<Inside, (PeerId, Option<TcpStream>)>,
    asked: BTreeSet<Inside>,
    asks: JoinSet<(Inside, Option<Seen>)>,
}

impl Holder {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            held: BTreeMap::new(),
            asked: BTreeSet::new(),
            asks: JoinSet::new(),
        }
    }

    /// Asks a relay how it sees the port, unless one is being asked. [`Self::seen`] returns the answer.
    pub(super) fn ask(&mut self, inside: Inside, port: Port) {
        if !self.asked.insert(inside) {
            return;
        }
        let plan = self.plan.clone();
        let held = self.held.remove(&inside);
        self.asks.spawn(async move {
            let seen = match inside.protocol {
                Protocol::Udp => udp(&plan, &port).await,
                Protocol::Tcp => tcp(&plan, &port, held).await,
            };
            (inside, plan.heard(seen))
        });
    }

    pub(super) async fn seen(&mut self) -> (Inside, Option<SocketAddr>) {
        let Some(Ok((inside, seen))) = self.asks.join_next().await else {
            return pending().await;
        };
        self.asked.remove(&inside);
        let at = seen.as_ref().map(|seen| seen.at);
        if let Some(seen) = seen {
            self.held.insert(inside, (seen.relay, seen.stream));
        }
        (inside, at)
    }

    /// The relay that the port has sent to. Another one is a better witness.
    pub(super) fn relay(&self, inside: Inside) -> Option<PeerId> {
        self.held.get(&inside).map(|(relay, _)| *relay)
    }

    /// Lets go of every other port.
    pub(super) fn retain(&mut self, is_held: impl Fn(Inside) -> bool) {
        self.held.retain(|inside, _| is_held(*inside));
    }
}

/// The relays over a transport of IPv4, in the order of the configuration.
async fn relays(plan: &Plan, transport: Transport) -> Vec<Target> {
    let targets = plan.targets(&[]).await.0.into_iter();
    let is_it = |target: &Target| target.transport == transport && target.addr.is_ipv4();
    targets.filter(is_it).collect()
}

async fn udp(plan: &Plan, port: &Port) -> Option<Seen> {
    for target in relays(plan, Transport::Quic).await {
        let message = match port {
            Port::Udp(claim) => ask_from(plan.sockets.clone(), claim, target.addr).await,
            Port::Punch | Port::Tcp(_) => {
                let got = ask(plan.sockets.stun(), target.addr, &request(), MAPPINGS).await;
                got.map(|got| got.message)
            }
        };
        if let Some(at) = message.and_then(|message| message.mapped) {
            return Some(Seen {
                relay: target.relay,
                at,
                stream: None,
            });
        }
    }
    None
}

/// Asks from a port whose reader hands answers of STUN over.
async fn ask_from(sockets: Handle, claim: &ClaimedUdp, to: SocketAddr) -> Option<Message> {
    let message = request();
    let mut expected = sockets.stun().expect(message.transaction);
    let end = Instant::now() + MAPPINGS;
    while Instant::now() < end {
        claim.socket().send_to(&message.encode(), to).await.ok()?;
        let wait = end.min(Instant::now() + AGAIN);
        if let Ok(answer) = timeout_at(wait, expected.answer()).await {
            return Some(answer?.message);
        }
    }
    None
}

async fn tcp(plan: &Plan, port: &Port, held: Option<(PeerId, Option<TcpStream>)>) -> Option<Seen> {
    let seen = |relay, (stream, message): (TcpStream, Message)| {
        Some(Seen {
            relay,
            at: message.mapped?,
            stream: Some(stream),
        })
    };
    if let Some((relay, Some(stream))) = held
        && let Some(got) = ask_on(stream, &request(), MAPPINGS).await
    {
        return seen(relay, got);
    }
    let over_quic = relays(plan, Transport::Quic).await;
    for target in relays(plan, Transport::Tcp).await {
        // The second port: the node's own connection may have the 4-tuple towards the first one.
        let mut at = target.addr;
        let same = |other: &&Target| other.relay == target.relay;
        if let Some(quic) = over_quic.iter().find(same)
            && let Some(second) = second_port(&plan.sockets, quic.addr).await
        {
            at.set_port(second);
        }
        let connecting = async {
            match port {
                Port::Tcp(claim) => claim.connect(at, Segments::Full).await,
                Port::Punch | Port::Udp(_) => {
                    plan.sockets.connect_from_punch(at, Segments::Full).await
                }
            }
        };
        if let Ok(Ok(stream)) = timeout(MAPPINGS, connecting).await
            && let Some(got) = ask_on(stream, &request(), MAPPINGS).await
        {
            return seen(target.relay, got);
        }
    }
    None
}
