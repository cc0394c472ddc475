//! `status`, once or repeated.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;

use crate::{exit::Exit, signals::Shutdown};

/// The time between two updates of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints what `look` returns; with `watch` again every second until a signal. The argument of `look` is whether stdout is a
/// terminal.
///
/// With `json`, `look` returns one line, and the screen is never cleared.
///
/// # Errors
///
/// Those of `look`, or if stdout cannot be written.
pub async fn show(
    watch: bool,
    json: bool,
    mut look: impl AsyncFnMut(bool) -> anyhow::Result<String>,
) -> anyhow::Result<Exit> {
    let terminal = io::stdout().is_terminal();
    let shutdown = Shutdown::on_signals()?;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.requested() => return Ok(Exit::Success),
        }
        let text = look(terminal).await?;
        // A terminal shows the present; a pipe or a file keeps every update.
        let wipe = if watch && terminal && !json {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        write!(io::stdout(), "{wipe}{text}").context("cannot write to stdout")?;
        if !watch {
            return Ok(Exit::Success);
        }
    }
}
