//! The sockets of forwards that take connections.

use std::{
    fmt, fs,
    future::poll_fn,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use p2pnode_services::{
    config::{Address, Listen},
    core::sockets::Place,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::AbortHandle,
};

use super::{local::Socket, running::lock};

/// A socket that takes clients.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "its drop removes it")] SocketFile,
    ),
}

/// A socket in the file system, which goes with its listener unless another one is there.
pub(super) struct SocketFile(PathBuf, (u64, u64));

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
                Ok((Self::Unix(listener, file), listen.clone()))
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
            Self::Unix(listener, _) => {
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

    /// The next client, which gets a place; `None` once it is closed.
    pub(super) async fn accept(&self, place: impl Fn() -> Place) -> Option<io::Result<Socket>> {
        let accept = |cx: &mut Context<'_>| match &*lock(&self.0) {
            Some(listener) => listener.poll_accept(cx, &place).map(Some),
            None => Poll::Ready(None),
        };
        poll_fn(accept).await
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
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}
