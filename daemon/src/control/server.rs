//! The running process's side of the control socket.

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

/// The control socket of a running process; removed from the file system at the end.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    trigger: Trigger,
    task: JoinHandle<io::Result<()>>,
}

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process answers on it.
    #[error("control socket {}: another {} answers there: set control.socket to another path", .path.display(), .owner.noun)]
    Taken {
        /// What this one is.
        owner: Owner,
        /// The socket's path.
        path: PathBuf,
    },
    /// What stands there is not a socket, and is left alone.
    #[error("control socket {}: a file that is no socket stands there: move it away, or set control.socket to another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("control socket {}: {source}: set control.socket to a path that this user may write", .path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Server {
    /// Binds the socket at `path` with mode 0600 and serves `router` on it. A socket that a dead process left is replaced.
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
        // First the name, so that nobody finds a socket that no longer answers.
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

/// Binds `path` so that it never has a wider mode than 0600, not even between bind and chmod: it is bound in a private
/// directory beside it and then moved.
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

/// A request that is not answered, and why, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    /// The process ends, and nobody is left who could answer.
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
