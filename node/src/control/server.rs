//! The node's side of the control socket.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::stream;
use libp2p::PeerId;
use p2pnode_bin_shared::{
    addr,
    admin::{self, Health},
    signals::{Shutdown, Trigger},
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{DialRequest, Report};
use crate::{
    Handle, config,
    dialer::{Request, Until},
    output,
};

/// A request is a peer id and a few addresses.
const BODY_LIMIT: usize = 64 * 1024;

/// The control socket of a running node; removed from the file system at the end.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    trigger: Trigger,
    task: JoinHandle<io::Result<()>>,
}

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another node answers on it.
    #[error("control socket {}: another node answers there: set control.socket to another path", .0.display())]
    Taken(PathBuf),
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
    /// Binds the socket at `path` with mode 0600 and serves `handle` and `health` on it. A socket that a dead node left is replaced.
    ///
    /// # Errors
    ///
    /// [`ServerError`], which names the path and the remedy.
    pub async fn start(path: &Path, handle: Handle, health: Health) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Io {
            path: path.to_owned(),
            source,
        };
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(ServerError::Taken(path.to_owned()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = bind_private(path).map_err(failed)?;
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/why/{peer}", get(why))
            .route("/v1/dial", post(dial))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(handle)
            .merge(admin::router(health));
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

async fn status(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(Json(handle.status().await.map_err(|_| Refusal::stopping())?).into_response())
}

async fn why(
    State(handle): State<Handle>,
    UrlPath(peer): UrlPath<String>,
) -> Result<Response, Refusal> {
    let peer = parse_peer(&peer)?;
    match handle.why(peer).await.map_err(|_| Refusal::stopping())? {
        Some(why) => Ok(Json(why).into_response()),
        None => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("{peer} is not connected to this node"),
        )),
    }
}

async fn dial(
    State(handle): State<Handle>,
    Json(asked): Json<DialRequest>,
) -> Result<Response, Refusal> {
    let peer = parse_peer(&asked.peer)?;
    config::check_not_own(peer, handle.peer_id())
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    let addrs = asked
        .addrs
        .iter()
        .map(|text| addr::dialable(text).map(|endpoint| endpoint.addr))
        .collect::<Result<_, _>>();
    let request = Request {
        peer,
        addrs: addrs.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?,
        until: if asked.any_connection {
            Until::Connected
        } else {
            Until::Direct
        },
        timeout: Duration::from_millis(asked.timeout_ms),
        pings: asked.pings,
    };
    let events = handle
        .dial(request)
        .await
        .map_err(|_| Refusal::stopping())?;
    let lines = stream::unfold(events, async |mut events| {
        let event = events.recv().await?;
        let report = Report {
            text: output::line(&event),
            phase: output::phase(&event).map(str::to_owned),
            event: serde_json::to_value(&event).ok()?,
        };
        let mut line = serde_json::to_vec(&report).ok()?;
        line.push(b'\n');
        Some((Ok::<_, io::Error>(Bytes::from(line)), events))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response())
}

fn parse_peer(text: &str) -> Result<PeerId, Refusal> {
    text.parse().map_err(|error| {
        Refusal(
            StatusCode::BAD_REQUEST,
            format!("{text:?} is not a peer id: {error}"),
        )
    })
}

/// A request that is not answered, and why, in one line.
struct Refusal(StatusCode, String);

impl Refusal {
    fn stopping() -> Self {
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "the node is stopping".to_owned(),
        )
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
