//! The admin HTTP server: `/livez`, `/readyz`, `/metrics`, and a page for people on `/`.
//!
//! The server speaks plain HTTP without authentication, and takes nothing but GET. Bind it to an address that only probes, scrapers
//! and operators reach. `admin.page: false` leaves out the page, and with it every peer id and address.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{MethodRouter, get},
};
use libp2p::PeerId;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    config::{
        Reader,
        kind::{BOOL, HOST_NAME},
    },
    http::{self, Bounds},
    signals::{Shutdown, Trigger},
};

/// `admin.hosts` and `admin.page`: the names under which the server answers, and whether it has a page for people.
pub fn keys(reader: &mut Reader<'_>) -> (Vec<String>, bool) {
    let hosts = reader.list(
        "admin.hosts",
        "Names in the Host header under which the admin HTTP server answers, such as that of a Kubernetes service. It always \
         answers under IP addresses and localhost.",
        &HOST_NAME,
        &[],
    );
    let page = reader.one(
        "admin.page",
        "Whether the admin HTTP server shows the state on a read-only page at /, with the data of `status --json`.",
        &BOOL,
        "true",
    );
    (hosts, page)
}

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

/// The page of `/`: one file, which shows what `/status.json` returns. `status` serves that.
pub fn page<S: Clone + Send + Sync + 'static>(status: MethodRouter<S>) -> Router<S> {
    Router::new()
        .route("/", get(html))
        .route("/status.json", status)
}

async fn html() -> Response {
    const PAGE: &str = include_str!("admin/page.html");
    // Random, so markup that a peer might get into the page runs nothing.
    let nonce = PeerId::random().to_string();
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE.replace("NONCE", &nonce))).into_response()
}

/// The address of an admin server that is not served yet, if one is configured.
#[derive(Debug)]
pub struct Bound(Option<TcpListener>);

impl Bound {
    /// Binds `address`, if there is one.
    ///
    /// # Errors
    /// [`BindError`], which names the address and the remedy.
    pub async fn bind(address: Option<SocketAddr>) -> Result<Self, BindError> {
        Ok(Self(match address {
            None => None,
            Some(address) => Some(bind(address).await?),
        }))
    }

    /// Serves `router` to requests that name an IP address, `localhost` or one of `hosts`.
    #[must_use]
    pub fn serve(self, hosts: &[String], router: Router) -> Server {
        Server(self.0.map(|listener| {
            let (trigger, shutdown) = Shutdown::pair();
            let bounds = Bounds::admin(hosts);
            let server = http::serve(listener, router, bounds, shutdown.requested());
            (trigger, tokio::spawn(server))
        }))
    }
}

/// An admin server that runs as its own task, if one is configured.
#[derive(Debug)]
pub struct Server(Option<(Trigger, JoinHandle<io::Result<()>>)>);

impl Server {
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

    use axum::routing::get as get_of;
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
    async fn the_page_is_one_file_that_loads_nothing_from_elsewhere() {
        let status = get_of(async || r#"{"peer_id":"a"}"#);
        let bound = Bound::bind(Some(([127, 0, 0, 1], 0).into())).await.unwrap();
        let addr = bound.0.as_ref().unwrap().local_addr().unwrap();
        let server = bound.serve(&[], page(status));
        let answer = get(addr, "/").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (_, nonce) = body.split_once("<script nonce=\"").unwrap();
        let (nonce, _) = nonce.split_once('"').unwrap();
        assert!(
            head.contains(&format!("script-src 'nonce-{nonce}'")),
            "{head}"
        );
        assert!(head.contains("default-src 'none'"), "{head}");
        for elsewhere in ["http:", "https:", "src=", "<link", "@import", "innerHTML"] {
            assert!(!body.contains(elsewhere), "{elsewhere}");
        }
        assert_ne!(
            answer,
            get(addr, "/").await,
            "the nonce is another each time"
        );
        assert!(
            get(addr, "/status.json")
                .await
                .ends_with(r#"{"peer_id":"a"}"#)
        );
        server.stop().await;
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
