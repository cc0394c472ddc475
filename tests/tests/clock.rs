//! A wall clock that is set while a process runs: what was granted for a time stays or ends as it must, and a peer is found again.

use std::{
    fs,
    time::{Instant, SystemTime},
};

use p2pnode_tests::{
    admin::{self, ADMIN},
    clock::Clock,
    node::printed,
    prelude::*,
};

lab_tests! {
    a_token_ends_by_the_clock_of_its_relay_and_is_valid_again_when_that_is_put_right: clock_of_relay();
    a_node_whose_clock_jumps_keeps_its_reservation_and_is_found_again_after_a_restart_of_its_relay:
        clock_of_node();
    a_node_whose_clock_begins_in_1970_gives_the_clock_as_the_reason: clock_of_1970();
    a_relay_whose_clock_begins_in_1970_logs_that_its_nodes_report_it_and_it_takes_them_once_it_is_set: relay_of_1970();
    a_dial_between_peers_of_which_one_has_a_clock_of_1970_ends_with_the_clock_as_the_reason: peer_of_1970();
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

async fn finds(relay: &Relay, host: &Host, name: &str, peer: &str) -> Result<()> {
    let dial = NodeArgs::new(relay, host, &[Transport::Quic]);
    let dial = dial.dial_within(name, peer, "10s")?;
    let dial = dial
        .args(["--until", "connected", "--count", "1"])
        .on(host)?
        .ended()
        .await?;
    ensure!(dial.code == 0, "{name}: {}", dial.log);
    Ok(())
}

async fn clock_of_relay() -> Result<()> {
    let (bins, lab) = (bins()?, Lab::of_test().await?);
    let clock = Clock::new(lab.artifacts()).await?;
    let [library, offset] = clock.env()?;
    let tokens = ("RELAY_NODE_ACCESS_TOKENS", "true");
    let env = [library, offset, tokens, ("RELAY_NODE_ADMIN_LISTEN", ADMIN)];
    let relay = Relay::start_with(&lab, "relay", &env).await?;
    let host = lab.public_host("host").await?;
    let [relay_key, node_key] = ["relay.key", "node.key"].map(|key| lab.artifacts().file(key));
    let [relay_key, node_key] = [relay_key.to_string_lossy(), node_key.to_string_lossy()];
    let peer = printed(&host, &bins.p2pnode, &["id", "--key", &node_key]).await?;
    let create = ["token", "create", "--peer", &peer, "--expires", "1h"];
    let create = [&create[..], &["--key", &relay_key]].concat();
    let tokens = lab.artifacts().file("tokens");
    fs::write(&tokens, printed(&host, &bins.relay_node, &create).await?)?;
    let node = relay.run("node", &host, &[Transport::Quic])?;
    let node = node
        .env("P2PNODE_JOIN_TOKEN_FILE", &tokens)
        .reserves(&host)
        .await?;

    clock.set(2 * HOUR)?;
    node.process.event("reservation_lost", PATIENCE).await?;
    let refused = node.process.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason");
    for part in ["by the relay's clock", "set the clocks right"] {
        ensure!(reason.contains(part), "{part}: {reason}");
    }
    let metrics = admin::metrics(&relay.host).await?;
    metrics.is("relay_reservations", &[], 0.0)?;
    metrics.is("relay_records", &[], 0.0)?;
    let seen = node.seen();
    clock.set(0)?;
    node.process
        .event_after(seen, "reserved", PATIENCE * 2)
        .await?;
    Ok(())
}

async fn clock_of_node() -> Result<()> {
    let lab = Lab::of_test().await?;
    let clock = Clock::new(lab.artifacts()).await?;
    let mut relay = Relay::start(&lab, "relay").await?;
    let host = lab.public_host("host").await?;
    let other = lab.public_host("other").await?;
    let node = relay.run("node", &host, &[Transport::Quic])?;
    // With one leg the end of the relay is the end of the reservation; two are missed one after the other.
    let node = node.env("P2PNODE_DIAL_FAMILY", "only-ip4");
    let set = |node: Launch, (name, value)| node.env(name, value);
    let node = clock
        .env()?
        .into_iter()
        .fold(node, set)
        .reserves(&host)
        .await?;

    for (number, jump) in [-DAY, 0].into_iter().enumerate() {
        clock.set(jump)?;
        finds(&relay, &other, &format!("still-{number}"), &node.id).await?;
        let events = node.process.events();
        let lost = events
            .iter()
            .filter(|event| event.name() == "reservation_lost");
        ensure!(
            lost.count() == number,
            "a reservation does not depend on the clock"
        );
        // All that is asked of a relay when it comes back is asked with the clock as it is.
        let seen = node.seen();
        relay.process.kill().await?;
        relay.restart().await?;
        node.process.event_after(seen, "reserved", PATIENCE).await?;
        finds(&relay, &other, &format!("again-{number}"), &node.id).await?;
    }

    // Ahead of the relay by more than a reservation lasts, the reservation is over for the node when it comes: it says so, and has
    // one as soon as the clock is right.
    clock.set(DAY)?;
    finds(&relay, &other, "ahead", &node.id).await?;
    let seen = node.seen();
    relay.process.kill().await?;
    relay.restart().await?;
    node.process
        .logged("clock: by this host's clock", PATIENCE * 2)
        .await?;
    clock.set(0)?;
    node.process
        .event_after(seen, "reserved", PATIENCE * 2)
        .await?;
    finds(&relay, &other, "right", &node.id).await
}

/// A clock that begins in 1970. No certificate of libp2p is valid then, so nothing can be reached before the clock is right.
async fn unset(lab: &Lab) -> Result<Clock> {
    let clock = Clock::new(lab.artifacts()).await?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    clock.set(HOUR - i64::try_from(since.as_secs())?)?;
    Ok(clock)
}

async fn relay_of_1970() -> Result<()> {
    const UNSET: &str = "clock: this host's clock shows a time before 1975";
    let lab = Lab::of_test().await?;
    let clock = unset(&lab).await?;
    let relay = Relay::start_with(&lab, "relay", &clock.env()?).await?;
    let mut nodes = Vec::new();
    for transport in Transport::ALL {
        let host = lab.public_host(transport.name()).await?;
        let node = relay.run(transport.name(), &host, &[transport])?;
        let node = node.env("P2PNODE_ADMIN_LISTEN", ADMIN).runs(&host).await?;
        nodes.push((host, node));
    }
    let often = |lines: &[Event]| {
        let unset = lines.iter().filter(|line| line.line.contains(UNSET));
        // At the start, and where a handshake failed.
        (unset.count() >= 2).then_some(())
    };
    relay
        .process
        .log_until("what is wrong", PATIENCE, often)
        .await?;
    for (host, node) in &nodes {
        let gives = |text: &str| text.contains(NOT_THERE);
        let until = Instant::now() + PATIENCE;
        while !gives(&admin::readiness(host, 503).await?) {
            ensure!(Instant::now() < until, "/readyz gives another reason");
        }
        let status = node.control.status().await?;
        let reason = status["relays"][0]["reason"].as_str().unwrap_or_default();
        ensure!(gives(reason), "{status}");
    }
    let [(quic, node), (tcp, _)] = &nodes[..] else {
        anyhow::bail!("two nodes");
    };
    let dial = NodeArgs::new(&relay, tcp, &Transport::ALL);
    let dial = dial.dial_within("dial", &node.id, "5s")?;
    let dial = dial.on(tcp)?.ended().await?;
    let result = dial.is("unreachable")?;
    ensure!(result.line.contains(NOT_THERE), "{}", result.line);
    netcheck_names_it(&relay, quic).await?;
    let seen: Vec<_> = nodes.iter().map(|(_, node)| node.seen()).collect();
    clock.set(0)?;
    for ((_, node), seen) in nodes.iter().zip(seen) {
        node.process.event_after(seen, "reserved", PATIENCE).await?;
    }
    Ok(())
}

const NOT_THERE: &str =
    "clock: this host's certificate is not valid at the time that the peer's clock shows";
const NOT_HERE: &str =
    "clock: the peer's certificate is not valid at the time that this host's clock shows";

async fn netcheck_names_it(relay: &Relay, host: &Host) -> Result<()> {
    let checks = relay.netcheck(host).await?;
    let is_it = |check: &Value| check["id"] == "clock" && check["status"] == "fail";
    ensure!(checks.iter().any(is_it), "{checks:?}");
    Ok(())
}

/// A peer that is dialed at its address, with a clock of 1970 here or there.
async fn peer_of_1970() -> Result<()> {
    let lab = Lab::of_test().await?;
    let clock = unset(&lab).await?;
    let [host, other] = [
        lab.public_host("host").await?,
        lab.public_host("other").await?,
    ];
    let set = |launch: Launch, (name, value)| launch.env(name, value);
    for (is_theirs, reason) in [(true, NOT_THERE), (false, NOT_HERE)] {
        for transport in Transport::ALL {
            let name = format!("{}-{is_theirs}", transport.name());
            let args = NodeArgs::with_relays(Vec::new(), &[transport]);
            let at = transport.addr(host.ip(false)?.to_string(), 4443);
            let node = args.run_on(&host, &name)?.args(["--listen", &at]);
            let wrong = |launch: Launch, is_wrong: bool| match is_wrong {
                true => anyhow::Ok(clock.env()?.into_iter().fold(launch, set)),
                false => Ok(launch),
            };
            let mut node = wrong(node, is_theirs)?.runs(&host).await?;
            let dial = args.dial_within(&format!("dial-{name}"), &node.id, "3s")?;
            let dial = wrong(dial.args(["--addr", &at]), !is_theirs)?;
            let dial = dial.on(&other)?.ended().await?;
            let result = dial.is("unreachable")?;
            ensure!(result.line.contains(reason), "{name}: {}", result.line);
            node.process.kill().await?;
        }
    }
    Ok(())
}

async fn clock_of_1970() -> Result<()> {
    let lab = Lab::of_test().await?;
    let clock = unset(&lab).await?;
    let relay = Relay::start(&lab, "relay").await?;
    let host = lab.public_host("host").await?;
    let node = relay.run("node", &host, &Transport::ALL)?;
    let set = |node: Launch, (name, value)| node.env(name, value);
    let node = clock.env()?.into_iter().fold(node, set).runs(&host).await?;
    let unreachable = node.process.event("relay_unreachable", PATIENCE).await?;
    let reason = unreachable.text("/reason");
    ensure!(reason.contains(NOT_HERE), "{reason}");
    let seen = node.seen();
    clock.set(0)?;
    node.process.event_after(seen, "reserved", PATIENCE).await?;
    Ok(())
}
