//! The admin HTTP server: `/livez`, `/readyz` and `/metrics`.
//!
//! The server speaks plain HTTP without authentication. Bind it to an address that only probes and scrapers reach.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    http::{self, Bounds},
    signals::{Shutdown, Trigger},
};

/// What this process still lacks before it is ready. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Lacks>>);

#[derive(Debug, Default)]
struct Lacks {
    missing: BTreeMap<&'static str, String>,
    /// What is wrong and does not keep the process from being ready.
    notes: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Not ready until each of `missing`, a name and a reason, was reported as [`present`](Self::present).
    #[must_use]
    pub fn new<const N: usize>(missing: [(&'static str, &str); N]) -> Self {
        let missing = missing.map(|(name, why)| (name, why.to_owned()));
        Self(Arc::new(watch::Sender::new(Lacks {
            missing: BTreeMap::from(missing),
            ..Lacks::default()
        })))
    }

    /// Reports that `name` is missing, and why.
    pub fn missing(&self, name: &'static str, why: impl Into<String>) {
        let why = why.into();
        self.0.send_if_modified(|lacks| {
            lacks.missing.insert(name, why.clone()).as_ref() != Some(&why)
        });
    }

    /// Reports something that is wrong with `name` and does not keep the process from being ready, or that it is right again.
    pub fn note(&self, name: &'static str, note: Option<String>) {
        self.0.send_modify(|lacks| match note {
            Some(note) => drop(lacks.notes.insert(name, note)),
            None => drop(lacks.notes.remove(name)),
        });
    }

    /// Reports that `name` is present.
    pub fn present(&self, name: &'static str) {
        self.0
            .send_if_modified(|lacks| lacks.missing.remove(name).is_some());
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().missing.is_empty()
    }

    /// Completes once nothing is missing.
    pub async fn ready(&self) {
        // The sender is alive: `self` holds it.
        let is_ready = |lacks: &Lacks| lacks.missing.is_empty();
        let _ = self.0.subscribe().wait_for(is_ready).await;
    }
}

/// One line for each thing that is missing, and for each note.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacks = self.0.borrow();
        let is_ready = lacks.missing.is_empty();
        writeln!(f, "{}", if is_ready { "ready" } else { "not ready" })?;
        for (name, why) in lacks.missing.iter().chain(&lacks.notes) {
            writeln!(f, "{name}: {why}")?;
        }
        Ok(())
    }
}

/// What the admin server serves.
#[derive(Debug, Clone)]
pub struct Health {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`.
    pub metrics: Arc<Registry>,
}

/// The admin server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} for admin HTTP: {source}; {}", remedy(.source))]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of all kinds of errors, these have a remedy of their own"
)]
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the process that listens there, or set admin.listen to a free port"
        }
        io::ErrorKind::PermissionDenied => "set admin.listen to a port above 1023",
        io::ErrorKind::AddrNotAvailable => "set admin.listen to an address of this host",
        _ => "set admin.listen to another address",
    }
}

/// The routes. They can be served on any listener, and merged with others.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health)
}

/// Binds `addr`. Separate from [`http::serve`], so that an address in use is an error before anything else starts.
///
/// # Errors
/// [`BindError`], which names the address and the remedy.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| BindError { addr, source })
}

/// An admin server that runs as its own task, if one is configured.
#[derive(Debug)]
pub struct Server(Option<(Trigger, JoinHandle<io::Result<()>>)>);

impl Server {
    /// Binds `address`, if there is one, and serves `health` on it, to requests that name an IP address, `localhost` or one of
    /// `hosts`.
    ///
    /// # Errors
    /// [`BindError`], which names the address and the remedy.
    pub async fn start(
        address: Option<SocketAddr>,
        hosts: &[String],
        health: Health,
    ) -> Result<Self, BindError> {
        let Some(address) = address else {
            return Ok(Self(None));
        };
        let listener = bind(address).await?;
        let (trigger, shutdown) = Shutdown::pair();
        let server = tokio::spawn(http::serve(
            listener,
            router(health),
            Bounds::admin(hosts),
            shutdown.requested(),
        ));
        Ok(Self(Some((trigger, server))))
    }

    /// Ends the server once open requests are answered.
    pub async fn stop(self) {
        let Some((trigger, server)) = self.0 else {
            return;
        };
        trigger.trigger();
        match server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "admin HTTP ended early"),
            Err(error) => tracing::warn!(%error, "admin HTTP failed"),
        }
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let status = if health.readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, health.readiness.to_string())
}

async fn metrics(State(health): State<Health>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &health.metrics) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::signals::Shutdown;

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_are_served_until_shutdown() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("dials", "Dials", counter.clone());
        counter.inc();
        let readiness =
            Readiness::new([("sockets", "not bound yet"), ("reservation", "none held")]);
        let health = Health {
            readiness: readiness.clone(),
            metrics: Arc::new(registry),
        };
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (trigger, shutdown) = Shutdown::pair();
        let server = tokio::spawn(http::serve(
            listener,
            router(health),
            Bounds::admin(&[]),
            shutdown.requested(),
        ));

        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = get(addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.ends_with("not ready\nreservation: none held\nsockets: not bound yet\n"),
            "{answer}"
        );
        readiness.present("sockets");
        readiness.present("reservation");
        readiness.ready().await;
        assert!(get(addr, "/readyz").await.ends_with("\r\nready\n"));
        readiness.missing("reservation", "lost");
        assert!(get(addr, "/readyz").await.ends_with("reservation: lost\n"));
        let answer = get(addr, "/metrics").await;
        assert!(answer.contains("application/openmetrics-text"), "{answer}");
        assert!(answer.ends_with("dials_total 1\n# EOF\n"), "{answer}");
        assert!(get(addr, "/nothing").await.starts_with("HTTP/1.1 404"));

        // A client that sends nothing does not delay the end.
        let _idle = tokio::net::TcpStream::connect(addr).await.unwrap();
        trigger.trigger();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_the_remedy() {
        let taken = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = taken.local_addr().unwrap();
        let error = bind(addr).await.unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()), "{error}");
        assert!(error.contains("admin.listen"), "{error}");
    }
}
