//! Services of one node at another: over a relay, directly, and over what comes after a path is lost.

use p2pnode_tests::{
    carry::{AGAIN, Echo, LISTEN, TARGET, Traffic},
    faults,
    node::Launch,
    prelude::*,
    schema,
};

lab_tests! {
    a_connection_lives_while_its_path_is_relayed_direct_cut_and_direct_again_and_nothing_is_lost: survives(Transport::Quic);
    over_tcp_a_connection_lives_as_well_with_bulk_data_on_the_path_that_is_cut: survives(Transport::Tcp);
    what_a_peer_may_not_use_looks_like_what_is_not_there: access();
    a_serving_node_that_was_killed_resets_its_sessions_as_soon_as_it_is_back: killed();
    forwards_and_services_of_the_configuration_are_there_without_a_command: configured();
    a_raw_stream_that_began_over_the_relay_outlives_the_punch: raw();
    each_session_that_a_command_has_reported_open_gets_its_end_however_the_command_ends: ends_reported();
    clients_that_take_all_places_of_a_forward_leave_the_node_its_files: few_files();
}

fn command(node: &Node, name: &str, args: &[&str]) -> Result<Process> {
    node.control.command(name, args).on(&node.host)
}

fn state(wanted: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.name() == "session" && event.text("/state") == wanted
}

struct Served {
    both: Both,
    forward: Process,
    serve: Process,
}

async fn served(both: Both) -> Result<Served> {
    Echo::on(&both.b.host)?;
    let args = ["serve", "echo", TARGET, "--allow", &both.a.id, "--json"];
    let serve = command(&both.b, "serve", &args)?;
    serve.event("serving", PATIENCE).await?;
    let to = format!("echo@{}", both.b.id);
    let forward = command(
        &both.a,
        "forward",
        &["forward", &to, "--listen", LISTEN, "--json"],
    )?;
    let listening = forward.event("listening", PATIENCE).await?;
    listening.has(&json!({"listen": LISTEN, "to": to}))?;
    Ok(Served {
        both,
        forward,
        serve,
    })
}

async fn survives(transport: Transport) -> Result<()> {
    let both = Running::homes().over(&[transport]).start().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    // The first path is relayed for as long as the test wants.
    both.a_side.site.cut(&[faults::Traffic::With(b_outside)])?;
    let Served {
        both,
        forward,
        serve,
    } = served(both).await?;
    let traffic = Traffic::start(&both.a.host)?;
    let opened = forward.first("an open session", 0, state("opened")).await?;
    opened.has(&json!({"role": "forward", "service": "echo", "peer": both.b.id, "kind": "relayed", "reason": null}))?;
    traffic.carries(4 << 20).await?;
    // Direct: the session moves without a pause.
    both.a_side.site.mend()?;
    both.dial().await?;
    let moved = forward
        .first("a session that moved", 0, state("moved"))
        .await?;
    moved.has(&json!({"session": opened.json["session"], "kind": "direct", "transport": transport.name()}))?;
    traffic.carries(4 << 20).await?;
    // Cut: it goes on over the relay.
    let seen = forward.events().len();
    both.a_side.site.cut(&[faults::Traffic::With(b_outside)])?;
    let back = |event: &Event| event.name() == "session" && event.text("/kind") == "relayed";
    forward
        .first("a session that is back on a relay", seen, back)
        .await?;
    traffic.carries(4 << 20).await?;
    if transport == Transport::Tcp {
        // The ends of the old connection are given up by then, and the NATs know it still.
        let is_failed = |event: &Event| event.text("/outcome") == "failed";
        let seen = both.a.seen();
        both.a
            .process
            .first("a failed punch", seen, is_failed)
            .await?;
    }
    // And back.
    let seen = forward.events().len();
    both.a_side.site.mend()?;
    both.a.direct(&both.b.id, AGAIN).await?;
    let direct = |event: &Event| event.name() == "session" && event.text("/kind") == "direct";
    forward
        .first("a session that is direct again", seen, direct)
        .await?;
    traffic.carries(8 << 20).await?;
    for event in forward.events().iter().chain(&serve.events()) {
        schema::validate("service-events", &event.json)?;
    }
    let [ours, theirs] = [&forward, &serve].map(changes);
    ensure!(ours == theirs, "{ours:?}, and the service: {theirs:?}");
    let status = both
        .a
        .control
        .json(&["status", "--json", "--sessions"])
        .await?;
    ensure!(
        status["sessions"][0]["kind"] == "direct" && status["forwards"][0]["sessions"] == 1,
        "{status}"
    );
    let bytes = traffic.end()?;
    let closed = forward
        .first("the end of the session", seen, state("closed"))
        .await?;
    closed.has(&json!({"bytes_in": bytes, "bytes_out": bytes, "reason": null}))
}

/// How the session came to each of its paths.
fn changes(command: &Process) -> Vec<(String, String)> {
    let events = command.events();
    let sessions = events.iter().filter(|event| event.name() == "session");
    let change = |event: &Event| {
        ["/state", "/kind"]
            .map(|at| event.text(at).to_owned())
            .into()
    };
    sessions.map(change).collect()
}

async fn exits(mut process: Process, code: i32) -> Result<String> {
    let status = process.exit(AGAIN).await?;
    let log = process.log();
    ensure!(
        status.code() == Some(code),
        "{status}, and not {code}: {log}"
    );
    Ok(log)
}

async fn access() -> Result<()> {
    let both = Running::homes().over(&[Transport::Quic]).start().await?;
    let stranger = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    let Served {
        both,
        serve: _serve,
        ..
    } = served(both).await?;
    let args = ["serve", "secret", TARGET, "--allow", stranger, "--json"];
    let secret = command(&both.b, "secret", &args)?;
    secret.event("serving", PATIENCE).await?;
    let mut reasons = Vec::new();
    for name in ["secret", "nothing"] {
        let to = format!("{name}@{}", both.b.id);
        let connect = command(&both.a, name, &["connect", &to])?;
        // What differs is the name and the session, whose id has eight digits.
        let log = exits(connect, 5).await?.replace(name, "it");
        reasons.push(log.chars().skip(8).collect::<String>());
    }
    ensure!(reasons[0] == reasons[1], "{reasons:?}");
    let listed = both
        .a
        .control
        .json(&["services", &both.b.id, "--json"])
        .await?;
    let echo = json!([{"name": "echo", "kind": "tcp", "protocol": null}]);
    ensure!(listed["services"] == echo, "{listed}");
    schema::validate("services", &listed)?;
    let gone = command(&both.a, "gone", &["connect", &format!("echo@{stranger}")])?;
    exits(gone, 4).await?;
    Ok(())
}

async fn killed() -> Result<()> {
    let prepared = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let (mut b, a) = configured_pair(&prepared).await?;
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    b.process.kill().await?;
    let b = serving(&prepared).await?;
    a.process.logged("the peer was restarted", AGAIN).await?;
    ensure!(traffic.end().is_err(), "the client saw no reset");
    // Its next client gets a session with the new process.
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    traffic.end()?;
    drop(b);
    Ok(())
}

/// A node that is to run with this configuration.
fn configured_with(prepared: &Prepared, name: &str, host: &Host, text: &str) -> Result<Launch> {
    let file = host.file(&format!("{name}.yaml"));
    std::fs::write(&file, text)?;
    let node = prepared.relay.run(name, host, &[Transport::Quic])?;
    Ok(node.arg("--config").arg(file))
}

async fn serving(prepared: &Prepared) -> Result<Node> {
    let host = &prepared.b.host;
    let services = format!(
        "services:\n  echo: {{ target: \"{TARGET}\", allow: any }}\n  query: {{ target: \"udp://127.0.0.1:53\", allow: any }}\n"
    );
    let b = configured_with(prepared, "b", host, &services)?;
    b.reserves(host).await
}

async fn configured_pair(prepared: &Prepared) -> Result<(Node, Node)> {
    Echo::on(&prepared.b.host)?;
    let b = serving(prepared).await?;
    let host = &prepared.a.host;
    let forwards = format!(
        "peers: {{ west: {{ id: {} }} }}\nforwards: [ {{ listen: \"{LISTEN}\", to: echo@west }} ]\n",
        b.id
    );
    let a = configured_with(prepared, "a", host, &forwards)?;
    let a = a.runs(host).await?;
    // Nobody dials, and there is a direct path.
    a.direct(&b.id, AGAIN).await?;
    Ok((b, a))
}

/// Commands know the names of the running node. A reload takes the service away from its only caller, and gives it back.
async fn configured() -> Result<()> {
    let prepared = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let (b, a) = configured_pair(&prepared).await?;
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    let status = b.control.status().await?;
    ensure!(
        status["services"][0]["name"] == "echo" && status["services"][0]["sessions"] == 1,
        "{status}"
    );
    let listed = a.control.json(&["services", "west", "--json"]).await?;
    ensure!(listed["peer"] == b.id.as_str(), "{listed}");
    for (name, code, says) in [
        ("echo@east", 2, "the running node knows west"),
        ("query@west", 5, "the service takes datagrams"),
    ] {
        let log = exits(command(&a, name, &["connect", name])?, code).await?;
        ensure!(log.contains(says), "{name}: {log}");
    }
    let stranger = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    let file = prepared.b.host.file("b.yaml");
    let allow = |who: &str| {
        let services = format!("services: {{ echo: {{ target: \"{TARGET}\", allow: {who} }} }}\n");
        std::fs::write(&file, services)
    };
    // What changes elsewhere keeps its sessions.
    allow(&format!("[{}, {stranger}]", a.id))?;
    b.process
        .logged("read the configuration again", AGAIN)
        .await?;
    traffic.carries(1 << 20).await?;
    allow(stranger)?;
    a.process
        .logged("the peer no longer allows this node", AGAIN)
        .await?;
    ensure!(traffic.end().is_err(), "the client saw no reset");
    for side in [&prepared.a, &prepared.b] {
        side.keeps_range().await?;
    }
    Ok(())
}

/// The circuit is there as long as the stream is on it, and closes behind it.
async fn raw() -> Result<()> {
    let prepared = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let (a, b) = (&prepared.a, &prepared.b);
    let b_outside = b.site.outside_ip4().context("B's address")?;
    a.site.cut(&[faults::Traffic::With(b_outside)])?;
    Echo::on(&b.host)?;
    let service = format!(
        "services: {{ echo: {{ target: \"{TARGET}\", allow: any, protocol: /x/echo }} }}\n"
    );
    let east = configured_with(&prepared, "b", &b.host, &service)?;
    let east = east.reserves(&b.host).await?;
    let forward = format!(
        "forwards: [ {{ listen: \"{LISTEN}\", to: /x/echo@{} }} ]\n",
        east.id
    );
    let west = configured_with(&prepared, "a", &a.host, &forward)?;
    let west = west.runs(&a.host).await?;
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    a.site.mend()?;
    west.dial("dial", &east.id).await?.is("direct")?;
    // It takes some 8 s. A circuit without a stream closes after 5 s.
    traffic.carries(64 << 20).await?;
    traffic.end()?;
    let no_circuit = |status: &Value| {
        let circuits = control::paths(status, &east.id, "relayed");
        circuits.is_empty().then_some(())
    };
    west.until("the end of the circuit", AGAIN, no_circuit)
        .await
}

/// Waits for the end of the one session of a command that has ended with `code`, and that carried at least `bytes`.
async fn closed(mut command: Process, code: i32, bytes: u64) -> Result<String> {
    let status = command.exit(AGAIN).await?;
    ensure!(status.code() == Some(code), "{status}: {}", command.log());
    let events = command.events();
    let last = |name: &str| events.iter().rfind(|event| state_is(event, name));
    let (opened, closed) = (last("opened").context("it opened")?, last("closed"));
    let closed = closed.with_context(|| format!("no end of {}", opened.line))?;
    closed.has(&json!({"session": opened.json["session"], "service": "echo"}))?;
    schema::validate("service-events", &closed.json)?;
    for way in ["bytes_in", "bytes_out"] {
        let carried = closed.json[way].as_u64().unwrap_or_default();
        ensure!(carried >= bytes, "{way}: {}", closed.line);
    }
    Ok(closed.text("/reason").to_owned())
}

fn state_is(event: &Event, name: &str) -> bool {
    event.name() == "session" && event.text("/state") == name
}

async fn ends_reported() -> Result<()> {
    const BYTES: u64 = 1 << 20;
    let both = Running::homes().over(&[Transport::Quic]).start().await?;
    Echo::on(&both.b.host)?;
    let offer = async |name: &str| {
        let args = ["serve", "echo", TARGET, "--allow", "any", "--json"];
        let serve = command(&both.b, name, &args)?;
        serve.event("serving", PATIENCE).await?;
        anyhow::Ok(serve)
    };
    let (host, to) = (&both.a.host, format!("echo@{}", both.b.id));
    let bring = ["forward", &to, "--listen", LISTEN, "--json"];
    let open = async |command: &Process, seen: usize| {
        let traffic = Traffic::start(host)?;
        let opened = command.first("a session", seen, state("opened"));
        opened.await?;
        traffic.carries(BYTES).await?;
        anyhow::Ok(traffic)
    };
    let serve = offer("serve").await?;
    let relays = both.relay.addresses(host, &[Transport::Quic]);
    let own = Launch::new("own", bins()?.p2pnode).args(bring);
    let own = own.args(["--standalone", "--port-range", "46000-46009"]);
    let own = own.args(["--relay", &relays[0]]);
    let through = both.a.control.command("forward", &bring);
    for launch in [through, own] {
        let forward = launch.on(host)?;
        forward.event("listening", PATIENCE).await?;
        let traffic = open(&forward, 0).await?;
        forward.terminate()?;
        closed(forward, 0, BYTES).await?;
        traffic.is_reset(AGAIN).await?;
    }
    // The side of the service: the command ends, and then its node is gone.
    let forward = both.a.control.command("again", &bring).on(host)?;
    forward.event("listening", PATIENCE).await?;
    let traffic = open(&forward, 0).await?;
    serve.terminate()?;
    closed(serve, 0, BYTES).await?;
    traffic.is_reset(AGAIN).await?;
    let serve = offer("serve-again").await?;
    let _traffic = open(&forward, forward.events().len()).await?;
    let mut node = both.b;
    node.process.kill().await?;
    let reason = closed(serve, 1, 0).await?;
    ensure!(reason == "the node is gone", "{reason}");
    Ok(())
}

/// The clients of one forward ask for more files than its node may have open.
async fn few_files() -> Result<()> {
    const FILES: u32 = 60;
    let prepared = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let (a, b) = (&prepared.a.host, &prepared.b.host);
    Echo::on(b)?;
    let east = serving(&prepared).await?;
    let forward = |port| {
        format!(
            "{{ listen: \"tcp://127.0.0.1:{port}\", to: echo@{} }}",
            east.id
        )
    };
    let forwards = format!("forwards: [ {}, {} ]\n", forward(7000), forward(7002));
    let west = configured_with(&prepared, "a", a, &forwards)?;
    let west = west.open_files(FILES).runs(a).await?;
    west.direct(&east.id, AGAIN).await?;
    let connect = |port: u16| move || Ok(std::net::TcpStream::connect(("127.0.0.1", port))?);
    let greedy = (0..2 * FILES).map(|_| a.device.run_sync(connect(7000)));
    let greedy = greedy.collect::<Result<Vec<_>>>()?;
    west.process
        .logged("hold as many files as they may", AGAIN)
        .await?;
    // The node answers, and another forward has its part.
    let forwards = |status: &Value| {
        let sessions = status["forwards"][0]["sessions"].as_u64();
        sessions.filter(|sessions| *sessions > 4)
    };
    let held = west
        .until("sessions of the greedy", AGAIN, forwards)
        .await?;
    ensure!(held < u64::from(FILES) / 2, "{held} sessions");
    let mut other = a.device.run_sync(connect(7002))?;
    tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        other.set_read_timeout(Some(AGAIN))?;
        other.write_all(b"hello")?;
        Ok::<_, anyhow::Error>(other.read_exact(&mut [0; 5])?)
    })
    .await??;
    let log = west.process.log();
    ensure!(!log.contains("cannot accept"), "{log}");
    // Who waited has its turn.
    drop(greedy);
    let traffic = Traffic::start(a)?;
    traffic.carries(1 << 20).await?;
    traffic.end()?;
    Ok(())
}
