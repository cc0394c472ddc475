//! `status`: printed once, printed every second, or as a screen that is drawn every second.

use std::{
    borrow::Cow,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, interval},
};

use p2pnode_protocol::escape;

use crate::{
    command::with_causes,
    exit::Exit,
    screen::{Past, View, cut},
    signals::Shutdown,
    terminal::{self, QuitKey, Screen, Size},
};

/// The time between two updates of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// A reader that does not read holds up the end no longer than this.
const GRACE: Duration = Duration::from_secs(1);

/// A state that `status` shows. Its JSON is that of `--json`.
pub trait Shown: Serialize {
    /// For people, in lines; in colour for a terminal.
    fn text(&self, colour: bool) -> String;

    /// For a screen; `past` has what earlier views showed.
    fn view(&self, past: &mut Past) -> View;
}

/// How `status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Again every second until a signal, or the key `q`.
    pub watch: bool,
    /// As JSON.
    pub json: bool,
}

/// Shows what `look` returns. `watch` is a screen on a terminal; elsewhere, and as JSON, each update is printed after the last.
///
/// Once `watch` has shown an answer, a failure is shown and the next second brings the next try. So a process that restarts is
/// shown again.
///
/// # Errors
///
/// Those of `look`, or if stdout cannot be written.
pub async fn show<T: Shown>(
    form: Form,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Exit> {
    if !form.watch {
        // The first signal ends the process.
        return match print(&look().await?, form.json)? {
            Reader::Reads | Reader::HasSeenEnough => Ok(Exit::Success),
        };
    }
    let mut updates = Updates::begin()?;
    let first = match updates.next(&mut look, None).await {
        Update::Looked(first) => first?,
        Update::End(signal) => return Ok(signal.map_or(Exit::Success, Exit::of_signal)),
        Update::Resized => unreachable!("there is no screen yet"),
    };
    match !form.json && terminal::is_live(&io::stdout()) {
        true => screen(updates, first, look).await,
        false => lines(updates, first, look, form.json).await,
    }
}

/// What comes next.
enum Update<T> {
    Looked(anyhow::Result<T>),
    Resized,
    End(Option<crate::signals::Signal>),
}

struct Updates {
    ticks: Interval,
    shutdown: Shutdown,
}

/// What a person does at the terminal.
struct Hands {
    quit: Option<QuitKey>,
    resize: Signal,
}

impl Updates {
    fn begin() -> anyhow::Result<Self> {
        Ok(Self {
            ticks: interval(INTERVAL),
            shutdown: Shutdown::on_signals(Some(GRACE))?,
        })
    }

    async fn next<T>(
        &mut self,
        look: &mut impl AsyncFnMut() -> anyhow::Result<T>,
        hands: Option<&mut Hands>,
    ) -> Update<T> {
        let looked = async {
            self.ticks.tick().await;
            look().await
        };
        let hands = async {
            match hands {
                None => std::future::pending().await,
                Some(Hands { quit, resize }) => tokio::select! {
                    () = pressed(quit) => Update::End(None),
                    _ = resize.recv() => Update::Resized,
                },
            }
        };
        tokio::select! {
            looked = looked => Update::Looked(looked),
            signal = self.shutdown.signalled() => Update::End(Some(signal)),
            update = hands => update,
        }
    }
}

async fn pressed(quit: &mut Option<QuitKey>) {
    match quit {
        Some(quit) => quit.pressed().await,
        None => std::future::pending().await,
    }
}

/// Prints every update after the last.
async fn lines<T: Shown>(
    mut updates: Updates,
    first: T,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
    json: bool,
) -> anyhow::Result<Exit> {
    let (mut next, mut failed) = (Update::Looked(Ok(first)), String::new());
    loop {
        match next {
            Update::Looked(Ok(state)) => {
                failed.clear();
                if print(&state, json)? == Reader::HasSeenEnough {
                    return Ok(Exit::Success);
                }
            }
            Update::Looked(Err(error)) => {
                let error = with_causes(&error);
                // The same failure is printed once. If stderr is closed, the next answer still arrives.
                if failed != error {
                    let _ = writeln!(io::stderr(), "{}", escape(&error));
                }
                failed = error;
            }
            Update::Resized => {}
            Update::End(_) => return Ok(Exit::Success),
        }
        next = updates.next(&mut look, None).await;
    }
}

/// Whether somebody reads stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Reads,
    /// As in `status | head`.
    HasSeenEnough,
}

fn print(state: &impl Shown, json: bool) -> anyhow::Result<Reader> {
    let stdout = io::stdout();
    let text = match json {
        true => p2pnode_protocol::to_json(state)? + "\n",
        false => state.text(terminal::has_colour(&stdout)),
    };
    let text = match terminal::width(&stdout).filter(|_| !json) {
        Some(width) => terminal::fit(&text, width),
        None => text,
    };
    let mut stdout = stdout.lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::HasSeenEnough),
        written => written
            .map(|()| Reader::Reads)
            .context("cannot write to stdout"),
    }
}

/// The last lines of a screen: the key, and why there is no later answer. They take a third of the screen at most.
fn foot(failed: Option<&str>, size: Size) -> Vec<String> {
    let text = match failed {
        Some(error) => Cow::from(format!("q quits; this is the last answer: {error}")),
        None => Cow::from("q quits"),
    };
    let text = terminal::fit(&escape(text), size.columns);
    let lines = text.lines().map(|line| cut(line, size.columns));
    lines.take((size.rows / 3).max(1)).collect()
}

/// Draws every update in the place of the last.
async fn screen<T: Shown>(
    mut updates: Updates,
    first: T,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Exit> {
    let screen = Screen::open().context("cannot write to stdout")?;
    let mut hands = Hands {
        quit: QuitKey::listen(),
        resize: signal(SignalKind::window_change()).context("cannot watch the window")?,
    };
    let (mut past, mut view, mut failed) = (Past::default(), View::default(), None);
    let mut next = Update::Looked(Ok(first));
    loop {
        match next {
            Update::Looked(Ok(state)) => {
                past.next_view();
                view = state.view(&mut past);
                failed = None;
            }
            Update::Looked(Err(error)) => failed = Some(with_causes(&error)),
            Update::Resized => {}
            Update::End(_) => return Ok(Exit::Success),
        }
        let drawn = screen.draw(|size, colour| {
            let foot = foot(failed.as_deref(), size);
            let room = size.rows.saturating_sub(1 + foot.len());
            let mut lines = view.lines(size.columns, room, colour);
            lines.push(String::new());
            lines.extend(foot);
            lines
        });
        drawn.context("cannot write to stdout")?;
        next = updates.next(&mut look, Some(&mut hands)).await;
    }
}
