//! A relay introduces two nodes, and they are direct before there is a circuit between them.

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::bins,
    events::Event,
    lab::Lab,
    nat::{NatKind, RANGE},
    node::{Launch, Process},
    pair::{Pair, Peer},
    relay::Relay,
    running::Node,
    stranger::Stranger,
};

p2pnode_tests::lab_tests!();

const PUNCH: &str = "P2PNODE_PUNCH_ENABLED";

/// How the attempts of a dial came about, and how they ended.
fn punches(events: &[Event]) -> Vec<(&str, &str)> {
    let punches = events.iter().filter(|event| event.name() == "punch");
    punches
        .map(|punch| (punch.text("/by"), punch.text("/outcome")))
        .collect()
}

fn result(dial: &Process) -> Result<Event> {
    let events = dial.events();
    let result = events.into_iter().find(|event| event.name() == "result");
    result.with_context(|| format!("no result: {}", dial.log()))
}

/// The dial of A to B in a lab whose relay carries no circuit between them: somebody else has the only one.
async fn without_a_circuit(name: &str, a: NatKind, b: NatKind, transport: Transport) -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new(name).await?;
    let relay =
        Relay::start_with(&lab, &bins, "relay", &[("RELAY_NODE_LIMITS_CIRCUITS", "1")]).await?;
    let (a, b) = (
        Peer::new(&lab, "a", a).await?,
        Peer::new(&lab, "b", b).await?,
    );
    let args = |peer: &Peer| NodeArgs::new(&relay, &peer.host, &[transport]);
    let b_node = Node::start(&lab, &bins, &b.host, args(&b).run(&lab, &bins, "b")).await?;
    reserved(&b_node.process).await?;

    let other = Peer::new(&lab, "c", NatKind::EimApdf).await?;
    let launch = args(&other).run(&lab, &bins, "c").env(PUNCH, "false");
    let other_node = Node::start(&lab, &bins, &other.host, launch).await?;
    reserved(&other_node.process).await?;
    let occupies = other_node.control.dial("c-dial", &b_node.id);
    let mut occupies = occupies
        .args(["--until", "connected"])
        .start(&other.host.device, lab.artifacts())?;
    let status = occupies.exit(PATIENCE).await?;
    ensure!(status.success(), "{status}: {}", occupies.log());

    let dial = args(&a).dial(&bins, "a", &b_node.id).args(["--count", "1"]);
    let mut dial = dial.start(&a.host.device, lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    let (events, result) = (dial.events(), result(&dial)?);
    ensure!(
        status.success() && result.text("/outcome") == "direct",
        "{status}: {}; {}",
        result.line,
        dial.log()
    );
    ensure!(
        punches(&events) == [("introduction", "direct")],
        "{:?}",
        punches(&events)
    );
    ensure!(
        result.text("/path/how") == "punched" && result.json["attempts"] == 1,
        "{}",
        result.line
    );
    let relayed = events
        .iter()
        .filter(|event| event.name() == "connected" && event.path_kind() == "relayed");
    let to_b = relayed.filter(|event| event.text("/peer") == b_node.id);
    ensure!(to_b.count() == 0, "there was a circuit: {}", dial.log());
    for peer in [&a, &b] {
        peer.settle().await?;
        ensure!(peer.strays().is_empty(), "{:?}", peer.strays());
    }
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn two_port_preserving_nats_need_no_circuit_over_quic() -> Result<()> {
    let nat = NatKind::EimApdf;
    without_a_circuit("meet-eim", nat, nat, Transport::Quic).await
}

#[tokio::test]
async fn two_nats_that_rewrite_ports_need_no_circuit_over_quic() -> Result<()> {
    let nat = NatKind::EimApdfRewrite;
    without_a_circuit("meet-rewrite", nat, nat, Transport::Quic).await
}

#[tokio::test]
async fn a_range_firewall_and_a_nat_that_rewrites_ports_need_no_circuit_over_quic() -> Result<()> {
    let (a, b) = (NatKind::RangeFirewall, NatKind::EimApdfRewrite);
    without_a_circuit("meet-range", a, b, Transport::Quic).await
}

#[tokio::test]
async fn two_nats_that_rewrite_ports_need_no_circuit_over_tcp() -> Result<()> {
    let nat = NatKind::EimApdfRewrite;
    without_a_circuit("meet-tcp", nat, nat, Transport::Tcp).await
}

/// The introduction and the circuit are asked for at once: one direct connection is left, whichever comes first.
#[tokio::test]
async fn beside_the_circuit_one_direct_connection_is_left() -> Result<()> {
    for transport in Transport::ALL {
        let pair = Pair::new(
            format!("meet-beside-{transport}"),
            NatKind::EimApdf,
            NatKind::EimApdfRewrite,
        );
        let peers = pair.transport(transport).start().await?;
        // More pings than the circuit's grace period has seconds.
        let mut process = peers.start_dial("a", 12)?;
        let direct = peers.became_direct(&process).await?;
        peers.verify_one_is_left(&process, direct).await?;
        let dial = peers.ended(&mut process, 12).await?;
        peers.verify_direct(&dial).await?;
        peers.lab.succeeded();
    }
    Ok(())
}

#[tokio::test]
async fn two_symmetric_nats_stay_relayed_for_the_reason_that_dcutr_finds() -> Result<()> {
    let nat = NatKind::Symmetric;
    let pair = Pair::new("meet-symmetric", nat, nat);
    let mut peers = pair.transport(Transport::Quic).start().await?;
    let dial = peers.dial().await?;
    let punches = punches(&dial.events);
    ensure!(
        punches.contains(&("introduction", "failed")) && punches.contains(&("dcutr", "failed")),
        "{punches:?}"
    );
    peers.verify_relayed(&dial).await?;
    peers.lab.succeeded();
    Ok(())
}

/// Two nodes and a relay; the dial must end direct, with no attempt by introduction.
async fn by_dcutr_alone(name: &str, foreign: bool, off: &[(&str, &str, &str)]) -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new(name).await?;
    let host = lab.public_host("far").await?;
    // What runs ends with its handle.
    let (theirs, ours) = match foreign {
        true => {
            let stranger = Stranger::new(&lab, &host)?;
            (
                Some(stranger.relay("foreign", Transport::Quic).await?),
                None,
            )
        }
        false => (None, Some(Relay::start(&lab, &bins, "relay").await?)),
    };
    let args = |peer: &Peer| NodeArgs {
        relays: match (&theirs, &ours) {
            (Some((_, address)), _) => vec![address.clone()],
            (None, Some(relay)) => relay.addresses(&peer.host, &[Transport::Quic]),
            (None, None) => Vec::new(),
        },
        transports: vec![Transport::Quic],
        range: RANGE,
    };
    let env = |launch: Launch, node: &str| {
        let of = off.iter().filter(|(of, ..)| *of == node);
        of.fold(launch, |launch, (_, name, value)| launch.env(*name, *value))
    };
    let a = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let b = Peer::new(&lab, "b", NatKind::EimApdf).await?;
    let launch = env(args(&b).run(&lab, &bins, "b"), "b");
    let b_node = Node::start(&lab, &bins, &b.host, launch).await?;
    reserved(&b_node.process).await?;
    let dial = env(args(&a).dial(&bins, "a", &b_node.id), "a");
    let mut dial = dial.start(&a.host.device, lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    let (events, result) = (dial.events(), result(&dial)?);
    ensure!(
        status.success() && result.text("/outcome") == "direct",
        "{status}: {}; {}",
        result.line,
        dial.log()
    );
    ensure!(
        punches(&events).iter().all(|(by, _)| *by == "dcutr"),
        "{:?}",
        punches(&events)
    );
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn behind_a_foreign_relay_dcutr_does_it() -> Result<()> {
    by_dcutr_alone("meet-foreign", true, &[]).await
}

/// The relay knows nothing of whom B lets in, and must not tell others where it is.
#[tokio::test]
async fn a_node_that_names_whom_it_lets_in_leaves_it_to_dcutr() -> Result<()> {
    let key = std::env::temp_dir().join(format!("p2pnode-meet-{}.key", std::process::id()));
    let key = key.to_str().context("a path that is no text")?;
    let program = bins()?.p2pnode;
    let id = std::process::Command::new(program)
        .args(["id", "--key", key])
        .output()?;
    ensure!(id.status.success(), "{id:?}");
    let id = String::from_utf8(id.stdout)?;
    let env = [
        ("a", "P2PNODE_IDENTITY_KEY_FILE", key),
        ("b", "P2PNODE_ACCESS_ALLOW", id.trim()),
    ];
    let done = by_dcutr_alone("meet-access", false, &env).await;
    std::fs::remove_file(key)?;
    done
}

/// The relay knows nothing of the filters, so a node that has any neither asks for introductions nor takes them.
#[tokio::test]
async fn a_node_with_filters_leaves_it_to_dcutr_which_heeds_them() -> Result<()> {
    let deny = |node| [(node, "P2PNODE_PUNCH_DENY", "203.0.113.0/24")];
    by_dcutr_alone("meet-filtered-a", false, &deny("a")).await?;
    by_dcutr_alone("meet-filtered-b", false, &deny("b")).await
}
