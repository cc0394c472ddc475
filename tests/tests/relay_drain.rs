//! A relay is asked to end: what runs over it has its time, and peers with another relay move there before it is gone.

use p2pnode_tests::{
    admin::{self, ADMIN},
    prelude::*,
};

lab_tests! {
    a_quic_relay_that_drains_keeps_its_circuits_and_its_peers_move_on_before_it_ends: drains(Transport::Quic);
    a_tcp_relay_that_drains_keeps_its_circuits_and_its_peers_move_on_before_it_ends: drains(Transport::Tcp);
    a_second_signal_ends_a_relay_that_drains_at_once: second_signal();
}

const PUNCH: &str = "P2PNODE_PUNCH_ENABLED";

/// B holds a reservation on one of two relays, the first, and A has a circuit to it that stays.
struct Circuit {
    first: Relay,
    second: Relay,
    a_host: Host,
    dial: Process,
    b: Node,
    _sites: [Site; 2],
    _lab: Lab,
}

impl Circuit {
    async fn new(transport: Transport, drain_timeout: &str) -> Result<Self> {
        let lab = Lab::of_test().await?;
        let env = [
            ("RELAY_NODE_DRAIN_TIMEOUT", drain_timeout),
            ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
        ];
        let mut first = Relay::start_with(&lab, "first", &env).await?;
        let mut second = Relay::start_with(&lab, "second", &env).await?;
        let (a_site, a_host) = lab.home("a", NatKind::EimApdf).await?;
        let (b_site, b_host) = lab.home("b", NatKind::EimApdf).await?;
        let addresses = |relay: &Relay| relay.addresses(&b_host, &[transport]);
        let relays = [addresses(&first), addresses(&second)].concat();
        let b = NodeArgs::with_relays(relays, &[transport]).run_on(&b_host, "b")?;
        // The circuit is to stay.
        let b = b.env("P2PNODE_RESERVATIONS", "1").env(PUNCH, "false");
        let b = b.reserves(&b_host).await?;
        // The one that was there first has it.
        if b.process.event("reserved", PATIENCE).await?.text("/relay") == second.id {
            std::mem::swap(&mut first, &mut second);
        }
        let circuit = Self {
            dial: start_dial("a", &first, &a_host, transport, &b.id)?,
            first,
            second,
            a_host,
            b,
            _sites: [a_site, b_site],
            _lab: lab,
        };
        circuit.pings().await?;
        Ok(circuit)
    }

    async fn pings(&self) -> Result<()> {
        let seen = self.dial.events().len();
        let ping = self.dial.event_after(seen, "ping", PATIENCE).await?;
        ping.has(&json!({"kind": "relayed"}))
    }

    async fn drains(&self) -> Result<()> {
        self.first.process.terminate()?;
        let missing = admin::readiness(&self.first.host, 503).await?;
        ensure!(missing.contains("\ndraining: "), "{missing}");
        Ok(())
    }
}

fn start_dial(
    name: &str,
    relay: &Relay,
    host: &Host,
    transport: Transport,
    peer: &str,
) -> Result<Process> {
    let dial = relay.dial(name, host, &[transport], peer)?;
    let dial = dial.args(["--until", "connected", "--count", "1000"]);
    dial.env(PUNCH, "false").on(host)
}

async fn place(node: &Node, name: &str, relay: &str) -> Result<usize> {
    let is_it = |event: &Event| event.name() == name && event.text("/relay") == relay;
    let look = |events: &[Event]| events.iter().position(is_it);
    node.process.until(name, PATIENCE, look).await
}

async fn drains(transport: Transport) -> Result<()> {
    let mut circuit = Circuit::new(transport, "10s").await?;
    circuit.drains().await?;
    // B receives the notice, and has the next reservation while it still has the first.
    let moved = place(&circuit.b, "reserved", &circuit.second.id).await?;

    // The circuit goes on, and no other one is taken: a new dialer finds B where it is now.
    circuit.pings().await?;
    let around = start_dial(
        "around",
        &circuit.first,
        &circuit.a_host,
        transport,
        &circuit.b.id,
    )?;
    let connected = around.event("connected", PATIENCE).await?;
    let path = json!({"relay": circuit.second.id});
    connected.has(&json!({"path": path, "found_by": "registered"}))?;
    drop(around);
    let metrics = admin::metrics(&circuit.first.host).await?;
    metrics.is("relay_draining", &[], 1.0)?;
    let denied = metrics.sum("relay_denied_total", &[("reason", "draining")]);
    ensure!(denied >= 1.0, "{metrics:?}");

    // It is there until the end, which is a clean one.
    let status = circuit.first.process.exit(PATIENCE).await?;
    let log = circuit.first.process.log();
    ensure!(status.code() == Some(0), "{status}: {log}");
    for logged in ["waiting for circuits to end", "closing"] {
        let line = log.lines().find(|line| line.contains(logged));
        let with_one = line.is_some_and(|line| line.contains("circuits=1"));
        ensure!(
            with_one,
            "{logged:?} with one circuit is not in the log: {log}"
        );
    }
    let lost = place(&circuit.b, "reservation_lost", &circuit.first.id).await?;
    ensure!(moved < lost, "B held no reservation for a while");
    circuit.b.process.events()[lost].has(&json!({"cause": "closed"}))?;
    Ok(())
}

async fn second_signal() -> Result<()> {
    let mut circuit = Circuit::new(Transport::Quic, "1h").await?;
    circuit.drains().await?;
    ensure!(
        circuit.first.process.is_alive()?,
        "one signal ends it at once"
    );
    circuit.first.process.terminate()?;
    let status = circuit.first.process.exit(PATIENCE).await?;
    // By the shell's convention: 128 + SIGTERM.
    ensure!(status.code() == Some(143), "{status}");
    Ok(())
}
