//! A relay is asked to end: what runs over it has its time, and peers with another relay move there before it is gone.

use anyhow::{Result, ensure};
use p2pnode_tests::{
    admin::{self, ADMIN},
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    events::Event,
    lab::{Host, Lab},
    nat::{NatKind, RANGE},
    node::Process,
    relay::Relay,
};

p2pnode_tests::lab_tests!();

/// More pings than any of these tests lasts.
const PINGS: &str = "1000";

/// B holds a reservation on one of two relays, the first, and A has a circuit to it that stays.
struct Circuit {
    first: Relay,
    second: Relay,
    a_host: Host,
    dial: Process,
    b: Process,
    b_id: String,
    bins: Bins,
    lab: Lab,
}

impl Circuit {
    async fn new(name: &str, transport: Transport, drain_timeout: &str) -> Result<Self> {
        let (bins, lab) = (bins()?, Lab::new(name).await?);
        let env = [
            ("RELAY_NODE_DRAIN_TIMEOUT", drain_timeout),
            ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
        ];
        let mut first = Relay::start_with(&lab, &bins, "first", &env).await?;
        let mut second = Relay::start_with(&lab, &bins, "second", &env).await?;
        let mut hosts = Vec::new();
        for name in ["a", "b"] {
            let site = lab.site(name, NatKind::EimApdf).await?;
            hosts.push(lab.host(&format!("host-{name}"), &site).await?);
        }
        let [a_host, b_host] = <[Host; 2]>::try_from(hosts).map_err(|_| anyhow::anyhow!("two"))?;
        let mut relays = first.addresses(&b_host, &[transport]);
        relays.extend(second.addresses(&b_host, &[transport]));
        let args = NodeArgs {
            relays,
            transports: vec![transport],
            range: RANGE,
        };
        let b = args
            .run(&lab, &bins, "b")
            .env("P2PNODE_RESERVATIONS", "1")
            // The circuit is to stay.
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .start(&b_host.device, lab.artifacts())?;
        let b_id = reserved(&b).await?;
        // Whichever was there first has it.
        if b.event("reserved", PATIENCE).await?.text("/relay") == second.id {
            std::mem::swap(&mut first, &mut second);
        }
        let dial = start_dial(&first, &a_host, transport, &bins, &lab, "a", &b_id)?;
        let circuit = Self {
            first,
            second,
            a_host,
            dial,
            b,
            b_id,
            bins,
            lab,
        };
        circuit.pinged_after(0).await?;
        Ok(circuit)
    }

    /// Waits for a ping over the circuit that is not among the first `seen` events of the dial.
    async fn pinged_after(&self, seen: usize) -> Result<()> {
        let ping = self.dial.event_after(seen, "ping", PATIENCE).await?;
        ensure!(ping.text("/kind") == "relayed", "{}", ping.line);
        Ok(())
    }

    /// Asks the first relay to end and waits until probes see it.
    async fn drains(&self) -> Result<()> {
        self.first.process.terminate()?;
        let missing = admin::readiness(&self.first.host, 503).await?;
        ensure!(missing.contains("\ndraining: "), "{missing}");
        Ok(())
    }
}

fn start_dial(
    relay: &Relay,
    host: &Host,
    transport: Transport,
    bins: &Bins,
    lab: &Lab,
    name: &str,
    peer: &str,
) -> Result<Process> {
    NodeArgs::new(relay, host, &[transport])
        .dial(bins, name, peer)
        .args(["--until", "connected", "--count", PINGS])
        .env("P2PNODE_PUNCH_ENABLED", "false")
        .start(&host.device, lab.artifacts())
}

/// The place of the first event with that name and that relay.
fn place(events: &[Event], name: &str, relay: &str) -> Option<usize> {
    events
        .iter()
        .position(|event| event.name() == name && event.text("/relay") == relay)
}

async fn drains(name: &str, transport: Transport) -> Result<()> {
    let mut circuit = Circuit::new(name, transport, "10s").await?;
    circuit.drains().await?;

    // B is told, and has the next reservation while it still has the first.
    let second = circuit.second.id.clone();
    let moved = |events: &[Event]| place(events, "reserved", &second);
    let moved = circuit.b.until("the other relay", PATIENCE, moved).await?;

    // The circuit goes on, and no other one is taken: who asks for one finds B where it is now.
    circuit.pinged_after(circuit.dial.events().len()).await?;
    let mut around = start_dial(
        &circuit.first,
        &circuit.a_host,
        transport,
        &circuit.bins,
        &circuit.lab,
        "around",
        &circuit.b_id,
    )?;
    let connected = around.event("connected", PATIENCE).await?;
    ensure!(
        connected.text("/path/relay") == circuit.second.id
            && connected.text("/found_by") == "registered",
        "{}",
        connected.line
    );
    around.kill().await?;
    let metrics = admin::metrics(&circuit.first.host).await?;
    ensure!(metrics.sum("relay_draining", &[]) == 1.0, "{metrics:?}");
    ensure!(
        metrics.sum("relay_denied_total", &[("reason", "draining")]) >= 1.0,
        "{metrics:?}"
    );

    // It is there until the end, which is a clean one.
    let status = circuit.first.process.exit(PATIENCE).await?;
    let log = circuit.first.process.log();
    ensure!(status.code() == Some(0), "{status}: {log}");
    for told in ["waiting for circuits to end", "closing"] {
        let line = log.lines().find(|line| line.contains(told));
        ensure!(
            line.is_some_and(|line| line.contains("circuits=1")),
            "{told:?} with one circuit is not in the log: {log}"
        );
    }
    let first = circuit.first.id.clone();
    let lost = |events: &[Event]| place(events, "reservation_lost", &first);
    let lost = circuit.b.until("the loss", PATIENCE, lost).await?;
    ensure!(moved < lost, "B held no reservation for a while");
    circuit.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_quic_relay_that_drains_keeps_its_circuits_and_its_peers_move_on_before_it_ends()
-> Result<()> {
    drains("relay-drains-quic", Transport::Quic).await
}

#[tokio::test]
async fn a_tcp_relay_that_drains_keeps_its_circuits_and_its_peers_move_on_before_it_ends()
-> Result<()> {
    drains("relay-drains-tcp", Transport::Tcp).await
}

#[tokio::test]
async fn a_second_signal_ends_a_relay_that_drains_at_once() -> Result<()> {
    let mut circuit = Circuit::new("relay-ends", Transport::Quic, "1h").await?;
    circuit.drains().await?;
    ensure!(circuit.first.process.is_alive()?);
    circuit.first.process.terminate()?;
    let status = circuit.first.process.exit(PATIENCE).await?;
    // By the shell's convention: 128 + SIGTERM.
    ensure!(status.code() == Some(143), "{status}");
    circuit.lab.succeeded();
    Ok(())
}
