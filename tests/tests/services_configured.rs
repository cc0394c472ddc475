//! Services and forwards of the configuration: what a restart, a reload, a better path and many clients mean for their sessions.

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN, Exposition},
    carry::{
        AGAIN, BYTES, DATAGRAM_TARGET, DATAGRAMS, Datagrams, Echo, LISTEN, MOVES, OPENS, SESSIONS,
        TARGET, Traffic, command, exits,
    },
    faults,
    node::Launch,
    prelude::*,
};

lab_tests! {
    a_serving_node_that_was_killed_resets_its_sessions_as_soon_as_it_is_back: killed();
    forwards_and_services_of_the_configuration_are_there_without_a_command: configured();
    sessions_outlive_a_file_that_is_empty_or_cut_short_and_a_removal_takes_effect: cut_short();
    a_raw_stream_that_began_over_the_relay_outlives_the_punch: raw();
    clients_that_take_all_places_of_a_forward_leave_the_node_its_files: few_files();
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
        "services:\n  echo: {{ target: \"{TARGET}\", allow: any }}\n  query: {{ target: \"{DATAGRAM_TARGET}\", allow: any }}\n"
    );
    let b = configured_with(prepared, "b", host, &services)?;
    b.reserves(host).await
}

async fn configured_pair(prepared: &Prepared) -> Result<(Node, Node)> {
    Echo::on(&prepared.b.host)?;
    let b = serving(prepared).await?;
    let host = &prepared.a.host;
    let forwards = format!(
        "peers: {{ west: {{ id: {} }} }}\n\
         forwards: [ {{ listen: \"{LISTEN}\", to: echo@west }}, {{ listen: \"{DATAGRAMS}\", to: query@west }} ]\n",
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
    Datagrams::answers_on(&b.host)?;
    let mut datagrams = Datagrams::start(&a.host).await?;
    datagrams.answered().await?;
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
        let services = format!(
            "services:\n  echo: {{ target: \"{TARGET}\", allow: {who} }}\n  query: {{ target: \"{DATAGRAM_TARGET}\", allow: {who} }}\n"
        );
        std::fs::write(&file, services)
    };
    // What changes elsewhere keeps its sessions.
    allow(&format!("[{}, {stranger}]", a.id))?;
    b.process
        .logged("read the configuration again", AGAIN)
        .await?;
    traffic.carries(1 << 20).await?;
    datagrams.answered().await?;
    allow(stranger)?;
    for service in ["echo", "query"] {
        let ended = logs(service, "the peer no longer allows this node");
        a.process.log_until(service, AGAIN, ended).await?;
    }
    ensure!(traffic.end().is_err(), "the client saw no reset");
    // The next datagram would be another flow.
    datagrams.send(100).await?;
    let refused = logs("query", "the peer has no such service for this node");
    a.process
        .log_until("a refused flow", AGAIN, refused)
        .await?;
    ensure!(!datagrams.has_more(), "a datagram was answered");
    for side in [&prepared.a, &prepared.b] {
        side.keeps_range().await?;
    }
    Ok(())
}

/// The files of both nodes are empty, lack their last line, and are whole again. Then one loses a service on purpose.
async fn cut_short() -> Result<()> {
    let prepared = Running::homes().over(&[Transport::Quic]).prepare().await?;
    let (b, a) = configured_pair(&prepared).await?;
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    let (held, empty) = ("some keys are missing", "sets no key");
    let again = "read the configuration again";
    for (node, side, name) in [(&a, &prepared.a, "a"), (&b, &prepared.b, "b")] {
        let file = side.host.file(&format!("{name}.yaml"));
        let whole = std::fs::read_to_string(&file)?;
        let lines = whole.trim_end().rsplit_once('\n');
        let (beginning, _) = lines.context("several lines")?;
        for (count, (text, says)) in [("", empty), (beginning, held)].into_iter().enumerate() {
            std::fs::write(&file, text)?;
            node.process.logged(says, AGAIN).await?;
            // An empty file may stay.
            if text.is_empty() {
                traffic.carries(1 << 20).await?;
            }
            std::fs::write(&file, &whole)?;
            let is_read = times(again, count + 1);
            node.process
                .log_until("the whole file", AGAIN, is_read)
                .await?;
        }
        traffic.carries(1 << 20).await?;
    }
    // A removal waits until the file has stayed as it is, and SIGHUP does not.
    let gone = "the service or the forward of the peer is gone";
    let file = prepared.b.host.file("b.yaml");
    std::fs::write(
        &file,
        std::fs::read_to_string(&file)?.replace("echo:", "other:"),
    )?;
    b.process.logged("services.echo", AGAIN).await?;
    a.process.logged(gone, AGAIN).await?;
    ensure!(traffic.end().is_err(), "the client saw no reset");
    let log = b.process.log();
    ensure!(log.contains("a file has stayed as it is"), "{log}");
    std::fs::write(prepared.a.host.file("a.yaml"), "reservations: 1\n")?;
    a.process.reload()?;
    a.process
        .logged("SIGHUP: read the configuration", AGAIN)
        .await?;
    let status = a.control.status().await?;
    ensure!(status["forwards"] == json!([]), "{status}");
    Ok(())
}

/// The log has a line with `part` so many times.
fn times(part: &'static str, count: usize) -> impl Fn(&[Event]) -> Option<()> {
    move |lines| {
        let with = lines.iter().filter(|line| line.line.contains(part));
        (with.count() >= count).then_some(())
    }
}

/// A line of the log about a service.
fn logs(service: &'static str, says: &'static str) -> impl Fn(&[Event]) -> Option<()> {
    let of = format!("service=\"{service}\"");
    move |lines| {
        let is_it = |line: &Event| line.line.contains(says) && line.line.contains(&of);
        lines.iter().any(is_it).then_some(())
    }
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
    let east = east.env(ADMIN_LISTEN, ADMIN).reserves(&b.host).await?;
    let forward = format!(
        "forwards: [ {{ listen: \"{LISTEN}\", to: /x/echo@{} }} ]\n",
        east.id
    );
    let west = configured_with(&prepared, "a", &a.host, &forward)?;
    let west = west.env(ADMIN_LISTEN, ADMIN).runs(&a.host).await?;
    let traffic = Traffic::start(&a.host)?;
    traffic.carries(1 << 20).await?;
    for (node, role) in [(&west, "forward"), (&east, "service")] {
        let labels = [("role", role), ("service", "other"), ("kind", "relayed")];
        let read = admin::metrics(&node.host).await?;
        read.is(SESSIONS, &labels, 1.0)?;
        read.is(OPENS, &labels[..2], 1.0)?;
    }
    a.site.mend()?;
    west.dial("dial", &east.id).await?.is("direct")?;
    // It takes some 8 s. A circuit without a stream closes after 5 s.
    traffic.carries(64 << 20).await?;
    let bytes = traffic.end()? as f64;
    for node in [&west, &east] {
        let is_over = |read: &Exposition| {
            let open = read.sum(SESSIONS, &[]);
            (open == 0.0).then(|| read.clone())
        };
        let read = admin::until(&node.host, "no session", is_over).await?;
        for way in ["in", "out"] {
            read.is(BYTES, &[("service", "other"), ("direction", way)], bytes)?;
        }
        read.is(MOVES, &[], 0.0)?;
        let named = [OPENS, BYTES].map(|name| read.sum(name, &[("service", "echo")]));
        ensure!(named == [0.0; 2], "the raw name is counted: {named:?}");
    }
    let no_circuit = |status: &Value| {
        let circuits = control::paths(status, &east.id, "relayed");
        circuits.is_empty().then_some(())
    };
    west.until("the end of the circuit", AGAIN, no_circuit)
        .await
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
