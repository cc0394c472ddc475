//! TCP, from ports of the range that nothing else has.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use futures::{
    FutureExt as _,
    future::{join, join_all, join3},
};
use libp2p::PeerId;
use p2pnode_protocol::stun::{Change, Class, Message};
use p2pnode_transports::{ClaimedTcp, Segments, Transport, read_stun};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::{Instant, timeout, timeout_at},
};

use super::path::{
    Answers, LEGS, Look, MAPPINGS, Path, STRANGERS, TRIED, clock_ahead, may_ask, padding, request,
};
use crate::core::netcheck::{Answer, FULL_PAYLOAD, Fault};

/// Bytes of padding that take a full segment of Ethernet.
const SEGMENT: usize = 1800;

pub(super) async fn look(look: &Look<'_>) -> Path {
    let mut path = Path::new(Transport::Tcp, look.family);
    look.note_files();
    if look.port().is_none() {
        path.legs = look.no_socket();
        return path;
    }
    let addrs = look.addrs();
    let identified = join_all(addrs.iter().map(|addr| identify(look, *addr)));
    let (identified, ()) = join(identified, facts(look, &addrs, &mut path)).await;
    let mut answers = Answers::default();
    for (addr, met) in addrs.iter().zip(identified) {
        match met {
            Ok(Met { after, peer }) => {
                answers.after.insert(*addr, after);
                answers
                    .proved
                    .extend(peer.map(|peer| (*addr, (peer, after))));
            }
            Err(Some(why)) => drop(answers.failed.insert(*addr, why)),
            Err(None) => {}
        }
    }
    path.legs = look.legs(&answers);
    path
}

/// What answered a connection.
struct Met {
    after: Duration,
    /// Who has proved to be there.
    peer: Option<PeerId>,
}

/// Who is at an address. Connects from the punch port, as dials do, or from another port if that has this very connection already.
/// With short segments, to which a node falls back. `None` if nothing came.
async fn identify(look: &Look<'_>, addr: SocketAddr) -> Result<Met, Option<Answer>> {
    let (sockets, deadline) = (look.sockets, look.deadline);
    let started = Instant::now();
    let within = |connecting| timeout_at(deadline, connecting);
    let connecting = sockets.connect_from_punch(addr, Segments::Small).boxed();
    let mut connected = within(connecting).await.map_err(|_| None)?;
    let mut _held = None;
    if connected
        .as_ref()
        .is_err_and(|error| look.faults.note(error).is_some())
        && let Some(other) = claim(look)
    {
        let other = _held.insert(other);
        let connecting = other.connect(addr, Segments::Small).boxed();
        connected = within(connecting).await.map_err(|_| None)?;
    }
    let stream = connected.map_err(|error| match look.faults.note(&error) {
        Some(Fault::InUse) => Some(Answer::Failed("no port of the range is free".to_owned())),
        Some(fault) => Some(Answer::Fault(fault)),
        None => Some(Answer::Failed(error.to_string())),
    })?;
    let after = started.elapsed();
    let identified = timeout_at(deadline, sockets.identify_tcp(stream, addr)).await;
    let peer = identified.ok().and_then(Result::ok);
    Ok(Met { after, peer })
}

/// Ports that other programs may have over TCP before none is looked for any longer.
const TAKEN: usize = 16;

/// A port of the range that no other program has over TCP, either.
fn claim(look: &Look<'_>) -> Option<ClaimedTcp> {
    let mut taken = Vec::new();
    while taken.len() < TAKEN
        && let Ok(port) = look.sockets.claim_tcp(look.family)
    {
        match port.listen() {
            Ok(_) => return Some(port),
            Err(error) => _ = look.faults.note(&error),
        }
        taken.push(port);
    }
    look.note_files();
    None
}

/// What STUN shows.
async fn facts(look: &Look<'_>, addrs: &[SocketAddr], path: &mut Path) {
    let Some(socket) = claim(look) else {
        path.facts.lacks_port = true;
        return;
    };
    let socket = &socket;
    let met = join_all(addrs.iter().map(|addr| async move {
        let stream = timeout(LEGS, socket.connect(*addr, Segments::Full)).await;
        let stream = stream
            .ok()?
            .inspect_err(|error| _ = look.faults.note(error));
        let stream = stream.ok()?;
        let started = Instant::now();
        let got = ask(stream, &request(), MAPPINGS).await;
        Some((*addr, got?.1, started.elapsed()))
    }))
    .await;
    let mut met: Vec<(SocketAddr, Message, Duration)> = met.into_iter().flatten().collect();
    let at = SystemTime::now();
    for (addr, message, _) in &met {
        let seen = look.seen(socket.port(), *addr, Some(message));
        path.facts.seen.push(seen);
    }
    let has_partner = |(at, got, _): &&(SocketAddr, Message, Duration)| {
        got.other.is_some_and(|other| may_ask(other, *at))
    };
    // What a NAT in front of a relay hides shows that NAT, so other relays come first.
    met.sort_by_key(|(addr, ..)| path.facts.is_hidden_from(*addr));
    let shows = |(addr, ..): &&(SocketAddr, Message, Duration)| !path.facts.is_hidden_from(*addr);
    let mut partnered = met.iter().filter(shows);
    let Some((relay, got, rtt)) = partnered.find(has_partner).or(met.first()) else {
        path.facts.sample = sampled(look, &addrs[..addrs.len().min(TRIED)]).await;
        return;
    };
    let relay = *relay;
    path.clock_ahead = clock_ahead(got, at, *rtt);
    let partner = got.other.filter(|other| may_ask(*other, relay));
    path.facts.has_partner = partner.is_some();
    let second = got.info.map_or(0, |info| info.second_port);
    let second = (second != 0).then(|| SocketAddr::new(relay.ip(), second));

    let others = second.into_iter().chain(partner);
    let mappings = join_all(others.map(|by| async move {
        let asked = ask_at(look, socket.connect(by, Segments::Full)).await;
        let got = asked.flatten();
        look.seen(socket.port(), by, got.as_ref())
    }));
    let (seen_by, sampled, whole) = join3(
        mappings,
        sampled(look, &[relay]),
        full_segments(look, relay),
    )
    .await;
    let payload = |came: bool| if came { FULL_PAYLOAD } else { 0 };
    path.facts.payload = whole.map(|(out, _)| payload(out));
    path.facts.payload_in = whole.and_then(|(_, back)| back).map(payload);
    path.facts.seen.extend(seen_by);
    path.facts.sample = sampled;

    if path.facts.is_hidden_from(relay) {
        return;
    }
    // None of the others, which have sent to the relay.
    let Some(fresh) = claim(look) else {
        path.facts.lacks_port = true;
        return;
    };
    let within = look
        .deadline
        .saturating_duration_since(Instant::now())
        .min(STRANGERS);
    let [port, address] = strangers(look, &fresh, relay, within).await;
    path.facts.from_other_port = port;
    path.facts.from_other_address = partner.and(address);
}

/// How relays see the ports that stand for the range. The first answer of one counts. A port that another program has over TCP is
/// left out.
async fn sampled(look: &Look<'_>, relays: &[SocketAddr]) -> Vec<(u16, Option<SocketAddr>)> {
    let asked = look.sample.iter().map(async |socket| {
        let asks = relays
            .iter()
            .map(|relay| ask_at(look, socket.connect_tcp(*relay)));
        let answers = join_all(asks).await;
        let mapped = answers
            .iter()
            .flatten()
            .flatten()
            .find_map(|got| got.mapped);
        let is_here = answers.iter().all(Option::is_none);
        (!is_here).then_some((socket.port(), mapped))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whether the relay gets a request that takes a full segment, and whether such an answer comes. `None` if not even a short one
/// does, or if the relay pads none.
async fn full_segments(look: &Look<'_>, relay: SocketAddr) -> Option<(bool, Option<bool>)> {
    let socket = claim(look)?;
    let stream = timeout(MAPPINGS, socket.connect(relay, Segments::Full))
        .await
        .ok()?
        .ok()?;
    let (stream, _) = ask(stream, &request(), MAPPINGS).await?;
    let long = Message {
        padding: SEGMENT,
        ..request()
    };
    let Some((stream, _)) = ask(stream, &long, MAPPINGS).await else {
        return Some((false, None));
    };
    let back = match ask(stream, &padding(long, true), MAPPINGS).await {
        Some((_, answer)) if answer.padding == 0 => None,
        back => Some(back.is_some()),
    };
    Some((true, back))
}

/// What is answered on a connection. `None` if this host cannot make it, `Some(None)` if nothing came.
async fn ask_at(
    look: &Look<'_>,
    connecting: impl Future<Output = io::Result<TcpStream>>,
) -> Option<Option<Message>> {
    let asked = async {
        match connecting.await {
            Ok(stream) => Some(ask(stream, &request(), MAPPINGS).await.map(|got| got.1)),
            Err(error) if look.faults.note(&error).is_some() => None,
            Err(_) => Some(None),
        }
    };
    timeout(MAPPINGS, asked).await.unwrap_or(Some(None))
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
async fn strangers(
    look: &Look<'_>,
    fresh: &ClaimedTcp,
    relay: SocketAddr,
    within: Duration,
) -> [Option<bool>; 2] {
    let deadline = Instant::now() + within;
    let unknown = [None, None];
    let Ok(listener) = fresh.listen() else {
        return unknown;
    };
    let Ok(Ok(stream)) = timeout_at(deadline, fresh.connect(relay, Segments::Full)).await else {
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
                Ok(Ok(message)) => {
                    if let Some(at) = message.and_then(|message| position(&message)) {
                        came[at] = true;
                    }
                }
                // This host cannot take it: whether it came is not known.
                Ok(Err(error)) => {
                    if look.faults.note(&error).is_some() {
                        return unknown;
                    }
                }
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

/// What a connection says that came in; `Ok(None)` if that is nothing.
async fn accepted(listener: &TcpListener) -> io::Result<Option<Message>> {
    let (mut stream, _) = listener.accept().await?;
    let read = timeout(MAPPINGS, read_stun(&mut stream)).await;
    Ok(read.ok().and_then(Result::ok))
}
