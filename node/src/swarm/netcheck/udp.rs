//! UDP, on which QUIC runs: from the punch socket, and from others of the range.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use futures::future::{join, join_all, join3, join4};
use p2pnode_protocol::stun::{Change, Class, Message};
use p2pnode_transports::{ClaimedUdp, Family, Handle, StunClient, Transport};
use tokio::time::{Instant, sleep, timeout_at};

use super::path::{
    AGAIN, LEGS, MAPPINGS, Path, SAMPLE, STRANGERS, Target, may_ask, place, request, sample_size,
};
use crate::core::{
    netcheck::{Answer, FULL_PAYLOAD, Seen},
    port_search::Sample,
};

/// Payloads that are tried, in bytes: what QUIC needs, common tunnels, and what quinn tries at most.
const PAYLOADS: [u16; 7] = [1200, 1252, 1320, 1360, 1392, 1420, FULL_PAYLOAD];

/// The header of PADDING.
const PADDING_HEADER: usize = 4;

/// A packet that every server of QUIC answers: a long header with a version that nobody has
/// ([RFC 9000, section 6](https://www.rfc-editor.org/rfc/rfc9000#section-6)), as long as a first one has to be.
const VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
const FIRST: usize = 1200;

/// How long that takes at most.
const ALIVE: Duration = Duration::from_millis(500);

/// Ports that a search leaves to dials.
const KEPT: usize = 2;

/// Ports that a relay is asked about at most: a block or a sequence shows long before.
const LARGEST_SAMPLE: usize = 64;

/// An answer: what it is, from where, after how long, and when by the wall clock.
pub(in crate::swarm) struct Got {
    pub(in crate::swarm) message: Message,
    remote: SocketAddr,
    rtt: Duration,
    at: SystemTime,
}

pub(super) async fn look(
    sockets: &Handle,
    family: Family,
    targets: &[Target],
    deadline: Instant,
) -> Path {
    let mut path = Path::new(Transport::Quic, family);
    let Some(port) = sockets
        .punch_ports()
        .get(&(Transport::Quic, family))
        .copied()
    else {
        let why = |target: &Target| (target.relay, Answer::Failed("no punch socket".to_owned()));
        path.legs = targets.iter().map(why).collect();
        return path;
    };
    let stun = sockets.stun();
    let answers = ask_all(sockets, targets).await;
    let silent = targets.iter().zip(&answers);
    let silent = silent.filter_map(|(target, got)| got.is_none().then_some(target.addr));
    let (_held, alive) = alive(sockets, family, &silent.collect::<Vec<_>>()).await;
    for (target, got) in targets.iter().zip(&answers) {
        let is_alive = alive.get(&target.addr).copied();
        path.legs
            .push((target.relay, leg(sockets, target, got.as_ref(), is_alive)));
        if got.is_some() {
            path.facts
                .seen
                .push(seen(sockets, port, target.addr, got.as_ref()));
        }
    }
    let answered = || {
        targets
            .iter()
            .zip(&answers)
            .filter_map(|(t, got)| Some((t.addr, got.as_ref()?)))
    };
    let has_partner =
        |(at, got): &(SocketAddr, &Got)| got.message.other.is_some_and(|other| may_ask(other, *at));
    let Some((relay, got)) = answered().find(has_partner).or_else(|| answered().next()) else {
        return path;
    };
    path.clock_ahead = clock_ahead(got);
    let partner = got.message.other.filter(|other| may_ask(*other, relay));
    let second = got.message.info.map_or(0, |info| info.second_port);
    let second = (second != 0).then(|| SocketAddr::new(relay.ip(), second));
    let mapped = got.message.mapped;

    let sample = claim(sockets, family);
    let others = second.into_iter().chain(partner);
    let mappings = join_all(others.map(async |by| {
        let got = ask(stun, by, &request(), MAPPINGS).await;
        seen(sockets, port, by, got.as_ref())
    }));
    let asked = join_all(sample.iter().map(async |socket| {
        let got = ask_from(socket, relay, &[request()], MAPPINGS).await;
        let mapped = got.into_iter().next().flatten();
        (
            socket.port(),
            mapped.and_then(|(message, _)| message.mapped),
        )
    }));
    let (seen_by, sampled, payload, hairpin) = join4(
        mappings,
        asked,
        payload(stun, relay),
        hairpin(stun, sample.first(), mapped),
    )
    .await;
    path.facts.seen.extend(seen_by);
    path.facts.sample = sampled;
    path.facts.payload = Some(payload);
    path.facts.hairpin = hairpin;

    let fresh = sample.last().filter(|_| {
        let fresh = path.facts.sample.last();
        fresh.is_some_and(|(_, mapped)| mapped.is_some())
    });
    if let Some(fresh) = fresh {
        let within = deadline
            .saturating_duration_since(Instant::now())
            .min(STRANGERS);
        // As itself, and not refusing: then it answers from there, also where a NAT maps by port and lets nothing of it in.
        let second_answers = second.is_some_and(|second| {
            let is_it = |seen: &Seen| seen.by == second && seen.mapped.is_some();
            path.facts.seen.iter().any(is_it)
        });
        let strangers = strangers(stun, fresh, relay, second_answers, within).await;
        path.partner_answers = partner.and(strangers.partner_answers);
        path.facts.from_other_port = strangers.from_other_port;
        path.facts.from_other_address = partner.and(strangers.from_other_address);
    }
    path
}

/// The second port of a relay.
pub(in crate::swarm) async fn second_port(sockets: &Handle, relay: SocketAddr) -> Option<u16> {
    let got = ask(sockets.stun(), relay, &request(), MAPPINGS).await?;
    let second = got.message.info?.second_port;
    (second != 0).then_some(second)
}

/// How a relay sees the punch socket from two ports or addresses, and if it has two mappings, the free ports of the range.
pub(super) async fn sample(sockets: &Handle, relay: SocketAddr) -> Option<Sample> {
    let stun = sockets.stun();
    let got = ask(stun, relay, &request(), MAPPINGS).await?;
    let second = got.message.info.map_or(0, |info| info.second_port);
    let second = (second != 0).then(|| SocketAddr::new(relay.ip(), second));
    let partner = got.message.other.filter(|other| may_ask(*other, relay));
    let others = second.into_iter().chain(partner);
    let asked = others.map(|by| async move { ask(stun, by, &request(), MAPPINGS).await });
    let mut punch = vec![got.message.mapped?];
    let answers = join_all(asked).await.into_iter().flatten();
    punch.extend(answers.filter_map(|got| got.message.mapped));
    let free = sockets.pool_counts().free.saturating_sub(KEPT);
    let mut ports = Vec::new();
    if punch.iter().any(|mapped| *mapped != punch[0]) {
        let claimed = 0..free.min(LARGEST_SAMPLE);
        let family = Family::from(relay.ip());
        let claimed: Vec<_> = claimed
            .map_while(|_| sockets.claim_udp(family).ok())
            .collect();
        // They ask in this order, and all before the first is answered.
        let asked = claimed.iter().map(async |socket| {
            let got = ask_from(socket, relay, &[request()], MAPPINGS).await;
            let (message, _) = got.into_iter().next().flatten()?;
            Some((socket.port(), message.mapped?.port()))
        });
        ports.extend(join_all(asked).await.into_iter().flatten());
    }
    Some(Sample { punch, ports, free })
}

/// How a relay sees the punch socket from one of its ports, and so many next ports of the range, which are returned.
pub(super) async fn sample_next(
    sockets: &Handle,
    relay: SocketAddr,
    used: &[u16],
    count: usize,
) -> Option<(Sample, Vec<ClaimedUdp>)> {
    let next = unused(sockets, Family::from(relay.ip()), used, count)?;
    let asked = next.iter().map(async |socket| {
        let got = ask_from(socket, relay, &[request()], MAPPINGS).await;
        let (message, _) = got.into_iter().next().flatten()?;
        Some((socket.port(), message.mapped?))
    });
    let (punch, asked) = join(punch_socket(sockets, relay), join_all(asked)).await;
    let punch = punch?;
    let asked = asked.into_iter().flatten();
    let asked = asked.filter(|(_, mapped)| mapped.ip() == punch.ip());
    let ports: Vec<_> = asked.map(|(port, mapped)| (port, mapped.port())).collect();
    let sample = Sample {
        punch: vec![punch],
        free: ports.len(),
        ports,
    };
    (sample.free == count).then_some((sample, next))
}

/// Ports that no path and no punch has moved to before, or that they have left first: the mapping of others may be old already.
fn unused(sockets: &Handle, family: Family, used: &[u16], count: usize) -> Option<Vec<ClaimedUdp>> {
    let (mut fresh, mut tried) = (Vec::new(), Vec::new());
    while fresh.len() < count
        && let Ok(socket) = sockets.claim_udp(family)
    {
        match used.contains(&socket.port()) {
            true => tried.push(socket),
            false => fresh.push(socket),
        }
    }
    tried.sort_by_key(|socket| used.iter().position(|port| *port == socket.port()));
    fresh.extend(tried);
    fresh.truncate(count);
    (fresh.len() == count).then_some(fresh)
}

/// How a relay sees the punch socket.
pub(super) async fn punch_socket(sockets: &Handle, relay: SocketAddr) -> Option<SocketAddr> {
    let got = ask(sockets.stun(), relay, &request(), MAPPINGS).await?;
    got.message.mapped
}

fn leg(sockets: &Handle, target: &Target, got: Option<&Got>, is_alive: Option<Duration>) -> Answer {
    match got.map(|got| got.rtt).or(is_alive) {
        Some(rtt) => Answer::After(rtt),
        None if sockets.source_ip(target.addr.ip()).is_none() => {
            Answer::Failed(format!("no {} route", Family::from(target.addr.ip())))
        }
        None => Answer::Silent,
    }
}

fn seen(sockets: &Handle, port: u16, by: SocketAddr, got: Option<&Got>) -> Seen {
    let local = sockets.source_ip(by.ip());
    let mapped = got.and_then(|got| got.message.mapped);
    Seen {
        by,
        local: local.map(|ip| SocketAddr::new(ip, port)),
        mapped,
    }
}

fn clock_ahead(got: &Got) -> Option<i64> {
    let theirs = got.message.info?.unix_ms;
    let ours = got.at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let ours = i64::try_from(ours.as_millis()).ok()?;
    let half = i64::try_from(got.rtt.as_millis() / 2).ok()?;
    Some(ours - half - i64::try_from(theirs).ok()?)
}

async fn ask_all(sockets: &Handle, targets: &[Target]) -> Vec<Option<Got>> {
    let ask = |target: &Target| {
        let addr = target.addr;
        async move { ask(sockets.stun(), addr, &request(), LEGS).await }
    };
    join_all(targets.iter().map(ask)).await
}

/// Asks from the punch socket, again and again.
pub(in crate::swarm) async fn ask(
    stun: &StunClient,
    to: SocketAddr,
    message: &Message,
    within: Duration,
) -> Option<Got> {
    let bytes = message.encode();
    let mut expected = stun.expect(message.transaction);
    let deadline = Instant::now() + within;
    let mut wait = AGAIN;
    loop {
        let sent = Instant::now();
        if let Err(error) = stun.send(&bytes, to) {
            tracing::trace!(%to, %error, "a request of STUN was not sent");
        }
        match timeout_at(deadline.min(sent + wait), expected.answer()).await {
            Ok(answer) => {
                let answer = answer?;
                return Some(Got {
                    rtt: answer.at.saturating_duration_since(sent.into_std()),
                    message: answer.message,
                    remote: answer.remote,
                    at: SystemTime::now(),
                });
            }
            Err(_) if Instant::now() >= deadline => return None,
            Err(_) => wait *= 2,
        }
    }
}

/// Asks from another port, until each of the messages is answered or the time is over.
pub(super) async fn ask_from(
    socket: &ClaimedUdp,
    to: SocketAddr,
    messages: &[Message],
    within: Duration,
) -> Vec<Option<(Message, SocketAddr)>> {
    let mut answers = vec![None; messages.len()];
    let deadline = Instant::now() + within;
    let mut wait = AGAIN;
    let mut buffer = [0; 2048];
    while answers.iter().any(Option::is_none) && Instant::now() < deadline {
        for (message, _) in messages
            .iter()
            .zip(&answers)
            .filter(|(_, got)| got.is_none())
        {
            if let Err(error) = socket.socket().send_to(&message.encode(), to).await {
                tracing::trace!(%to, %error, "a request of STUN was not sent");
            }
        }
        let until = deadline.min(Instant::now() + wait);
        while answers.iter().any(Option::is_none) {
            let Ok(received) = timeout_at(until, socket.socket().recv_from(&mut buffer)).await
            else {
                break;
            };
            // An error is one that a router has reported about an earlier packet.
            let Ok((length, remote)) = received else {
                continue;
            };
            let Ok(answer) = Message::decode(&buffer[..length]) else {
                continue;
            };
            let asked = |message: &Message| message.transaction == answer.transaction;
            if let Some(at) = messages.iter().position(asked) {
                answers[at] = Some((answer, remote));
            }
        }
        wait *= 2;
    }
    answers
}

/// Other ports of the range.
fn claim(sockets: &Handle, family: Family) -> Vec<ClaimedUdp> {
    let size = sample_size(sockets, SAMPLE).max(1);
    let claimed = (0..size).map_while(|_| sockets.claim_udp(family).ok());
    let mut claimed: Vec<_> = claimed.collect();
    claimed.sort_by_key(|socket| place(socket.port()));
    claimed
}

/// Which of these answer QUIC although they answer no STUN, and after how long. The port that asked is returned: it has sent to all
/// of them, and is not to be looked at as a fresh one.
async fn alive(
    sockets: &Handle,
    family: Family,
    silent: &[SocketAddr],
) -> (Option<ClaimedUdp>, BTreeMap<SocketAddr, Duration>) {
    let mut alive = BTreeMap::new();
    if silent.is_empty() {
        return (None, alive);
    }
    let Ok(socket) = sockets.claim_udp(family) else {
        return (None, alive);
    };
    let mut packet = vec![0; FIRST];
    packet[0] = 0xc0;
    packet[1..5].copy_from_slice(&VERSION);
    packet[5] = 8;
    packet[14] = 8;
    let started = Instant::now();
    let deadline = started + ALIVE;
    let mut buffer = [0; 2048];
    while alive.len() < silent.len() && Instant::now() < deadline {
        for addr in silent.iter().filter(|addr| !alive.contains_key(*addr)) {
            // Without a route there is no answer.
            let _ = socket.socket().send_to(&packet, addr).await;
        }
        let until = deadline.min(Instant::now() + AGAIN);
        while alive.len() < silent.len()
            && let Ok(received) = timeout_at(until, socket.socket().recv_from(&mut buffer)).await
        {
            if let Ok((_, remote)) = received
                && silent.contains(&remote)
            {
                alive.entry(remote).or_insert(started.elapsed());
            }
        }
    }
    (Some(socket), alive)
}

/// The longest payload to which the relay answers.
async fn payload(stun: &StunClient, relay: SocketAddr) -> u16 {
    let tries = PAYLOADS.map(|payload| async move {
        let mut message = request();
        let short = message.encode().len() - message.padding;
        message.padding = usize::from(payload).saturating_sub(short);
        debug_assert!(short > PADDING_HEADER && message.encode().len() == usize::from(payload));
        let got = ask(stun, relay, &message, MAPPINGS).await;
        got.map_or(0, |_| payload)
    });
    join_all(tries).await.into_iter().max().unwrap_or_default()
}

/// Whether a packet from another port to the punch socket's mapping comes back.
async fn hairpin(
    stun: &StunClient,
    from: Option<&ClaimedUdp>,
    mapped: Option<SocketAddr>,
) -> Option<bool> {
    let (from, mapped) = (from?, mapped?);
    let message = request();
    let mut expected = stun.expect(message.transaction);
    let deadline = Instant::now() + MAPPINGS;
    let send = async {
        loop {
            // A NAT without hairpinning may refuse it.
            let _ = from.socket().send_to(&message.encode(), mapped).await;
            sleep(AGAIN * 2).await;
        }
    };
    let came = tokio::select! {
        came = timeout_at(deadline, expected.answer()) => came.is_ok_and(|came| came.is_some()),
        () = send => false,
    };
    Some(came)
}

/// Who gets in to a port that has sent to one endpoint of the relay alone.
struct Strangers {
    from_other_port: Option<bool>,
    from_other_address: Option<bool>,
    partner_answers: Option<bool>,
}

/// Asks for answers from elsewhere, from the fresh port, and from the punch socket, which has sent there: if nothing comes to that
/// one either, nobody answers, and nothing is known.
async fn strangers(
    stun: &StunClient,
    fresh: &ClaimedUdp,
    relay: SocketAddr,
    second_answers: bool,
    within: Duration,
) -> Strangers {
    let changed = |ip| Message {
        change: Some(Change { ip, port: true }),
        ..request()
    };
    let (port, address) = (changed(false), changed(true));
    let known = |message: Message| async move { ask(stun, relay, &message, within).await };
    let (came, known_port, known_address) = join3(
        ask_from(fresh, relay, &[port, address], within),
        known(changed(false)),
        known(changed(true)),
    )
    .await;
    let is_answer = |message: &Message| message.class == Class::Success;
    let is_known = |got: &Option<Got>| {
        let elsewhere = |got: &Got| is_answer(&got.message) && got.remote != relay;
        got.as_ref().is_some_and(elsewhere)
    };
    let came = |at: usize| came.get(at).and_then(Option::as_ref);
    let got_in =
        |at| came(at).is_some_and(|(message, remote)| is_answer(message) && *remote != relay);
    let refused = |at| came(at).is_some_and(|(message, _)| !is_answer(message));
    let tried = |at, is_answered: bool| {
        let in_vain = is_answered && !refused(at);
        (got_in(at) || in_vain).then(|| got_in(at))
    };
    Strangers {
        from_other_port: tried(0, second_answers || is_known(&known_port)),
        from_other_address: tried(1, is_known(&known_address)),
        partner_answers: Some(is_known(&known_address) || got_in(1)),
    }
}
