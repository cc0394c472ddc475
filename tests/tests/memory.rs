//! Strangers make a program hold more than `limits.memory`. It closes the connections that hold the most and counts them, its
//! resident memory stays bounded, and what honest peers have stays.

use std::cell::Cell;

use p2pnode_tests::{
    admin::{self, ADMIN},
    prelude::*,
    stranger,
    usage::{memory, peak_memory},
};

lab_tests! {
    a_relay_above_its_memory_limit_closes_what_holds_the_most: relay();
    a_node_above_its_memory_limit_closes_what_holds_the_most: node();
}

const PORT: u16 = 4433;
/// Less than what the strangers below fill.
const LIMIT: &str = "48MiB";
const KIB: u64 = 48 * 1024;
/// Of strangers, over each transport.
const CONNECTIONS: &str = "150";
/// On each, of 256 KiB over TCP: with more a stranger exceeds its own bytes and is disconnected for that.
const STREAMS: &str = "3";
/// Closed connections that are waited for.
const CLOSED: f64 = 5.0;

async fn relay() -> Result<()> {
    let lab = Lab::of_test().await?;
    let env = [
        ("RELAY_NODE_LIMITS_MEMORY", LIMIT),
        ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
    ];
    let relay = Relay::start_with(&lab, "relay", &env).await?;
    let attacker = lab.public_host("attacker").await?;
    let addresses = |transport| relay.address(&attacker, transport);
    let addresses = Transport::ALL.into_iter().map(addresses);
    let (pid, host) = (relay.process.pid(), relay.host.clone());
    let metric = "relay_closed_for_memory_total";
    besieged(
        &lab,
        &relay,
        &attacker,
        &addresses.collect::<Result<Vec<_>>>()?,
        pid,
        (&host, metric),
        None,
    )
    .await
}

async fn node() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let host = lab.public_host("target").await?;
    let mut launch = relay.run("target", &host, &Transport::ALL)?;
    for transport in Transport::ALL {
        launch = launch.args(["--listen", &transport.addr("0.0.0.0", PORT)]);
    }
    let target = launch
        .env("P2PNODE_ADMIN_LISTEN", ADMIN)
        .env("P2PNODE_LIMITS_MEMORY", LIMIT)
        .reserves(&host)
        .await?;
    let attacker = lab.public_host("attacker").await?;
    let ip = host.ip(false)?;
    let addresses =
        Transport::ALL.map(|transport| format!("{}/p2p/{}", transport.addr(ip, PORT), target.id));
    let pid = target.process.pid();
    besieged(
        &lab,
        &relay,
        &attacker,
        &addresses,
        pid,
        (&host, "p2pnode_closed_for_memory_total"),
        Some(&target),
    )
    .await?;
    kept_its_relay(&target, &relay)
}

/// Nobody has closed its connections to the relay. A process that is flooded may be late with its pings.
fn kept_its_relay(node: &Node, relay: &Relay) -> Result<()> {
    let events = node.process.events();
    let closed = |event: &&Event| {
        let is_leg = event.name() == "disconnected" && event.text("/peer") == relay.id;
        is_leg && event.text("/reason") != "no answer to pings"
    };
    let closed = events.iter().find(closed);
    ensure!(closed.is_none(), "{closed:?}: {}", node.process.log());
    Ok(())
}

/// The last word on its reservation is that it has one.
async fn is_reserved(node: &Node) -> Result<()> {
    let has = |events: &[Event]| {
        let words = ["reserved", "reservation_lost"];
        let last = events.iter().rfind(|event| words.contains(&event.name()));
        last.filter(|event| event.name() == "reserved").map(drop)
    };
    node.process.until("a reservation", PATIENCE * 2, has).await
}

/// Strangers fill the process at these addresses: the relay, or the node `target`. A peer of the relay keeps its reservation, and an
/// honest dial succeeds as soon as there is room again.
async fn besieged(
    lab: &Lab,
    relay: &Relay,
    attacker: &Host,
    addresses: &[String],
    pid: i32,
    (host, metric): (&Host, &str),
    target: Option<&Node>,
) -> Result<()> {
    let (_called_site, called) = lab.home("called", NatKind::EimApdf).await?;
    let called = relay.node("called", &called, &Transport::ALL).await?;
    let (_caller_site, caller) = lab.home("caller", NatKind::EimApdf).await?;
    let before = memory(pid)?;
    ensure!(before < KIB, "{before} KiB before anybody has connected");
    let mut strangers = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let words = [
            "unread",
            "--at",
            address,
            "--connections",
            CONNECTIONS,
            "--streams",
            STREAMS,
            "--seconds",
            "600",
        ];
        strangers.push(stranger::attack(
            attacker,
            &format!("unread-{number}"),
            &words,
        )?);
    }
    let closed = |read: &admin::Exposition| (read.sum(metric, &[]) >= CLOSED).then_some(());
    admin::until(host, "connections closed for memory", closed).await?;
    for mut stranger in strangers {
        stranger.kill().await?;
    }
    let peak = peak_memory(pid)?;
    ensure!(
        peak > KIB - KIB / 8,
        "{peak} KiB at the most, which is no pressure"
    );
    ensure!(peak <= KIB + KIB / 10, "{peak} KiB at the most, of {}", KIB);
    kept_its_relay(&called, relay)?;
    // Above its limit a process takes no connection. It has looked again by the third answer.
    let room = Cell::new(0);
    let has_room = |_: &admin::Exposition| {
        let fits = memory(pid).is_ok_and(|kib| kib < KIB - KIB / 32);
        room.set(if fits { room.get() + 1 } else { 0 });
        (room.get() == 3).then_some(())
    };
    admin::until(host, "room below the limit", has_room).await?;
    let wanted = target.unwrap_or(&called);
    is_reserved(wanted).await?;
    let dial = NodeArgs::new(relay, &caller, &Transport::ALL).dial("dial", &wanted.id)?;
    dial.on(&caller)?.ended().await?.is("direct")?;
    Ok(())
}
