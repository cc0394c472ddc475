//! Peers behind NATs that break the protocol of services, beside a session that keeps to it: nothing of that one is lost.

use p2pnode_tests::{
    admin::{self, ADMIN},
    carry::{AGAIN, Echo, LISTEN, TARGET, Traffic},
    prelude::*,
    stranger,
    usage::memory,
};

lab_tests! {
    a_peer_that_breaks_the_protocol_over_a_relay_is_answered_bounded_and_counted_and_harms_no_session: harmless("relayed", Transport::Tcp);
    a_peer_that_breaks_the_protocol_on_a_direct_path_is_answered_bounded_and_counted_and_harms_no_session: harmless("direct", Transport::Quic);
}

/// What all of it together may add to the memory of a node, in KiB.
const MEMORY: u64 = 48 * 1024;

/// Openings of the flood, as fast as they can be.
const FLOOD: u32 = 2_000;

/// The streams that a stranger may have at once on a connection.
const AT_ONCE: u64 = 16;

/// `violation`, as a reset names it.
const VIOLATION: u64 = 5;

async fn harmless(kind: &str, over: Transport) -> Result<()> {
    let prepared = Running::homes().over(&[over]).prepare().await?;
    Echo::on(&prepared.b.host)?;
    let host = &prepared.b.host;
    let file = host.file("b.yaml");
    let services = format!("services: {{ echo: {{ target: \"{TARGET}\", allow: any }} }}\n");
    std::fs::write(&file, services)?;
    let b = prepared.run("b", host)?;
    let b = b.arg("--config").arg(file);
    let b = b.env("P2PNODE_ADMIN_LISTEN", ADMIN).reserves(host).await?;
    let a = prepared.run("a", &prepared.a.host)?;
    let a = a.runs(&prepared.a.host).await?;
    let to = format!("echo@{}", b.id);
    let args = ["forward", &to, "--listen", LISTEN, "--json"];
    let forward = a.control.command("forward", &args).on(&a.host)?;
    forward.event("listening", PATIENCE).await?;
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    a.direct(&b.id, AGAIN).await?;
    let before = memory(b.process.pid())?;

    let (_site, home) = prepared.lab.home("stranger", NatKind::EimApdf).await?;
    let relay = prepared.relay.address(&home, over)?;
    let listen = over.addr("0.0.0.0", 40025);
    let times = FLOOD.to_string();
    let args = [
        "--listen", &listen, "--times", &times, "services", &b.id, "echo", kind,
    ];
    let hostile = stranger::launch("stranger")?
        .args(["--relay", &relay])
        .args(args);
    let hostile = hostile.on(&home)?;
    let id = hostile
        .event("connected", AGAIN)
        .await?
        .text("/id")
        .to_owned();
    let on_path = |status: &Value| {
        let paths = control::paths(status, &id, kind);
        (!paths.is_empty()).then_some(())
    };
    b.until("the stranger's path", PATIENCE, on_path).await?;
    let abused = hostile.event("abused", AGAIN * 3).await?;
    answered(&abused.json["answers"])?;
    let flood = &abused.json["flood"];
    // Accepted, refused, not answered, and ended with their connection: of two direct ones of a plain peer the node closes one.
    let [accepted, refused, silent, ended] = [0, 1, 2, 3].map(|index| flood[index].as_u64());
    ensure!(
        accepted > Some(0) && refused.is_some() && silent == Some(0) && ended <= Some(AT_ONCE),
        "{flood}"
    );

    // The session beside it has missed nothing, and goes on.
    traffic.carries(4 << 20).await?;
    let bytes = traffic.end()?;
    let closed = |event: &Event| event.name() == "session" && event.text("/state") == "closed";
    let closed = forward.first("the end of the session", 0, closed).await?;
    closed.has(&json!({"bytes_in": bytes, "bytes_out": bytes, "reason": null}))?;
    for violation in ["offset", "confirmation", "order", "frame", "resume"] {
        let labels = [("kind", violation)];
        let counted = |read: &admin::Exposition| {
            let count = read.sum("p2pnode_session_violations_total", &labels);
            (count > 0.0).then_some(())
        };
        admin::until(host, violation, counted).await?;
    }
    let grown = memory(b.process.pid())?.saturating_sub(before);
    ensure!(grown < MEMORY, "memory grew by {grown} KiB");
    let log = b.process.log();
    ensure!(!log.contains("panicked"), "{log}");
    // And the next one is served.
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    traffic.end()?;
    prepared.b.keeps_range().await
}

fn answered(answers: &Value) -> Result<()> {
    let expected = json!({
        "an end behind a gap": {"reset": VIOLATION},
        "an end of everything": {"reset": VIOLATION},
        "an opening in a session": {"reset": VIOLATION},
        "a confirmation of what was never sent": {"reset": VIOLATION},
        "a rewind to what was never sent": {"reset": VIOLATION},
        "data behind a gap": {"reset": VIOLATION},
        "data beyond the limit": {"reset": VIOLATION},
        // What is no frame ends the stream.
        "an opening that is no message": "ended",
        "an unknown frame": "ended",
        "data without a byte": "ended",
        "a greeting of another process": {"frame": 12},
        "an opening of an earlier process": {"refused": 3},
        "an unknown service": {"refused": 1},
        "no opening": {"refused": 5},
        "resume of another peer's session": {"refused": 3},
        "resume of no session": {"refused": 3},
        "the session that was to be stolen": {"data": 4},
    });
    ensure!(answers == &expected, "{answers}");
    Ok(())
}
