//! `/metrics` of real nodes: it says what happened, as the events do, and nothing that was not promised.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN, Exposition},
    args::{PATIENCE, Transport},
    events::Event,
    faults::Traffic,
    nat::{NatKind, RANGE},
    running::{Both, Node, Running},
};

p2pnode_tests::lab_tests!();

const README: &str = include_str!("../../README.md");

/// What the README says of a metric.
struct Documented {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The table of the README, by the name of the family.
fn documented() -> Result<BTreeMap<String, Documented>> {
    let mut metrics = BTreeMap::new();
    for row in README
        .lines()
        .filter(|line| line.starts_with("| `p2pnode_"))
    {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, _, labels, _] = cells[..] else {
            anyhow::bail!("the README has a row of {} cells: {row}", cells.len());
        };
        let plain = |text: &str| text.trim_matches('`').to_owned();
        let name = plain(name);
        let labels = labels.split("; ").filter(|labels| *labels != "none");
        let labels = labels.map(|label| {
            let (label, values) = label.split_once(": ").context(row)?;
            Ok((plain(label), values.split(", ").map(plain).collect()))
        });
        metrics.insert(
            name.strip_suffix("_total").unwrap_or(&name).to_owned(),
            Documented {
                kind: kind.to_owned(),
                labels: labels.collect::<Result<_>>()?,
            },
        );
    }
    ensure!(
        metrics.len() == 8,
        "the README documents {} metrics",
        metrics.len()
    );
    Ok(metrics)
}

/// All metrics are documented, with their types, their labels and every value of these: so none can be a peer id or an address.
fn ensure_documented(read: &Exposition) -> Result<()> {
    let documented = documented()?;
    for (name, metadata) in &read.families {
        let promised = documented
            .get(name)
            .with_context(|| format!("{name} is not in the README"))?;
        ensure!(
            metadata.kind == promised.kind,
            "{name} is a {} and not a {}",
            metadata.kind,
            promised.kind
        );
        ensure!(!metadata.help.is_empty(), "{name} has no help");
        let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
        for sample in read.samples.iter().filter(|sample| {
            suffixes
                .iter()
                .any(|suffix| sample.name == format!("{name}{suffix}"))
        }) {
            let labels: BTreeSet<_> = sample
                .labels
                .keys()
                .filter(|label| *label != "le")
                .collect();
            ensure!(
                labels == promised.labels.keys().collect(),
                "the labels of {sample:?}"
            );
            for (label, values) in &promised.labels {
                let value = &sample.labels[label];
                let is_number = values.contains("a number") && value.parse::<u8>().is_ok();
                ensure!(
                    is_number || values.contains(value),
                    "the README has no {label} {value:?} for {name}"
                );
            }
        }
    }
    Ok(())
}

/// What a node says, after it was held to the README and to what holds always.
async fn scrape(node: &Node) -> Result<Exposition> {
    let read = admin::metrics(&node.host).await?;
    let checked = || {
        ensure_documented(&read)?;
        ensure!(
            read.sum("p2pnode_dials_out_of_range_total", &[]) == 0.0,
            "out of range"
        );
        let ports = u32::from(RANGE.end() - RANGE.start()) + 1;
        ensure!(
            read.sum("p2pnode_port_pool", &[]) == f64::from(ports)
                && read.sum("p2pnode_port_pool", &[("state", "in_use")]) >= 1.0,
            "the ports do not add up to {ports}"
        );
        for label in read
            .samples
            .iter()
            .flat_map(|sample| sample.labels.values())
        {
            ensure!(
                !label.contains(&node.id)
                    && !label.contains("12D3")
                    && !label.contains(['.', ':', '/'])
                    || label.parse::<f64>().is_ok(),
                "the label {label:?}"
            );
        }
        Ok(())
    };
    checked().with_context(|| format!("{}: {:#?}", node.process.name(), read.samples))?;
    Ok(read)
}

/// The attempts by what they have in common with the events of them.
type Attempts = BTreeMap<[String; 4], u32>;

/// The attempts that were counted are those that were told. The metrics are counted first, so the events may be later ones.
async fn ensure_told(node: &Node, read: &Exposition) -> Result<()> {
    let mut counted = Attempts::new();
    for sample in read.all("p2pnode_punch_total", &[]) {
        let key =
            ["role", "attempt", "outcome", "reason"].map(|label| sample.labels[label].clone());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of a few attempts"
        )]
        let value = sample.value as u32;
        *counted.entry(key).or_default() += value;
    }
    let told = |events: &[Event]| {
        let mut told = Attempts::new();
        for event in events.iter().filter(|event| event.name() == "punch") {
            let reason = event.json["reason"].as_str().unwrap_or("none");
            let attempt = event.json["attempt"].to_string();
            let key = [
                event.text("/role"),
                &attempt,
                event.text("/outcome"),
                reason,
            ];
            *told.entry(key.map(str::to_owned)).or_default() += 1;
        }
        (told == counted).then_some(())
    };
    let what = format!("the attempts {counted:?} and no others");
    node.process.until(&what, PATIENCE, told).await
}

/// The peers on such a path.
fn peers(read: &Exposition, path: &str) -> f64 {
    read.sum("p2pnode_peers", &[("path", path)])
}

fn changes(read: &Exposition, labels: &[(&str, &str)]) -> f64 {
    read.sum("p2pnode_path_changes_total", labels)
}

async fn start(name: &str, a: NatKind, b: NatKind) -> Result<Both> {
    Running::new(name, a, b)
        .transports(&[Transport::Quic])
        .prepare()
        .await?
        .a_env(ADMIN_LISTEN, ADMIN)
        .b_env(ADMIN_LISTEN, ADMIN)
        .start()
        .await
}

#[tokio::test]
async fn a_punch_and_a_path_that_is_cut_are_counted_as_they_were_told() -> Result<()> {
    let both = start("metrics-cut", NatKind::EimApdf, NatKind::EimApdfRewrite).await?;
    let Both { a, b, .. } = &both;
    for node in [a, b] {
        let read = scrape(node).await?;
        ensure!(
            read.sum("p2pnode_reservations", &[("relay", "0")]) == 1.0,
            "{read:?}"
        );
        ensure!(
            peers(&read, "direct") + peers(&read, "relayed") == 0.0,
            "{read:?}"
        );
        let relay = [
            ("transport", "quic"),
            ("family", "ip4"),
            ("outcome", "connected"),
        ];
        ensure!(read.sum("p2pnode_dials_total", &relay) == 1.0, "{read:?}");
        ensure!(changes(&read, &[]) == 0.0, "a relay is no peer: {read:?}");
    }

    both.dial().await?;
    // The circuit may come after the direct connection, and is counted all the same.
    for (node, peer) in [(a, b), (b, a)] {
        let circuit = |events: &[Event]| {
            let mut events = events.iter();
            events
                .any(|event| {
                    event.name() == "connected"
                        && event.text("/peer") == peer.id
                        && event.path_kind() == "relayed"
                })
                .then_some(())
        };
        node.process.until("the circuit", PATIENCE, circuit).await?;
    }
    both.settled(PATIENCE).await?;
    for (node, how) in [(a, "dialed"), (b, "accepted")] {
        let read = scrape(node).await?;
        ensure_told(node, &read).await?;
        let direct = [
            ("outcome", "direct"),
            ("reason", "none"),
            ("transport", "quic"),
            ("family", "ip4"),
        ];
        ensure!(read.sum("p2pnode_punch_total", &direct) == 1.0, "{read:?}");
        ensure!(
            peers(&read, "direct") == 1.0 && peers(&read, "relayed") == 0.0,
            "{read:?}"
        );
        // Over the circuit or past it, as the relay's introduction was faster or not.
        let relayed = changes(
            &read,
            &[("from", "none"), ("to", "relayed"), ("reason", how)],
        );
        let before = if relayed == 1.0 { "relayed" } else { "none" };
        let punched = [("from", before), ("to", "direct"), ("reason", "punched")];
        ensure!(
            relayed <= 1.0 && changes(&read, &punched) == 1.0,
            "{how}: {read:?}"
        );
        ensure!(
            read.sum("p2pnode_time_to_direct_seconds_count", &[]) == 1.0
                && read.sum("p2pnode_time_to_direct_seconds_sum", &[]) > 0.0,
            "{read:?}"
        );
        let circuits = [
            ("transport", "circuit"),
            ("family", "none"),
            ("outcome", "connected"),
        ];
        let dialed = f64::from(u8::from(how == "dialed"));
        ensure!(
            read.sum("p2pnode_dials_total", &circuits) == dialed,
            "{read:?}"
        );
    }

    let seen = [a, b].map(|node| node.process.events().len());
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    both.a_side.site.cut(&[Traffic::With(b_outside)]).await?;
    for ((node, peer), seen) in [(a, b), (b, a)].into_iter().zip(seen) {
        let back = |events: &[Event]| {
            let mut events = events.iter().skip(seen);
            events
                .any(|event| {
                    event.name() == "connected"
                        && event.text("/peer") == peer.id
                        && event.path_kind() == "relayed"
                })
                .then_some(())
        };
        node.process.until("the way back", PATIENCE, back).await?;
        node.process
            .event_after(seen, "disconnected", PATIENCE)
            .await?;
    }
    // In vain, as long as the path is cut.
    let failed = |events: &[Event]| {
        let mut events = events.iter().skip(seen[0]);
        events
            .any(|event| event.name() == "punch" && event.text("/outcome") == "failed")
            .then_some(())
    };
    a.process.until("a failed punch", PATIENCE, failed).await?;
    for node in [a, b] {
        let read = scrape(node).await?;
        ensure!(
            peers(&read, "relayed") == 1.0 && peers(&read, "direct") == 0.0,
            "{read:?}"
        );
        ensure!(
            changes(&read, &[("from", "direct"), ("reason", "lost")]) == 1.0,
            "{}: {read:?}",
            node.process.name()
        );
        ensure!(changes(&read, &[("to", "relayed")]) >= 1.0, "{read:?}");
    }
    let read = scrape(a).await?;
    let failed = read.sum(
        "p2pnode_punch_total",
        &[("outcome", "failed"), ("reason", "timeout")],
    );
    ensure!(failed >= 1.0, "{read:?}");

    both.a_side.site.mend().await?;
    both.settled(PATIENCE * 2).await?;
    for node in [a, b] {
        let read = scrape(node).await?;
        ensure_told(node, &read).await?;
        ensure!(
            peers(&read, "direct") == 1.0 && peers(&read, "relayed") == 0.0,
            "{read:?}"
        );
        let punched = [("to", "direct"), ("reason", "punched")];
        ensure!(changes(&read, &punched) == 2.0, "{read:?}");
    }
    both.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_pair_that_cannot_be_punched_is_counted_and_never_timed() -> Result<()> {
    let both = start("metrics-symmetric", NatKind::Symmetric, NatKind::Symmetric).await?;
    both.dial_relayed().await?;
    for node in [&both.a, &both.b] {
        // The third attempt ends on both sides, on each in its own time.
        let third = |events: &[Event]| {
            let mut events = events.iter();
            events
                .any(|event| event.name() == "punch" && event.json["attempt"] == 3)
                .then_some(())
        };
        node.process
            .until("the third attempt", PATIENCE, third)
            .await?;
        let read = scrape(node).await?;
        ensure_told(node, &read).await?;
        ensure!(
            read.sum("p2pnode_punch_total", &[("outcome", "failed")]) >= 3.0,
            "{read:?}"
        );
        ensure!(
            read.sum("p2pnode_punch_total", &[("outcome", "direct")]) == 0.0,
            "{read:?}"
        );
        ensure!(
            peers(&read, "relayed") == 1.0 && peers(&read, "direct") == 0.0,
            "{read:?}"
        );
        ensure!(changes(&read, &[("to", "direct")]) == 0.0, "{read:?}");
        ensure!(
            read.sum("p2pnode_time_to_direct_seconds_count", &[]) == 0.0,
            "{read:?}"
        );
    }
    both.lab.succeeded();
    Ok(())
}
