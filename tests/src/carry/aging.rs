//! A session through a NAT that drops mappings by their age.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{Echo, LISTEN, Pause, TARGET, Traffic, configured};
use crate::{
    args::{PATIENCE, Transport},
    delay::Link,
    events::Event,
    lab::Lab,
    nat::NatKind,
    node::Launch,
    running::{Node, Prepared, Running},
};

/// The session's traffic: a chunk after each.
const PACE: Duration = Duration::from_millis(10);
const LINGER: Duration = Duration::from_secs(60);

/// What became of it.
#[derive(Clone, Debug)]
pub struct Aged {
    pub moves: Vec<Move>,
    /// How often the path was lost or relayed.
    pub losses: usize,
    /// The longest time without a byte that is none of a move's.
    pub pause_elsewhere: Duration,
    /// Bytes each way.
    pub bytes: u64,
}

/// The path has moved.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Since the traffic began.
    pub at: Duration,
    /// The longest time without a byte around it.
    pub pause: Duration,
}

/// How long before and after the report of a move a pause counts as its own: the search, the new connection, the end of the old one.
const AROUND: Duration = Duration::from_secs(2);

/// A forward carries bytes for so long, or until the path has moved so often, while A's NAT drops each mapping at this age. With
/// `spares_relay`, A keeps its mapping to the relay.
pub async fn aging(
    lab: Lab,
    link: Link,
    lifetime: Duration,
    lasts: Duration,
    most: usize,
    spares_relay: bool,
) -> Result<Aged> {
    let kind = NatKind::EimApdf;
    let running = Running::new(kind, kind).over(&[Transport::Quic]);
    let mut lab = running.prepare_in(lab).await?;
    lab.lab.impair(link)?;
    let only = lab.b.site.outside_ip4().filter(|_| spares_relay);
    drops(&lab, lifetime, only, lasts, most).await
}

async fn drops(
    lab: &Prepared,
    lifetime: Duration,
    only: Option<IpAddr>,
    lasts: Duration,
    most: usize,
) -> Result<Aged> {
    tokio::select! {
        never = lab.a.site.drops_at(lifetime, only) => match never? {},
        aged = carries(lab, lifetime, lasts, most) => aged,
    }
}

async fn carries(lab: &Prepared, lifetime: Duration, lasts: Duration, most: usize) -> Result<Aged> {
    let _echo = Echo::on(&lab.b.host)?;
    let moving = |launch: Launch| {
        let age = format!("{}s", lifetime.as_secs());
        launch
            .env("P2PNODE_PUNCH_SEARCH", "auto")
            .env("P2PNODE_PUNCH_ROTATE", age)
    };
    let services = format!("services: {{ echo: {{ target: \"{TARGET}\", allow: any }} }}\n");
    let b = configured(lab, &lab.b.host, "b", &services, LINGER)?;
    let b = moving(b).reserves(&lab.b.host).await?;
    let forwards = format!(
        "forwards: [ {{ listen: \"{LISTEN}\", to: \"echo@{}\" }} ]\n",
        b.id
    );
    let a = configured(lab, &lab.a.host, "a", &forwards, LINGER)?;
    let a = moving(a).reserves(&lab.a.host).await?;
    a.dial("dial", &b.id).await?.is("direct")?;
    let traffic = Traffic::paced(&a.host, PACE)?;
    traffic.carries(1).await?;
    traffic.longest_pause();
    let (began, seen) = (Instant::now(), a.seen());
    while began.elapsed() < lasts && moves(&a, seen).len() < most {
        sleep(LINGER.min(Duration::from_millis(100))).await;
        ensure!(!traffic.is_over(), "the session has ended");
    }
    let (at, pauses) = (moves(&a, seen), traffic.pauses());
    let is_at = |at: Instant, pause: &&Pause| pause.end + AROUND > at && pause.end < at + AROUND;
    let longest = |pauses: &mut dyn Iterator<Item = &Pause>| {
        pauses.map(|pause| pause.lasted).max().unwrap_or_default()
    };
    let moved = |at: &Instant| Move {
        at: *at - began,
        pause: longest(&mut pauses.iter().filter(|pause| is_at(*at, pause))),
    };
    let mut elsewhere = pauses
        .iter()
        .filter(|pause| !at.iter().any(|at| is_at(*at, pause)));
    let aged = Aged {
        moves: at.iter().map(moved).collect(),
        losses: losses(&a, seen, &b.id),
        pause_elsewhere: longest(&mut elsewhere),
        bytes: traffic.end()?,
    };
    a.direct(&b.id, PATIENCE).await?;
    lab.a.keeps_range().await?;
    lab.b.keeps_range().await?;
    Ok(aged)
}

/// When the path has moved.
fn moves(a: &Node, seen: usize) -> Vec<Instant> {
    let is_move = |event: &&Event| event.json["moves"] == true && event.text("/outcome") == "found";
    let events = a.process.events();
    let moves = events.iter().skip(seen).filter(is_move);
    moves.map(|event| event.at).collect()
}

fn losses(a: &Node, seen: usize, peer: &str) -> usize {
    let is_loss = |event: &&Event| {
        let is_lost =
            event.name() == "disconnected" && !event.text("/reason").starts_with("closed");
        event.text("/peer") == peer && (is_lost || event.connects(peer, "relayed"))
    };
    a.process.events().iter().skip(seen).filter(is_loss).count()
}
