//! Services of one node at another: over a relay, directly, and over what comes after a path is lost.

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN, Exposition},
    carry::{
        AGAIN, BYTES, DATAGRAM_TARGET, DATAGRAMS, Datagrams, Echo, LISTEN, MOVES, OPENS, SESSIONS,
        TARGET, Traffic, command, exits,
    },
    faults,
    node::Launch,
    prelude::*,
    schema,
};

lab_tests! {
    a_connection_lives_while_its_path_is_relayed_direct_cut_and_direct_again_and_nothing_is_lost: survives(Transport::Quic);
    over_tcp_a_connection_lives_as_well_with_bulk_data_on_the_path_that_is_cut: survives(Transport::Tcp);
    what_a_peer_may_not_use_looks_like_what_is_not_there: access();
    each_session_that_a_command_has_reported_open_gets_its_end_however_the_command_ends: ends_reported();
}

fn state(wanted: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.name() == "session" && event.text("/state") == wanted
}

/// A service of B that A has brought.
struct Brought {
    name: &'static str,
    forward: Process,
    serve: Process,
}

impl Brought {
    async fn new(both: &Both, name: &'static str, target: &str, listen: &str) -> Result<Self> {
        let args = ["serve", name, target, "--allow", &both.a.id, "--json"];
        let serve = command(&both.b, &format!("serve-{name}"), &args)?;
        serve.event("serving", PATIENCE).await?;
        let to = format!("{name}@{}", both.b.id);
        let args = ["forward", &to, "--listen", listen, "--json"];
        let forward = command(&both.a, &format!("forward-{name}"), &args)?;
        let listening = forward.event("listening", PATIENCE).await?;
        listening.has(&json!({"listen": listen, "to": to}))?;
        Ok(Self {
            name,
            forward,
            serve,
        })
    }

    fn seen(&self) -> usize {
        self.forward.events().len()
    }

    /// Waits until its session is on a path of this kind, reported behind `seen`.
    async fn is_on(&self, kind: &str, seen: usize) -> Result<Event> {
        let what = format!("a session of {} that is {kind}", self.name);
        let is_on = |event: &Event| {
            let has_path = matches!(event.text("/state"), "opened" | "moved" | "resumed");
            has_path && event.text("/kind") == kind
        };
        self.forward.first(&what, seen, is_on).await
    }

    /// How many sessions were reported so.
    fn reported(&self, state: &str) -> usize {
        let events = self.forward.events();
        let states = events.iter().filter(|event| event.text("/state") == state);
        states.count()
    }
}

async fn echo(both: &Both) -> Result<Brought> {
    Echo::on(&both.b.host)?;
    Brought::new(both, "echo", TARGET, LISTEN).await
}

async fn survives(transport: Transport) -> Result<()> {
    let prepared = Running::homes().over(&[transport]).prepare().await?;
    let prepared = prepared.a_env(ADMIN_LISTEN, ADMIN);
    let both = prepared.b_env(ADMIN_LISTEN, ADMIN).start().await?;
    let b_outside = both.b_side.site.outside_ip4().context("B's address")?;
    // The first path is relayed for as long as the test wants.
    both.a_side.site.cut(&[faults::Traffic::With(b_outside)])?;
    let echo = echo(&both).await?;
    Datagrams::answers_on(&both.b.host)?;
    let query = Brought::new(&both, "query", DATAGRAM_TARGET, DATAGRAMS).await?;
    let traffic = Traffic::start(&both.a.host)?;
    let opened = echo.is_on("relayed", 0).await?;
    opened.has(&json!({"state": "opened", "role": "forward", "service": "echo", "peer": both.b.id, "reason": null}))?;
    traffic.carries(4 << 20).await?;
    let mut datagrams = Datagrams::start(&both.a.host).await?;
    datagrams.answered().await?;
    query.is_on("relayed", 0).await?;
    // Direct: the session moves without a pause.
    both.a_side.site.mend()?;
    both.dial().await?;
    let moved = echo.is_on("direct", 0).await?;
    moved.has(&json!({"state": "moved", "session": opened.json["session"], "transport": transport.name()}))?;
    traffic.carries(4 << 20).await?;
    let moved = query.is_on("direct", 0).await?;
    moved.has(&json!({"transport": transport.name()}))?;
    datagrams.answered().await?;
    // Cut: it goes on over the relay.
    let seen = [&echo, &query].map(Brought::seen);
    both.a_side.site.cut(&[faults::Traffic::With(b_outside)])?;
    echo.is_on("relayed", seen[0]).await?;
    traffic.carries(4 << 20).await?;
    datagrams.answered().await?;
    query.is_on("relayed", seen[1]).await?;
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
    let seen = [&echo, &query].map(Brought::seen);
    both.a_side.site.mend()?;
    both.a.direct(&both.b.id, AGAIN).await?;
    echo.is_on("direct", seen[0]).await?;
    traffic.carries(8 << 20).await?;
    datagrams.answered().await?;
    query.is_on("direct", seen[1]).await?;
    for event in [&echo, &query]
        .iter()
        .flat_map(|of| of.forward.events().into_iter().chain(of.serve.events()))
    {
        schema::validate("service-events", &event.json)?;
    }
    let [ours, theirs] = [&echo.forward, &echo.serve].map(changes);
    ensure!(ours == theirs, "{ours:?}, and the service: {theirs:?}");
    shown(&both, opened.text("/session")).await?;
    let bytes = traffic.end()?;
    let closed = echo
        .forward
        .first("the end of the session", seen[0], state("closed"))
        .await?;
    closed.has(&json!({"bytes_in": bytes, "bytes_out": bytes, "reason": null}))?;
    counted(&both, &[&echo, &query], bytes).await
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

/// What programs and people see of an open session of `echo`.
async fn shown(both: &Both, session: &str) -> Result<()> {
    for (node, peer) in both.ways() {
        let status = &["status", "--json", "--sessions"];
        let status = node.control.json(status).await?;
        schema::validate("status", &status)?;
        let why = node.control.why(&peer.id).await?;
        schema::validate("why", &why)?;
        for shown in [&status, &why] {
            let mut sessions = shown["sessions"].as_array().into_iter().flatten();
            ensure!(
                sessions.any(|of| of["session"] == session && of["kind"] == "direct"),
                "{shown}"
            );
        }
        for args in [&["status", "--sessions"][..], &["why", &peer.id]] {
            let text = node.control.text(args).await?;
            let mut lines = text.lines();
            let is_it = |line: &str| line.contains(session) && line.contains("direct");
            ensure!(lines.any(is_it), "{args:?}: {text}");
        }
        let (served, names) = match node.id == both.a.id {
            true => ("forwards", ["FORWARD", LISTEN]),
            false => ("services", ["SERVICE", TARGET]),
        };
        let served = status[served].as_array().context("an array")?;
        let is_one = |of: &Value| of["sessions"] == 1;
        ensure!(served.len() == 2 && served.iter().all(is_one), "{status}");
        let text = node.control.text(&["status"]).await?;
        let shows = |name: &&str| text.contains(*name);
        ensure!(names.iter().all(shows), "{text}");
    }
    Ok(())
}

/// The metrics of both nodes behind the end of the session of `echo`, which has moved `bytes` each way.
async fn counted(both: &Both, brought: &[&Brought; 2], bytes: u64) -> Result<()> {
    let reported = |state| {
        let of = brought.iter().map(|brought| brought.reported(state));
        of.sum::<usize>() as f64
    };
    let all = |read: &Exposition| {
        let moves = |outcome| read.sum(MOVES, &[("outcome", outcome)]);
        let is_reported = [
            (read.sum(OPENS, &[("outcome", "opened")]), "opened"),
            (moves("moved"), "moved"),
            (moves("resumed"), "resumed"),
            (
                read.sum("p2pnode_session_pause_seconds_count", &[]),
                "resumed",
            ),
        ];
        let mut is_reported = is_reported.iter();
        let is_over = read.sum(SESSIONS, &[("service", "echo")]) == 0.0;
        let counts = is_reported.all(|(count, state)| *count == reported(*state));
        (counts && is_over).then(|| read.clone())
    };
    let a = admin::until(&both.a.host, "what was reported", all).await?;
    let is_over = |read: &Exposition| {
        let open = read.sum(SESSIONS, &[("service", "echo")]);
        (open == 0.0).then(|| read.clone())
    };
    let b = admin::until(&both.b.host, "no session", is_over).await?;
    for (read, role) in [(&a, "forward"), (&b, "service")] {
        let query = [("role", role), ("service", "query")];
        let direct = ("kind", "direct");
        read.is(SESSIONS, &[query[0], query[1], direct], 1.0)?;
        read.is(SESSIONS, &query, 1.0)?;
        let echo = [("role", role), ("service", "echo")];
        read.is(OPENS, &echo, 1.0)?;
        let of = |service, way| {
            read.sum(
                BYTES,
                &[("role", role), ("service", service), ("direction", way)],
            )
        };
        let each_way = [of("echo", "in"), of("echo", "out")];
        ensure!(
            each_way == [bytes as f64; 2],
            "{role}: {each_way:?}, not {bytes}"
        );
        let (asked, answered) = match role {
            "forward" => (of("query", "out"), of("query", "in")),
            _ => (of("query", "in"), of("query", "out")),
        };
        ensure!(
            asked > answered && answered > 0.0,
            "{role}: {asked} {answered}"
        );
        let moves = |from, to| read.sum(MOVES, &[("from", from), ("to", to)]);
        let (better, worse) = (moves("relayed", "direct"), moves("direct", "relayed"));
        ensure!(better >= 2.0 && worse >= 1.0, "{role}: {:?}", read.samples);
        read.is(MOVES, &[("outcome", "lost")], 0.0)?;
    }
    Ok(())
}

async fn access() -> Result<()> {
    let both = Running::homes().over(&[Transport::Quic]).start().await?;
    let stranger = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    let _echo = echo(&both).await?;
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
