//! The control socket, from the side of the running process.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::Owner;
use crate::{
    admin,
    signals::{Shutdown, Trigger},
};

/// The control socket of a running process. [`Server::stop`] removes it from the file system.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    trigger: Trigger,
    task: JoinHandle<io::Result<()>>,
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
    /// The system refuses.
    #[error("control socket {}: {source}: set control.socket to a path that this user may write", .path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Server {
    /// Binds the socket at `path` with mode 0600 and serves `router` on it. Replaces a socket that no process listens on.
    ///
    /// # Errors
    ///
    /// [`ServerError`], which names the path and the remedy.
    pub async fn start(owner: Owner, path: &Path, router: Router) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Io {
            path: path.to_owned(),
            source,
        };
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                let path = path.to_owned();
                return Err(ServerError::Taken { owner, path });
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = bind_private(path).map_err(failed)?;
        let (trigger, shutdown) = Shutdown::pair();
        let task = tokio::spawn(admin::serve(listener, router, shutdown.requested()));
        Ok(Self {
            path: path.to_owned(),
            trigger,
            task,
        })
    }

    /// Ends the server and removes the socket.
    pub async fn stop(self) {
        // The name goes first, so that no client finds a socket that no longer answers.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
        self.trigger.trigger();
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the control socket ended early"),
            Err(error) => tracing::warn!(%error, "the control socket failed"),
        }
    }
}

/// Binds `path` with mode 0600. To have no wider mode even for a moment, the socket is bound in a private directory and then
/// moved.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !directory.is_dir() {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    let private = tempfile::Builder::new()
        .prefix(".control")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(directory)?;
    let bound = private.path().join("s");
    let listener = UnixListener::bind(&bound)?;
    std::fs::set_permissions(&bound, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&bound, path)?;
    Ok(listener)
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
