//! How other tasks speak to the event loop.

use tokio::sync::mpsc;

use crate::{dialer::Request, event::Event};

/// Commands that may wait for the event loop. It takes them at once; the bound only matters if it is stuck.
const COMMANDS: usize = 64;

/// Events that may wait for the one who asked for a dial.
const DIAL_EVENTS: usize = 256;

/// What the event loop can be asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Dial a peer and report to this channel; the last report is [`Event::Result`].
    Dial { request: Request, reports: mpsc::Sender<Event> },
}

/// A handle to a running node.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// The node is gone.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

impl Handle {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (Self { commands }, receiver)
    }

    /// Dials a peer. The reports end with [`Event::Result`].
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub async fn dial(&self, request: Request) -> Result<mpsc::Receiver<Event>, Stopped> {
        let (reports, receiver) = mpsc::channel(DIAL_EVENTS);
        self.commands.send(Command::Dial { request, reports }).await.map_err(|_| Stopped)?;
        Ok(receiver)
    }
}
