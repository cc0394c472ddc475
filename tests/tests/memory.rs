//! Strangers make a relay hold more than `limits.memory`. It closes the connections that hold the most and counts them, its
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
}

/// Less than what the strangers below fill: of one address, a node takes fewer than a relay. 800 connections at once take more than
/// their unread bytes, which are all that the limit can have closed: 129 MiB at the most were measured.
const RELAY: Limit = Limit {
    text: "96MiB",
    kib: 96 * 1024,
    most: 160 * 1024,
};
/// Closed connections that are waited for. How many it takes depends on how many were refused before they held anything.
const CLOSED: f64 = 5.0;

#[derive(Clone, Copy)]
struct Limit {
    text: &'static str,
    kib: u64,
    /// Resident memory at the most, in KiB.
    most: u64,
}

async fn relay() -> Result<()> {
    let lab = Lab::of_test().await?;
    let env = [
        ("RELAY_NODE_LIMITS_MEMORY", RELAY.text),
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
        (pid, RELAY),
        (&host, metric),
    )
    .await
}

fn kept_its_relay(node: &Node) -> Result<()> {
    let events = node.process.events();
    let lost = events
        .iter()
        .any(|event| event.name() == "reservation_lost");
    ensure!(!lost, "a relay was lost: {}", node.process.log());
    Ok(())
}

/// Strangers fill the process at these addresses, in which two peers of the relay are connected.
async fn besieged(
    lab: &Lab,
    relay: &Relay,
    attacker: &Host,
    addresses: &[String],
    (pid, limit): (i32, Limit),
    (host, metric): (&Host, &str),
) -> Result<()> {
    let (_called_site, called) = lab.home("called", NatKind::EimApdf).await?;
    let called = relay.node("called", &called, &Transport::ALL).await?;
    let (_caller_site, caller) = lab.home("caller", NatKind::EimApdf).await?;
    let before = memory(pid)?;
    ensure!(
        before < limit.kib,
        "{before} KiB before anybody has connected"
    );
    let mut strangers = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let words = [
            "unread",
            "--at",
            address,
            "--connections",
            "400",
            "--streams",
            "16",
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
        peak > limit.kib,
        "{peak} KiB at the most, which is no pressure"
    );
    ensure!(
        peak <= limit.most,
        "{peak} KiB at the most, of {}",
        limit.kib
    );
    kept_its_relay(&called)?;
    // Above its limit a process takes no connection. It has looked again by the third answer.
    let room = Cell::new(0);
    let has_room = |_: &admin::Exposition| {
        let fits = memory(pid).is_ok_and(|kib| kib < limit.kib);
        room.set(if fits { room.get() + 1 } else { 0 });
        (room.get() == 3).then_some(())
    };
    admin::until(host, "room below the limit", has_room).await?;
    let dial = NodeArgs::new(relay, &caller, &Transport::ALL).dial("dial", &called.id)?;
    dial.on(&caller)?.ended().await?.is("direct")?;
    Ok(())
}
