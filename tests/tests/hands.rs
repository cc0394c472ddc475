//! The operator's hands: every command, whatever state the process is in that it asks, ends in time, by the first signal, with the
//! exit code and the remedy that belong there.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use p2pnode_tests::{
    bins::bins,
    home::{Home, PATIENCE, ended, signal},
    schema,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{ChildStdout, Command},
    time::timeout,
};

p2pnode_tests::lab_tests!();

const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
const SERVICE: &str = "x@12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

const SILENT: &str = "does not answer within 5 s: it is stopped, or has too much to do";
const VERSION: &str = "another version";

/// Commands that ask a running process. `dial` makes a node of its own where no process runs, and then lacks a relay.
const ASKING: [(&str, &[&str]); 10] = [
    ("p2pnode", &["status"]),
    ("p2pnode", &["status", "--watch", "--json"]),
    ("p2pnode", &["why", PEER]),
    ("p2pnode", &["forget", PEER]),
    ("p2pnode", &["dial", PEER, "--timeout", "2s", "--json"]),
    ("p2pnode", &["services", "--hosts"]),
    ("p2pnode", &["healthcheck"]),
    ("relay-node", &["status", "--json"]),
    ("relay-node", &["status", "--watch"]),
    ("relay-node", &["healthcheck"]),
];

/// Commands that go on for as long as the node does what they ask.
const LASTING: [(&str, &[&str]); 4] = [
    (
        "p2pnode",
        &["serve", "x", "tcp://127.0.0.1:1", "--allow", "any"],
    ),
    (
        "p2pnode",
        &["forward", SERVICE, "--listen", "tcp://127.0.0.1:1"],
    ),
    ("p2pnode", &["connect", SERVICE]),
    ("p2pnode", &["map", "tcp", "tcp://127.0.0.1:1"]),
];

/// Runs all commands at once. Each is to end with its code and the part of stderr.
async fn all(
    what: &str,
    commands: Vec<Command>,
    expected: impl Fn(&[String]) -> (i32, &'static str),
) -> Result<()> {
    let mut running = Vec::new();
    for command in commands {
        let args = command.as_std().get_args();
        let args: Vec<_> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
        running.push((args, tokio::spawn(ended(command))));
    }
    for (args, output) in running {
        let output = output.await??;
        let (code, part) = expected(&args);
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code) && text.contains(part),
            "{what}: {args:?} ends with {} and {text:?}, not with {code} and {part:?}",
            output.status
        );
        // A result agrees with the exit code. Wrong usage has none.
        if has(&args, "dial") {
            let printed = String::from_utf8_lossy(&output.stdout);
            let results: Vec<Value> = (printed.lines())
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            let outcomes: Vec<&Value> = results.iter().map(|event| &event["outcome"]).collect();
            let expected: &[&str] = if code == 1 { &["unknown"] } else { &[] };
            ensure!(outcomes == expected, "{what}: {args:?} prints {printed}");
        }
    }
    Ok(())
}

fn asking(home: &Home) -> Result<Vec<Command>> {
    let commands = ASKING.iter();
    commands
        .map(|(program, args)| home.command(program, args))
        .collect()
}

fn has(args: &[String], name: &str) -> bool {
    args.iter().any(|arg| arg == name)
}

fn silent(args: &[String]) -> (i32, &'static str) {
    if has(args, "healthcheck") {
        (1, "no answer within 5s: the process is stopped")
    } else if has(args, "dial") {
        // Its time is shorter.
        (1, "does not answer within 2 s: it is stopped")
    } else {
        (1, SILENT)
    }
}

#[tokio::test]
async fn where_no_process_runs_the_remedy_is_to_start_one() -> Result<()> {
    let (absent, gone) = (Home::new()?, Home::new()?);
    drop(gone.listen()?);
    for home in [absent, gone] {
        all("no process", asking(&home)?, |args| match args {
            args if has(args, "dial") => (2, "give --relay MULTIADDR"),
            args if has(args, "healthcheck") => (1, "nothing answers on"),
            _ => (1, "run`, or set control.socket"),
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_stopped_or_slow_is_reported_as_silent_within_5_s() -> Result<()> {
    let (node, relay, slow, full) = (Home::new()?, Home::new()?, Home::new()?, Home::new()?);
    let stopped = [node.run("p2pnode").await?, relay.run("relay-node").await?];
    for process in &stopped {
        signal(process, Signal::SIGSTOP)?;
    }
    let accepts = slow.listen()?;
    thread::spawn(move || {
        let mut clients = Vec::new();
        while let Ok(client) = accepts.accept() {
            clients.push(client);
        }
    });
    // Nobody accepts, and the queue is full.
    let _queue = full.listen()?;
    let mut waiting = Vec::new();
    while let Ok(client) = tokio::net::UnixStream::connect(full.socket()).await {
        waiting.push(client);
    }
    let of = |home: &Home, program: &str| -> Result<Vec<Command>> {
        let own = ASKING.iter().filter(|(name, _)| *name == program);
        own.map(|(_, args)| home.command(program, args)).collect()
    };
    let commands = [
        of(&node, "p2pnode")?,
        of(&relay, "relay-node")?,
        asking(&slow)?,
        asking(&full)?,
    ];
    all("silent", commands.into_iter().flatten().collect(), |args| {
        // A full queue does not even take the connection of a health check.
        match has(args, "healthcheck") {
            true => (1, "error: no"),
            false => silent(args),
        }
    })
    .await?;
    Ok(())
}

/// Answers every request with `answer`, and never to a request before it is there.
fn serve(home: &Home, answer: &'static str) -> Result<()> {
    let listener = home.listen()?;
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_with_the_next_process() -> Result<()> {
    for program in ["p2pnode", "relay-node"] {
        let home = Home::new()?;
        let mut process = home.run(program).await?;
        let mut watch = home
            .command(program, &["status", "--watch", "--json"])?
            .spawn()?;
        let (out, err) = (watch.stdout.take(), watch.stderr.take());
        let mut out = BufReader::new(out.context("stdout")?).lines();
        let mut err = BufReader::new(err.context("stderr")?).lines();
        let line = timeout(PATIENCE, out.next_line()).await??;
        line.context("an answer of the first")?;
        process.kill().await?;
        let line = timeout(PATIENCE, err.next_line()).await??;
        let line = line.context("a line about its end")?;
        let reasons = line.matches("os error").count();
        ensure!(reasons <= 1, "the reason stands {reasons} times: {line}");
        let _next = home.run(program).await?;
        // At most one line of the first is left.
        for _ in 0..2 {
            let line = timeout(PATIENCE, out.next_line()).await??;
            line.context("an answer of the next")?;
        }
        signal(&watch, Signal::SIGINT)?;
        let status = timeout(PATIENCE, watch.wait()).await??;
        ensure!(status.success(), "{program}: {status}");
    }
    Ok(())
}

/// Reads until the part has come; fails at the end of the output.
async fn until(output: &mut ChildStdout, seen: &mut Vec<u8>, part: &str) -> Result<()> {
    let from = seen.len();
    loop {
        let new = String::from_utf8_lossy(&seen[from..]).into_owned();
        if new.contains(part) {
            return Ok(());
        }
        let read = timeout(PATIENCE, output.read_buf(seen)).await;
        let read = read.with_context(|| format!("no {part:?} in {new:?}"))??;
        ensure!(read > 0, "no {part:?} in {new:?}");
    }
}

/// The lines that a screen shows after the last time that it was drawn from the top.
fn drawn(seen: &[u8]) -> Vec<String> {
    let seen = String::from_utf8_lossy(seen);
    let last = seen.rsplit("\x1b[H").next().unwrap_or_default();
    // The terminal adds a carriage return of its own.
    let lines = last.split('\n').map(|line| line.trim_end_matches('\r'));
    let plain = |line: &str| {
        let mut parts = line.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        let rest = parts.filter_map(|part| part.split_once(['m', 'K', 'J']));
        rest.fold(first, |line, (_, text)| line + text)
    };
    lines.map(plain).collect()
}

#[tokio::test]
async fn a_watch_on_a_terminal_is_a_screen_that_fits_and_ends_by_q() -> Result<()> {
    for program in ["p2pnode", "relay-node"] {
        let home = Home::new()?;
        let _process = home.run(program).await?;
        let watch = home.command(program, &["status", "--watch"])?;
        let path = watch.as_std().get_program().to_string_lossy().into_owned();
        let inside = format!("tty; stty rows 24 cols 80; exec {path} status --watch");
        let mut script = Command::new("script");
        home.prepare(&mut script, &["-qec", &inside, "/dev/null"]);
        let mut script = script.env("TERM", "xterm").stdin(Stdio::piped()).spawn()?;
        let mut output = script.stdout.take().context("stdout")?;
        let mut keys = script.stdin.take().context("stdin")?;
        let mut seen = Vec::new();
        until(&mut output, &mut seen, "q quits\x1b[K\x1b[J").await?;
        let text = String::from_utf8_lossy(&seen).into_owned();
        let terminal = text.lines().next().context("tty")?.trim();
        let lines = drawn(&seen);
        ensure!(
            text.contains("\x1b[?1049h") && lines[0].contains("12D3KooW"),
            "{lines:?}"
        );
        ensure!(
            lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:?}"
        );
        let narrow = Command::new("stty")
            .args(["-F", terminal, "cols", "40"])
            .status();
        ensure!(narrow.await?.success(), "stty");
        let fits = |seen: &[u8]| drawn(seen).iter().all(|line| line.chars().count() <= 40);
        // What was drawn before may come first.
        for _ in 0..3 {
            until(&mut output, &mut seen, "q quits\x1b[K\x1b[J").await?;
            if fits(&seen) {
                break;
            }
        }
        ensure!(fits(&seen), "{:?}", drawn(&seen));
        keys.write_all(b"q").await?;
        until(&mut output, &mut seen, "\x1b[?25h\x1b[?1049l").await?;
        let status = timeout(PATIENCE, script.wait()).await??;
        ensure!(status.success(), "{program}: {status}");
    }
    Ok(())
}

#[tokio::test]
async fn a_process_of_another_version_is_named_as_that() -> Result<()> {
    for answer in [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"state\":42}\n",
        "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 11\r\n\r\nfield\nfield",
    ] {
        let home = Home::new()?;
        serve(&home, answer)?;
        let commands = asking(&home)?;
        let asks_status =
            |command: &Command| command.as_std().get_args().all(|arg| arg != "healthcheck");
        let (status, health): (Vec<_>, Vec<_>) = commands.into_iter().partition(asks_status);
        all(answer, status, |_| (1, VERSION)).await?;
        if answer.contains("length: 0") {
            all(answer, health, |_| (1, VERSION)).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_socket_that_this_user_may_not_open_is_a_matter_of_permission() -> Result<()> {
    let home = Home::new()?;
    let _listener = home.listen()?;
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o000))?;
    let bins = bins()?;
    let mut commands = Vec::new();
    for (program, args) in ASKING {
        // Capabilities open everything.
        let mut command = Command::new("setpriv");
        let program: &Path = match program {
            "p2pnode" => &bins.p2pnode,
            _ => &bins.relay_node,
        };
        let drop = [
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--bounding-set=-all",
        ];
        command.args(drop).arg(program);
        home.prepare(&mut command, args);
        commands.push(command);
    }
    let all = all("denied", commands, |args| match has(args, "dial") {
        true => (2, "using a node of its own"),
        false => (1, "(mode 0000), and this process is user"),
    });
    let all = all.await;
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o700))?;
    all
}

#[tokio::test]
async fn the_first_signal_ends_a_command_that_waits() -> Result<()> {
    for (sent, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        for (program, args) in ASKING.into_iter().chain(LASTING) {
            let home = Home::new()?;
            let listener = home.listen()?;
            let (asked, has_asked) = mpsc::channel();
            thread::spawn(move || {
                let mut clients: Vec<_> = Vec::new();
                for client in listener.incoming().flatten() {
                    // `dial` looks first whether somebody is there.
                    let mut client = client;
                    if client.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                        clients.push(client);
                        let _ = asked.send(());
                    }
                }
            });
            let child = home.command(program, args)?.spawn()?;
            tokio::task::spawn_blocking(move || has_asked.recv_timeout(PATIENCE)).await??;
            signal(&child, sent)?;
            let output = timeout(PATIENCE, child.wait_with_output()).await??;
            ensure!(
                output.status.code() == Some(code),
                "{program} {args:?}: {} after {sent}",
                output.status
            );
            if args.contains(&"dial") {
                let result: serde_json::Value = serde_json::from_slice(&output.stdout)?;
                ensure!(
                    result["event"] == "result"
                        && result["outcome"] == "unreachable"
                        && result["reason"] == format!("interrupted by {sent}"),
                    "{result}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_dial_with_a_node_of_its_own_ends_at_a_signal_with_a_result() -> Result<()> {
    for (sent, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let home = Home::new()?;
        // Takes the connection and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
        let addr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr()?.port());
        let args = ["dial", PEER, "--json", "--addr", &addr];
        let mut child = home.command("p2pnode", &args)?.spawn()?;
        let stdout = child.stdout.take().context("stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(PATIENCE, lines.next_line())
            .await??
            .context("no line")?;
        ensure!(first.contains("dialing"), "{first}");
        signal(&child, sent)?;
        let mut last = first;
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await?? {
            last = line;
        }
        let result: serde_json::Value = serde_json::from_str(&last)?;
        ensure!(
            result["event"] == "result" && result["reason"] == format!("interrupted by {sent}"),
            "{result}"
        );
        let status = timeout(PATIENCE, child.wait()).await??;
        ensure!(status.code() == Some(code), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_that_asks_nobody_needs_no_process() -> Result<()> {
    let home = Home::new()?;
    let _stopped = home.listen()?;
    let token = ["token", "create", "--peer", PEER, "--expires", "1h"];
    let made = home.command("relay-node", &[&token[..], &["--json"]].concat())?;
    let made: serde_json::Value = serde_json::from_slice(&ended(made).await?.stdout)?;
    schema::validate("token", &made)?;
    let text = made["token"].as_str().context("a token")?;
    let shown = ended(home.command("relay-node", &["token", "show", text, "--json"])?).await?;
    schema::validate("token", &serde_json::from_slice(&shown.stdout)?)?;
    let commands: [(&str, &[&str]); 9] = [
        ("p2pnode", &["id"]),
        ("p2pnode", &["version"]),
        ("p2pnode", &["config", "check"]),
        ("p2pnode", &["config", "show"]),
        ("p2pnode", &["firewall", "--format", "nft"]),
        ("relay-node", &token),
        ("relay-node", &["version"]),
        ("relay-node", &["config", "check"]),
        ("relay-node", &["man"]),
    ];
    for (program, args) in commands {
        let full = fs::File::options().write(true).open("/dev/full")?;
        let output = ended(home.command(program, args)?).await?;
        ensure!(output.status.success(), "{program} {args:?}: {output:?}");
        // Output that cannot be written is a failure, and no panic, also if nobody can be told.
        for stderr in [Stdio::piped(), full.try_clone()?.into()] {
            let mut command = home.command(program, args)?;
            command.stdout(full.try_clone()?).stderr(stderr);
            let output = ended(command).await?;
            ensure!(
                output.status.code() == Some(1),
                "{program} {args:?}: {output:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_is_a_pipe_is_read_and_one_without_a_writer_is_not_awaited()
-> Result<()> {
    let home = Home::new()?;
    let made = Command::new("mkfifo").arg(home.path("config")).status();
    ensure!(made.await?.success(), "mkfifo");
    for program in ["p2pnode", "relay-node"] {
        let check = ["config", "check", "--config", "config"];
        let written = home.path("config");
        let child = home.command(program, &check)?.spawn()?;
        tokio::task::spawn_blocking(move || fs::write(written, "log: { level: info }\n")).await??;
        let output = timeout(PATIENCE, child.wait_with_output()).await??;
        ensure!(output.status.success(), "{output:?}");
        let silent = ended(home.command(program, &check)?).await?;
        let text = String::from_utf8_lossy(&silent.stderr);
        ensure!(
            silent.status.code() == Some(2) && text.contains("it is a pipe"),
            "{silent:?}"
        );
    }
    Ok(())
}
