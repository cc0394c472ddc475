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
    control::{Answer, Client, Owner, Refusal, Server, show},
    exit::{Exit, Usage},
};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::observe::{status::Status, table};

const OWNER: Owner = Owner {
    noun: "relay",
    run: "relay-node run",
};

/// Questions that may wait for the event loop. Who comes later waits for a place.
const WAITING: usize = 16;

/// Somebody who wants to know the relay's state.
pub(crate) type Question = oneshot::Sender<Status>;

/// Serves `health` and the status on a control socket at `path`, if there is one; the questions are for the event loop.
///
/// A relay without its control socket still serves its peers, as where several run on one host with the defaults: that is
/// warned of and no error.
pub(crate) async fn start(
    path: Option<&Path>,
    health: Health,
) -> (Option<Server>, mpsc::Receiver<Question>) {
    let (questions, receiver) = mpsc::channel(WAITING);
    let Some(path) = path else {
        return (None, receiver);
    };
    let router = Router::new()
        .route("/v1/status", get(status))
        .with_state(questions)
        .merge(admin::router(health));
    let server = Server::start(OWNER, path, router).await;
    let server = server.inspect_err(|error| warn!("{error}; status cannot ask this relay"));
    (server.ok(), receiver)
}

async fn status(
    State(questions): State<mpsc::Sender<Question>>,
) -> Result<Answer<Status>, Refusal> {
    let stopping = || Refusal::stopping(OWNER);
    let (question, answer) = oneshot::channel();
    questions.send(question).await.map_err(|_| stopping())?;
    answer.await.map(Answer).map_err(|_| stopping())
}

/// Prints the status of the relay at `socket`; again and again with `watch`.
///
/// # Errors
/// If no socket is known, no relay answers on it, or stdout cannot be written.
pub(crate) async fn ask(socket: Option<&Path>, watch: bool, json: bool) -> anyhow::Result<Exit> {
    let socket = socket.context(Usage(
        "control.socket has no default here, because neither XDG_RUNTIME_DIR, XDG_STATE_HOME nor HOME is set; set one, or \
         give the path"
            .to_owned(),
    ))?;
    let client = Client::new(OWNER, socket);
    show(watch, json, async |colour| {
        let status: Status = client.get("/v1/status").await?;
        Ok(if json {
            p2pnode_protocol::to_json(&status)? + "\n"
        } else {
            table::status(&status, colour)
        })
    })
    .await
}
