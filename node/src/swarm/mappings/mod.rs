//! Has ports mapped by the router: the sockets and timers of [`Mappings`]. Every request leaves from one port of the range.
//!
//! - [`check`]: has relays send nonces to what the router claims.
//! - [`link`]: what the event loop and this task exchange.

mod check;
pub(crate) mod link;

use std::{
    future::{pending, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::{Protocol, Response};
use p2pnode_transports::{ClaimedUdp, Family, Handle, Interfaces, Transport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};

use self::{
    check::{Check, check},
    link::{Ask, Link},
};
use crate::core::mappings::{
    Action, Checked, Claim, Event, Gateway, Inside, Mappings, Method,
};

/// How often the punch ports are compared with what is mapped.
const PORTS: Duration = Duration::from_secs(2);
/// A router's web server answers within this time.
const CALL: Duration = Duration::from_secs(5);
/// How long a shutdown waits for the router to confirm that mappings have ended.
const RELEASE: Duration = Duration::from_secs(1);
/// Calls that wait.
const CALLS: usize = 16;
/// Requests for nonces that wait for the event loop.
const ASKS: usize = 16;
/// The largest datagram that is read whole: SSDP's.
const DATAGRAM: usize = 2048;

/// Keeps the punch ports of IPv4 mapped until it is stopped.
pub(crate) struct Mapper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Mapper {
    pub(crate) fn start(methods: &[Method], sockets: Handle, seed: u64) -> (Self, Link) {
        let (stop, stopped) = oneshot::channel();
        let (asks, asked) = mpsc::channel(ASKS);
        let (claims, claimed) = watch::channel(Vec::new());
        let outside = Outside {
            asks,
            claims,
            checks: JoinSet::new(),
        };
        let mappings = Mappings::new(methods, seed);
        let task = tokio::spawn(keep(mappings, sockets, outside, stopped));
        (Self { stop, task }, Link::new(asked, claimed))
    }

    /// Releases every mapping.
    pub(crate) async fn stop(self) {
        // An error means that the task has ended.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the task that has ports mapped panicked");
        }
    }
}

/// The way to the event loop, and the checks under way.
struct Outside {
    asks: mpsc::Sender<Ask>,
    claims: watch::Sender<Vec<Claim>>,
    checks: JoinSet<(Check, Checked)>,
}

impl Outside {
    fn begin(&mut self, asked: Check, sockets: &Handle) {
        let checked = check(Arc::clone(sockets.stun()), self.asks.clone(), asked);
        self.checks.spawn(async move { (asked, checked.await) });
    }

    async fn checked(&mut self) -> (Check, Checked) {
        match self.checks.join_next().await {
            Some(Ok(checked)) => checked,
            // One that panicked has no outcome; the machine gives it up.
            Some(Err(_)) | None => pending().await,
        }
    }

    /// Lets the event loop know what is mapped.
    fn show(&self, mappings: &Mappings) {
        let now: Vec<Claim> = mappings.claims().collect();
        self.claims.send_if_modified(|known| {
            let is_other = *known != now;
            *known = now;
            is_other
        });
    }
}

type Answer = (u64, Option<Vec<u8>>);
type Call = (u64, SocketAddr, Vec<u8>);

/// The port of the range that requests leave from.
struct Io {
    socket: Arc<ClaimedUdp>,
    calls: mpsc::Sender<Call>,
}

async fn keep(
    mut mappings: Mappings,
    sockets: Handle,
    mut outside: Outside,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut interfaces = Interfaces::watch()
        .inspect_err(|error| tracing::warn!(%error, "cannot watch the routes; no port is mapped"))
        .ok();
    let (answers, mut answered) = mpsc::channel::<Answer>(CALLS);
    let mut io: Option<Io> = None;
    let mut buffer = [0; DATAGRAM];
    loop {
        carry_out(&mut mappings, io.as_ref(), |asked| outside.begin(asked, &sockets)).await;
        report(&mut mappings);
        outside.show(&mappings);
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            (asked, outcome) = outside.checked() => {
                tracing::debug!(?asked, ?outcome, "checked a mapping from outside");
                let now = Instant::now();
                mappings.handle_checked(asked.inside, asked.external, outcome, now);
                continue;
            }
            () = changed(&mut interfaces) => {}
            Some((id, answer)) = answered.recv() => {
                mappings.handle_answer(id, answer.as_deref(), Instant::now());
                continue;
            }
            received = receive(io.as_ref(), &mut buffer) => {
                if let Ok((length, from)) = received {
                    mappings.handle_datagram(from, &buffer[..length], Instant::now());
                }
                continue;
            }
            () = due(mappings.poll_timeout()) => {
                mappings.handle_timeout(Instant::now());
                continue;
            }
            () = sleep(PORTS) => {}
        }
        let gateway = interfaces
            .as_ref()
            .and_then(|interfaces| gateway(interfaces, &sockets));
        if gateway.is_none() {
            io = None;
        } else if io.is_none() {
            io = claim(&sockets, &answers);
        }
        let now = Instant::now();
        mappings.handle_gateway(gateway.filter(|_| io.is_some()), now);
        mappings.handle_wanted(&wanted(&sockets), now);
    }
    mappings.handle_shutdown();
    let datagrams = carry_out(&mut mappings, io.as_ref(), drop).await;
    drop(answers);
    let confirmed = async {
        for _ in 0..datagrams {
            let _ = receive(io.as_ref(), &mut buffer).await;
        }
        // Ends the queue of calls.
        drop(io);
        while answered.recv().await.is_some() {}
    };
    // A router that confirms nothing lets the leases end.
    let _ = timeout(RELEASE, confirmed).await;
}

fn claim(sockets: &Handle, answers: &mpsc::Sender<Answer>) -> Option<Io> {
    let socket = sockets.claim_udp(Family::Ip4);
    let socket = socket
        .inspect_err(
            |error| tracing::debug!(%error, "no port of the range is left to ask the router from"),
        )
        .ok()?;
    let socket = Arc::new(socket);
    let (calls, queue) = mpsc::channel(CALLS);
    tokio::spawn(answer(queue, Arc::clone(&socket), answers.clone()));
    Some(Io { socket, calls })
}

/// Carries out calls, one at a time: all of them have one port, and a router one address.
async fn answer(
    mut calls: mpsc::Receiver<Call>,
    socket: Arc<ClaimedUdp>,
    answers: mpsc::Sender<Answer>,
) {
    while let Some((id, to, request)) = calls.recv().await {
        let answer = timeout(CALL, call(&socket, to, &request)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let answer =
            answer.inspect_err(|error| tracing::debug!(%error, %to, "the router does not answer"));
        if answers.send((id, answer.ok())).await.is_err() {
            return;
        }
    }
}

/// The router of IPv4.
fn gateway(interfaces: &Interfaces, sockets: &Handle) -> Option<Gateway> {
    let router = interfaces
        .gateways()
        .iter()
        .copied()
        .find(IpAddr::is_ipv4)?;
    let own = sockets.source_ip(router)?;
    Some(Gateway { router, own })
}

/// The punch ports of IPv4.
fn wanted(sockets: &Handle) -> Vec<Inside> {
    let ports = sockets.punch_ports().into_iter();
    let ports = ports.filter(|((_, family), _)| *family == Family::Ip4);
    ports
        .map(|((transport, _), port)| Inside {
            protocol: match transport {
                Transport::Quic => Protocol::Udp,
                Transport::Tcp => Protocol::Tcp,
            },
            port,
        })
        .collect()
}

async fn changed(interfaces: &mut Option<Interfaces>) {
    match interfaces {
        Some(interfaces) => poll_fn(|cx| interfaces.poll_changed(cx)).await,
        None => pending().await,
    }
}

fn due(at: Option<Instant>) -> impl Future<Output = ()> {
    let sleep: Option<Sleep> = at.map(|at| tokio::time::sleep_until(at.into()));
    async {
        match sleep {
            Some(sleep) => sleep.await,
            None => pending().await,
        }
    }
}

async fn receive(io: Option<&Io>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match io {
        Some(io) => io.socket.socket().recv_from(buffer).await,
        None => pending().await,
    }
}

/// Carries out what is to be done. Returns how many datagrams were sent.
async fn carry_out(
    mappings: &mut Mappings,
    io: Option<&Io>,
    mut begin: impl FnMut(Check),
) -> usize {
    let mut sent = 0;
    while let Some(action) = mappings.poll_action() {
        let Some(io) = io else { continue };
        match action {
            Action::Check {
                inside,
                external,
                relay,
            } => begin(Check {
                inside,
                external,
                relay,
            }),
            Action::Send { to, datagram } => {
                match io.socket.socket().send_to(&datagram, to).await {
                    Ok(_) => sent += 1,
                    Err(error) => tracing::debug!(%error, %to, "cannot ask the router"),
                }
            }
            Action::Call { id, to, request } => {
                if io.calls.try_send((id, to, request)).is_err() {
                    mappings.handle_answer(id, None, Instant::now());
                }
            }
        }
    }
    sent
}

async fn call(socket: &ClaimedUdp, to: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = socket.connect_tcp(to).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    while !Response::is_whole(&answer) && answer.len() < Response::LARGEST {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

fn report(mappings: &mut Mappings) {
    while let Some(event) = mappings.poll_event() {
        match event {
            Event::Granted {
                inside,
                external,
                method,
            } => {
                tracing::info!(own = tracing::field::Empty, protocol = inside.protocol.name(), port = inside.port, %external, ?method, "the router says that it maps a port");
            }
            Event::Proved { inside, at } => {
                tracing::info!(own = tracing::field::Empty, protocol = inside.protocol.name(), port = inside.port, %at, "a mapping is verified from outside");
            }
            Event::Doubted { inside } => {
                tracing::warn!(
                    own = tracing::field::Empty,
                    protocol = inside.protocol.name(),
                    port = inside.port,
                    "a mapping no longer lets anything in; it is withdrawn, and the router is asked again"
                );
            }
            Event::Lost { inside, reason } => {
                tracing::info!(
                    own = tracing::field::Empty,
                    protocol = inside.protocol.name(),
                    port = inside.port,
                    ?reason,
                    "a mapping has ended"
                );
            }
            Event::Refused { inside, reason } => {
                tracing::warn!(
                    own = tracing::field::Empty,
                    protocol = inside.protocol.name(),
                    port = inside.port,
                    reason,
                    "the router maps no port"
                );
            }
        }
    }
}
