//! Many reservations and many circuits at one relay, and what is left when it or its peers vanish.
//!
//! Sized for a debug build on two processors; `cargo xtask bench relay-capacity` has the full sizes.

use std::time::Duration;

use p2pnode_tests::{
    admin::{self, ADMIN},
    faults::Traffic,
    fleet::{self, counted, number, sum},
    prelude::*,
    served::{Served, State},
};

lab_tests! {
    three_hundred_quic_reservations_are_held_and_renewed: renewed(Transport::Quic, 300);
    a_hundred_tcp_reservations_are_held_and_renewed: renewed(Transport::Tcp, 100);
    fifty_quic_circuits_move_data_at_once_and_none_starves: moves(Transport::Quic, 50);
    twenty_tcp_circuits_move_data_at_once_and_none_starves: moves(Transport::Tcp, 20);
    a_relay_that_was_killed_knows_after_its_return_what_there_is: returns(false);
    a_relay_that_drained_knows_after_its_return_what_there_is: returns(true);
    nothing_stays_of_peers_that_are_cut_off_and_they_are_found_when_they_are_back: cut_off();
}

const LONG: Duration = Duration::from_secs(180);

/// All are held and renewed through two periods; the relay knows of exactly these, and of none once the peers are gone.
async fn renewed(transport: Transport, peers: u32) -> Result<()> {
    let lab = Lab::of_test().await?;
    let env = [
        ("RELAY_NODE_LIMITS_RESERVATION_DURATION", "20s"),
        ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
    ];
    let relay = Relay::start_with(&lab, "relay", &env).await?;
    let host = lab.public_host("peers").await?;
    // A peer that does not get a connection, on a machine that is too busy, comes again. One that loses a reservation is counted.
    let command = format!("hold --peers {peers} --again --at-once 16");
    let address = relay.address(&host, transport)?;
    let mut fleet = fleet::start(&host, "peers", &address, &command)?;
    let renewed = |counts: &Value| {
        number(counts, "held") == u64::from(peers) && number(counts, "renewed_least") >= 2
    };
    let counts = counted(&fleet, "two renewals of each", LONG, renewed).await?;
    ensure!(
        number(&counts, "lost") == 0 && sum(&counts, "refused") == 0,
        "{counts}"
    );
    let held = |read: &admin::Exposition| read.sum("relay_reservations", &[]);
    let all = |read: &admin::Exposition| (held(read) == f64::from(peers)).then(|| read.clone());
    let metrics = admin::until(&relay.host, "all reservations", all).await?;
    metrics.is("relay_denied_total", &[], 0.0)?;
    fleet.kill().await?;
    let none = |read: &admin::Exposition| (held(read) == 0.0).then_some(());
    admin::until(&relay.host, "no reservations of peers that are gone", none).await
}

/// All circuits move data at the same time, both ways, and none is left far behind.
async fn moves(transport: Transport, pairs: u32) -> Result<()> {
    /// What the circuit with the least has carried of what the one in the middle has, at least. A circuit that starves is cut off,
    /// or has next to nothing. Which of them are served in the very seconds of the test is not the relay's choice alone: the kernel
    /// drops what a socket cannot hold while the relay has no CPU, and that is slow to be made up for.
    const SHARE: u64 = 20;
    let mut served = Served::new(&[]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("peers").await?;
    let command = format!("circuits --pairs {pairs} --seconds 6 --at-once 8");
    let mut fleet = served.fleet(&host, "peers", transport, &command)?;
    fleet.event("opened", LONG).await?;
    let all = before.circuits + f64::from(pairs);
    served
        .until("all circuits", |state| state.circuits == all)
        .await?;
    let moved = fleet.event("moved", LONG).await?;
    moved.has(&json!({"complete": pairs, "failed": 0}))?;
    let events = fleet.events();
    let circuits = events.iter().filter(|event| event.name() == "circuit");
    let less = |event: &Event| number(&event.json, "there").min(number(&event.json, "back"));
    let mut carried: Vec<u64> = circuits.map(less).collect();
    carried.sort_unstable();
    let (least, median) = (carried[0], carried[carried.len() / 2]);
    ensure!(least > 0 && least * SHARE >= median, "{carried:?}");
    fleet.exit(PATIENCE).await?;
    served.recovers(&before).await?;
    served.unharmed().await
}

/// A relay with a fleet beside its good peers goes and comes back: what it knows then is what there is, and peers are found.
async fn returns(drains: bool) -> Result<()> {
    const PEERS: u64 = 40;
    let mut served = Served::new(&[("RELAY_NODE_DRAIN_TIMEOUT", "0")]).await?;
    let before = served.state().await?;
    let host = served.lab.public_host("peers").await?;
    let command = format!("hold --peers {PEERS} --again --at-once 16");
    let mut fleet = served.fleet(&host, "peers", Transport::Quic, &command)?;
    let all = |counts: &Value| number(counts, "held") == PEERS;
    counted(&fleet, "all reservations", LONG, all).await?;
    let with_fleet = before.reservations + PEERS as f64;
    let reserved = |now: &State| now.reservations == with_fleet;
    served.until("all reservations", reserved).await?;

    let seen = served.seen();
    if drains {
        served.relay.process.terminate()?;
        let status = served.relay.process.exit(PATIENCE).await?;
        ensure!(status.code() == Some(0), "{status}");
    } else {
        served.relay.process.kill().await?;
    }
    served.relay.restart().await?;
    served.each_after(&seen, "reserved").await?;
    let again = |counts: &Value| number(counts, "lost") >= PEERS && all(counts);
    counted(&fleet, "all reservations again", LONG, again).await?;
    let held = |now: &State| reserved(now) && now.records == before.records;
    served.until("what is held, and no more", held).await?;
    served.finds_all().await?;
    fleet.kill().await?;
    // The dials have their circuits back, or ask for them no longer.
    let alone = |now: &State| {
        now.reservations == before.reservations
            && now.records == before.records
            && now.circuits <= before.circuits
    };
    served.until("the good peers alone", alone).await?;
    Ok(())
}

async fn cut_off() -> Result<()> {
    const PEERS: u64 = 20;
    let mut served = Served::new(&[]).await?;
    let before = served.state().await?;
    let (site, host) = served.lab.home("fleet", NatKind::EimApdf).await?;
    let mut fleets = Vec::new();
    for transport in Transport::ALL {
        let command = format!("hold --peers {PEERS} --at-once 16");
        let fleet = served.fleet(&host, &format!("fleet-{transport}"), transport, &command)?;
        let all = |counts: &Value| number(counts, "held") == PEERS;
        counted(&fleet, "all reservations", LONG, all).await?;
        fleets.push(fleet);
    }

    // No packet: neither the relay nor the peers can tell that from a process that died with its machine.
    let seen = served.seen();
    let relay = [Traffic::With(served.relay.host.ip(false)?)];
    let sites = || {
        served
            .good
            .iter()
            .map(|good| &good.site)
            .chain([&served.site])
    };
    site.cut(&relay)?;
    for site in sites() {
        site.cut(&relay)?;
    }
    let nothing = |now: &State| now.reservations == 0.0 && now.circuits == 0.0;
    served.until("nothing", nothing).await?;
    served.each_after(&seen, "reservation_lost").await?;

    let seen = served.seen();
    drop(fleets);
    for site in sites() {
        site.mend()?;
    }
    served.each_after(&seen, "reserved").await?;
    served.finds_all().await?;
    for good in &mut served.good {
        good.dial.kill().await?;
    }
    let alone = |now: &State| {
        now.reservations == before.reservations
            && now.records == before.records
            && now.circuits == 0.0
            && now.descriptors <= before.descriptors + 1
    };
    served.until("the good peers alone", alone).await?;
    Ok(())
}
