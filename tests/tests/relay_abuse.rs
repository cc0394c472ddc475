//! A relay is misused while good peers have reservations and circuits there: they keep what they have and keep working, memory
//! and descriptors are bounded and come back, and all of it is counted.

use std::time::Duration;

use p2pnode_tests::{
    fleet::{counted, number, sum},
    prelude::*,
    served::{Served, State},
};

lab_tests! {
    connections_from_one_address_beyond_its_limit_are_refused_and_cost_nobody_else: connections();
    floods_of_reservations_are_refused_while_good_peers_renew_at_a_full_relay: reservations();
    strangers_are_refused_and_counted: strangers();
    handshakes_that_are_never_finished_end_by_themselves_and_are_counted: handshakes();
    handshakes_from_one_address_leave_room_for_others: pending();
    circuits_on_which_nothing_is_sent_harm_no_others_of_the_same_peer: circuits();
    messages_that_are_none_are_dropped_and_others_are_served: messages();
    requests_without_end_are_refused_then_disconnected_and_barely_logged: requests();
}

/// What a connection that is admitted may cost the relay, in KiB. Measured: 100 in a release build, and the allocator keeps what
/// handshakes took.
const PER_CONNECTION: u64 = 200;
/// What may be added to that: handshakes that run at the same time, logs, metrics. In KiB.
const SLACK: u64 = 24 * 1024;
const LONG: Duration = Duration::from_secs(120);

async fn start(env: &[(&str, &str)]) -> Result<(Served, State, Host)> {
    let served = Served::new(env).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("abuser").await?;
    Ok((served, before, host))
}

/// Ends the abuse. The good peers are as before, and nothing of it stays in the relay, whose memory has grown by what that many
/// connections may cost at most.
async fn ends(
    mut served: Served,
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
    ensure!(
        grown.max(kept) <= bound,
        "memory has grown by {grown} KiB, {kept} of which stay; {bound} are the bound"
    );
    served.unharmed().await
}

async fn connections() -> Result<()> {
    const LIMIT: u64 = 60;
    const PEERS: u64 = 250;
    let env = [
        ("RELAY_NODE_LIMITS_CONNECTIONS_PER_IP4", "60"),
        ("RELAY_NODE_LIMITS_RESERVATIONS_PER_IP4", "0"),
        ("RELAY_NODE_LIMITS_RESERVATIONS", "0"),
    ];
    let (served, before, host) = start(&env).await?;
    let command = format!("hold --peers {PEERS} --ask nothing --per-second 200");
    let floods = [
        served.fleet(&host, "flood-quic", Transport::Quic, &command)?,
        served.fleet(&host, "flood-tcp", Transport::Tcp, &command)?,
    ];
    // A refused peer sees it as a connection that is never made, or one that is closed at once.
    let mut connected = 0;
    for flood in &floods {
        let counts = counted(flood, "an answer to each", LONG, |counts| {
            let refused = sum(counts, "errors") + sum(counts, "disconnected");
            number(counts, "connected") + refused >= PEERS
        });
        connected += number(&counts.await?, "connected");
    }
    ensure!(
        (1..=LIMIT).contains(&connected),
        "{connected} connections from one address"
    );
    let refused = served.denied().await?["source_connection_limit"];
    // Of those that came about too late for their handshake.
    let failed = served
        .metrics()
        .await?
        .sum("relay_handshake_failures_total", &[]);
    ensure!(
        refused + failed >= (2 * PEERS - LIMIT) as f64,
        "{refused} refusals and {failed} failures were counted"
    );
    served.finds("newcomer", &served.good[0]).await?;
    ends(served, &before, floods.into(), LIMIT).await
}

async fn reservations() -> Result<()> {
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
    let (served, before, many) = start(&env).await?;
    let one = served.lab.public_host("one").await?;
    let late = served.lab.public_host("late").await?;

    // Many peers from one address.
    let many = served.fleet(
        &many,
        "many",
        Transport::Quic,
        &format!("hold --peers {PEERS}"),
    )?;
    let counts = counted(&many, "an answer to each", LONG, |counts| {
        number(counts, "held") + sum(counts, "refused") >= PEERS
    });
    let counts = counts.await?;
    let answers = (number(&counts, "held"), sum(&counts, "refused"));
    ensure!(answers == (PER_ADDRESS, PEERS - PER_ADDRESS), "{counts}");

    // One peer with many connections, and one that asks again and again over one.
    let same = served.fleet(
        &one,
        "same",
        Transport::Tcp,
        "hold --peers 30 --one-identity",
    )?;
    let counts = counted(&same, "an answer to each", LONG, |counts| {
        let refused = ["refused", "errors", "disconnected"].map(|name| sum(counts, name));
        number(counts, "held") + refused.iter().sum::<u64>() >= 30
    });
    let counts = counts.await?;
    ensure!(number(&counts, "held") == PER_PEER, "{counts}");
    let again = served.fleet(
        &late,
        "again",
        Transport::Quic,
        "hop --how reserve --times 200",
    )?;
    let tried = |counts: &Value| number(counts, "tried") >= 200;
    let counts = counted(&again, "an answer to each", LONG, tried).await?;
    let refused = number(&counts["outcome"], "resource_limit_exceeded")
        + number(&counts["outcome"], "reservation_refused");
    ensure!(refused == 200, "the relay is full, and answers {counts}");
    served
        .until("full", |state| state.reservations == 26.0)
        .await?;

    // Everybody who has a reservation renews it in the meantime.
    let renewed = |counts: &Value| {
        number(counts, "renewed_least") >= 2 && number(counts, "held") == PER_ADDRESS
    };
    counted(&many, "two renewals of each", LONG, renewed).await?;
    let denied = served.denied().await?;
    ensure!(
        denied["source_reservation_limit"] >= (PEERS - PER_ADDRESS) as f64
            // Beyond its measure the relay does not look whether there is room.
            && denied["reservation_limit"] + denied["request_rate"] >= 200.0,
        "{denied:?}"
    );
    let connections = PEERS + PER_PEER + 1;
    ends(served, &before, vec![many, same, again], connections).await
}

async fn strangers() -> Result<()> {
    const PEERS: u64 = 150;
    let served = Served::alone(&[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("strangers").await?;
    let command = format!("hold --peers {PEERS} --per-second 200");
    let strangers = [
        served.fleet(&host, "strangers-quic", Transport::Quic, &command)?,
        served.fleet(&host, "strangers-tcp", Transport::Tcp, &command)?,
    ];
    for strangers in &strangers {
        let refused = |counts: &Value| sum(counts, "errors") >= PEERS;
        let counts = counted(strangers, "an answer to each", LONG, refused).await?;
        ensure!(number(&counts, "granted") == 0, "{counts}");
    }
    let refused = served.denied().await?["access"];
    ensure!(
        refused >= (2 * PEERS) as f64,
        "{refused} refusals were counted"
    );
    ends(served, &before, strangers.into(), 0).await
}

async fn handshakes() -> Result<()> {
    const EACH: u64 = 150;
    let (served, before, host) = start(&[]).await?;
    let mut slow = Vec::new();
    for (how, transport, pace) in [
        ("silent", Transport::Tcp, "200"),
        ("drip", Transport::Tcp, "200"),
        ("initial", Transport::Quic, "50"),
    ] {
        let command =
            format!("slow --how {how} --connections {EACH} --per-second {pace} --at-once 1000");
        slow.push(served.fleet(&host, how, transport, &command)?);
    }
    for slow in &slow {
        slow.event("abused", LONG).await?;
    }
    // A peer that means it gets in in the meantime.
    served.finds("newcomer", &served.good[1]).await?;
    for slow in &slow[..2] {
        let ended =
            |counts: &Value| number(counts, "opened") == EACH && number(counts, "open") == 0;
        counted(slow, "the end of each", LONG, ended).await?;
    }
    let back = |now: &State| now.descriptors <= before.descriptors + 1;
    served.until("what it had before", back).await?;
    let metrics = served.metrics().await?;
    let counted = metrics.sum("relay_handshake_failures_total", &[("reason", "timeout")]);
    // TCP connections were all accepted. A first packet of QUIC for which the relay's socket has no room is lost, and nobody repeats
    // it; those that were not are connections that somebody has begun.
    ensure!(
        counted >= (2 * EACH + EACH / 10) as f64,
        "{counted} handshakes were counted that took too long"
    );
    ends(served, &before, slow, 3 * EACH).await
}

async fn pending() -> Result<()> {
    const PENDING: u64 = 40;
    let env = [("RELAY_NODE_LIMITS_PENDING_CONNECTIONS", "40")];
    let (served, before, host) = start(&env).await?;
    let mut slow = Vec::new();
    for (how, transport) in [("silent", Transport::Tcp), ("initial", Transport::Quic)] {
        // Far more than there is room for, and for as long as the rest takes.
        let command =
            format!("slow --how {how} --connections 20000 --per-second 50 --at-once 1000");
        slow.push(served.fleet(&host, how, transport, &command)?);
    }
    // Those that are refused are closed at once.
    let refused = |counts: &Value| sum(counts, "ended") >= 2 * PENDING;
    let counts = counted(&slow[0], "refusals", LONG, refused).await?;
    let open = number(&counts, "open");
    ensure!((1..=PENDING * 3 / 4).contains(&open), "{counts}");
    let name = "source_connection_limit";
    let earlier = served
        .denied()
        .await?
        .get(name)
        .copied()
        .unwrap_or_default();
    ensure!(earlier >= PENDING as f64, "{earlier} refusals were counted");
    served.finds_all().await?;
    // The flood was not over before the others came. While places of handshakes that took too long fill, nobody is refused.
    let now = counted(&slow[0], "what became of the flood", LONG, |_| true).await?;
    let more = |counts: &Value| sum(counts, "ended") > sum(&now, "ended");
    counted(&slow[0], "refusals after the others came", LONG, more).await?;
    ends(served, &before, slow, PENDING).await
}

async fn circuits() -> Result<()> {
    const EACH: u64 = 10;
    /// What a node takes of one caller.
    const TAKEN: u64 = 4;
    let (mut served, before, host) = start(&[]).await?;
    let mut mute = Vec::new();
    for good in &served.good {
        for transport in Transport::ALL {
            let name = format!("mute-{}-{transport}", good.node.process.name());
            let command = format!("hop --how connect --times {EACH} --to {}", good.node.id);
            mute.push(served.fleet(&host, &name, transport, &command)?);
        }
    }
    let all = TAKEN * mute.len() as u64;
    for mute in &mute {
        let tried = |counts: &Value| number(counts, "tried") == EACH;
        let counts = counted(mute, "an answer to each", LONG, tried).await?;
        ensure!(number(&counts["outcome"], "ok") == TAKEN, "{counts}");
    }
    served.unharmed().await?;
    // The called peer waits for a handshake over the circuit, and then no longer.
    for mute in &mute {
        let ended = |counts: &Value| number(counts, "held") == 0;
        counted(mute, "the end of each", LONG, ended).await?;
    }
    let back = |now: &State| now.circuits == before.circuits;
    let after = served.until("the circuits it had before", back).await?;
    ensure!(after.reservations == before.reservations, "{after:?}");
    let ended = served
        .metrics()
        .await?
        .sum("relay_circuit_seconds_count", &[]);
    ensure!(
        ended >= all as f64,
        "{ended} circuits were counted that ended"
    );
    ends(served, &before, mute, 4 + all).await
}

async fn messages() -> Result<()> {
    const HOW: [&str; 5] = ["oversized", "truncated", "endless", "garbage", "silent"];
    let (mut served, before, host) = start(&[]).await?;
    let mut abusers = Vec::new();
    for how in HOW {
        for transport in Transport::ALL {
            let command = format!("hop --how {how} --times 10 --peers 2");
            abusers.push(served.fleet(
                &host,
                &format!("{how}-{transport}"),
                transport,
                &command,
            )?);
        }
    }
    for abuser in &abusers {
        abuser.event("abused", LONG).await?;
        let tried = |counts: &Value| number(counts, "tried") == 20;
        let counts = counted(abuser, "its counts", PATIENCE, tried).await?;
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
    ends(served, &before, abusers, connections).await
}

async fn requests() -> Result<()> {
    let (mut served, before, host) = start(&[]).await?;
    let other = served.lab.public_host("other").await?;
    let mut floods = Vec::new();
    for (name, host, peers, how) in [
        ("two", &host, 2, "reserve"),
        ("ten", &other, 10, "reserve"),
        ("garbage", &other, 2, "garbage"),
    ] {
        for transport in Transport::ALL {
            let command = format!("hop --how {how} --times 3000 --peers {peers} --at-once {peers}");
            floods.push(served.fleet(host, &format!("{name}-{transport}"), transport, &command)?);
        }
    }
    // Each of them is disconnected, while others are served.
    for flood in &floods {
        counted(flood, "a disconnection", LONG, |counts| {
            // One that comes late to a source that is shut out does not connect.
            sum(counts, "disconnected") + sum(counts, "errors") > 0
        })
        .await?;
        served.unharmed().await?;
    }
    served.finds_all().await?;
    let denied = served.denied().await?;
    ensure!(
        denied["request_rate"] >= 1024.0 && denied["flood"] >= 1.0,
        "{denied:?}"
    );
    let log = served.relay.process.log();
    let lines = most_lines_in_a_minute(&log)?;
    ensure!(lines <= 60, "{lines} lines in a minute: {log}");
    ends(served, &before, floods, 28).await
}

/// Lines at INFO and above.
fn most_lines_in_a_minute(log: &str) -> Result<usize> {
    let seconds = |line: &str| -> Option<u64> {
        let (_, time) = line.split_once(' ')?.0.split_once('T')?;
        let mut parts = time.split([':', '.']).map(str::parse::<u64>);
        let mut part = || parts.next()?.ok();
        Some(part()? * 3600 + part()? * 60 + part()?)
    };
    let is_loud = |line: &&str| {
        let level = line.split_whitespace().nth(1);
        matches!(level, Some("INFO" | "WARN" | "ERROR"))
    };
    let times: Option<Vec<u64>> = log.lines().filter(is_loud).map(seconds).collect();
    let times = times.context("a line without a time")?;
    let within = |first: &u64| {
        let minute = |time: &&u64| (*first..*first + 60).contains(*time);
        times.iter().filter(minute).count()
    };
    Ok(times.iter().map(within).max().unwrap_or_default())
}
