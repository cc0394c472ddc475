//! A relay is misused while good peers have reservations and circuits there: they keep what they have and keep working, memory
//! and descriptors are bounded and come back, and all of it is counted.

#![allow(
    clippy::print_stdout,
    reason = "figures of memory are worth a look; they show with --nocapture and on failure"
)]

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    fleet::{Fleet, counted, sum},
    node::Process,
    served::{Served, State},
};
use serde_json::Value;

p2pnode_tests::lab_tests!();

/// What a connection that is admitted may cost the relay, in KiB. Measured: 100 in a release build, and the allocator keeps what
/// handshakes took.
const PER_CONNECTION: u64 = 200;
/// What may be added to that: handshakes that run at the same time, logs, metrics. In KiB.
const SLACK: u64 = 24 * 1024;
/// For what hundreds of peers do on a machine that others use, too.
const LONG: Duration = Duration::from_secs(120);
/// For each of thousands, on the same machine.
const PER_PEER: Duration = Duration::from_millis(100);

fn number(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().unwrap_or_default()
}

/// Ends the abuse. The good peers are as before, and nothing of it stays in the relay, whose memory has grown by what that many
/// connections may cost at most.
async fn ends(
    served: &mut Served,
    before: &State,
    abuse: Vec<Process>,
    connections: u64,
) -> Result<()> {
    served.unharmed().await?;
    let during = served.state().await?;
    let grown = during.memory.saturating_sub(before.memory);
    for mut process in abuse {
        ensure!(process.is_alive()?, "{} has ended", process.name());
        process.kill().await?;
    }
    let kept = served.recovers(before).await?;
    let bound = SLACK + PER_CONNECTION * connections;
    println!(
        "memory: {} KiB before, {grown} more during, {kept} more after; the bound is {bound} more; {} descriptors during",
        before.memory, during.descriptors
    );
    ensure!(
        grown.max(kept) <= bound,
        "memory has grown by {grown} KiB, {kept} of which stay; {bound} are the bound"
    );
    served.unharmed().await
}

#[tokio::test]
async fn connections_from_one_address_beyond_its_limit_are_refused_and_cost_nobody_else()
-> Result<()> {
    connections_from_one_address("abuse-connections", 60, 250, "nothing").await
}

/// The whole size: minutes, and a gigabyte for the abuser.
#[tokio::test]
#[ignore = "10,000 connections: `cargo xtask test -- --ignored --nocapture ten_thousand`"]
async fn ten_thousand_connections_from_one_address_cost_nobody_else() -> Result<()> {
    provide_descriptors(10_500)?;
    // They take more than a minute to come, after which the relay lets go of those that want nothing.
    connections_from_one_address("abuse-ten-thousand", 500, 5000, "reservation").await
}

/// As many as the relay admits unless it is told otherwise.
#[tokio::test]
#[ignore = "10,000 connections: `cargo xtask test -- --ignored --nocapture ten_thousand`"]
async fn ten_thousand_connections_at_the_default_limit_cost_nobody_else() -> Result<()> {
    provide_descriptors(10_500)?;
    connections_from_one_address("abuse-ten-thousand-default", 4096, 5000, "reservation").await
}

/// Lets this process and its children open that many files each.
fn provide_descriptors(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= needed,
        "{needed} open files are needed and {hard} allowed: raise the limit (`ulimit -Hn {needed}` as root)"
    );
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed), hard)?)
}

/// That many peers over each transport, who ask for that, where one address may have `limit` connections and as many reservations.
async fn connections_from_one_address(name: &str, limit: u64, peers: u64, ask: &str) -> Result<()> {
    let text = limit.to_string();
    let env = [
        ("RELAY_NODE_LIMITS_CONNECTIONS_PER_IP4", text.as_str()),
        ("RELAY_NODE_LIMITS_RESERVATIONS_PER_IP4", "0"),
        ("RELAY_NODE_LIMITS_RESERVATIONS", "0"),
    ];
    let mut served = Served::new(name, &env).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("flood").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut floods = Vec::new();
    for transport in Transport::ALL {
        let relay = served.address(&host, transport);
        let args = ["--ask", ask, "--per-second", "200"];
        let name = format!("flood-{transport}");
        floods.push(fleet.hold(&name, &relay, usize::try_from(peers)?, &args)?);
    }
    // Whoever is refused sees it as a connection that is never made, or one that is closed at once.
    let mut connected = 0;
    for flood in &floods {
        let counts = counted(
            flood,
            "an answer to each",
            LONG.max(PER_PEER * peers as u32),
            |counts| {
                number(counts, "connected") + sum(counts, "errors") + sum(counts, "disconnected")
                    >= peers
            },
        );
        let counts = counts.await?;
        println!("{}: {counts}", flood.name());
        connected += number(&counts, "connected");
    }
    ensure!(
        (1..=limit).contains(&connected),
        "{connected} connections from one address"
    );
    let refused = served.denied().await?["source_connection_limit"];
    // Of those that came about too late for their handshake.
    let failed = served
        .metrics()
        .await?
        .sum("relay_handshake_failures_total", &[]);
    println!("{connected} connections are open, {refused} were refused, {failed} failed");
    ensure!(
        refused + failed >= (2 * peers - limit) as f64,
        "{refused} refusals and {failed} failures were counted"
    );
    let good = &served.good[0];
    served.finds("newcomer", good).await?;
    ends(&mut served, &before, floods, limit).await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn floods_of_reservations_are_refused_while_good_peers_renew_at_a_full_relay() -> Result<()> {
    const PER_ADDRESS: u64 = 20;
    const PER_PEER: u64 = 4;
    const PEERS: u64 = 100;
    // Two good ones, those of one address, and those of one peer at another: then the relay is full.
    let env = [
        ("RELAY_NODE_LIMITS_RESERVATIONS", "26"),
        ("RELAY_NODE_LIMITS_RESERVATIONS_PER_IP4", "20"),
        ("RELAY_NODE_LIMITS_RESERVATIONS_PER_PEER", "4"),
        ("RELAY_NODE_LIMITS_CONNECTIONS_PER_PEER", "8"),
        ("RELAY_NODE_LIMITS_RESERVATION_DURATION", "12s"),
    ];
    let mut served = Served::new("abuse-reservations", &env).await?;
    let before = served.state().await?;
    let many = served.lab.public_host("many").await?;
    let one = served.lab.public_host("one").await?;
    let late = served.lab.public_host("late").await?;

    // Many peers from one address.
    let relay = served.address(&many, Transport::Quic);
    let many = Fleet::new(&served.lab, &many)?.hold("many", &relay, PEERS as usize, &[])?;
    let counts = counted(&many, "an answer to each", LONG, |counts| {
        number(counts, "held") + sum(counts, "refused") >= PEERS
    })
    .await?;
    ensure!(number(&counts, "held") == PER_ADDRESS, "{counts}");
    ensure!(sum(&counts, "refused") == PEERS - PER_ADDRESS, "{counts}");

    // One peer with many connections, and one that asks again and again over one.
    let relay = served.address(&one, Transport::Tcp);
    let fleet = Fleet::new(&served.lab, &one)?;
    let same = fleet.hold("same", &relay, 30, &["--one-identity"])?;
    let counts = counted(&same, "an answer to each", LONG, |counts| {
        number(counts, "held")
            + sum(counts, "refused")
            + sum(counts, "errors")
            + sum(counts, "disconnected")
            >= 30
    })
    .await?;
    ensure!(number(&counts, "held") == PER_PEER, "{counts}");
    let relay = served.address(&late, Transport::Quic);
    let fleet = Fleet::new(&served.lab, &late)?;
    let again = fleet.hop("again", &relay, "reserve", &["--times", "200"])?;
    let counts = counted(&again, "an answer to each", LONG, |counts| {
        number(counts, "tried") >= 200
    })
    .await?;
    let refused = number(&counts["outcome"], "resource_limit_exceeded")
        + number(&counts["outcome"], "reservation_refused");
    ensure!(refused == 200, "the relay is full, and answers {counts}");
    served
        .until("a full relay", |state| state.reservations == 26.0)
        .await?;

    // Everybody who has a reservation renews it meanwhile.
    counted(&many, "two renewals of each", LONG, |counts| {
        number(counts, "renewed_least") >= 2 && number(counts, "held") == PER_ADDRESS
    })
    .await?;
    let denied = served.denied().await?;
    ensure!(
        denied["source_reservation_limit"] >= (PEERS - PER_ADDRESS) as f64
            && denied["reservation_limit"] >= 200.0,
        "{denied:?}"
    );
    let connections = PEERS + PER_PEER + 1;
    ends(&mut served, &before, vec![many, same, again], connections).await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn strangers_are_refused_and_counted() -> Result<()> {
    const PEERS: u64 = 150;
    let mut served = Served::alone("abuse-strangers", &[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("strangers").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut strangers = Vec::new();
    for transport in Transport::ALL {
        let relay = served.address(&host, transport);
        let name = format!("strangers-{transport}");
        let args = ["--per-second", "200"];
        strangers.push(fleet.hold(&name, &relay, PEERS as usize, &args)?);
    }
    for strangers in &strangers {
        let counts = counted(strangers, "an answer to each", LONG, |counts| {
            sum(counts, "errors") >= PEERS
        });
        let counts = counts.await?;
        ensure!(number(&counts, "granted") == 0, "{counts}");
    }
    let refused = served.denied().await?["access"];
    ensure!(
        refused >= (2 * PEERS) as f64,
        "{refused} refusals were counted"
    );
    ends(&mut served, &before, strangers, 0).await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn handshakes_that_are_never_finished_end_by_themselves_and_are_counted() -> Result<()> {
    const EACH: u64 = 150;
    let mut served = Served::new("abuse-handshakes", &[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("slow").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut slow = Vec::new();
    for (how, transport, pace) in [
        ("silent", Transport::Tcp, "200"),
        ("drip", Transport::Tcp, "200"),
        ("initial", Transport::Quic, "50"),
    ] {
        let relay = served.address(&host, transport);
        let args = ["--per-second", pace, "--at-once", "1000"];
        slow.push(fleet.slow(how, &relay, how, EACH as usize, &args)?);
    }
    for slow in &slow {
        slow.event("abused", LONG).await?;
    }
    // Somebody who means it gets in meanwhile.
    served.finds("newcomer", &served.good[1]).await?;
    for slow in &slow[..2] {
        counted(slow, "the end of each", LONG, |counts| {
            number(counts, "opened") == EACH && number(counts, "open") == 0
        })
        .await?;
    }
    let timeouts = [("reason", "timeout")];
    served
        .until("what it had before", |now| {
            now.descriptors <= before.descriptors + 1
        })
        .await?;
    let counted = served
        .metrics()
        .await?
        .sum("relay_handshake_failures_total", &timeouts);
    // TCP connections were all accepted. A first packet of QUIC for which the relay's socket has no room is lost, and nobody repeats
    // it; those that were not are connections that somebody has begun.
    ensure!(
        counted >= (2 * EACH + EACH / 10) as f64,
        "{counted} handshakes were counted that took too long"
    );
    ends(&mut served, &before, slow, 3 * EACH).await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn handshakes_from_one_address_leave_room_for_others() -> Result<()> {
    const PENDING: u64 = 40;
    // Far more than there is room for, and for as long as the rest takes.
    const EACH: usize = 20_000;
    let pending = PENDING.to_string();
    let env = [("RELAY_NODE_LIMITS_PENDING_CONNECTIONS", pending.as_str())];
    let mut served = Served::new("abuse-pending", &env).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("slow").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut slow = Vec::new();
    for (how, transport) in [("silent", Transport::Tcp), ("initial", Transport::Quic)] {
        let relay = served.address(&host, transport);
        let args = ["--per-second", "50", "--at-once", "1000"];
        slow.push(fleet.slow(how, &relay, how, EACH, &args)?);
    }
    // Those that are refused are closed at once.
    let counts = counted(&slow[0], "refusals", LONG, |counts| {
        sum(counts, "ended") >= 2 * PENDING
    })
    .await?;
    ensure!(
        (1..=PENDING * 3 / 4).contains(&number(&counts, "open")),
        "{counts}"
    );
    let refused = |denied: &std::collections::BTreeMap<String, f64>| {
        denied
            .get("source_connection_limit")
            .copied()
            .unwrap_or_default()
    };
    let earlier = refused(&served.denied().await?);
    ensure!(earlier >= PENDING as f64, "{earlier} refusals were counted");
    for good in &served.good {
        served
            .finds(&format!("newcomer-{}", good.node.name()), good)
            .await?;
    }
    let denied = served.denied().await?;
    ensure!(
        refused(&denied) > earlier,
        "the flood was over before the others came: {denied:?}"
    );
    ends(&mut served, &before, slow, PENDING).await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn circuits_on_which_nothing_is_said_harm_no_others_of_the_same_peer() -> Result<()> {
    const CIRCUITS: u64 = 40;
    let mut served = Served::new("abuse-circuits", &[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("mute").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut mute = Vec::new();
    for good in &served.good {
        for transport in Transport::ALL {
            let relay = served.address(&host, transport);
            let name = format!("mute-{}-{transport}", good.node.name());
            let args = ["--times", "10", "--to", &good.id];
            mute.push(fleet.hop(&name, &relay, "connect", &args)?);
        }
    }
    for mute in &mute {
        let counts = counted(mute, "an answer to each", LONG, |counts| {
            number(counts, "tried") == CIRCUITS / 4
        });
        let counts = counts.await?;
        ensure!(number(&counts["outcome"], "ok") == CIRCUITS / 4, "{counts}");
    }
    served.unharmed().await?;
    // Whoever is called waits for a handshake over the circuit, and then no longer.
    for mute in &mute {
        counted(mute, "the end of each", LONG, |counts| {
            number(counts, "held") == 0
        })
        .await?;
    }
    let after = served
        .until("the circuits it had before", |now| {
            now.circuits == before.circuits
        })
        .await?;
    ensure!(after.reservations == before.reservations, "{after:?}");
    let seconds = served
        .metrics()
        .await?
        .sum("relay_circuit_seconds_count", &[]);
    ensure!(
        seconds >= CIRCUITS as f64,
        "{seconds} circuits were counted that ended"
    );
    ends(&mut served, &before, mute, 4 + CIRCUITS).await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn messages_that_are_none_are_dropped_and_others_are_served() -> Result<()> {
    const TIMES: &str = "10";
    const HOW: [&str; 5] = ["oversized", "truncated", "endless", "garbage", "silent"];
    let mut served = Served::new("abuse-messages", &[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("abusers").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut abusers = Vec::new();
    for how in HOW {
        for transport in Transport::ALL {
            let relay = served.address(&host, transport);
            let name = format!("{how}-{transport}");
            let args = ["--times", TIMES, "--peers", "2"];
            abusers.push(fleet.hop(&name, &relay, how, &args)?);
        }
    }
    for abusers in &abusers {
        abusers.event("abused", LONG).await?;
        let counts = counted(abusers, "its counts", PATIENCE, |counts| {
            number(counts, "tried") == 20
        });
        let counts = counts.await?;
        ensure!(number(&counts["outcome"], "ok") == 0, "{counts}");
        // `endless` alone sends 80 MiB.
        served.unharmed().await?;
    }
    let denied = served.denied().await?;
    // What was silent is counted when its time is up, and all else at once.
    let said = 20 * (HOW.len() - 1) * Transport::ALL.len();
    ensure!(denied["malformed"] >= said as f64, "{denied:?}");
    served.finds("newcomer", &served.good[0]).await?;
    let connections = 2 * abusers.len() as u64;
    ends(&mut served, &before, abusers, connections).await?;
    served.lab.succeeded();
    Ok(())
}
