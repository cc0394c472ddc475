//! Forwards: services of other nodes, brought to local sockets.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use libp2p::PeerId;
use p2pnode_services::{
    config::{Address, Forward, Listen, ServiceName, What},
    core::session::Settings,
    wire::{Carries, ResetReason},
};
use tokio::net::{TcpListener, UnixListener};

use super::{
    Hub,
    driver::{Driver, Outcome},
    forwards::{Entry, ForwardError, Shared},
    lines::{Report, Sink},
    local::Socket,
    running::Running,
};

/// How long a peer may take that is not the last one of its forward.
const NEXT_AFTER: Duration = Duration::from_secs(5);

/// How long a listener waits that cannot accept, as when no file can be opened.
const AGAIN: Duration = Duration::from_millis(100);

/// A forward that exists as long as this does.
#[derive(Debug)]
pub(crate) struct Forwarding {
    hub: Hub,
    number: u64,
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.hub.end_forward(self.number);
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "its drop removes it")] SocketFile,
    ),
}

/// A socket in the file system, which goes with its listener unless another one is there.
struct SocketFile(PathBuf, (u64, u64));

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.0).is_ok_and(|found| found == self.1) {
            // An error means that it is gone.
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = path.symlink_metadata()?;
    Ok((file.dev(), file.ino()))
}

impl Listener {
    fn bind(listen: &Listen) -> io::Result<(Self, Listen)> {
        match listen {
            Address::Tcp(ip, port) => {
                let listener = std::net::TcpListener::bind((*ip, *port))?;
                listener.set_nonblocking(true)?;
                let port = listener.local_addr()?.port();
                let listener = Self::Tcp(TcpListener::from_std(listener)?);
                Ok((listener, Address::Tcp(*ip, port)))
            }
            Address::Unix(path) => {
                free(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone(), identity(path)?);
                Ok((Self::Unix(listener, file), listen.clone()))
            }
            Address::Udp(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Ok(Socket::tcp(listener.accept().await?.0)),
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// Removes a socket on which nobody listens: one of an earlier run.
fn free(path: &Path) -> io::Result<()> {
    let file = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !file.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl Hub {
    /// Brings services here as long as the returned value exists. `once`: for one client.
    ///
    /// # Errors
    /// If it cannot listen.
    pub(crate) fn forward(
        &self,
        forward: Forward,
        once: bool,
        sink: Option<Sink>,
    ) -> Result<Forwarding, ForwardError> {
        let number = self.start_forward(forward, once, false, sink)?;
        Ok(Forwarding {
            hub: self.clone(),
            number,
        })
    }

    fn start_forward(
        &self,
        forward: Forward,
        once: bool,
        is_configured: bool,
        sink: Option<Sink>,
    ) -> Result<u64, ForwardError> {
        let failed = |source| ForwardError {
            listen: forward.listen.clone(),
            source,
        };
        if let (Some(at), Some(ports)) = (forward.listen.socket(), self.ports())
            && ports.range().contains(at.port())
        {
            let reason = format!("the port is in the dial range {}", ports.range());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let number = self.number();
        let (listener, listen) = match forward.listen.socket() {
            Some(at) if forward.listen.is_udp() => {
                let named = forward.to.iter().filter_map(|(what, peer)| match what {
                    What::Service(service) => Some((service.clone(), *peer)),
                    What::Raw(_) => None,
                });
                let listener = self.listen_udp(number, at, named.collect(), sink.clone());
                let listener = listener.map_err(failed)?;
                let listen = Address::Udp(listener.at.ip(), listener.at.port());
                (Err(listener), listen)
            }
            Some(_) | None => {
                let (listener, listen) = Listener::bind(&forward.listen).map_err(failed)?;
                (Ok(listener), listen)
            }
        };
        let shared = Arc::new(Shared {
            number,
            listen: listen.clone(),
            to: forward.to.clone(),
            sessions: AtomicUsize::new(0),
            is_gone: AtomicBool::new(false),
            sink: sink.clone(),
        });
        let wishes: Vec<_> = forward
            .to
            .iter()
            .map(|(_, peer)| self.wish(*peer))
            .collect();
        let (task, datagrams) = match listener {
            Ok(listener) => {
                let listening = listen_on(self.clone(), listener, Arc::clone(&shared), once);
                (Some(tokio::spawn(listening).abort_handle()), None)
            }
            Err(listener) => (None, Some(listener)),
        };
        let to = shared.to();
        let entry = Entry {
            forward,
            shared,
            is_configured,
            task,
            _keeps: Box::new((wishes, datagrams)),
        };
        self.state().forwards.0.insert(number, entry);
        self.offering_changed();
        tracing::info!(own = tracing::field::Empty, %listen, %to, "forwarding");
        if let Some(sink) = sink {
            let listening = Report::Listening {
                listen: listen.to_string(),
                to: to.clone(),
            };
            // The channel is new.
            let _ = sink.try_send(listening.into());
        }
        Ok(number)
    }

    /// The forwards of the configuration are these from now on.
    pub(super) fn configure_forwards(&self, forwards: &[Forward]) -> Vec<ForwardError> {
        let state = self.state();
        let configured = state
            .forwards
            .0
            .iter()
            .filter(|(_, entry)| entry.is_configured);
        let known: Vec<_> = configured
            .map(|(number, entry)| (*number, entry.forward.clone()))
            .collect();
        drop(state);
        for (number, _) in known
            .iter()
            .filter(|(_, forward)| !forwards.contains(forward))
        {
            self.end_forward(*number);
        }
        let is_new = |forward: &&Forward| known.iter().all(|(_, known)| known != *forward);
        let mut failed = Vec::new();
        for forward in forwards.iter().filter(is_new) {
            let started = self.start_forward(forward.clone(), false, true, None);
            failed.extend(started.err());
        }
        failed
    }

    /// Ends a forward and its sessions.
    fn end_forward(&self, number: u64) {
        let mut state = self.state();
        let entry = state.forwards.0.remove(&number);
        for running in state
            .running
            .values()
            .filter(|running| running.forward == Some(number))
        {
            running.leave(|mail| mail.reset = Some(ResetReason::ServiceGone));
        }
        drop(state);
        // It takes the lock for its wishes.
        drop(entry);
        self.offering_changed();
    }

    /// Connects `socket` with a service, until the session has ended.
    pub(crate) async fn connect(
        &self,
        service: ServiceName,
        peer: PeerId,
        socket: Socket,
        sink: Sink,
    ) {
        let session = self.session((service, peer), socket, true, None, Some(sink));
        if let Err(socket) = session.await {
            socket.reset();
        }
    }

    /// One session for a client, which gets `greeting` once the peer has accepted. `Outcome::socket` is its socket if not.
    pub(super) async fn session_with_greeting(
        &self,
        (service, peer): (ServiceName, PeerId),
        socket: Socket,
        greeting: Vec<u8>,
    ) -> Result<Outcome, Socket> {
        let client = socket.addresses().map(|(client, _)| client);
        let name = service.clone();
        let running = |key| Running::new(key, name, client, None, None, self.metrics());
        let Some((running, share)) = self.open_session(running, peer, service, Carries::Bytes)
        else {
            return Err(socket);
        };
        let settings = self.settings();
        let mut driver = Driver::open(self.clone(), running, share, socket, true, settings);
        driver.greet(greeting);
        Ok(driver.run().await)
    }

    /// One session for a client. `Err`: there are as many sessions as there may be.
    pub(super) async fn session(
        &self,
        (service, peer): (ServiceName, PeerId),
        socket: Socket,
        is_last: bool,
        forward: Option<u64>,
        sink: Option<Sink>,
    ) -> Result<Outcome, Socket> {
        let client = socket.addresses().map(|(client, _)| client);
        let name = service.clone();
        let running = |key| Running::new(key, name, client, forward, sink, self.metrics());
        let Some((running, share)) = self.open_session(running, peer, service, Carries::Bytes)
        else {
            tracing::info!(%peer, "a client was refused: there are as many sessions as sessions.memory admits");
            return Err(socket);
        };
        let settings = self.settings();
        let settings = Settings {
            open_timeout: match is_last {
                true => settings.open_timeout,
                false => NEXT_AFTER,
            },
            ..settings.clone()
        };
        let driver = Driver::open(self.clone(), running, share, socket, !is_last, &settings);
        Ok(driver.run().await)
    }
}

async fn listen_on(hub: Hub, listener: Listener, shared: Arc<Shared>, once: bool) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                let serve = serve(hub.clone(), Arc::clone(&shared), socket);
                if once {
                    drop(listener);
                    // Its session outlives this task, as any other one does.
                    tokio::spawn(serve);
                    return;
                }
                tokio::spawn(serve);
            }
            Err(error) => {
                tracing::warn!(listen = %shared.listen, %error, "a forward cannot accept a client and goes on");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Serves a client with the first peer that answers.
async fn serve(hub: Hub, shared: Arc<Shared>, socket: Socket) {
    shared.sessions.fetch_add(1, Relaxed);
    if let Some(socket) = try_peers(&hub, &shared, socket).await {
        socket.reset();
    }
    shared.sessions.fetch_sub(1, Relaxed);
}

/// The socket, if it is left.
async fn try_peers(hub: &Hub, shared: &Shared, mut socket: Socket) -> Option<Socket> {
    let last = shared.to.len().saturating_sub(1);
    for (index, (what, peer)) in shared.to.iter().enumerate() {
        let is_last = index == last;
        if shared.is_gone.load(Relaxed) {
            break;
        }
        if !is_last && hub.is_unreachable(peer) {
            continue;
        }
        let (number, sink) = (Some(shared.number), shared.sink.clone());
        let session = match what {
            What::Service(service) => {
                let to = (service.clone(), *peer);
                hub.session(to, socket, is_last, number, sink).await
            }
            What::Raw(protocol) => {
                let patience = match is_last {
                    true => hub.settings().open_timeout,
                    false => NEXT_AFTER,
                };
                let to = (protocol, *peer);
                Ok(hub.raw_session(to, socket, number, sink, patience).await)
            }
        };
        match session {
            Ok(Outcome {
                socket: Some(kept), ..
            }) if !is_last => socket = kept,
            Ok(outcome) => return outcome.socket,
            Err(socket) => return Some(socket),
        }
    }
    Some(socket)
}
