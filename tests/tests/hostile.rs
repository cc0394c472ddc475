//! Peers that abuse DCUtR: bounded work, bounded packets to others, a reason in the log, and everybody else is served.

#![allow(
    clippy::print_stdout,
    reason = "the number of packets is worth a look; it shows with --nocapture and on failure"
)]

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    events::Event,
    nat::NatKind,
    packet::Packet,
    probe,
    running::{Both, Running},
    stranger::Stranger,
    usage::memory,
};

p2pnode_tests::lab_tests!();

const LOG: &str = "P2PNODE_LOG_LEVEL";
const VERBOSE: &str = "info,p2pnode::punch=debug";

/// What all abuse together may add to the memory of a node, in KiB: far more than it should, far less than it sends.
const MEMORY: u64 = 48 * 1024;

/// Candidates of one peer that are dialed in one handshake.
const CANDIDATES: usize = 8;
/// Handshakes with one peer in a minute.
const HANDSHAKES: usize = 8;
/// Packets to one candidate in one handshake. Over QUIC: the first flights of a client within 5 s, and random packets every
/// 105 ms on average where this side opens the hole for a remote that dials. Over TCP: a SYN every 100 ms as long as they are
/// refused.
const PACKETS: usize = 80;
/// Handshakes that are waited for: one of each transport, if both are listed.
const ENOUGH: usize = 2;

async fn prepare(name: &str) -> Result<Both> {
    let prepared = Running::new(name, NatKind::EimApdf, NatKind::EimApdfRewrite)
        .prepare()
        .await?;
    prepared.b_env(LOG, VERBOSE).start().await
}

/// The node under abuse still runs, has a bounded memory, and becomes direct with a peer that behaves.
async fn serves(both: &mut Both, before: u64) -> Result<()> {
    let pid = both.b.process.pid();
    ensure!(both.b.process.is_alive()?, "{}", both.b.process.log());
    let grown = memory(pid)?.saturating_sub(before);
    ensure!(grown < MEMORY, "memory grew by {grown} KiB");
    both.dial().await?;
    both.verify_sockets().await?;
    let log = both.b.process.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[tokio::test]
async fn malformed_handshakes_are_dropped_with_a_reason_and_others_are_served() -> Result<()> {
    // What the log says of each; `None`: nothing, as nothing was said.
    const ABUSE: [(&str, &str, &str); 7] = [
        (
            "silent",
            "40",
            "dropped a DCUtR stream: another one is open",
        ),
        ("oversized", "20", "message is longer than 4096 bytes"),
        ("truncated", "20", "unexpected end of file"),
        ("endless", "5", "message is longer than 4096 bytes"),
        ("garbage", "20", "DCUtR handshake broke off"),
        ("crowded", "20", "dropped a DCUtR stream: more than"),
        ("disordered", "20", "SYNC where CONNECT was due"),
    ];
    let mut both = prepare("malformed").await?;
    let before = memory(both.b.process.pid())?;
    let host = both.lab.public_host("strangers").await?;
    let stranger = Stranger::new(&both.lab, &host)?;
    let relay = both.relay.addresses(&host, &[Transport::Quic]).remove(0);
    let mut strangers = Vec::new();
    for (abuse, times, _) in ABUSE {
        let args = ["--abuse", abuse, "--times", times];
        strangers.push(stranger.dial(abuse, &relay, &both.b.id, &args)?);
    }
    for process in &strangers {
        process.event("abused", PATIENCE * 4).await?;
    }
    let log = both.b.process.log();
    for (abuse, _, reason) in ABUSE {
        ensure!(
            log.contains(reason),
            "{abuse}: the log does not say {reason:?}"
        );
    }
    serves(&mut both, before).await?;
    both.lab.succeeded();
    Ok(())
}

/// A stranger lists a third party, the relay, and the node's own loopback as its candidates, again and again.
async fn third_party(name: &str, transport: Transport, dials: bool) -> Result<()> {
    let mut both = prepare(name).await?;
    let before = memory(both.b.process.pid())?;
    let victim = both.lab.public_host("victim").await?;
    let host = both.lab.public_host("stranger").await?;
    let stranger = Stranger::new(&both.lab, &host)?;
    let relay = both.relay.addresses(&host, &[Transport::Quic]).remove(0);
    let loopback = probe::listen(&both.b.host, 9999).await?;

    let address = |ip: std::net::IpAddr, port: u16| match transport {
        Transport::Quic => format!("/ip4/{ip}/udp/{port}/quic-v1"),
        Transport::Tcp => format!("/ip4/{ip}/tcp/{port}"),
    };
    let relay_ip = both.relay.host.ip(false)?;
    let victim_ip = victim.ip(false)?;
    let mut candidates = vec![
        address([127, 0, 0, 1].into(), 9999),
        address([0, 0, 0, 0].into(), 9999),
        address([169, 254, 1, 1].into(), 9999),
        address([224, 0, 0, 1].into(), 9999),
        address(relay_ip, 443),
    ];
    candidates.extend((0..200).map(|port| address(victim_ip, 5000 + port)));
    let mut args = vec!["--abuse", "handshake", "--times", "30"];
    for candidate in &candidates {
        args.extend(["--candidate", candidate]);
    }
    let (_process, id) = if dials {
        let process = stranger.dial("stranger", &relay, &both.b.id, &args)?;
        let id = process.event("started", PATIENCE).await?;
        let id = id.text("/peer_id").to_owned();
        (process, id)
    } else {
        let (process, id) = stranger.wait("stranger", &relay, &args).await?;
        let dial = both
            .b
            .control
            .dial("b-dial", &id)
            .args(["--until", "connected"]);
        let mut dial = dial.start(&both.b.host.device, both.lab.artifacts())?;
        let ended = dial.exit(PATIENCE).await?;
        ensure!(ended.code() == Some(0), "{ended}: {}", dial.log());
        (process, id)
    };
    let look = |events: &[Event]| {
        let of_peer = |event: &&Event| event.name() == "punch" && event.text("/peer") == id;
        (events.iter().filter(of_peer).count() >= ENOUGH).then_some(())
    };
    let punched = both.b.process.until("punches", PATIENCE * 2, look);
    punched.await?;

    both.b_side.settle().await?;
    let sent = both.b_side.home().sent_by(&both.b.host.addresses);
    let to_victim: Vec<&Packet> = sent
        .iter()
        .filter(|packet| packet.destination.ip() == victim_ip)
        .collect();
    let mut per_candidate = std::collections::BTreeMap::<SocketAddr, usize>::new();
    for packet in &to_victim {
        *per_candidate.entry(packet.destination).or_default() += 1;
    }
    let punches = both.b.punches(&id);
    println!(
        "{name}: {} packets to {} candidates in {} punches, at most {:?} to one",
        to_victim.len(),
        per_candidate.len(),
        punches.len(),
        per_candidate.values().max()
    );
    ensure!(
        per_candidate.len() <= CANDIDATES,
        "{} addresses of a third party were dialed",
        per_candidate.len()
    );
    for (candidate, packets) in &per_candidate {
        ensure!(
            // One more may have begun since.
            *packets <= (punches.len() + 1) * PACKETS,
            "{packets} packets to {candidate} in {} handshakes",
            punches.len()
        );
    }
    let minute = std::time::Duration::from_secs(60);
    for first in &punches {
        let within = |event: &&Event| event.at >= first.at && event.at < first.at + minute;
        let count = punches.iter().filter(within).count();
        ensure!(count <= HANDSHAKES, "{count} handshakes in a minute");
    }
    // Neither this host nor the relay, nor what nobody has, is dialed: said, and so done.
    ensure!(
        sent.iter().all(|packet| {
            let ip = packet.destination.ip();
            ip != std::net::IpAddr::from([169, 254, 1, 1]) && !ip.is_multicast()
        }),
        "an address that nobody has was dialed"
    );
    let nobody = tokio::time::timeout(std::time::Duration::ZERO, loopback.accept()).await;
    ensure!(nobody.is_err(), "the node dialed itself");
    let last = both.b.last_punch(&id).await?;
    let filtered = |address: &str| {
        let received = last["received"].as_array().into_iter().flatten();
        received
            .filter(|candidate| candidate["addr"] == address)
            .all(|candidate| candidate["outcome"] == "filtered")
    };
    for candidate in &candidates[..5] {
        ensure!(filtered(candidate), "{candidate}: {last}");
    }
    serves(&mut both, before).await?;
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_peer_that_dials_cannot_make_a_node_flood_a_third_party_over_quic() -> Result<()> {
    third_party("third-party-quic", Transport::Quic, true).await
}

#[tokio::test]
async fn a_peer_that_dials_cannot_make_a_node_flood_a_third_party_over_tcp() -> Result<()> {
    third_party("third-party-tcp", Transport::Tcp, true).await
}

#[tokio::test]
async fn a_peer_that_is_dialed_cannot_make_a_node_flood_a_third_party() -> Result<()> {
    third_party("third-party-dialed", Transport::Quic, false).await
}
