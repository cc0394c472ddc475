//! TCP, from ports of the range that nothing else has.

use std::{net::SocketAddr, time::Duration};

use futures::future::{join_all, join3};
use p2pnode_protocol::stun::{Change, Class, Message};
use p2pnode_transports::{ClaimedTcp, Family, Handle, Transport, read_stun};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::{Instant, timeout, timeout_at},
};

use super::path::{
    LEGS, MAPPINGS, Path, SAMPLE, STRANGERS, Target, may_ask, place, request, sample_size,
};
use crate::core::netcheck::{Answer, FULL_PAYLOAD, Seen};

/// Bytes of padding that take a full segment of Ethernet.
const SEGMENT: usize = 1800;

pub(super) async fn look(
    sockets: &Handle,
    family: Family,
    targets: &[Target],
    deadline: Instant,
) -> Path {
    let mut path = Path::new(Transport::Tcp, family);
    let socket = match sockets.claim_tcp(family) {
        Ok(socket) => socket,
        Err(error) => {
            let why = |target: &Target| (target.relay, Answer::Failed(error.to_string()));
            path.legs = targets.iter().map(why).collect();
            return path;
        }
    };
    let socket = &socket;
    let met = join_all(targets.iter().map(|target| async move {
        let started = Instant::now();
        let stream = match timeout(LEGS, socket.connect(target.addr)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return (Answer::Failed(error.to_string()), None),
            Err(_) => return (Answer::Silent, None),
        };
        let rtt = started.elapsed();
        (Answer::After(rtt), ask(stream, &request(), MAPPINGS).await)
    }))
    .await;
    for (target, (answer, got)) in targets.iter().zip(&met) {
        path.legs.push((target.relay, answer.clone()));
        if let Some((_, message)) = got {
            path.facts
                .seen
                .push(seen(sockets, socket.port(), target.addr, Some(message)));
        }
    }
    let answered = || {
        targets
            .iter()
            .zip(&met)
            .filter_map(|(t, (_, got))| Some((t.addr, &got.as_ref()?.1)))
    };
    let has_partner =
        |(at, got): &(SocketAddr, &Message)| got.other.is_some_and(|other| may_ask(other, *at));
    let Some((relay, got)) = answered().find(has_partner).or_else(|| answered().next()) else {
        return path;
    };
    let partner = got.other.filter(|other| may_ask(*other, relay));
    let second = got.info.map_or(0, |info| info.second_port);
    let second = (second != 0).then(|| SocketAddr::new(relay.ip(), second));

    let others = second.into_iter().chain(partner);
    let mappings = join_all(others.map(|by| async move {
        let got = ask_at(socket, by).await;
        seen(sockets, socket.port(), by, got.as_ref())
    }));
    let size = sample_size(sockets, SAMPLE);
    let claimed = (0..size).map_while(|_| sockets.claim_tcp(family).ok());
    let mut sample: Vec<ClaimedTcp> = claimed.collect();
    sample.sort_by_key(|socket| place(socket.port()));
    let asked = join_all(sample.iter().map(|socket| async move {
        let got = ask_at(socket, relay).await;
        (socket.port(), got.and_then(|got| got.mapped))
    }));
    let (seen_by, sampled, whole) =
        join3(mappings, asked, full_segments(sockets, family, relay)).await;
    path.facts.payload = whole.map(|came| if came { FULL_PAYLOAD } else { 0 });
    path.facts.seen.extend(seen_by);
    path.facts.sample = sampled;

    // While the others are held: none of them.
    if let Ok(fresh) = sockets.claim_tcp(family) {
        drop(sample);
        let within = deadline
            .saturating_duration_since(Instant::now())
            .min(STRANGERS);
        let [port, address] = strangers(&fresh, relay, within).await;
        path.facts.from_other_port = port;
        path.facts.from_other_address = partner.and(address);
    }
    path
}

fn seen(sockets: &Handle, port: u16, by: SocketAddr, got: Option<&Message>) -> Seen {
    let local = sockets.source_ip(by.ip());
    let mapped = got.and_then(|got| got.mapped);
    Seen {
        by,
        local: local.map(|ip| SocketAddr::new(ip, port)),
        mapped,
    }
}

/// Whether the relay gets a request that takes a full segment; `None` if it does not even get a short one.
async fn full_segments(sockets: &Handle, family: Family, relay: SocketAddr) -> Option<bool> {
    let socket = sockets.claim_tcp(family).ok()?;
    let stream = timeout(MAPPINGS, socket.connect(relay)).await.ok()?.ok()?;
    let (stream, _) = ask(stream, &request(), MAPPINGS).await?;
    let long = Message {
        padding: SEGMENT,
        ..request()
    };
    Some(ask(stream, &long, MAPPINGS).await.is_some())
}

async fn ask_at(socket: &ClaimedTcp, at: SocketAddr) -> Option<Message> {
    let asked = async {
        let stream = socket.connect(at).await.ok()?;
        Some(ask(stream, &request(), MAPPINGS).await?.1)
    };
    timeout(MAPPINGS, asked).await.ok().flatten()
}

/// Asks on a stream, which is returned with the answer.
pub(in crate::swarm) async fn ask(
    mut stream: TcpStream,
    message: &Message,
    within: Duration,
) -> Option<(TcpStream, Message)> {
    let exchange = async {
        stream.write_all(&message.encode()).await?;
        read_stun(&mut stream).await
    };
    let answer = timeout(within, exchange).await.ok()?.ok()?;
    (answer.transaction == message.transaction).then_some((stream, answer))
}

/// Whether the relay, and its partner, can connect to a port that has connected to the relay alone. `None` where the relay does
/// not try.
async fn strangers(fresh: &ClaimedTcp, relay: SocketAddr, within: Duration) -> [Option<bool>; 2] {
    let deadline = Instant::now() + within;
    let unknown = [None, None];
    let Ok(listener) = fresh.listen() else {
        return unknown;
    };
    let Ok(Ok(stream)) = timeout_at(deadline, fresh.connect(relay)).await else {
        return unknown;
    };
    let Some((mut stream, _)) = ask(stream, &request(), within).await else {
        return unknown;
    };
    let changed = [false, true].map(|ip| Message {
        change: Some(Change { ip, port: true }),
        ..request()
    });
    let bytes: Vec<u8> = changed.iter().flat_map(Message::encode).collect();
    if stream.write_all(&bytes).await.is_err() {
        return unknown;
    }
    let mut came = [false, false];
    let mut refused = [false, false];
    let position = |message: &Message| {
        let asked = |of: &Message| of.transaction == message.transaction;
        changed.iter().position(asked)
    };
    let mut is_open = true;
    while came != [true, true] {
        tokio::select! {
            accepted = timeout_at(deadline, accepted(&listener)) => match accepted {
                Ok(Some(message)) => {
                    if let Some(at) = position(&message) {
                        came[at] = true;
                    }
                }
                Ok(None) => {}
                Err(_) => break,
            },
            // A refusal comes on the stream.
            message = read_stun(&mut stream), if is_open => match message {
                Ok(message) => {
                    if let Some(at) = position(&message) {
                        refused[at] = message.class == Class::Error;
                    }
                }
                Err(_) => is_open = false,
            },
        }
    }
    [0, 1].map(|at| (came[at] || !refused[at]).then_some(came[at]))
}

/// What a connection says that came in; `None` if that is nothing.
async fn accepted(listener: &TcpListener) -> Option<Message> {
    let (mut stream, _) = listener.accept().await.ok()?;
    timeout(MAPPINGS, read_stun(&mut stream)).await.ok()?.ok()
}
