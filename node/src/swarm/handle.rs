//! How other tasks send requests to the event loop.

use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::{Config, Expose, Names},
    core::{dialer::Request, event::Event, mappings::Exposure, netcheck::Report},
    observe::status::{Status, Why},
    services::{Callers, ForwardError, Hub, Incoming, OpenSessionError, ServeError, Session},
    swarm::mappings::Asked,
};

/// Commands that may wait for the event loop. It takes them at once; the bound only matters if it is stuck.
const COMMANDS: usize = 64;

/// Events that may wait for the reader of a dial.
const DIAL_EVENTS: usize = 256;

/// Reports of an exposed port that may wait for their reader.
const EXPOSE_REPORTS: usize = 64;

/// What the event loop can be asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Dial a peer and report to this channel; the last report is [`Event::Result`].
    Dial {
        request: Request,
        reports: mpsc::Sender<Event>,
    },
    /// The access rules or the names of peers of the configuration have changed.
    Reload(Box<Config>),
    /// Look at the network.
    Netcheck {
        lifetime: bool,
        answer: oneshot::Sender<Report>,
    },
    /// Report the status of the whole node.
    Status {
        /// With the sessions that are open.
        sessions: bool,
        answer: oneshot::Sender<Status>,
    },
    /// Report why the path of a peer is what it is; `None` if it is not connected.
    Why {
        peer: PeerId,
        answer: oneshot::Sender<Option<Why>>,
    },
    /// Dial a peer no longer when it is lost; whether it was wanted.
    Forget {
        peer: PeerId,
        answer: oneshot::Sender<bool>,
    },
}

/// A handle to a running node.
#[derive(Debug, Clone)]
pub struct Handle {
    peer_id: PeerId,
    names: watch::Receiver<Names>,
    commands: mpsc::Sender<Command>,
    hub: Hub,
    /// To the task that has ports mapped, if there is one.
    exposes: Option<mpsc::Sender<Asked>>,
}

/// The node is gone.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

impl Handle {
    pub(crate) fn channel(
        peer_id: PeerId,
        names: watch::Receiver<Names>,
        hub: Hub,
        exposes: Option<mpsc::Sender<Asked>>,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let handle = Self {
            peer_id,
            names,
            commands,
            hub,
            exposes,
        };
        (handle, receiver)
    }

    /// The peers that it knows by name.
    pub(crate) fn names(&self) -> watch::Ref<'_, Names> {
        self.names.borrow()
    }

    /// The node's own id.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Dials a peer. The reports end with [`Event::Result`].
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub async fn dial(&self, request: Request) -> Result<mpsc::Receiver<Event>, Stopped> {
        let (reports, receiver) = mpsc::channel(DIAL_EVENTS);
        self.send(Command::Dial { request, reports }).await?;
        Ok(receiver)
    }

    /// The state of the whole node.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.status_with(false).await
    }

    /// The same, with the sessions that are open if `sessions` is set.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub async fn status_with(&self, sessions: bool) -> Result<Status, Stopped> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Status { sessions, answer }).await?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Opens a session with a service of `peer`. The node looks for a path if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenSessionError`], if the peer does not accept it.
    pub async fn open(&self, peer: PeerId, service: &str) -> Result<Session, OpenSessionError> {
        self.hub.open_for_program(peer, service).await
    }

    /// Offers a service of this program to `callers`, as long as the returned value exists.
    ///
    /// # Errors
    ///
    /// [`ServeError`], if the name is invalid or taken.
    pub fn serve(&self, name: &str, callers: Callers) -> Result<Incoming, ServeError> {
        self.hub.serve_for_program(name, callers)
    }

    /// Exposes a port of the range for clients that are not p2pnode, as long as the reports are read. `None` if this node has no
    /// ports mapped.
    pub(crate) async fn expose(&self, expose: Expose) -> Option<mpsc::Receiver<Exposure>> {
        let (reports, receiver) = mpsc::channel(EXPOSE_REPORTS);
        let exposes = self.exposes.as_ref()?;
        exposes.send(Asked { expose, reports }).await.ok()?;
        Some(receiver)
    }

    /// The services of the node.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Why the path of `peer` is what it is; `None` if it is not connected.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub async fn why(&self, peer: PeerId) -> Result<Option<Why>, Stopped> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Why { peer, answer }).await?;
        receiver.await.map_err(|_| Stopped)
    }

    /// What the node sees of its network. Takes up to 3 s, and minutes with the lifetime of mappings.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub(crate) async fn netcheck(&self, lifetime: bool) -> Result<Report, Stopped> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Netcheck { lifetime, answer }).await?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Dials `peer` no longer when it is lost. Its open connections stay. Returns whether a dial had reached it.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub async fn forget(&self, peer: PeerId) -> Result<bool, Stopped> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Forget { peer, answer }).await?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Applies `access.allow` and the names of `peers` of a configuration whose other keys are those of the start.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the node is gone.
    pub(crate) async fn reload(&self, config: Config) -> Result<(), Stopped> {
        self.send(Command::Reload(Box::new(config))).await
    }

    /// Applies `services`, `forwards` and `peers` of such a configuration. Returns the forwards that cannot listen.
    pub(crate) fn set_services(&self, config: &Config) -> Vec<ForwardError> {
        let done = self
            .hub
            .configure(&config.services, config.peer_addrs(), config.peer_names());
        done.err().unwrap_or_default()
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
}
