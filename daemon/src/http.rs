//! HTTP with bounds: the server of the admin address and of the control socket.
//!
//! Anybody who can connect may send half a request and wait, read nothing, or hold many connections. So connections are counted,
//! and each step of one has a time. A newcomer takes the place of the connection that is idle for longest.
//!
//! A page in a browser may ask any server of the local network under a name that its author controls (DNS rebinding). So the
//! admin server answers only under IP addresses, `localhost` and the names of `admin.hosts`.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    response::{IntoResponse as _, Response},
    serve::Listener,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use p2pnode_protocol::{
    bucket::{Bucket, Measure},
    quote,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Mutex, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

/// How long a client may take over the header of a request, and how long a connection may wait for the next one.
const HEADER: Duration = Duration::from_secs(10);

/// How long a client may take over the body of a request.
const BODY: Duration = Duration::from_secs(10);

/// How long a client may read nothing of an answer.
const STALL: Duration = Duration::from_secs(30);

/// The most bytes of a body on the control socket. The longest request is a dial with all the addresses of a peer.
const BODY_LIMIT: usize = 256 * 1024;

/// The same at the admin address, where no request has one: a body in chunks of a byte costs a hundred times its bytes.
const ADMIN_BODY_LIMIT: usize = 1024;

/// The most bytes of a header: a scraper sends 500.
const HEADER_LIMIT: usize = 16 * 1024;

/// An answer takes microseconds. A client that stays longer after the end of the server is not waiting for one.
const GRACE: Duration = Duration::from_secs(1);

/// How often a server answers, over all connections. An answer with metrics takes up to a millisecond of the thread that the event
/// loop needs as well. Each of the connections has one request at a time in the queue, so that a newcomer waits for a third of a
/// second at most.
const ANSWERS: Measure = Measure {
    burst: 100,
    period: Duration::from_millis(5),
};

/// What a server grants its clients.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once.
    connections: usize,
    /// Whether a newcomer takes the place of the oldest connection even if that is waiting for an answer.
    takes_busy: bool,
    /// The names under which the server answers; `None`: any.
    hosts: Option<Arc<[String]>>,
    /// Bytes of a body.
    body: usize,
}

impl Bounds {
    /// Those of the admin address, which answers under IP addresses, `localhost` and these names. Its answers take microseconds,
    /// so a connection that is the oldest of all is no longer waiting for one.
    #[must_use]
    pub fn admin(hosts: &[String]) -> Self {
        Self {
            connections: 64,
            takes_busy: true,
            hosts: Some(hosts.into()),
            body: ADMIN_BODY_LIMIT,
        }
    }

    /// Those of a socket that only its owner can open. An answer takes as long as a dial.
    #[must_use]
    pub fn control() -> Self {
        Self {
            connections: 32,
            takes_busy: false,
            hosts: None,
            body: BODY_LIMIT,
        }
    }

    /// Whether a request that names these hosts is served; if not, the first that is not.
    fn refused<'r>(&self, mut hosts: impl Iterator<Item = &'r str>) -> Option<&'r str> {
        let names = self.hosts.as_deref()?;
        hosts.find(|host| !is_served(host, names))
    }
}

/// Whether a server that answers under `names` answers a request with this `Host`.
fn is_served(host: &str, names: &[String]) -> bool {
    if host.is_empty() {
        return true;
    }
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // A zone says over which interface.
    let bare = bare.split('%').next().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Serves until `shutdown` completes, and then finishes open requests for at most a second.
///
/// # Errors
/// None today: a listener that fails tries again.
pub async fn serve<L>(
    mut listener: L,
    router: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: fmt::Debug,
{
    let mut shutdown = std::pin::pin!(shutdown);
    let (ended, end) = watch::channel(false);
    let mut connections = Connections::default();
    let turns = Turns::new();
    let mut tasks = JoinSet::new();
    loop {
        let io = tokio::select! {
            () = &mut shutdown => break,
            (io, _) = listener.accept() => io,
            Some(_) = tasks.join_next() => continue,
        };
        if !connections.has_place(&bounds) {
            continue;
        }
        // The connection that lost its place is open until its task has ended.
        while tasks.len() >= bounds.connections && tasks.join_next().await.is_some() {}
        let requests = Arc::new(AtomicUsize::new(0));
        let served = connection(
            io,
            router.clone(),
            bounds.clone(),
            turns.clone(),
            requests.clone(),
            end.clone(),
        );
        connections.add(tasks.spawn(served), requests);
        // Many may wait to be accepted, and the event loop has its turn before the next.
        tokio::task::yield_now().await;
    }
    ended.send_replace(true);
    // Those that are still open end with the set.
    let _ = timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    Ok(())
}

/// The open connections, oldest first.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// The task of each, and how many of its requests are not answered.
    open: BTreeMap<u64, (AbortHandle, Arc<AtomicUsize>)>,
}

impl Connections {
    fn add(&mut self, task: AbortHandle, requests: Arc<AtomicUsize>) {
        self.open.insert(self.next, (task, requests));
        self.next += 1;
    }

    /// Whether one more connection has a place. If all are taken, another one may lose its own.
    fn has_place(&mut self, bounds: &Bounds) -> bool {
        self.open.retain(|_, (task, _)| !task.is_finished());
        if self.open.len() < bounds.connections {
            return true;
        }
        let is_idle = |requests: &AtomicUsize| requests.load(Ordering::Relaxed) == 0;
        let idle = self
            .open
            .iter()
            .find(|(_, (_, requests))| is_idle(requests));
        let oldest = self.open.iter().next().filter(|_| bounds.takes_busy);
        let Some(last) = idle.or(oldest).map(|(id, _)| *id) else {
            return false;
        };
        if let Some((task, _)) = self.open.remove(&last) {
            task.abort();
        }
        true
    }
}

/// The queue of requests, first come, first served. Clones are the same.
#[derive(Debug, Clone)]
struct Turns(Arc<Mutex<Bucket>>);

impl Turns {
    fn new() -> Self {
        let bucket = Bucket::full(ANSWERS, Instant::now().into_std());
        Self(Arc::new(Mutex::new(bucket)))
    }

    /// Completes when one more request may be answered.
    async fn next(&self) {
        let mut left = self.0.lock().await;
        let at = left.ready_at(ANSWERS, Instant::now().into_std());
        sleep_until(at.into()).await;
        left.admits(ANSWERS, Instant::now().into_std());
    }
}

/// A request that is not answered, counted in the number of its connection.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(requests: &Arc<AtomicUsize>) -> Self {
        requests.fetch_add(1, Ordering::Relaxed);
        Self(requests.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection<I>(
    io: I,
    router: Router,
    bounds: Bounds,
    turns: Turns,
    requests: Arc<AtomicUsize>,
    mut end: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let open = Open::new(&requests);
        let (router, bounds, turns) = (router.clone(), bounds.clone(), turns.clone());
        async move {
            turns.next().await;
            let response = answer(request, router, &bounds).await;
            // It is answered once its body is sent, or dropped.
            let response = response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _ = &open;
                    frame
                }))
            });
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER)
            .max_buf_size(HEADER_LIMIT)
            .serve_connection(TokioIo::new(Patient::new(io)), service)
    );
    // What a client does wrong is nobody's business here: it has its answer, or the connection is closed.
    tokio::select! {
        _ = &mut served => {}
        () = async { let _ = end.wait_for(|ended| *ended).await; } => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

async fn answer(request: hyper::Request<Incoming>, router: Router, bounds: &Bounds) -> Response {
    let named = request.headers().get_all(header::HOST).iter();
    // A host that is no text is no name.
    let named = named.map(|host| host.to_str().unwrap_or("?"));
    let hosts = request.uri().authority().map(Authority::as_str);
    if let Some(host) = bounds.refused(hosts.into_iter().chain(named)) {
        let text = format!(
            "this server does not answer under the name {}: ask it by its IP address, or list the name in admin.hosts\n",
            quote(host)
        );
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let (parts, body) = request.into_parts();
    if hyper::body::Body::size_hint(&body).lower() > bounds.body as u64 {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let body = match timeout(BODY, Limited::new(body, bounds.body).collect()).await {
        Ok(Ok(body)) => Body::from(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        Ok(Err(_)) => return StatusCode::BAD_REQUEST.into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let service = TowerToHyperService::new(router);
    match service.call(Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A stream that fails if the other side reads nothing for [`STALL`].
struct Patient<I> {
    io: I,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncWrite + Unpin> Patient<I> {
    fn new(io: I) -> Self {
        Self { io, stalled: None }
    }

    fn poll_patiently<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = poll(Pin::new(&mut self.io), context) {
            self.stalled = None;
            return Poll::Ready(done);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_patiently(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_patiently(context, |io, context| {
            io.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_patiently(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_patiently(context, |io, context| io.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests;
