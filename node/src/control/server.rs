//! The node's side of the control socket.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::stream;
use p2pnode_daemon::{
    admin::{self, Health},
    control::{Answer, Refusal, Server, ServerError},
};
use p2pnode_protocol::{addr, to_json};
use tokio::{sync::Mutex, time::Instant};

use super::{DialRequest, OWNER, Report, parse_peer, services};
use crate::{
    Handle,
    core::{
        dialer::{Request, Until},
        netcheck::Report as NetcheckReport,
    },
};

/// A request is a peer id and a few addresses.
const BODY_LIMIT: usize = 64 * 1024;

/// Serves `handle` and `health` on a control socket at `path`.
///
/// # Errors
///
/// [`ServerError`], which names the path and the remedy.
pub(crate) async fn start(
    path: &Path,
    handle: Handle,
    health: Health,
) -> Result<Server, ServerError> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/why/{peer}", get(why))
        .route("/v1/netcheck", get(netcheck))
        .route("/v1/netcheck/lifetime", get(lifetime))
        .route("/v1/forget/{peer}", post(forget))
        .route("/v1/dial", post(dial))
        .route("/v1/status/sessions", get(status_with_sessions))
        .route("/v1/serve", post(services::serve))
        .route("/v1/forward", post(services::forward))
        .route("/v1/end", post(services::end))
        .route("/v1/map", post(services::map))
        .route("/v1/services/{peer}", post(services::list))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(handle)
        .merge(admin::router(health));
    Server::start(OWNER, path, router).await
}

/// A look at the network serves the page for this long, however often the page is loaded.
const LOOK: Duration = Duration::from_secs(60);

/// The page of the admin HTTP server, with the sessions and the last look at the network.
pub(crate) fn page(handle: Handle) -> Router {
    let last = Arc::new(Mutex::new(None::<(Instant, NetcheckReport)>));
    let look = async move |State(handle): State<Handle>| {
        let mut last = last.lock().await;
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() > LOOK) {
            let report = handle.netcheck(false).await;
            let report = report.map_err(|_| Refusal::stopping(OWNER))?;
            *last = Some((Instant::now(), report));
        }
        let report = last.as_ref().map(|(_, report)| report.clone());
        Ok::<_, Refusal>(Answer(report).into_response())
    };
    admin::page(get(status_with_sessions))
        .route("/netcheck.json", get(look))
        .with_state(handle)
}

async fn status(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(Answer(
        handle
            .status()
            .await
            .map_err(|_| Refusal::stopping(OWNER))?,
    )
    .into_response())
}

async fn status_with_sessions(State(handle): State<Handle>) -> Result<Response, Refusal> {
    let status = handle.status_with(true).await;
    Ok(Answer(status.map_err(|_| Refusal::stopping(OWNER))?).into_response())
}

async fn why(
    State(handle): State<Handle>,
    UrlPath(peer): UrlPath<String>,
) -> Result<Response, Refusal> {
    let peer = parse_peer(&peer, &handle)?;
    let stopping = |_| Refusal::stopping(OWNER);
    if let Some(why) = handle.why(peer).await.map_err(stopping)? {
        return Ok(Answer(why).into_response());
    }
    let status = handle.status().await.map_err(stopping)?;
    let relay = status.relays.into_iter().find(|relay| relay.relay == peer);
    let reason = match relay.map(|relay| relay.reason) {
        Some(Some(reason)) => format!("relay {peer} is not connected to this node: {reason}"),
        Some(None) => format!("relay {peer} is not connected to this node; it is being dialed"),
        None => match status.lost.iter().find(|lost| lost.peer == peer) {
            Some(lost) => format!("no path to {lost}"),
            None => match status.refused.iter().find(|refused| refused.peer == peer) {
                Some(refused) => format!("no path to {refused}"),
                None => format!(
                    "{peer} is not connected to this node; `p2pnode dial {peer}` connects it"
                ),
            },
        },
    };
    Err(Refusal(StatusCode::NOT_FOUND, reason))
}

async fn netcheck(State(handle): State<Handle>) -> Result<Response, Refusal> {
    look(&handle, false).await
}

async fn lifetime(State(handle): State<Handle>) -> Result<Response, Refusal> {
    look(&handle, true).await
}

async fn look(handle: &Handle, lifetime: bool) -> Result<Response, Refusal> {
    let report = handle.netcheck(lifetime).await;
    Ok(Answer(report.map_err(|_| Refusal::stopping(OWNER))?).into_response())
}

async fn forget(
    State(handle): State<Handle>,
    UrlPath(peer): UrlPath<String>,
) -> Result<Response, Refusal> {
    let was_wanted = handle.forget(parse_peer(&peer, &handle)?).await;
    let was_wanted = was_wanted.map_err(|_| Refusal::stopping(OWNER))?;
    Ok(format!("{was_wanted}\n").into_response())
}

async fn dial(
    State(handle): State<Handle>,
    Json(asked): Json<DialRequest>,
) -> Result<Response, Refusal> {
    let peer = parse_peer(&asked.peer, &handle)?;
    let addrs = asked
        .addrs
        .iter()
        .map(|text| addr::dialable(text).map(|endpoint| endpoint.addr))
        .collect::<Result<Vec<_>, _>>();
    let mut addrs = addrs.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    addrs.extend(handle.names().addrs(&peer).cloned());
    let request = Request {
        peer,
        addrs,
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
        .map_err(|_| Refusal::stopping(OWNER))?;
    let name = handle.names().of(&peer).map(str::to_owned);
    let lines = stream::unfold((events, name), async |(mut events, name)| {
        let event = events.recv().await?;
        let report = Report {
            event,
            name: name.clone(),
        };
        let line = to_json(&report).ok()? + "\n";
        Some((Ok::<_, io::Error>(Bytes::from(line)), (events, name)))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response())
}
