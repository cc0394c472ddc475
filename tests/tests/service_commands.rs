//! `serve`, `forward`, `connect` and `services` as a script and as a person see them: exit codes, errors, progress.

use p2pnode_tests::{
    carry::{AGAIN, Echo, LISTEN, TARGET, Traffic},
    prelude::*,
    services::{Configs, Servers},
};

lab_tests! {
    commands_end_with_the_code_and_the_reason_of_the_table_through_a_node_and_standalone: codes();
    a_terminal_shows_totals_on_one_line_that_fits_and_a_pipe_shows_none: progress();
}

const NOBODY: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

const SERVICES: &str = "services:\n  \
    echo: { target: tcp://127.0.0.1:7001, allow: any }\n  \
    query: { target: udp://127.0.0.1:7001, allow: any }\n  \
    dead: { target: tcp://127.0.0.1:9, allow: any }\n  \
    secret: { target: tcp://127.0.0.1:7001, allow: [stranger] }\n";

/// What both ways give: a command, its exit code, and what it prints.
const TABLE: [(&str, i32, &str); 14] = [
    ("connect echo@server", 0, ""),
    (
        "connect secret@server",
        5,
        "the peer has no such service for this node",
    ),
    (
        "connect nothing@server",
        5,
        "the peer has no such service for this node",
    ),
    ("connect query@server", 5, "the service takes datagrams"),
    (
        "connect dead@server",
        1,
        "the peer's target refused the connection",
    ),
    ("connect echo@gone", 4, "the peer cannot be reached"),
    ("connect echo@nobody", 2, "nobody"),
    ("connect echo", 2, "echo"),
    (
        "forward secret@server --listen tcp://127.0.0.1:7101",
        5,
        "no such service for this node",
    ),
    (
        "forward query@server --listen tcp://127.0.0.1:7102",
        5,
        "listen on udp://",
    ),
    (
        "forward echo@server --listen udp://127.0.0.1:7103",
        5,
        "listen on tcp:// or unix://",
    ),
    (
        "forward echo@server --listen tcp://127.0.0.1",
        2,
        "tcp://127.0.0.1",
    ),
    (
        "services server --json",
        0,
        "\"name\":\"echo\",\"kind\":\"tcp\"",
    ),
    ("services gone", 4, "cannot be reached"),
];

/// A server with [`SERVICES`], and nodes that call it.
async fn start() -> Result<Servers> {
    let configs = Configs {
        server: SERVICES.to_owned(),
        ..Configs::default()
    };
    let lab = Servers::start(Transport::Quic, false, configs).await?;
    Echo::on(&lab.server.host)?;
    // A peer with an address at which nobody is.
    let file = lab.caller.host.file("caller.yaml");
    let at = lab.server.host.ip(false)?;
    let gone =
        format!("gone: {{ id: {NOBODY}, addrs: [/ip4/{at}/udp/4009/quic-v1] }}, own-caller:");
    let config = std::fs::read_to_string(&file)?.replace("own-caller:", &gone);
    std::fs::write(&file, config)?;
    let again = "read the configuration again";
    lab.caller.process.logged(again, PATIENCE).await?;
    Ok(lab)
}

/// The same command with a node of its own, which takes the ports from `first` on.
fn standalone(lab: &Servers, name: &str, args: &[&str], first: u16) -> Result<Launch> {
    let file = |name: &str| lab.caller.host.file(name);
    let (config, key) = (file("caller.yaml"), file(&format!("{name}.key")));
    let range = format!("{first}-{}", first + 9);
    let launch = Launch::new(name, &bins()?.p2pnode).args(args.iter().copied());
    let launch = launch.args(["--standalone", "--port-range", &range, "--config"]);
    Ok(launch.arg(config).arg("--key").arg(key))
}

fn printed(process: &Process) -> String {
    let lines = process.events().into_iter().map(|event| event.line);
    lines.chain([process.log()]).collect::<Vec<_>>().join("\n")
}

async fn ends(mut process: Process, code: i32, says: &str) -> Result<()> {
    let status = process.exit(AGAIN).await?;
    let printed = printed(&process);
    ensure!(
        status.code() == Some(code) && printed.contains(says),
        "{}: {status}, and not {code} with {says:?}: {printed}",
        process.name()
    );
    Ok(())
}

async fn codes() -> Result<()> {
    let lab = start().await?;
    let mut commands = Vec::new();
    for (index, (command, code, says)) in TABLE.into_iter().enumerate() {
        let args: Vec<_> = command.split(' ').collect();
        let name = format!("{}-{index}", args[0]);
        let by_node = lab.caller.control.command(&name, &args);
        let first = 41_000 + 10 * u16::try_from(index)?;
        // Both listen at once.
        let own = command.replace("127.0.0.1:71", "127.0.0.1:72");
        let own: Vec<_> = own.split(' ').collect();
        let own = standalone(&lab, &format!("{name}-own"), &own, first)?;
        for launch in [by_node, own] {
            commands.push((launch.on(&lab.caller.host)?, code, says));
        }
    }
    for (process, code, says) in commands {
        ends(process, code, says).await?;
    }
    lasting(&lab).await
}

/// Commands that last until a signal: a service and forwards, each of a node and standalone, and bytes through them.
async fn lasting(lab: &Servers) -> Result<()> {
    let serve = ["serve", "mine", TARGET, "--allow", "any", "--json"];
    let by_node = lab.server.control.command("serve-by-node", &serve);
    let by_node = by_node.on(&lab.server.host)?;
    by_node.event("serving", PATIENCE).await?;
    let at = format!("/ip4/{}/udp/4002/quic-v1", lab.server.host.ip(false)?);
    let own = [&serve[..], &["--listen", &at]].concat();
    let own = standalone(lab, "serve-own", &own, 42_000)?.on(&lab.server.host)?;
    let serving = own.event("serving", PATIENCE).await?;
    let to = [lab.server.id.clone(), serving.text("/peer_id").to_owned()];
    let config = lab.caller.host.file("caller.yaml");
    let text = std::fs::read_to_string(&config)?;
    let own_peer = format!("alone: {{ id: {}, addrs: [{at}] }}, own-caller:", to[1]);
    std::fs::write(&config, text.replace("own-caller:", &own_peer))?;
    let again = |lines: &[Event]| {
        let says = |line: &&Event| line.line.contains("read the configuration again");
        (lines.iter().filter(says).count() > 1).then_some(())
    };
    let process = &lab.caller.process;
    process.log_until("another reload", PATIENCE, again).await?;
    for (index, peer) in to.iter().enumerate() {
        let to = format!("mine@{peer}");
        let forward = ["forward", &to, "--listen", LISTEN, "--json"];
        let connect = ["connect", &to];
        for is_own in [false, true] {
            let launch = |name: &str, args: &[&str], first| match is_own {
                false => Ok(lab.caller.control.command(&format!("{name}-{index}"), args)),
                true => standalone(lab, &format!("{name}-own-{index}"), args, first),
            };
            let forward = launch("forward", &forward, 42_010)?.on(&lab.caller.host)?;
            forward.event("listening", PATIENCE).await?;
            let traffic = Traffic::start(&lab.caller.host)?;
            traffic.carries(1 << 20).await?;
            traffic.end()?;
            let mut connect = launch("connect", &connect, 42_020)?
                .told()
                .on(&lab.caller.host)?;
            connect.tell("hello").await?;
            connect
                .first("its echo", 0, |event| event.line == "hello")
                .await?;
            connect.terminate()?;
            connect.exit(PATIENCE).await?;
            forward.terminate()?;
            ends(forward, 0, "\"listening\"").await?;
        }
    }
    for serve in [by_node, own] {
        serve.terminate()?;
        ends(serve, 0, "\"serving\"").await?;
    }
    Ok(())
}

/// Columns of the terminal: fewer than the totals have.
const COLUMNS: usize = 40;

async fn progress() -> Result<()> {
    let lab = start().await?;
    let (host, program) = (&lab.caller.host, &bins()?.p2pnode);
    let forward = ["forward", "echo@server", "--listen", LISTEN];
    // Each drawing of the live line as a line.
    let script = "script -qec \"$0\" /dev/null | stdbuf -o0 tr '\\r' '\\n'";
    let inside = format!(
        "trap : INT; stty rows 24 cols {COLUMNS} -echo; {} {}; echo ended $?",
        program.display(),
        forward.join(" ")
    );
    let terminal = Launch::new("terminal", "sh").args(["-c", script, &inside]);
    let socket = lab.caller.control_socket();
    let terminal = terminal
        .env(node::CONTROL_SOCKET, socket)
        .env("TERM", "xterm");
    let mut terminal = terminal.told().on(host)?;
    let is = |wanted: &'static str| move |event: &Event| event.line.contains(wanted);
    terminal
        .first("what it listens on", 0, is("listening on tcp://"))
        .await?;
    terminal
        .first("no session", 0, is("0 open, 0 in all"))
        .await?;
    let traffic = Traffic::start(host)?;
    terminal.first("the session", 0, is(" opened ")).await?;
    traffic.carries(2 << 20).await?;
    terminal.first("its bytes", 0, is("iB in, ")).await?;
    traffic.end()?;
    terminal.first("its end", 0, is(" closed ")).await?;
    terminal
        .first("none again", 0, is("0 open, 1 in all"))
        .await?;
    terminal.tell("\u{3}").await?;
    terminal
        .first("a line of its own", 0, |event| event.line == "ended 0")
        .await?;
    let totals = terminal.events().into_iter().map(|event| event.line);
    let totals: Vec<_> = totals.filter(|line| line.contains(" open, ")).collect();
    let longest = totals.iter().map(|line| line.chars().count()).max();
    ensure!(longest == Some(COLUMNS - 1), "{totals:?}");
    // A pipe gets lines alone.
    let pipe = lab.caller.control.command("pipe", &forward).on(host)?;
    pipe.first("what it listens on", 0, is("listening on tcp://"))
        .await?;
    let traffic = Traffic::start(host)?;
    traffic.carries(2 << 20).await?;
    traffic.end()?;
    pipe.first("its end", 0, is(" closed ")).await?;
    pipe.terminate()?;
    let mut pipe = pipe;
    pipe.exit(PATIENCE).await?;
    let printed = printed(&pipe);
    ensure!(!printed.contains("open,"), "{printed}");
    Ok(())
}
