//! What an operator does to a process that serves: its streams, its key, its signals.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use p2pnode_tests::home::{Home, PATIENCE, ended, signal};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::UnixDatagram,
    process::Command,
    time::timeout,
};

p2pnode_tests::lab_tests!();

const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

#[tokio::test]
async fn a_process_goes_on_and_ends_well_whatever_becomes_of_its_streams() -> Result<()> {
    for program in ["p2pnode", "relay-node"] {
        for streams in ["full", "closed", "not read", "bounded"] {
            let home = Home::new()?;
            let args: &[&str] = match program {
                "p2pnode" => &["run", "--json", "--log", "trace"],
                _ => &[
                    "run",
                    "--json",
                    "--log",
                    "trace",
                    "--listen",
                    "/ip4/127.0.0.1/tcp/0",
                ],
            };
            let mut command = home.command(program, args)?;
            if streams == "full" {
                let full = fs::File::options().write(true).open("/dev/full")?;
                command.stdout(full.try_clone()?).stderr(full);
            }
            if streams == "bounded" {
                // Some kilobytes, as by RLIMIT_FSIZE of a service manager.
                let path = command.as_std().get_program().to_string_lossy();
                let (args, log) = (args.join(" "), home.path("log"));
                let bounded = format!("ulimit -f 8; exec {path} {args} >{} 2>&1", log.display());
                let mut shell = Command::new("sh");
                home.prepare(&mut shell, &["-c", &bounded]);
                command = shell;
            }
            let mut child = command.spawn()?;
            if streams == "closed" {
                drop((child.stdout.take(), child.stderr.take()));
            }
            home.until_served(program).await?;
            // Each request is a dozen lines of the log: more than a pipe holds.
            for _ in 0..50 {
                let status = ended(home.command(program, &["status", "--json"])?).await?;
                ensure!(status.status.success(), "{program}, {streams}: {status:?}");
            }
            signal(&child, Signal::SIGTERM)?;
            let status = timeout(PATIENCE, child.wait()).await??;
            ensure!(status.code() == Some(0), "{program}, {streams}: {status}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_process_raises_its_soft_limit_of_files_and_one_without_any_names_the_remedy()
-> Result<()> {
    for program in ["p2pnode", "relay-node"] {
        let limited = |home: &Home, limit: &str| -> Result<Command> {
            let path = home.command(program, &[])?;
            let path = path.as_std().get_program().to_string_lossy().into_owned();
            let mut shell = Command::new("sh");
            home.prepare(
                &mut shell,
                &[
                    "-c",
                    &format!("ulimit {limit}; exec {path} run --listen /ip4/127.0.0.1/tcp/0"),
                ],
            );
            Ok(shell)
        };
        let home = Home::new()?;
        let child = limited(&home, "-Sn 64")?.spawn()?;
        home.until_served(program).await?;
        let pid = child.id().context("it has ended")?;
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let files: Vec<_> = files.context("limits")?.split_whitespace().collect();
        ensure!(
            files[3] == files[4] && files[3] != "64",
            "{program}: {files:?}"
        );
        drop(child);
        let output = ended(limited(&Home::new()?, "-n 8")?).await?;
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or_default();
        ensure!(
            last.contains("raise the limit (`ulimit -n`"),
            "{program}: {output:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_service_manager_learns_that_a_process_is_ready_alive_and_stopping() -> Result<()> {
    for program in ["p2pnode", "relay-node"] {
        let home = Home::new()?;
        let (path, state) = (home.path("notify"), home.path("var"));
        let socket = UnixDatagram::bind(&path)?;
        let args: &[&str] = match program {
            "p2pnode" => &["run"],
            _ => &["run", "--listen", "/ip4/127.0.0.1/tcp/0"],
        };
        let mut child = home
            .command(program, args)?
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .env("STATE_DIRECTORY", &state)
            .spawn()?;
        until_notified(&socket, "READY=1").await?;
        ensure!(state.join("identity.key").exists(), "{program}");
        for _ in 0..3 {
            until_notified(&socket, "WATCHDOG=1").await?;
        }
        signal(&child, Signal::SIGTERM)?;
        until_notified(&socket, "STOPPING=1").await?;
        let status = timeout(PATIENCE, child.wait()).await??;
        ensure!(status.code() == Some(0), "{program}: {status}");
    }
    Ok(())
}

async fn until_notified(socket: &UnixDatagram, wanted: &str) -> Result<()> {
    let notified = async {
        loop {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).await?;
            if buffer[..length].trim_ascii_end() == wanted.as_bytes() {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, notified)
        .await
        .with_context(|| format!("no {wanted}"))?
}

#[tokio::test]
async fn a_second_process_with_the_same_key_is_refused_and_the_first_is_named() -> Result<()> {
    for program in ["p2pnode", "relay-node"] {
        let home = Home::new()?;
        let first = home.run(program).await?;
        let second = ended(home.command(program, &["run"])?).await?;
        let text = String::from_utf8_lossy(&second.stderr);
        let named = format!(
            "is in use by process {} (\"{program} run\")",
            first.id().context("it has ended")?
        );
        ensure!(
            second.status.code() == Some(2) && text.contains(&named),
            "{second:?}"
        );
        // The lock ends with the process, however that ends.
        signal(&first, Signal::SIGKILL)?;
        timeout(PATIENCE, first.wait_with_output()).await??;
        home.run(program).await?;
    }
    Ok(())
}

#[tokio::test]
async fn sighup_applies_what_it_can_and_says_what_needs_a_restart() -> Result<()> {
    let home = Home::new()?;
    let write = |text: &str| fs::write(home.path("node.yaml"), text);
    write(&format!(
        "access: {{ allow: [{PEER}] }}\npeers: {{ db: {{ id: {PEER} }} }}\n"
    ))?;
    let mut command = home.command("p2pnode", &["run", "--json", "--config", "node.yaml"])?;
    let mut child = command.spawn()?;
    let log = child.stderr.take().context("stderr")?;
    let mut log = BufReader::new(log).lines();
    let mut until = async |part: &str| -> Result<()> {
        let found = async {
            while let Some(line) = log.next_line().await? {
                if line.contains(part) {
                    return Ok(());
                }
            }
            anyhow::bail!("the log ends before {part:?}")
        };
        timeout(PATIENCE, found)
            .await
            .with_context(|| part.to_owned())?
    };
    until("the node is up").await?;
    let named = format!("access: {{ allow: [] }}\npeers: {{ db: {{ id: {PEER} }} }}\n");
    for (text, part) in [
        (
            "reservations: 1\n",
            "access.allow: is missing, which would open the node",
        ),
        (
            "access: { allow: 7 }\n",
            "the configuration stays as it was",
        ),
        (
            "access: { allow: [] }\nreservations: 1\n",
            "`peers` no longer has this peer",
        ),
        (
            "access: { allow: [] }\nlog: { level: debug }\n",
            "level=true",
        ),
        (named.as_str(), "level=true"),
    ] {
        write(text)?;
        signal(&child, Signal::SIGHUP)?;
        until(part).await?;
    }
    // The command has no configuration: the node knows the name.
    let asked = ended(home.command("p2pnode", &["status", "db"])?).await?;
    let said = String::from_utf8_lossy(&asked.stderr);
    ensure!(said.contains(PEER), "{said}");
    signal(&child, Signal::SIGTERM)?;
    ensure!(
        timeout(PATIENCE, child.wait()).await??.success(),
        "it ends well"
    );
    Ok(())
}

#[tokio::test]
async fn a_misspelled_path_of_a_key_makes_nothing_and_a_new_key_of_a_relay_is_reported()
-> Result<()> {
    let home = Home::new()?;
    let token = ["token", "create", "--peer", PEER, "--expires", "1h"];
    for (program, args) in [
        ("p2pnode", &["id"][..]),
        ("relay-node", &["id"]),
        ("relay-node", &token),
    ] {
        let key = [args, &["--key", "nope/dir/k"]].concat();
        let output = ended(home.command(program, &key)?).await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2) && text.contains("there is no directory nope/dir"),
            "{output:?}"
        );
        ensure!(!home.path("nope").exists(), "it was made");
    }
    for part in ["only a relay that runs with this key takes the token", ""] {
        let output = ended(home.command("relay-node", &token)?).await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && text.contains(part) && text.is_empty() == part.is_empty(),
            "{output:?}"
        );
    }
    Ok(())
}
