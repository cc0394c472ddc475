//! UDP, on which QUIC runs: from the punch socket, and from others of the range.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use futures::future::{join, join_all, join3, join4};
use libp2p::PeerId;
use p2pnode_protocol::stun::{ATTRIBUTE, Change, Class, Message};
use p2pnode_transports::{ClaimedUdp, Error, Family, Handle, StunClient, Transport, timed_out};
use tokio::time::{Instant, sleep, timeout_at};

use super::path::{
    AGAIN, Answers, LEGS, Look, MAPPINGS, Path, STRANGERS, TRIED, clock_ahead, may_ask, padding,
    request,
};
use crate::core::{
    netcheck::{Answer, FULL_PAYLOAD, Seen},
    port_search::Sample,
};

/// Payloads that are tried, in bytes: what QUIC needs, common tunnels, and what quinn tries at most.
const PAYLOADS: [u16; 7] = [1200, 1252, 1320, 1360, 1392, 1420, FULL_PAYLOAD];

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

pub(super) async fn look(look: &Look<'_>) -> Path {
    let mut path = Path::new(Transport::Quic, look.family);
    look.note_files();
    path.facts.lacks_port = look.sample.is_empty();
    let Some(port) = look.port() else {
        path.legs = look.no_socket();
        return path;
    };
    let addrs = look.addrs();
    let (mut answers, identified) =
        join(facts(look, port, &addrs, &mut path), identify(look, &addrs)).await;
    for (addr, (done, took)) in addrs.iter().zip(identified) {
        match done {
            Some(Ok(peer)) => drop(answers.proved.insert(*addr, (peer, took))),
            // It was refused.
            Some(Err(error)) if !timed_out(&error) && !answers.failed.contains_key(addr) => {
                answers.after.entry(*addr).or_insert(took);
            }
            Some(Err(_)) | None => {}
        }
    }
    path.legs = look.legs(&answers);
    path
}

/// Who answers QUIC at the addresses, and after how long.
async fn identify(
    look: &Look<'_>,
    addrs: &[SocketAddr],
) -> Vec<(Option<Result<PeerId, Error>>, Duration)> {
    let identified = addrs.iter().map(async |addr| {
        let started = Instant::now();
        let done = timeout_at(look.deadline, look.sockets.identify_quic(*addr)).await;
        (done.ok(), started.elapsed())
    });
    join_all(identified).await
}

/// What STUN shows. Returns which addresses answer it, and where this host does not send.
async fn facts(look: &Look<'_>, port: u16, addrs: &[SocketAddr], path: &mut Path) -> Answers {
    let stun = look.sockets.stun();
    let asked = addrs.iter().map(async |addr| {
        let mut fault = None;
        let note = &mut |error: &_| fault = look.faults.note(error).or(fault);
        let got = ask_noting(stun, *addr, &request(), LEGS, note).await;
        (*addr, got.ok_or(fault))
    });
    let (mut answers, mut came): (Vec<(SocketAddr, Got)>, _) = (Vec::new(), Answers::default());
    for (addr, got) in join_all(asked).await {
        match got {
            Ok(got) => {
                came.after.insert(addr, got.rtt);
                answers.push((addr, got));
            }
            Err(Some(fault)) => drop(came.failed.insert(addr, Answer::Fault(fault))),
            Err(None) => {}
        }
    }
    let seen = answers.iter();
    path.facts
        .seen
        .extend(seen.map(|(addr, got)| look.seen(port, *addr, Some(&got.message))));
    let has_partner =
        |(at, got): &&(SocketAddr, Got)| got.message.other.is_some_and(|other| may_ask(other, *at));
    // What a NAT in front of a relay hides shows that NAT, so other relays come first.
    answers.sort_by_key(|(addr, _)| path.facts.is_hidden_from(*addr));
    let shows = |(addr, _): &&(SocketAddr, Got)| !path.facts.is_hidden_from(*addr);
    let mut partnered = answers.iter().filter(shows);
    let best = partnered.find(has_partner).or(answers.first());
    let Some((relay, got)) = best else {
        path.facts.sample = sampled(look, &addrs[..addrs.len().min(TRIED)]).await;
        // quinn keeps the errors of the punch socket to itself. Those of all other ports stand for it.
        let fault = look.faults.all().first().copied();
        let all_failed = !look.sample.is_empty() && path.facts.sample.is_empty();
        if let (Some(fault), true) = (fault, all_failed) {
            let failed = addrs.iter().map(|addr| (*addr, Answer::Fault(fault)));
            came.failed.extend(failed);
        }
        return came;
    };
    let relay = *relay;
    let is_hidden = path.facts.is_hidden_from(relay);
    path.clock_ahead = clock_ahead(&got.message, got.at, got.rtt);
    let partner = got.message.other.filter(|other| may_ask(*other, relay));
    path.facts.has_partner = partner.is_some();
    let second = got.message.info.map_or(0, |info| info.second_port);
    let second = (second != 0).then(|| SocketAddr::new(relay.ip(), second));
    // Elsewhere that address is another host's.
    let mapped = got.message.mapped.filter(|_| !is_hidden);

    let others = second.into_iter().chain(partner);
    let mappings = join_all(others.map(async |by| {
        let got = ask(stun, by, &request(), MAPPINGS).await;
        look.seen(port, by, got.as_ref().map(|got| &got.message))
    }));
    let (seen_by, sampled, payload, hairpin) = join4(
        mappings,
        sampled(look, &[relay]),
        payload(stun, relay),
        hairpin(stun, look.sample.first(), mapped),
    )
    .await;
    path.facts.seen.extend(seen_by);
    path.facts.sample = sampled;
    (path.facts.payload, path.facts.payload_in) = (Some(payload.0), payload.1);
    path.facts.hairpin = hairpin;

    // One that gets out.
    let gets_out = |socket: &&ClaimedUdp| {
        let is_it = |(port, mapped): &(u16, Option<_>)| *port == socket.port() && mapped.is_some();
        path.facts.sample.iter().any(is_it)
    };
    if let Some(fresh) = look.sample.iter().rev().find(gets_out)
        && !is_hidden
    {
        let within = look
            .deadline
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
    came
}

/// How relays see the ports that stand for the range. The first answer of one counts. A port from which this host does not send is
/// left out.
async fn sampled(look: &Look<'_>, relays: &[SocketAddr]) -> Vec<(u16, Option<SocketAddr>)> {
    let asked = look.sample.iter().map(async |socket| {
        let asks: Vec<_> = relays.iter().map(|relay| (*relay, request())).collect();
        let mut fault = None;
        let note = &mut |error: &_| fault = look.faults.note(error).or(fault);
        let got = ask_from_noting(socket, &asks, 1, MAPPINGS, note).await;
        let got = got.into_iter().flatten().next();
        let is_sent = got.is_some() || fault.is_none();
        is_sent.then(|| (socket.port(), got.and_then(|(message, _)| message.mapped)))
    });
    join_all(asked).await.into_iter().flatten().collect()
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
            Some((socket.port(), ask_once(socket, relay).await?.mapped?.port()))
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
    let asked = next
        .iter()
        .map(async |socket| Some((socket.port(), ask_once(socket, relay).await?.mapped?)));
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

/// Asks from the punch socket, again and again.
pub(in crate::swarm) async fn ask(
    stun: &StunClient,
    to: SocketAddr,
    message: &Message,
    within: Duration,
) -> Option<Got> {
    ask_noting(stun, to, message, within, &mut |_| ()).await
}

/// The same, and passes on the errors of this host.
async fn ask_noting(
    stun: &StunClient,
    to: SocketAddr,
    message: &Message,
    within: Duration,
    note: &mut (dyn FnMut(&io::Error) + Send),
) -> Option<Got> {
    let bytes = message.encode();
    let mut expected = stun.expect(message.transaction);
    let first = Instant::now();
    let deadline = first + within;
    let mut wait = AGAIN;
    loop {
        let sent = Instant::now();
        if let Err(error) = stun.send(&bytes, to) {
            tracing::trace!(%to, %error, "a request of STUN was not sent");
            note(&error);
        }
        match timeout_at(deadline.min(sent + wait), expected.answer()).await {
            Ok(answer) => {
                let answer = answer?;
                return Some(Got {
                    // It may answer any of the requests: from the first one the time is none that is too short.
                    rtt: answer.at.saturating_duration_since(first.into_std()),
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

/// Asks from another port, until so many of the messages are answered or the time is over.
pub(super) async fn ask_from(
    socket: &ClaimedUdp,
    messages: &[(SocketAddr, Message)],
    enough: usize,
    within: Duration,
) -> Vec<Option<(Message, SocketAddr)>> {
    ask_from_noting(socket, messages, enough, within, &mut |_| ()).await
}

/// The same, and passes on the errors of this host.
async fn ask_from_noting(
    socket: &ClaimedUdp,
    messages: &[(SocketAddr, Message)],
    enough: usize,
    within: Duration,
    note: &mut (dyn FnMut(&io::Error) + Send),
) -> Vec<Option<(Message, SocketAddr)>> {
    let mut answers = vec![None; messages.len()];
    let deadline = Instant::now() + within;
    let mut wait = AGAIN;
    let mut buffer = [0; 2048];
    let lacks = |answers: &[Option<_>]| answers.iter().flatten().count() < enough;
    while lacks(&answers) && Instant::now() < deadline {
        for ((to, message), _) in messages
            .iter()
            .zip(&answers)
            .filter(|(_, got)| got.is_none())
        {
            if let Err(error) = socket.socket().send_to(&message.encode(), to).await {
                tracing::trace!(%to, %error, "a request of STUN was not sent");
                note(&error);
            }
        }
        let until = deadline.min(Instant::now() + wait);
        while lacks(&answers) {
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
            let asked =
                |(_, message): &(SocketAddr, Message)| message.transaction == answer.transaction;
            if let Some(at) = messages.iter().position(asked) {
                answers[at] = Some((answer, remote));
            }
        }
        wait *= 2;
    }
    answers
}

/// Asks one relay once from another port.
async fn ask_once(socket: &ClaimedUdp, relay: SocketAddr) -> Option<Message> {
    let got = ask_from(socket, &[(relay, request())], 1, MAPPINGS).await;
    let (message, _) = got.into_iter().next().flatten()?;
    Some(message)
}

/// The longest payload to which the relay answers, and the longest one of an answer. The second is `None` if the relay pads none.
async fn payload(stun: &StunClient, relay: SocketAddr) -> (u16, Option<u16>) {
    let tries = PAYLOADS.map(|payload| async move {
        let tried = [false, true].map(|pads| {
            let mut message = padding(request(), pads);
            let short = message.encode().len() - message.padding;
            message.padding = usize::from(payload).saturating_sub(short);
            debug_assert!(short > ATTRIBUTE && message.encode().len() == usize::from(payload));
            async move { ask(stun, relay, &message, MAPPINGS).await }
        });
        let [out, back] = tried;
        (payload, join(out, back).await)
    });
    let tried = join_all(tries).await;
    let longest = |came: fn(&(Option<Got>, Option<Got>)) -> bool| {
        let tried = tried.iter().filter(|(_, got)| came(got));
        tried.map(|(payload, _)| *payload).max().unwrap_or_default()
    };
    let out = longest(|(out, back)| out.is_some() || back.is_some());
    let is_short = |got: &Got| got.message.padding == 0;
    let pads = !(tried.iter()).any(|(_, (_, back))| back.as_ref().is_some_and(is_short));
    (
        out,
        (pads && out > 0).then(|| longest(|(_, back)| back.is_some())),
    )
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
        ask_from(fresh, &[(relay, port), (relay, address)], 2, within),
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
