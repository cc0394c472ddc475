//! `status`, once or again and again.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;

use crate::{exit::Exit, signals::Shutdown};

/// Time between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints what `look` returns, with `watch` again every second until a signal. `look` is told whether colours can be seen.
///
/// With `json`, what it returns is one line, and nothing is ever wiped.
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
        // A watched terminal shows the present, a pipe or a file everything that was.
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
