//! The sockets of forwards that take connections.
//!
//! A Unix socket that somebody removes, such as `tmpwatch`, is bound again. See decision 0736.

use std::{
    fmt, fs,
    future::poll_fn,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use p2pnode_services::{
    config::{Address, Listen},
    core::sockets::Place,
};
use socket2::{Domain, SockAddr, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{forwards::ForwardError, local::Socket, running::lock};

/// Between two looks whether a Unix socket is still in the file system.
const LOOK: Duration = Duration::from_secs(1);

/// How long to wait before the next attempt to bind it again: a look connects to the socket that is there now.
const AGAIN: Duration = Duration::from_secs(5);

/// A socket that takes clients.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The file goes first: its inode can be no other's while the listener has it.
    Unix(SocketFile, UnixListener),
}

/// A socket in the file system, which goes with its listener unless another one is there.
pub(super) struct SocketFile(PathBuf, (u64, u64));

impl SocketFile {
    fn is_there(&self) -> bool {
        identity(&self.0).is_ok_and(|found| found == self.1)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
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
    pub(super) fn bind(listen: &Listen) -> io::Result<(Self, Listen)> {
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
                Ok((Self::Unix(file, listener), listen.clone()))
            }
            Address::Udp(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
        place: impl FnOnce() -> Place,
    ) -> Poll<io::Result<Socket>> {
        match self {
            Self::Tcp(listener) => {
                let accepted = listener.poll_accept(cx);
                accepted.map_ok(|(it, _)| Socket::tcp(it, place()))
            }
            Self::Unix(_, listener) => {
                let accepted = listener.poll_accept(cx);
                accepted.map_ok(|(it, _)| Socket::Unix(it, place()))
            }
        }
    }
}

/// A listener that its forward closes at once: the next one may have the same address.
pub(super) struct Slot(Mutex<Option<Listener>>);

impl Slot {
    pub(super) fn new(listener: Listener) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(listener))))
    }

    pub(super) fn close(&self) {
        let listener = lock(&self.0).take();
        drop(listener);
    }

    /// The next client, which gets a place; `None` once it is closed. In the meantime its socket stays in the file system.
    pub(super) async fn accept(
        &self,
        looks: &mut Looks,
        place: impl Fn() -> Place,
    ) -> Option<io::Result<Socket>> {
        loop {
            let accept = |cx: &mut Context<'_>| match &*lock(&self.0) {
                Some(listener) => listener.poll_accept(cx, &place).map(Some),
                None => Poll::Ready(None),
            };
            // Clients of the old socket come before the new one.
            tokio::select! {
                biased;
                accepted = poll_fn(accept) => return accepted,
                () = looks.next() => looks.report(self.bind_again(&looks.listen)),
            }
        }
    }

    /// Binds the socket again, if another one or none is in its place.
    fn bind_again(&self, listen: &Listen) -> Option<io::Result<()>> {
        let mut slot = lock(&self.0);
        let is_lost = matches!(&*slot, Some(Listener::Unix(file, _)) if !file.is_there());
        is_lost.then(|| {
            *slot = Some(Listener::bind(listen)?.0);
            Ok(())
        })
    }
}

/// When to look whether the socket of a forward is there, and what was logged of that.
pub(super) struct Looks {
    listen: Listen,
    at: Instant,
    failed: Option<String>,
}

impl Looks {
    pub(super) fn new(listen: &Listen) -> Self {
        Self {
            listen: listen.clone(),
            at: Instant::now() + LOOK,
            failed: None,
        }
    }

    /// Only a Unix socket can be removed.
    async fn next(&self) {
        match self.listen {
            Address::Unix(_) => sleep_until(self.at).await,
            Address::Tcp(..) | Address::Udp(..) => std::future::pending().await,
        }
    }

    fn report(&mut self, bound: Option<io::Result<()>>) {
        let listen = &self.listen;
        let (next, failed) = match bound {
            None => (LOOK, None),
            Some(Ok(())) => {
                tracing::warn!(own = tracing::field::Empty, %listen, "the socket was removed; the forward listens there again");
                (LOOK, None)
            }
            Some(Err(source)) => {
                let listen = listen.clone();
                let failed = ForwardError { listen, source }.to_string();
                if self.failed.as_ref() != Some(&failed) {
                    tracing::warn!(
                        own = tracing::field::Empty,
                        "{failed}; the socket of the forward was removed or replaced, and the node tries again every {} s",
                        AGAIN.as_secs()
                    );
                }
                (AGAIN, Some(failed))
            }
        };
        self.at = Instant::now() + next;
        self.failed = failed;
    }
}

/// Takes clients as long as this exists.
pub(super) struct Listening(pub(super) Arc<Slot>, pub(super) AbortHandle);

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listening")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.close();
        self.1.abort();
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
    // A listener whose queue is full would block.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}
