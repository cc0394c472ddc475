//! The control socket, from the side of the running process.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::SocketAddr,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use p2pnode_protocol::to_json;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tracing::field::Empty;

use super::Owner;
use crate::{
    http::{self, Bounds},
    remedy,
    signals::{Shutdown, Trigger},
};

/// How long another process may hold the lock of the socket's directory: it connects to the socket and moves a file.
const LOCKED: Duration = Duration::from_secs(2);

/// Between two looks whether the socket is still in the file system.
const LOOK: Duration = Duration::from_secs(1);

/// How long to wait before the next attempt to bind it again: a look connects to the socket that is there now.
const AGAIN: Duration = Duration::from_secs(5);

/// The control socket of a running process. It is bound again if somebody removes it, see decision 0736. [`Server::stop`] removes
/// it from the file system.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    file: SocketFile,
    trigger: Trigger,
    task: JoinHandle<io::Result<()>>,
}

/// An answer in JSON. Text of remotes in it is escaped, as people read it as well: see [`to_json`].
#[derive(Debug)]
pub struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match to_json(&self.0) {
            Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

/// Why the control socket was not created.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process listens on the path.
    #[error("control socket {}: another {} answers there: set control.socket to another path", .path.display(), .owner.noun)]
    Taken {
        /// What this process is.
        owner: Owner,
        /// The socket's path.
        path: PathBuf,
    },
    /// The path holds another file, which stays unchanged.
    #[error("control socket {}: a file that is not a socket is there: move it away, or set control.socket to another path", .0.display())]
    NotASocket(PathBuf),
    /// The path holds a socket of another user, which stays unchanged.
    #[error("control socket {}: it belongs to the user with the id {uid}: set control.socket to another path", .path.display())]
    NotOurs {
        /// The socket's path.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The system refuses.
    #[error("control socket {}: {source}: {}", .path.display(), remedy::of(.source, .path).unwrap_or_else(|| "set control.socket to a path that this user may write".to_owned()))]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Server {
    /// Binds the socket at `path` with mode 0600 and serves `router` on it. Replaces a socket of this user that no process
    /// listens on.
    ///
    /// # Errors
    ///
    /// [`ServerError`], which names the path and the remedy.
    pub async fn start(owner: Owner, path: &Path, router: Router) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Io {
            path: path.to_owned(),
            source,
        };
        // Clients could not connect to a longer one, though a socket can be moved there.
        SocketAddr::from_pathname(path).map_err(failed)?;
        let (listener, file) = bind(owner, path, |directory| bind_private(directory, path)).await?;
        let file = SocketFile(Arc::new(Mutex::new(Some(file))));
        let kept = Kept {
            owner,
            path: path.to_owned(),
            listener,
            file: file.clone(),
            at: Instant::now() + LOOK,
            failed: None,
        };
        let (trigger, shutdown) = Shutdown::pair();
        let task = tokio::spawn(http::serve(
            kept,
            router,
            Bounds::control(),
            shutdown.requested(),
        ));
        Ok(Self {
            path: path.to_owned(),
            file,
            trigger,
            task,
        })
    }

    /// Ends the server and removes the socket, unless another process has put its own there.
    pub async fn stop(self) {
        // The name goes first, so that no client finds a socket that no longer answers.
        if let Err(error) = self.remove().await {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
        self.trigger.trigger();
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the control socket ended early"),
            Err(error) => tracing::warn!(%error, "the control socket failed"),
        }
    }

    async fn remove(&self) -> io::Result<()> {
        // From now on it is not bound again.
        let file = self.file.lock().take();
        let _lock = lock(directory(&self.path)?).await?;
        match self.path.symlink_metadata() {
            Ok(found) if file == Some(identity(&found)) => fs::remove_file(&self.path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The device and the inode of the socket; `None` once the server stops. The path may have become another one's. Clones are the same.
#[derive(Debug, Clone)]
struct SocketFile(Arc<Mutex<Option<(u64, u64)>>>);

impl SocketFile {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        // What a panicking thread left is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the socket should be at `path` and is not.
    fn is_lost_from(&self, path: &Path) -> bool {
        let is_it = |file| {
            path.symlink_metadata()
                .is_ok_and(|it| identity(&it) == file)
        };
        self.lock().is_some_and(|file| !is_it(file))
    }
}

/// A listener whose socket is bound again if it is no longer in the file system.
struct Kept {
    owner: Owner,
    path: PathBuf,
    listener: UnixListener,
    file: SocketFile,
    /// When to look next.
    at: Instant,
    /// What was logged of the last attempt.
    failed: Option<String>,
}

impl axum::serve::Listener for Kept {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Clients of the old socket come before the new one.
            tokio::select! {
                biased;
                accepted = axum::serve::Listener::accept(&mut self.listener) => return accepted,
                () = sleep_until(self.at) => self.look().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Kept {
    async fn look(&mut self) {
        self.at = Instant::now() + LOOK;
        if !self.file.is_lost_from(&self.path) {
            self.failed = None;
            return;
        }
        match self.bind_again().await {
            Ok(()) => tracing::warn!(
                own = Empty,
                path = %self.path.display(),
                "the control socket was removed; the {} listens there again", self.owner.noun
            ),
            Err(error) => {
                let failed = error.to_string();
                if self.failed.as_ref() != Some(&failed) {
                    tracing::warn!(
                        own = Empty,
                        "{failed}; the control socket was removed or replaced, and the {} tries again every {} s",
                        self.owner.noun,
                        AGAIN.as_secs()
                    );
                }
                self.failed = Some(failed);
                self.at = Instant::now() + AGAIN;
            }
        }
    }

    async fn bind_again(&mut self) -> Result<(), ServerError> {
        let (path, listener, file) = (&self.path, &mut self.listener, &self.file);
        let replace = |directory: &Path| {
            if let Some(file) = &mut *file.lock() {
                (*listener, *file) = bind_private(directory, path)?;
            }
            Ok(())
        };
        bind(self.owner, path, replace).await
    }
}

/// What `make` binds at `path`, in the directory of the socket, while no other process may.
async fn bind<T>(
    owner: Owner,
    path: &Path,
    make: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T, ServerError> {
    let failed = |source| ServerError::Io {
        path: path.to_owned(),
        source,
    };
    let directory = directory(path).map_err(failed)?;
    let _lock = lock(directory).await.map_err(failed)?;
    is_unused(owner, path).await?;
    make(directory).map_err(failed)
}

/// The directory of the socket, which is made with mode 0700 if there is none.
fn directory(path: &Path) -> io::Result<&Path> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !directory.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    Ok(directory)
}

/// Locks the directory of a socket. Two processes that start at once would each find that no process listens, and the second
/// would replace the socket of the first.
async fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    let until = Instant::now() + LOCKED;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK && Instant::now() < until => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => {
                let text = format!("cannot lock {}: {error}", directory.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
}

/// Whether the path is free, or a socket of this user's is there on which no process listens.
async fn is_unused(owner: Owner, path: &Path) -> Result<(), ServerError> {
    let failed = |source| ServerError::Io {
        path: path.to_owned(),
        source,
    };
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ServerError::NotASocket(path.to_owned()));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(ServerError::NotOurs {
            path: path.to_owned(),
            uid: found.uid(),
        });
    }
    match UnixStream::connect(path).await {
        // A process listens there. It may have too many clients in its queue.
        Ok(_) => Err(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => return Err(failed(error)),
    }
    .map_err(|()| ServerError::Taken {
        owner,
        path: path.to_owned(),
    })
}

/// Binds `path` with mode 0600, and returns the device and the inode of the socket. To have no wider mode even for a moment, the
/// socket is bound in a private directory and then moved, over what may be at `path`.
fn bind_private(directory: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let private = tempfile::Builder::new()
        .prefix(".c")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(directory)?;
    let bound = private.path().join("s");
    let listener = UnixListener::bind(&bound)?;
    fs::set_permissions(&bound, fs::Permissions::from_mode(0o600))?;
    let file = identity(&bound.symlink_metadata()?);
    fs::rename(&bound, path)?;
    Ok((listener, file))
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Why a request is refused, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    /// The process is stopping.
    #[must_use]
    pub fn stopping(owner: Owner) -> Self {
        let text = format!("the {} is stopping", owner.noun);
        Self(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
