//! `status`, once or repeated.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    exit::Exit,
    signals::Shutdown,
    terminal::{self, QuitKey},
};

/// The time between two updates of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// A reader that does not read holds up the end no longer than this.
const GRACE: Duration = Duration::from_secs(1);

/// Prints what `look` returns; with `watch` again every second until a signal, or the key `q`. The argument of `look` is whether to use colours.
///
/// With `json`, `look` returns one line, and the screen is never cleared. Once `watch` has printed an answer, a failure is
/// printed to stderr, and the next second brings the next try. So a process that restarts is shown again.
///
/// # Errors
///
/// Those of `look`, or if stdout cannot be written.
pub async fn show(
    watch: bool,
    json: bool,
    mut look: impl AsyncFnMut(bool) -> anyhow::Result<String>,
) -> anyhow::Result<Exit> {
    let stdout = io::stdout();
    let colour = terminal::has_colour(&stdout);
    // A terminal shows the present; a pipe or a file keeps every update.
    let wipe = match watch && !json && terminal::is_live(&stdout) {
        true => "\x1b[H\x1b[2J",
        false => "",
    };
    let shutdown = match watch {
        true => Some(Shutdown::on_signals(Some(GRACE))?),
        // The first signal ends the process.
        false => None,
    };
    let mut quit = match watch && !json && terminal::is_live(&stdout) {
        true => QuitKey::listen(),
        false => None,
    };
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut has_answered = false;
    loop {
        let looked = async {
            ticks.tick().await;
            look(colour).await
        };
        let looked = match &shutdown {
            None => looked.await,
            Some(shutdown) => tokio::select! {
                looked = looked => looked,
                signal = shutdown.signalled() => {
                    return Ok(match has_answered {
                        true => Exit::Success,
                        false => Exit::of_signal(signal),
                    });
                }
                () = pressed(&mut quit) => return Ok(Exit::Success),
            },
        };
        match looked {
            Ok(text) => {
                has_answered = true;
                let text = match terminal::width(&stdout).filter(|_| !json) {
                    Some(width) => terminal::fit(&text, width),
                    None => text,
                };
                let mut stdout = io::stdout().lock();
                match write!(stdout, "{wipe}{text}").and_then(|()| stdout.flush()) {
                    // A reader that has seen enough, as in `status | head`.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(Exit::Success);
                    }
                    written => written.context("cannot write to stdout")?,
                }
            }
            Err(error) if watch && has_answered => {
                // If stderr is closed, the next answer still arrives.
                let _ = writeln!(io::stderr(), "{error:#}");
            }
            Err(error) => return Err(error),
        }
        if !watch {
            return Ok(Exit::Success);
        }
    }
}

async fn pressed(quit: &mut Option<QuitKey>) {
    match quit {
        Some(quit) => quit.pressed().await,
        None => std::future::pending().await,
    }
}
