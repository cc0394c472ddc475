//! Peers that abuse DCUtR: bounded work, bounded packets to others, a reason in the log, and everybody else is served.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2pnode_tests::{
    admin::{self, ADMIN},
    prelude::*,
    probe, stranger,
    terminal::obeyed,
    usage::memory,
};

lab_tests! {
    malformed_handshakes_are_dropped_with_a_reason_and_others_are_served: malformed();
    a_peer_that_dials_cannot_make_a_node_flood_a_third_party_over_quic: third_party(Transport::Quic, true);
    a_peer_that_dials_cannot_make_a_node_flood_a_third_party_over_tcp: third_party(Transport::Tcp, true);
    a_peer_that_is_dialed_cannot_make_a_node_flood_a_third_party: third_party(Transport::Quic, false);
    no_text_of_a_stranger_reaches_a_terminal_as_it_is: text();
}

/// What all abuse together may add to the memory of a node, in KiB: far more than it should, far less than it sends.
const MEMORY: u64 = 48 * 1024;

/// Addresses of networks inside, of services of clouds, and that nobody has.
const NEVER: [&str; 10] = [
    "169.254.1.1",
    "224.0.0.1",
    "10.7.0.1",
    "172.16.5.5",
    "192.168.1.77",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "64:ff9b::a00:1",
];
/// Candidates of one peer that are dialed in one handshake.
const CANDIDATES: usize = 8;
/// Handshakes with one peer in a minute.
const HANDSHAKES: usize = 8;
/// Packets to one candidate in one handshake. Over QUIC: the first flights of a client within 5 s, and random packets every
/// 105 ms on average where this side opens the hole for a remote that dials. Over TCP: a SYN every 100 ms as long as they are
/// refused.
const PACKETS: usize = 80;
/// Handshakes that are refused at the least: those of two kinds of abuse that begin 20 each, less the 12 that are read.
const DROPPED: f64 = 16.0;
/// Texts that each stranger has sent over all protocols, over a circuit and to the relay: two rounds.
const SAID: u64 = 16;
/// Handshakes that are waited for: one of each transport, if both are listed.
const ENOUGH: usize = 2;

async fn start() -> Result<(Both, u64)> {
    let prepared = Running::homes().prepare().await?;
    let prepared = prepared
        .b_env("P2PNODE_LOG_LEVEL", "info,p2pnode::punch=debug")
        .b_env("P2PNODE_ADMIN_LISTEN", ADMIN);
    let both = prepared.start().await?;
    let before = memory(both.b.process.pid())?;
    Ok((both, before))
}

async fn serves(mut both: Both, before: u64) -> Result<()> {
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

async fn malformed() -> Result<()> {
    const ABUSE: [(&str, &str, &str); 7] = [
        (
            "silent",
            "40",
            "dropped a DCUtR stream: another one is open",
        ),
        ("oversized", "20", "bytes exceeds the limit of 4096"),
        ("truncated", "20", "the stream ended within a message"),
        ("endless", "5", "bytes exceeds the limit of 4096"),
        ("garbage", "20", "DCUtR handshake broke off"),
        ("crowded", "20", "DCUtR handshake broke off"),
        ("disordered", "20", "SYNC where CONNECT was due"),
    ];
    let (both, before) = start().await?;
    let host = both.lab.public_host("strangers").await?;
    let relay = both.relay.address(&host, Transport::Quic)?;
    let mut strangers = Vec::new();
    for (abuse, times, _) in ABUSE {
        let args = ["--abuse", abuse, "--times", times];
        strangers.push(stranger::dial(&host, abuse, &relay, &both.b.id, &args)?);
    }
    for process in &strangers {
        process.event("abused", PATIENCE * 4).await?;
    }
    for (_, _, reason) in ABUSE {
        both.b.process.logged(reason, PATIENCE).await?;
    }
    // 12 handshakes of a circuit are read, of which some begin while another is open.
    let refused = |read: &admin::Exposition| {
        let refused = read.sum("p2pnode_refused_total", &[("reason", "request_rate")]);
        (refused >= DROPPED).then_some(())
    };
    admin::until(&both.b.host, "streams beyond the rate", refused).await?;
    serves(both, before).await
}

/// Everything that a remote can put text into, over circuits and at the relay.
async fn text() -> Result<()> {
    let (both, before) = start().await?;
    let host = both.lab.public_host("strangers").await?;
    let mut strangers = Vec::new();
    for transport in Transport::ALL {
        let relay = both.relay.address(&host, transport)?;
        let words = [
            "text",
            "--at",
            &relay,
            "--to",
            &both.b.id,
            "--seconds",
            "600",
        ];
        let name = format!("text-{}", transport.name());
        strangers.push(stranger::attack(&host, &name, &words)?);
    }
    for stranger in &mut strangers {
        let said = |events: &[Event]| {
            let counts = events.iter().map(|event| &event.json["counts"]);
            let said = counts.filter_map(|counts| counts["said"].as_u64()).max();
            (said >= Some(SAID)).then_some(())
        };
        stranger.until("texts", PATIENCE * 4, said).await?;
        stranger.kill().await?;
    }
    let log = both.b.process.log();
    ensure!(log.contains("owned"), "nothing of the texts is in {log}");
    let lines = both.b.process.events().into_iter();
    let printed: String = lines.map(|event| event.line).collect();
    let status = both.b.control.text(&["status"]).await?;
    for text in [&log, &both.relay.process.log(), &printed, &status] {
        ensure!(obeyed(text) == 0, "{text}");
    }
    serves(both, before).await
}

/// A stranger lists a third party, the relay, and the node's own loopback as its candidates, again and again.
async fn third_party(transport: Transport, dials: bool) -> Result<()> {
    let (both, before) = start().await?;
    let victim = both.lab.public_host("victim").await?;
    let host = both.lab.public_host("stranger").await?;
    let relay = both.relay.address(&host, Transport::Quic)?;
    let loopback = probe::listen(&both.b.host, 9999).await?;

    let victim_ip = victim.ip(false)?;
    let never = NEVER.map(|ip| ip.parse::<IpAddr>());
    let mut candidates = vec![
        transport.addr("127.0.0.1", 9999),
        transport.addr("0.0.0.0", 9999),
        transport.addr(both.relay.host.ip(false)?, 443),
    ];
    candidates.extend(NEVER.map(|ip| transport.addr(ip, 9999)));
    let filtered = candidates.len();
    candidates.extend((0..200).map(|port| transport.addr(victim_ip, 5000 + port)));
    let mut args = vec!["--abuse", "handshake", "--times", "30"];
    for candidate in &candidates {
        args.extend(["--candidate", candidate]);
    }
    let (_process, id) = if dials {
        let process = stranger::dial(&host, "stranger", &relay, &both.b.id, &args)?;
        let id = stranger::id(&process).await?;
        (process, id)
    } else {
        let (process, id) = stranger::wait(&host, "stranger", &relay, &args).await?;
        let until = ["--until", "connected"];
        let dial = both.b.dial_with("b-dial", &id, &until).await?;
        ensure!(dial.code == 0, "{dial:?}");
        (process, id)
    };
    let of_peer = |event: &&Event| event.name() == "punch" && event.text("/peer") == id;
    let look = |events: &[Event]| (events.iter().filter(of_peer).count() >= ENOUGH).then_some(());
    both.b.process.until("punches", PATIENCE * 2, look).await?;

    both.b_side.settle().await?;
    let sent = both.b_side.home.sent_by(&both.b.host.addresses);
    let mut to_victim = BTreeMap::<SocketAddr, usize>::new();
    for packet in sent
        .iter()
        .filter(|packet| packet.destination.ip() == victim_ip)
    {
        *to_victim.entry(packet.destination).or_default() += 1;
    }
    let punches = both.b.punches(&id);
    // One more may have begun since.
    let most = (punches.len() + 1) * PACKETS;
    ensure!(
        to_victim.len() <= CANDIDATES && to_victim.values().all(|packets| *packets <= most),
        "packets to a third party in {} handshakes: {to_victim:?}",
        punches.len()
    );
    let minute = Duration::from_secs(60);
    for first in &punches {
        let within = |event: &&Event| event.at >= first.at && event.at < first.at + minute;
        let count = punches.iter().filter(within).count();
        ensure!(count <= HANDSHAKES, "{count} handshakes in a minute");
    }
    // Neither this host nor the relay, nor what nobody has, is dialed: reported so, and so done.
    let mut sent_to = sent.iter().map(|packet| packet.destination.ip());
    ensure!(
        !sent_to.any(|ip| never.contains(&Ok(ip))),
        "an address was dialed for which no relay vouches"
    );
    let nobody = tokio::time::timeout(Duration::ZERO, loopback.accept()).await;
    ensure!(nobody.is_err(), "the node dialed itself");
    let last = both.b.last_punch(&id).await?;
    for received in last["received"].as_array().into_iter().flatten() {
        let is_filtered = candidates[..filtered]
            .iter()
            .any(|bad| received["addr"] == *bad);
        ensure!(
            !is_filtered || received["outcome"] == "filtered",
            "{received}: {last}"
        );
    }
    serves(both, before).await
}
