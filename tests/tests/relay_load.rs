//! Many reservations and many circuits at one relay, and what is left when it or its peers vanish.
//!
//! Sized for a debug build on two processors; `cargo xtask bench relay-capacity` has the full sizes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    admin::ADMIN,
    args::{PATIENCE, Transport},
    bins::bins,
    faults::Traffic,
    fleet::{Fleet, counted, sum},
    lab::Lab,
    nat::NatKind,
    relay::Relay,
    served::{Served, State},
};
use serde_json::Value;

p2pnode_tests::lab_tests!();

/// For what hundreds of peers do on a machine that others use, too.
const LONG: Duration = Duration::from_secs(180);

fn number(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().unwrap_or_default()
}

/// All are held and renewed through two periods; the relay knows of exactly these, and of none once the peers are gone.
async fn renewed(name: &str, transport: Transport, peers: usize) -> Result<()> {
    let lab = Lab::new(name).await?;
    let env = [
        ("RELAY_NODE_LIMITS_RESERVATION_DURATION", "20s"),
        ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
    ];
    let relay = Relay::start_with(&lab, &bins()?, "relay", &env).await?;
    let host = lab.public_host("peers").await?;
    let fleet = Fleet::new(&lab, &host)?;
    let address = relay.addresses(&host, &[transport]).remove(0);
    // Whoever does not get a connection, on a machine that is too busy, comes again. Whoever loses a reservation is counted.
    let args = ["--again", "--at-once", "16"];
    let mut fleet = fleet.hold("peers", &address, peers, &args)?;
    let all = u64::try_from(peers)?;
    let counts = counted(&fleet, "two renewals of each", LONG, |counts| {
        number(counts, "held") == all && number(counts, "renewed_least") >= 2
    })
    .await?;
    ensure!(
        number(&counts, "lost") == 0 && sum(&counts, "refused") == 0,
        "{counts}"
    );
    let held = |wanted: f64| {
        let host = &relay.host;
        async move {
            loop {
                let metrics = p2pnode_tests::admin::metrics(host).await?;
                if metrics.sum("relay_reservations", &[]) == wanted {
                    return anyhow::Ok(metrics);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let known = tokio::time::timeout(PATIENCE, held(all as f64)).await;
    let metrics = known.context("the relay does not count all reservations")??;
    ensure!(metrics.sum("relay_denied_total", &[]) == 0.0, "{metrics:?}");
    fleet.kill().await?;
    let gone = tokio::time::timeout(PATIENCE * 3, held(0.0)).await;
    gone.context("reservations of peers that are gone stay")??;
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn three_hundred_quic_reservations_are_held_and_renewed() -> Result<()> {
    renewed("load-quic", Transport::Quic, 300).await
}

#[tokio::test]
async fn a_hundred_tcp_reservations_are_held_and_renewed() -> Result<()> {
    renewed("load-tcp", Transport::Tcp, 100).await
}

/// All circuits move data at the same time, both ways, and none is left far behind.
async fn moves(name: &str, transport: Transport, pairs: usize) -> Result<()> {
    /// What the circuit with the least has carried of what the one in the middle has, at least. A circuit that starves is cut off,
    /// or has next to nothing. Which of them are served in the very seconds of the test is not the relay's choice alone: the kernel
    /// drops what a socket cannot hold while the relay has no CPU, and that is slow to be made up for.
    const SHARE: u64 = 20;
    let mut served = Served::new(name, &[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("peers").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let address = served.address(&host, transport);
    let mut fleet = fleet.circuits("peers", &address, pairs, 6, &["--at-once", "8"])?;
    fleet.event("opened", LONG).await?;
    let all = before.circuits + pairs as f64;
    served
        .until("all circuits", |state| state.circuits == all)
        .await?;
    let moved = fleet.event("moved", LONG).await?.json;
    ensure!(
        number(&moved, "complete") == pairs as u64 && number(&moved, "failed") == 0,
        "{moved}"
    );
    let mut carried: Vec<u64> = fleet
        .events()
        .iter()
        .filter(|event| event.name() == "circuit")
        .map(|event| number(&event.json, "there").min(number(&event.json, "back")))
        .collect();
    carried.sort_unstable();
    let (least, median) = (carried[0], carried[carried.len() / 2]);
    ensure!(least > 0 && least * SHARE >= median, "{carried:?}: {moved}");
    fleet.exit(PATIENCE).await?;
    served.recovers(&before).await?;
    served.unharmed().await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn fifty_quic_circuits_move_data_at_once_and_none_starves() -> Result<()> {
    moves("load-circuits-quic", Transport::Quic, 50).await
}

#[tokio::test]
async fn twenty_tcp_circuits_move_data_at_once_and_none_starves() -> Result<()> {
    moves("load-circuits-tcp", Transport::Tcp, 20).await
}

/// How a relay goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    /// It is killed.
    Killed,
    /// It drains to the end.
    Drains,
}

/// A relay with a fleet besides its good peers goes and comes back: what it knows then is what there is, and peers are found.
async fn returns(name: &str, goes: Goes) -> Result<()> {
    const PEERS: usize = 40;
    let mut served = Served::new(name, &[("RELAY_NODE_DRAIN_TIMEOUT", "0")]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("peers").await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let address = served.address(&host, Transport::Quic);
    let mut fleet = fleet.hold("peers", &address, PEERS, &["--again", "--at-once", "16"])?;
    let all = |counts: &Value| number(counts, "held") == PEERS as u64;
    counted(&fleet, "all reservations", LONG, all).await?;
    let with_fleet = before.reservations + PEERS as f64;
    served
        .until("all reservations", |now| now.reservations == with_fleet)
        .await?;

    let seen: Vec<_> = served
        .good
        .iter()
        .map(|good| good.node.events().len())
        .collect();
    match goes {
        Goes::Killed => served.relay.process.kill().await?,
        Goes::Drains => {
            served.relay.process.terminate()?;
            let status = served.relay.process.exit(PATIENCE).await?;
            ensure!(status.code() == Some(0), "{status}");
        }
    }
    served.relay.restart(&served.lab, &served.bins).await?;
    for (good, seen) in served.good.iter().zip(seen) {
        good.node.event_after(seen, "reserved", PATIENCE).await?;
    }
    counted(&fleet, "all reservations again", LONG, |counts| {
        number(counts, "lost") >= PEERS as u64 && all(counts)
    })
    .await?;
    served
        .until("what is held, and no more", |now| {
            now.reservations == with_fleet && now.records == before.records
        })
        .await?;
    for (number, good) in served.good.iter().enumerate() {
        served.finds(&format!("newcomer-{number}"), good).await?;
    }
    fleet.kill().await?;
    // The dials have their circuits back, or ask for them no longer.
    served
        .until("the good peers alone", |now| {
            now.reservations == before.reservations
                && now.records == before.records
                && now.circuits <= before.circuits
        })
        .await?;
    served.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_relay_that_was_killed_knows_after_its_return_what_there_is() -> Result<()> {
    returns("load-killed", Goes::Killed).await
}

#[tokio::test]
async fn a_relay_that_drained_knows_after_its_return_what_there_is() -> Result<()> {
    returns("load-drained", Goes::Drains).await
}

#[tokio::test]
async fn nothing_stays_of_peers_that_are_cut_off_and_they_are_found_when_they_are_back()
-> Result<()> {
    const PEERS: usize = 20;
    let mut served = Served::new("load-cut", &[]).await?;
    let before = served.state().await?;
    let site = served.lab.site("fleet", NatKind::EimApdf).await?;
    let host = served.lab.host("host-fleet", &site).await?;
    let fleet = Fleet::new(&served.lab, &host)?;
    let mut fleets = Vec::new();
    for transport in Transport::ALL {
        let address = served.address(&host, transport);
        let name = format!("fleet-{transport}");
        let fleet = fleet.hold(&name, &address, PEERS, &["--at-once", "16"])?;
        counted(&fleet, "all reservations", LONG, |counts| {
            number(counts, "held") == PEERS as u64
        })
        .await?;
        fleets.push(fleet);
    }
    let seen: Vec<_> = served
        .good
        .iter()
        .map(|good| good.node.events().len())
        .collect();

    // Nobody says a word: neither the relay nor the peers can tell that from a process that died with its machine.
    let relay = [Traffic::With(served.relay.host.ip(false)?)];
    site.cut(&relay).await?;
    served.site.cut(&relay).await?;
    for good in &served.good {
        good.site.cut(&relay).await?;
    }
    let nothing = |now: &State| now.reservations == 0.0 && now.circuits == 0.0;
    served.until("nothing", nothing).await?;
    for (good, seen) in served.good.iter().zip(&seen) {
        good.node
            .event_after(*seen, "reservation_lost", PATIENCE)
            .await?;
    }

    let seen: Vec<_> = served
        .good
        .iter()
        .map(|good| good.node.events().len())
        .collect();
    for mut fleet in fleets {
        fleet.kill().await?;
    }
    served.site.mend().await?;
    for good in &served.good {
        good.site.mend().await?;
    }
    for (good, seen) in served.good.iter().zip(seen) {
        good.node.event_after(seen, "reserved", PATIENCE).await?;
    }
    for (number, good) in served.good.iter().enumerate() {
        served.finds(&format!("newcomer-{number}"), good).await?;
    }
    for good in &mut served.good {
        good.dial.kill().await?;
    }
    served
        .until("the good peers alone", |now| {
            now.reservations == before.reservations
                && now.records == before.records
                && now.circuits == 0.0
                && now.descriptors <= before.descriptors + 1
        })
        .await?;
    served.lab.succeeded();
    Ok(())
}
