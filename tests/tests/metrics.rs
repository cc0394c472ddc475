//! `/metrics` of real nodes: it counts what happened, as the events do, and nothing that was not promised.

use std::collections::BTreeMap;

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN, Exposition},
    faults::Traffic,
    prelude::*,
};

lab_tests! {
    a_punch_and_a_path_that_is_cut_are_counted_as_they_were_reported: cut();
    a_pair_that_cannot_be_punched_is_counted_and_never_timed: never_punched();
}

async fn scrape(node: &Node) -> Result<Exposition> {
    let read = admin::metrics(&node.host).await?;
    for (label, value) in read.samples.iter().flat_map(|sample| &sample.labels) {
        // Neither a peer id nor an address: labels are bounded.
        let is_bounded = !value.contains("12D3") && !value.contains(['.', ':', '/']);
        ensure!(is_bounded || label == "le", "the label {label} {value:?}");
    }
    read.is("p2pnode_dials_out_of_range_total", &[], 0.0)?;
    read.is("p2pnode_port_pool", &[], RANGE.count() as f64)?;
    let in_use = read.sum("p2pnode_port_pool", &[("state", "in_use")]);
    ensure!(in_use >= 1.0, "no port is in use");
    Ok(read)
}

type Attempts = BTreeMap<[String; 4], u32>;

/// The attempts that were counted are those that were reported. The metrics are counted first, so the events may be later ones.
async fn ensure_reported(node: &Node, read: &Exposition) -> Result<()> {
    let mut counted = Attempts::new();
    for sample in read.all("p2pnode_punch_total", &[]) {
        let labels = ["role", "attempt", "outcome", "reason"];
        let key = labels.map(|label| sample.labels[label].clone());
        *counted.entry(key).or_default() += sample.value as u32;
    }
    let reported = |events: &[Event]| {
        let mut reported = Attempts::new();
        for event in events.iter().filter(|event| event.name() == "punch") {
            let reason = event.json["reason"].as_str().unwrap_or("none");
            let attempt = event.json["attempt"].to_string();
            let key = [
                event.text("/role"),
                &attempt,
                event.text("/outcome"),
                reason,
            ];
            *reported.entry(key.map(str::to_owned)).or_default() += 1;
        }
        (reported == counted).then_some(())
    };
    let what = format!("the attempts {counted:?} and no others");
    node.process.until(&what, PATIENCE, reported).await
}

fn peers(read: &Exposition, direct: f64, relayed: f64) -> Result<()> {
    read.is("p2pnode_peers", &[("path", "direct")], direct)?;
    read.is("p2pnode_peers", &[("path", "relayed")], relayed)
}

const CHANGES: &str = "p2pnode_path_changes_total";
const DIALS: &str = "p2pnode_dials_total";
const PUNCHES: &str = "p2pnode_punch_total";
const TIMED: &str = "p2pnode_time_to_direct_seconds_count";

async fn start(a: NatKind, b: NatKind) -> Result<Both> {
    let prepared = Running::new(a, b)
        .over(&[Transport::Quic])
        .prepare()
        .await?;
    let prepared = prepared
        .a_env(ADMIN_LISTEN, ADMIN)
        .b_env(ADMIN_LISTEN, ADMIN);
    prepared.start().await
}

async fn cut() -> Result<()> {
    let both = start(NatKind::EimApdf, NatKind::EimApdfRewrite).await?;
    for (node, _) in both.ways() {
        let read = scrape(node).await?;
        read.is("p2pnode_reservations", &[("relay", "0")], 1.0)?;
        peers(&read, 0.0, 0.0)?;
        let relay = [
            ("transport", "quic"),
            ("family", "ip4"),
            ("outcome", "connected"),
        ];
        read.is(DIALS, &relay, 1.0)?;
        // A relay is no peer.
        read.is(CHANGES, &[], 0.0)?;
    }

    both.dial().await?;
    // The circuit may come after the direct connection, and is counted all the same.
    for (node, peer) in both.ways() {
        let circuit = |event: &Event| event.connects(&peer.id, "relayed");
        node.process.first("the circuit", 0, circuit).await?;
    }
    both.settled(PATIENCE).await?;
    for ((node, _), how) in both.ways().into_iter().zip(["dialed", "accepted"]) {
        let read = scrape(node).await?;
        ensure_reported(node, &read).await?;
        let reason = [("outcome", "direct"), ("reason", "none")];
        let direct = [&reason[..], &[("transport", "quic"), ("family", "ip4")]].concat();
        read.is(PUNCHES, &direct, 1.0)?;
        peers(&read, 1.0, 0.0)?;
        // Over the circuit or past it, as the relay's introduction was faster or not.
        let relayed = read.sum(
            CHANGES,
            &[("from", "none"), ("to", "relayed"), ("reason", how)],
        );
        let before = if relayed == 1.0 { "relayed" } else { "none" };
        let punched = [("from", before), ("to", "direct"), ("reason", "punched")];
        ensure!(relayed <= 1.0, "{how}: {read:?}");
        read.is(CHANGES, &punched, 1.0)?;
        read.is(TIMED, &[], 1.0)?;
        ensure!(
            read.sum("p2pnode_time_to_direct_seconds_sum", &[]) > 0.0,
            "{read:?}"
        );
        let circuits = [
            ("transport", "circuit"),
            ("family", "none"),
            ("outcome", "connected"),
        ];
        read.is(DIALS, &circuits, f64::from(u8::from(how == "dialed")))?;
    }

    let seen = both.ways().map(|(node, _)| node.seen());
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    both.a_side.site.cut(&[Traffic::With(b_outside)])?;
    for ((node, peer), seen) in both.ways().into_iter().zip(seen) {
        let back = |event: &Event| event.connects(&peer.id, "relayed");
        node.process.first("the way back", seen, back).await?;
        node.process
            .event_after(seen, "disconnected", PATIENCE)
            .await?;
    }
    // It cannot succeed as long as the path is cut.
    let failed = |event: &Event| event.name() == "punch" && event.text("/outcome") == "failed";
    both.a
        .process
        .first("a failed punch", seen[0], failed)
        .await?;
    for (node, _) in both.ways() {
        let read = scrape(node).await?;
        peers(&read, 0.0, 1.0)?;
        // The circuit of the other side may arrive first: then the path that misses pings gives way to it.
        let lost = read.sum(CHANGES, &[("from", "direct"), ("reason", "lost")]);
        let missed = [("from", "direct"), ("to", "relayed"), ("reason", "missed")];
        ensure!(lost + read.sum(CHANGES, &missed) == 1.0, "{read:?}");
        ensure!(read.sum(CHANGES, &[("to", "relayed")]) >= 1.0, "{read:?}");
    }
    let read = scrape(&both.a).await?;
    let failed = read.sum(PUNCHES, &[("outcome", "failed"), ("reason", "timeout")]);
    ensure!(failed >= 1.0, "{read:?}");

    both.a_side.site.mend()?;
    both.settled(PATIENCE * 2).await?;
    for (node, _) in both.ways() {
        let read = scrape(node).await?;
        ensure_reported(node, &read).await?;
        peers(&read, 1.0, 0.0)?;
        read.is(CHANGES, &[("to", "direct"), ("reason", "punched")], 2.0)?;
    }
    Ok(())
}

async fn never_punched() -> Result<()> {
    let both = start(NatKind::Symmetric, NatKind::Symmetric).await?;
    both.dial_relayed().await?;
    for (node, _) in both.ways() {
        // The third attempt ends on both sides, on each in its own time.
        let third = |event: &Event| event.name() == "punch" && event.json["attempt"] == 3;
        node.process.first("the third attempt", 0, third).await?;
        let read = scrape(node).await?;
        ensure_reported(node, &read).await?;
        ensure!(
            read.sum(PUNCHES, &[("outcome", "failed")]) >= 3.0,
            "{read:?}"
        );
        read.is(PUNCHES, &[("outcome", "direct")], 0.0)?;
        peers(&read, 0.0, 1.0)?;
        read.is(CHANGES, &[("to", "direct")], 0.0)?;
        read.is(TIMED, &[], 0.0)?;
    }
    Ok(())
}
