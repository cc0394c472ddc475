//! The control socket of a relay; see [`p2pnode_daemon::control`].
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | a [`Status`] |
//! | `GET /livez`, `/readyz`, `/metrics` | as the admin HTTP server has them |

use std::path::Path;

use anyhow::Context as _;
use axum::{Router, extract::State, routing::get};
use p2pnode_daemon::{
    admin::{self, Health},
    control::{Answer, Client, Form, Owner, Refusal, Server, show},
    exit::{Exit, Usage},
};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::observe::status::Status;

const OWNER: Owner = Owner {
    noun: "relay",
    run: "relay-node run",
};

/// Questions that may wait for the event loop. Who comes later waits for a place.
const WAITING: usize = 16;

/// Somebody who wants to know the relay's state.
pub(crate) type Question = oneshot::Sender<Status>;

/// Asks the event loop.
pub(crate) type Asks = mpsc::Sender<Question>;

/// Where questions are asked, and where they arrive.
pub(crate) fn questions() -> (Asks, mpsc::Receiver<Question>) {
    mpsc::channel(WAITING)
}

/// Serves `health` and the status on a control socket at `path`, if there is one.
///
/// A relay without its control socket still serves its peers, as where several run on one host with the defaults: that is
/// warned of and no error.
pub(crate) async fn start(path: Option<&Path>, health: Health, asks: Asks) -> Option<Server> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .with_state(asks)
        .merge(admin::router(health));
    let server = Server::start(OWNER, path?, router).await;
    let server = server.inspect_err(|error| warn!("{error}; status cannot ask this relay"));
    server.ok()
}

/// The page of the admin HTTP server.
pub(crate) fn page(asks: Asks) -> Router {
    admin::page(get(status)).with_state(asks)
}

async fn status(State(questions): State<Asks>) -> Result<Answer<Status>, Refusal> {
    let stopping = || Refusal::stopping(OWNER);
    let (question, answer) = oneshot::channel();
    questions.send(question).await.map_err(|_| stopping())?;
    answer.await.map(Answer).map_err(|_| stopping())
}

/// Prints the status of the relay at `socket`; again and again with `watch`.
///
/// # Errors
/// If no socket is known, no relay answers on it, or stdout cannot be written.
pub(crate) async fn ask(socket: Option<&Path>, form: Form) -> anyhow::Result<Exit> {
    let socket = socket.context(Usage(
        "control.socket has no default here, because neither XDG_RUNTIME_DIR, XDG_STATE_HOME nor HOME is set; set one, or \
         give the path"
            .to_owned(),
    ))?;
    let client = Client::new(OWNER, socket);
    show(form, async || {
        let status: Status = client.get("/v1/status").await?;
        Ok(status)
    })
    .await
}
