//! Has ports mapped by the router: the sockets and timers of [`Mappings`]. Every request leaves from one port of the range.
//!
//! - [`end`]: gives all back.
//! - [`check`]: has relays send nonces to what the router claims.
//! - [`hold`]: keeps what the NAT gives where no router is asked.
//! - [`link`]: what the event loop and this task exchange.
//! - [`router`]: how the router is asked.
//! - [`expose`]: ports that lead to targets, for clients that are not p2pnode.
//! - [`report`]: who learns what is mapped.
//! - [`publish`]: what is proved, for others: a hook, a file, the DNS.

mod check;
mod end;
mod expose;
mod hold;
pub(crate) mod link;
mod publish;
mod report;
mod router;

use std::{
    future::{pending, poll_fn},
    sync::Arc,
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::Protocol;
use p2pnode_transports::{Family, Handle, Interfaces, Transport};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Sleep, sleep},
};

use self::{
    check::{Check, check},
    expose::Exposed,
    hold::{Holder, Port},
    link::{Ask, Link},
    publish::Sinks,
    router::{Answer, CALLS, Io, claim, gateway, receive, send},
};
use crate::{
    config::{self, Expose, MappingMode},
    core::mappings::{
        Action, Checked, Claim, Exposure, ExposureState, Gateway, Inside, Mappings, Method,
        RouterFacts, Wait,
    },
    observe::status::ExposeStatus,
    swarm::netcheck::Plan,
};

/// How often the punch ports are compared with what is mapped.
const PORTS: Duration = Duration::from_secs(2);
/// Requests for nonces that wait for the event loop.
const ASKS: usize = 16;
/// The largest datagram that is read whole: SSDP's.
const DATAGRAM: usize = 2048;

/// Keeps the punch ports of IPv4 and the exposed ones mapped until it is stopped.
pub(crate) struct Mapper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Exposes a port for as long as somebody reads the reports.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) expose: Expose,
    /// What becomes of its mapping.
    pub(crate) reports: mpsc::Sender<Exposure>,
}

impl Mapper {
    /// `relays` check mappings, and say how they see ports. `label` is what stands for this node in the DNS.
    pub(crate) fn start(
        config: &config::Mappings,
        methods: &[Method],
        relays: Plan,
        label: &str,
        seed: u64,
    ) -> (Self, Link, mpsc::Sender<Asked>) {
        let sockets = relays.sockets.clone();
        let (stop, stopped) = oneshot::channel();
        let (asks, asked) = mpsc::channel(ASKS);
        let (claims, claimed) = watch::channel(Vec::new());
        let (router, named) = watch::channel(RouterFacts::default());
        let (exposes, exposed) = mpsc::channel(ASKS);
        let (shown, seen) = watch::channel(Vec::new());
        let keeper = Keeper {
            mappings: Mappings::new(methods, seed),
            keeps_punch: config.mode != MappingMode::Off,
            outside: Outside {
                asks,
                claims,
                router,
                exposed: shown,
                checks: JoinSet::new(),
            },
            sinks: Sinks::start(&config.publish, &sockets, label),
            exposed: Vec::new(),
            missing: config.expose.clone(),
            gateway: None,
            io: None,
            holder: Holder::new(relays),
            sockets,
        };
        let task = tokio::spawn(keeper.run(exposed, stopped));
        (
            Self { stop, task },
            Link::new(asked, claimed, named, seen),
            exposes,
        )
    }

    /// Releases every mapping, and takes back what is published.
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
    /// What the router has shown.
    router: watch::Sender<RouterFacts>,
    /// The ports that lead to targets.
    exposed: watch::Sender<Vec<ExposeStatus>>,
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
}

/// A port that is exposed, and who reads of it, if that ends it.
struct Open {
    port: Exposed,
    reports: Option<mpsc::Sender<Exposure>>,
}

/// All that the task has.
struct Keeper {
    mappings: Mappings,
    /// Whether the punch ports are mapped, too.
    keeps_punch: bool,
    sockets: Handle,
    outside: Outside,
    sinks: Sinks,
    exposed: Vec<Open>,
    /// Exposed ports of the configuration for which there was no port yet.
    missing: Vec<Expose>,
    gateway: Option<Gateway>,
    io: Option<Io>,
    holder: Holder,
}

impl Keeper {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>, mut stopped: oneshot::Receiver<()>) {
        let mut interfaces = Interfaces::watch()
            .inspect_err(
                |error| tracing::warn!(%error, "cannot watch the routes; no port is mapped"),
            )
            .ok();
        let (answers, mut answered) = mpsc::channel::<Answer>(CALLS);
        let mut buffer = [0; DATAGRAM];
        self.look(interfaces.as_ref(), &answers);
        loop {
            self.carry_out().await;
            self.report();
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                checked = self.outside.checked() => {
                    self.on_checked(checked);
                    continue;
                }
                (inside, seen) = self.holder.seen() => {
                    self.mappings.handle_held(inside, seen, Instant::now());
                    continue;
                }
                Some((id, answer)) = answered.recv() => {
                    self.mappings.handle_answer(id, answer.as_deref(), Instant::now());
                    continue;
                }
                received = receive(self.io.as_ref(), &mut buffer) => {
                    if let Ok((length, from)) = received {
                        self.mappings.handle_datagram(from, &buffer[..length], Instant::now());
                    }
                    continue;
                }
                () = due(self.mappings.poll_timeout()) => {
                    self.mappings.handle_timeout(Instant::now());
                    continue;
                }
                Some(asked) = asked.recv() => self.open(asked.expose, Some(asked.reports)),
                () = changed(&mut interfaces) => {}
                () = sleep(PORTS) => {}
            }
            self.look(interfaces.as_ref(), &answers);
        }
        drop(answers);
        self.end(answered).await;
    }

    /// Looks which router there is and which ports are to be mapped.
    fn look(&mut self, interfaces: Option<&Interfaces>, answers: &mpsc::Sender<Answer>) {
        for expose in std::mem::take(&mut self.missing) {
            self.open(expose, None);
        }
        let is_read = |open: &Open| open.reports.as_ref().is_none_or(|to| !to.is_closed());
        self.exposed.retain(is_read);
        let wanted = self.wanted();
        let gateway = interfaces.and_then(|interfaces| gateway(interfaces, &self.sockets));
        if gateway.is_none() || wanted.is_empty() && self.mappings.claims().next().is_none() {
            self.io = None;
        } else if self.io.is_none() {
            self.io = claim(&self.sockets, answers);
        }
        let now = Instant::now();
        let lacks_port = gateway.is_some() && self.io.is_none();
        self.gateway = gateway.filter(|_| self.io.is_some());
        self.mappings.handle_gateway(self.gateway, now);
        self.mappings.handle_wanted(&wanted, now);
        match (self.gateway, lacks_port) {
            (Some(_), _) => {}
            (None, true) => self.mappings.handle_missing(Wait::Port),
            (None, false) => self.mappings.handle_missing(Wait::Route),
        }
        self.holder.retain(|inside| wanted.contains(&inside));
    }

    fn open(&mut self, expose: Expose, reports: Option<mpsc::Sender<Exposure>>) {
        let report = |state, port, reason| {
            if let Some(reports) = &reports {
                let exposure = Exposure {
                    port,
                    reason,
                    ..Exposure::new(expose.protocol, state)
                };
                // A reader that is gone has ended it.
                let _ = reports.try_send(exposure);
            }
        };
        if reports.is_some()
            && (self.exposed.iter()).any(|open| open.port.expose.name == expose.name)
        {
            let reason = format!("{} is exposed already", expose.name);
            report(ExposureState::Failed, None, Some(reason));
            return;
        }
        match Exposed::open(expose.clone(), &self.sockets) {
            Ok(port) => {
                tracing::info!(own = tracing::field::Empty, name = %expose.name, port = port.inside.port, target = %expose.target, "a port is open for other programs");
                report(ExposureState::Open, Some(port.inside.port), None);
                self.exposed.push(Open { port, reports });
            }
            Err(error) if reports.is_none() => {
                tracing::debug!(name = %expose.name, error, "no port for an exposed target yet");
                self.missing.push(expose);
            }
            Err(error) => {
                let reason =
                    format!("{error}; widen dial.port_range, or stop what holds its ports");
                report(ExposureState::Failed, None, Some(reason));
            }
        }
    }

    /// The punch ports of IPv4, and the exposed ones.
    fn wanted(&self) -> Vec<Inside> {
        let punch = self.punch().into_iter().filter(|_| self.keeps_punch);
        let exposed = self.exposed.iter().map(|open| open.port.inside);
        punch.chain(exposed).collect()
    }

    fn punch(&self) -> Vec<Inside> {
        let ports = self.sockets.punch_ports().into_iter();
        let ports = ports.filter(|((_, family), _)| *family == Family::Ip4);
        let inside = ports.map(|((transport, _), port)| Inside {
            protocol: match transport {
                Transport::Quic => Protocol::Udp,
                Transport::Tcp => Protocol::Tcp,
            },
            port,
        });
        inside.collect()
    }

    fn on_checked(&mut self, (asked, outcome): (Check, Checked)) {
        tracing::debug!(?asked, ?outcome, "checked a mapping from outside");
        let now = Instant::now();
        self.mappings
            .handle_checked(asked.inside, asked.external, outcome, now);
    }

    /// Carries out what is to be done.
    async fn carry_out(&mut self) {
        while let Some(action) = self.mappings.poll_action() {
            let io = self.io.as_ref();
            match action {
                Action::Check {
                    inside,
                    external,
                    relay,
                } => {
                    let asked = Check {
                        inside,
                        external,
                        relay,
                        contacted: self.holder.relay(inside),
                    };
                    self.outside.begin(asked, &self.sockets);
                }
                Action::Send { to, datagram } => {
                    if let Some(io) = io {
                        send(io, &datagram, to).await;
                    }
                }
                Action::Call { id, to, request } => {
                    if io.is_none_or(|io| io.calls.try_send((id, to, request)).is_err()) {
                        self.mappings.handle_answer(id, None, Instant::now());
                    }
                }
                Action::Hold { inside } => {
                    let port = self
                        .open_at(inside)
                        .map_or(Port::Punch, |open| open.port.port.clone());
                    self.holder.ask(inside, port);
                }
            }
        }
    }
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
