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
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

#[path = "hands/screen.rs"]
mod screen;

p2pnode_tests::lab_tests!();

const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
const SERVICE: &str = "x@12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

const SILENT: &str = "does not answer within 5 s: it is stopped, or has too much to do";
const VERSION: &str = "another version";

/// What a command does where no process runs, or where this user may not ask it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// It fails.
    Fails,
    /// It makes a node of its own, which then lacks a relay.
    Lacks,
    /// It makes one, and the peer cannot be reached.
    Reaches,
    /// It makes one, and goes on with that.
    GoesOn,
}

use Without::{Fails, GoesOn, Lacks, Reaches};

/// Every command that asks a running process.
const COMMANDS: [(&str, &[&str], Without); 24] = [
    ("p2pnode", &["status"], Fails),
    ("p2pnode", &["status", PEER], Fails),
    ("p2pnode", &["status", "--sessions"], Fails),
    ("p2pnode", &["status", "--watch", "--json"], Fails),
    ("p2pnode", &["why", PEER], Fails),
    ("p2pnode", &["forget", PEER], Fails),
    (
        "p2pnode",
        &["dial", PEER, "--timeout", "2s", "--json"],
        Lacks,
    ),
    ("p2pnode", &["netcheck"], Lacks),
    ("p2pnode", &["netcheck", "--watch", "--json"], Lacks),
    ("p2pnode", &["netcheck", "--lifetime"], Lacks),
    ("p2pnode", &["services", PEER], Reaches),
    ("p2pnode", &["services", "--hosts"], Fails),
    ("p2pnode", &["healthcheck"], Fails),
    ("p2pnode", &["healthcheck", "--ready"], Fails),
    ("p2pnode", &["healthcheck", "--live"], Fails),
    (
        "p2pnode",
        &["serve", "x", "tcp://127.0.0.1:1", "--allow", "any"],
        GoesOn,
    ),
    (
        "p2pnode",
        &["forward", SERVICE, "--listen", "tcp://127.0.0.1:0"],
        GoesOn,
    ),
    ("p2pnode", &["connect", SERVICE], Reaches),
    ("p2pnode", &["map", "tcp", "tcp://127.0.0.1:1"], Lacks),
    ("relay-node", &["status", "--json"], Fails),
    ("relay-node", &["status", "--watch"], Fails),
    ("relay-node", &["healthcheck"], Fails),
    ("relay-node", &["healthcheck", "--ready"], Fails),
    ("relay-node", &["healthcheck", "--live"], Fails),
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
    }
    Ok(())
}

fn asking(home: &Home) -> Result<Vec<Command>> {
    let commands = COMMANDS.iter();
    commands
        .map(|(program, args, _)| home.command(program, args))
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

/// What the commands do that get no answer, made by `command`: those that need one end with the part of stderr that `fails` gives,
/// the others have a node of their own after `note`.
async fn without(
    what: &str,
    command: impl Fn(&str, &[&str]) -> Result<Command>,
    fails: impl Fn(&[String]) -> &'static str,
    note: &'static str,
) -> Result<()> {
    for wanted in [Fails, Lacks, Reaches] {
        let of = COMMANDS.iter().filter(|(.., without)| *without == wanted);
        let commands = of.map(|(program, args, _)| command(program, args));
        all(
            what,
            commands.collect::<Result<_>>()?,
            |args| match wanted {
                Lacks | Reaches if !note.is_empty() => (if wanted == Lacks { 2 } else { 4 }, note),
                Lacks if has(args, "dial") => (2, "give --relay MULTIADDR"),
                Lacks => (2, "give its address with --relay"),
                Reaches => (4, "no relay and no address of it is known: give --relay"),
                Fails | GoesOn => (1, fails(args)),
            },
        )
        .await?;
    }
    for (program, args, _) in COMMANDS.iter().filter(|(.., without)| *without == GoesOn) {
        let mut child = command(program, args)?.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut out = BufReader::new(out.context("stdout")?).lines();
        let mut err = BufReader::new(err.context("stderr")?).lines();
        let line = timeout(PATIENCE, err.next_line())
            .await??
            .unwrap_or_default();
        ensure!(line.contains(note), "{what}: {args:?}: {line}");
        timeout(PATIENCE, out.next_line())
            .await??
            .context("no line")?;
        signal(&child, Signal::SIGINT)?;
        timeout(PATIENCE, child.wait()).await??;
    }
    Ok(())
}

#[tokio::test]
async fn where_no_process_runs_the_remedy_is_to_start_one() -> Result<()> {
    let (absent, gone) = (Home::new()?, Home::new()?);
    drop(gone.listen()?);
    for home in [absent, gone] {
        let fails = |args: &[String]| match has(args, "healthcheck") {
            true => "nothing answers on",
            false => "run`, or set control.socket",
        };
        without(
            "no process",
            |program, args| home.command(program, args),
            fails,
            "",
        )
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
        let own = COMMANDS.iter().filter(|(name, ..)| *name == program);
        own.map(|(_, args, _)| home.command(program, args))
            .collect()
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
    let command = |program: &str, args: &[&str]| {
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
        Ok(command)
    };
    let denied = |_: &[String]| "(mode 0000), and this process is user";
    let all = without("denied", command, denied, "using a node of its own").await;
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o700))?;
    all
}

#[tokio::test]
async fn the_first_signal_ends_a_command_that_waits() -> Result<()> {
    for (sent, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        for (program, args, _) in COMMANDS {
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
