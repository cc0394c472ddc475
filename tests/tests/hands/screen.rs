//! What the programs write to a terminal.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::home::{Home, PATIENCE};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdout, Command},
    time::timeout,
};

/// Runs a command in a terminal of its own, whose name is the first line. What is written to its stdin are keys.
fn on_terminal(home: &Home, program: &str, args: &str) -> Result<Command> {
    let command = home.command(program, &[])?;
    let path = command.as_std().get_program().to_string_lossy();
    let inside = format!("tty; stty rows 24 cols 80; exec {path} {args}");
    let mut script = Command::new("script");
    home.prepare(&mut script, &["-qec", &inside, "/dev/null"]);
    script.stdin(Stdio::piped());
    Ok(script)
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
        let mut script = on_terminal(&home, program, "status --watch")?;
        let mut script = script.env("TERM", "xterm").spawn()?;
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

type Env = &'static [(&'static str, &'static str)];

/// What a user may say of a terminal, and whether it may be sent colours and other escape codes.
const TERMINALS: [(Env, bool, bool); 3] = [
    (&[("TERM", "xterm")], true, true),
    (&[("TERM", "xterm"), ("NO_COLOR", "1")], false, true),
    (&[("TERM", "dumb")], false, false),
];

#[tokio::test]
async fn a_terminal_is_sent_no_more_codes_than_it_may_be_and_each_event_once() -> Result<()> {
    for (env, has_colour, has_codes) in TERMINALS {
        let (mut coloured, mut coded) = (false, false);
        for (program, once) in [
            ("p2pnode", &["is up", "listening"][..]),
            ("relay-node", &["listening"]),
        ] {
            let home = Home::new()?;
            let begin = |args: &str| -> Result<_> {
                let mut script = on_terminal(&home, program, args)?;
                Ok(script.envs(env.iter().copied()).spawn()?)
            };
            let mut run = begin("run --listen /ip4/127.0.0.1/tcp/0")?;
            home.until_served(program).await?;
            let mut output = run.stdout.take().context("stdout")?;
            let mut seen = Vec::new();
            until(&mut output, &mut seen, "listening").await?;
            let mut all = Vec::new();
            for args in ["status", "--help", "nonsense"] {
                let output = timeout(PATIENCE, begin(args)?.wait_with_output()).await??;
                all.extend(output.stdout);
            }
            // Ctrl-C, and what comes until the end.
            run.stdin
                .take()
                .context("stdin")?
                .write_all(b"\x03")
                .await?;
            while timeout(PATIENCE, output.read_buf(&mut seen)).await?? > 0 {}
            let status = timeout(PATIENCE, run.wait()).await??;
            let text = String::from_utf8_lossy(&seen);
            ensure!(status.success(), "{program}, {env:?}: {status}: {text}");
            for part in once {
                ensure!(text.matches(part).count() == 1, "{part:?}, {env:?}: {text}");
            }
            all.extend_from_slice(&seen);
            let all = String::from_utf8_lossy(&all);
            coloured |= all.contains("\x1b[3");
            coded |= all.contains('\x1b');
        }
        ensure!(
            (coloured, coded) == (has_colour, has_codes),
            "{env:?}: colours {coloured}, codes {coded}"
        );
    }
    Ok(())
}
