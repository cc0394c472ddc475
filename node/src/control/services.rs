//! Requests for services and forwards.

use std::{io, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::stream;
use p2pnode_daemon::control::Refusal;
use p2pnode_protocol::to_json;
use p2pnode_services::config::{self, Fault, Identity, RawForward, RawService, Source};
use tokio::sync::mpsc;

use super::{EndRequest, ForwardRequest, Found, MapRequest, ServeRequest, parse_peer};
use crate::{
    Handle,
    config::known,
    services::{Goal, Report, reports},
};

pub(super) async fn serve(
    State(handle): State<Handle>,
    Json(asked): Json<ServeRequest>,
) -> Result<Response, Refusal> {
    let identity = Identity::NAMES
        .iter()
        .find(|(name, _)| *name == asked.identity);
    let raw = RawService {
        target: asked.target.parse().map_err(bad)?,
        allow: asked.allow,
        identity: identity
            .ok_or_else(|| bad("no such identity".to_owned()))?
            .1,
        protocol: None,
        source: Source::Any,
        udp_idle: None,
    };
    let name = asked.name.parse().map_err(bad)?;
    let service = config::service(name, raw, &known(Some(handle.peer_id()))).map_err(faults)?;
    let (sink, lines) = reports();
    let serving = Report::serving(&service, handle.peer_id());
    let offered = handle
        .hub()
        .offer(service, Goal::Target, Some(sink.clone()));
    let offering = offered.map_err(|error| Refusal(StatusCode::CONFLICT, error.to_string()))?;
    // The channel is new.
    let _ = sink.try_send(serving.into());
    Ok(answer(lines, offering))
}

pub(super) async fn forward(
    State(handle): State<Handle>,
    Json(asked): Json<ForwardRequest>,
) -> Result<Response, Refusal> {
    let to = asked
        .to
        .iter()
        .map(|to| to.parse())
        .collect::<Result<_, _>>();
    let raw = RawForward {
        listen: asked.listen.parse().map_err(bad)?,
        to: to.map_err(bad)?,
    };
    let forward = config::forward(raw, &known(Some(handle.peer_id()))).map_err(faults)?;
    let (sink, lines) = reports();
    let forwarding = handle.hub().forward(forward, asked.once, Some(sink));
    let forwarding =
        forwarding.map_err(|error| Refusal(StatusCode::CONFLICT, error.to_string()))?;
    Ok(answer(lines, forwarding))
}

pub(super) async fn end(
    State(handle): State<Handle>,
    Json(asked): Json<EndRequest>,
) -> Result<Response, Refusal> {
    let hub = handle.hub();
    match asked {
        EndRequest::Forward(listen) => hub.end_forward_at(&listen),
        EndRequest::Service(name) => hub.end_service(&name.parse().map_err(bad)?),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn map(
    State(handle): State<Handle>,
    Json(asked): Json<MapRequest>,
) -> Result<Response, Refusal> {
    let reports = handle.expose(asked.expose().map_err(bad)?).await;
    let reports = reports.ok_or_else(|| {
        let reason = "the running node has no ports mapped; set mappings.mode, or use --standalone";
        Refusal(StatusCode::CONFLICT, reason.to_owned())
    })?;
    Ok(answer(reports, ()))
}

pub(super) async fn list(
    State(handle): State<Handle>,
    UrlPath(peer): UrlPath<String>,
) -> Result<Response, Refusal> {
    let peer = parse_peer(&peer, &handle)?;
    let found = async move {
        let found = Found::from(handle.hub().list(peer).await);
        Ok::<_, io::Error>(Bytes::from(to_json(&found)? + "\n"))
    };
    Ok(ndjson(Body::from_stream(stream::once(found))))
}

/// The lines as they come. What `keeps` is dropped with the answer: when the command is gone.
fn answer<T: serde::Serialize + Send + 'static>(
    lines: mpsc::Receiver<T>,
    keeps: impl Send + Sync + 'static,
) -> Response {
    let keeps = Arc::new(keeps);
    let lines = stream::unfold((lines, keeps), async |(mut lines, keeps)| {
        let line = to_json(&lines.recv().await?).ok()? + "\n";
        Some((Ok::<_, io::Error>(Bytes::from(line)), (lines, keeps)))
    });
    ndjson(Body::from_stream(lines))
}

fn ndjson(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn bad(reason: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, reason)
}

fn faults(faults: Vec<Fault>) -> Refusal {
    let faults: Vec<_> = faults.into_iter().map(|fault| fault.problem).collect();
    bad(faults.join("; "))
}
