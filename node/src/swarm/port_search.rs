//! Searches for ports: the sockets and timers of [`Search`].

use std::{
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::port_search::{PROBE, Part, Side};
use p2pnode_transports::{ClaimedUdp, Family, Handle};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::netcheck::Plan;
use crate::{
    core::port_search::{Action, Aging, Begin, Counts, Does, Ended, Hop, Sample, Search, Socket},
    punch::{FoundPair, Role},
};

/// Routers that an opening reaches: those of a home and of its carrier, and one that is not the remote's.
const NEAR: u8 = 3;

/// The same without a carrier's.
const NEXT: u8 = 2;

/// Datagrams that wait. More of them are dropped.
const WAITING: usize = 64;

/// What is known of a datagram: more bytes than a probe has, if it is longer.
type Start = ([u8; PROBE + 1], usize);

/// What is over, or seen.
#[derive(Debug)]
pub(crate) enum Done {
    Sampled(Option<Sample>),
    /// The same, with ports that have not been used.
    SampledNext(Option<(Sample, Vec<ClaimedUdp>)>),
    /// A relay sees the punch socket here.
    Seen(SocketAddr),
    Searched {
        peer: PeerId,
        ended: Ended,
        counts: Counts,
        pair: Option<Box<FoundPair>>,
    },
}

/// The one look at the range, or search, that runs, and the look at the punch socket.
#[derive(Default)]
pub(crate) struct PortSearches {
    running: Option<(oneshot::Receiver<Done>, JoinSet<()>)>,
    watch: Option<(mpsc::Receiver<SocketAddr>, JoinSet<()>)>,
    /// The ports that a path moves to, or a punch.
    next: Vec<ClaimedUdp>,
    /// The ports that have been in their place, oldest first: none is taken again before all others.
    used: Vec<u16>,
}

impl PortSearches {
    pub(crate) fn sample(&mut self, plan: Plan, relay: PeerId) {
        self.start(async move { Done::Sampled(plan.sample(relay).await) });
    }

    pub(crate) fn sample_next(&mut self, plan: Plan, relay: PeerId, count: usize) {
        let used = self.used.clone();
        self.start(async move { Done::SampledNext(plan.sample_next(relay, &used, count).await) });
    }

    pub(crate) fn keep(&mut self, next: Vec<ClaimedUdp>) {
        for socket in &next {
            self.used.retain(|port| *port != socket.port());
            self.used.push(socket.port());
        }
        self.next = next;
    }

    pub(crate) fn search(&mut self, begin: Begin, sockets: Handle) {
        let mut next = std::mem::take(&mut self.next);
        if !begin.plan.is_of_pairs() {
            next.clear();
        }
        self.start(run(begin, sockets, next));
    }

    /// Ends it: its sockets close.
    pub(crate) fn stop(&mut self) {
        self.running = None;
        self.next.clear();
    }

    /// Has this relay look at the punch socket from now on, or none.
    pub(crate) fn watch(&mut self, plan: Plan, relay: Option<PeerId>) {
        self.watch = relay.map(|relay| {
            let (sender, seen) = mpsc::channel(1);
            let mut tasks = JoinSet::new();
            tasks.spawn(watch(plan, relay, sender));
            (seen, tasks)
        });
    }

    pub(crate) async fn next(&mut self) -> Done {
        tokio::select! {
            done = finished(&mut self.running) => done,
            Some(at) = seen(&mut self.watch) => Done::Seen(at),
            else => pending().await,
        }
    }

    fn start(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        let (sender, done) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // An error means that it is stopped.
            let _ = sender.send(task.await);
        });
        self.running = Some((done, tasks));
    }
}

async fn finished(running: &mut Option<(oneshot::Receiver<Done>, JoinSet<()>)>) -> Done {
    if let Some((done, _)) = running {
        let done = done.await;
        *running = None;
        if let Ok(done) = done {
            return done;
        }
        tracing::warn!("the task of a search for ports has panicked");
    }
    pending().await
}

async fn seen(watch: &mut Option<(mpsc::Receiver<SocketAddr>, JoinSet<()>)>) -> Option<SocketAddr> {
    match watch {
        Some((seen, _)) => seen.recv().await,
        None => pending().await,
    }
}

/// Reports how a relay sees the punch socket, again and again.
async fn watch(plan: Plan, relay: PeerId, seen: mpsc::Sender<SocketAddr>) {
    let mut known: Option<(SocketAddr, Instant)> = None;
    loop {
        if let Some(at) = plan.punch_socket(relay).await {
            let now = Instant::now();
            known = known
                .filter(|(before, _)| *before == at)
                .or(Some((at, now)));
            if seen.send(at).await.is_err() {
                return;
            }
        }
        let age = known.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        tokio::time::sleep(Aging::interval(age)).await;
    }
}

/// The sockets of a search.
struct Sockets {
    handle: Handle,
    opened: Vec<Arc<ClaimedUdp>>,
    readers: JoinSet<()>,
    datagrams: mpsc::Receiver<(Socket, SocketAddr, Start)>,
    probes: mpsc::Receiver<(SocketAddr, [u8; PROBE])>,
}

async fn run(begin: Begin, handle: Handle, next: Vec<ClaimedUdp>) -> Done {
    let (peer, role, moves) = (begin.peer, role(&begin), begin.moves);
    let (own, family) = (begin.own, Family::from(begin.own.mapped.ip()));
    let mut sockets = Sockets::open(handle, family, begin.plan.sockets, next);
    let mut search = Search::new(
        begin.plan,
        begin.key,
        begin.part,
        begin.seed,
        Instant::now(),
    );
    let ended = loop {
        while let Some(action) = search.poll_action() {
            sockets.carry_out(action);
        }
        if let Some(ended) = search.poll_event() {
            break ended;
        }
        let wake = search.poll_timeout();
        tokio::select! {
            Some((socket, from, (bytes, length))) = sockets.datagrams.recv() => {
                search.handle_datagram(socket, from, &bytes[..length]);
            }
            Some((from, probe)) = sockets.probes.recv() => {
                search.handle_datagram(Socket::Punch, from, &probe);
            }
            () = sleep_until(wake) => search.handle_timeout(Instant::now()),
        }
    };
    let pair = match ended {
        Ended::NotFound => None,
        Ended::Found { socket, remote } => {
            let own = at(&own, socket);
            let pair = FoundPair {
                peer,
                remote,
                own,
                role,
                moves,
            };
            sockets
                .hand_over(socket, remote)
                .await
                .then(|| Box::new(pair))
        }
    };
    Done::Searched {
        peer,
        ended,
        counts: search.counts(),
        pair,
    }
}

/// The side that opens waits for the other's dial.
fn role(begin: &Begin) -> Role {
    match (begin.plan.does, begin.part) {
        (Does::Opens, _) | (Does::Both | Does::Pairs, Part::Answerer) => Role::Initiator,
        (Does::Probes, _) | (Does::Both | Does::Pairs, Part::Asker) => Role::Responder,
    }
}

/// Where the relay sees a socket, or the punch socket if it has not seen that one.
fn at(own: &Side, socket: Socket) -> SocketAddr {
    let fresh = match socket {
        Socket::Opened(nth) => own
            .fresh
            .and_then(|fresh| fresh.get(usize::from(nth)).copied()),
        Socket::Punch => None,
    };
    fresh.map_or(own.mapped, |port| SocketAddr::new(own.mapped.ip(), port))
}

impl Sockets {
    fn open(handle: Handle, family: Family, count: u16, next: Vec<ClaimedUdp>) -> Self {
        let (sender, datagrams) = mpsc::channel(WAITING);
        let mut readers = JoinSet::new();
        let others = std::iter::from_fn(|| handle.claim_udp(family).ok());
        let claimed = next.into_iter().chain(others).take(count.into());
        let opened: Vec<_> = claimed.map(Arc::new).collect();
        for (nth, socket) in (0..count).zip(&opened) {
            readers.spawn(read(nth, Arc::clone(socket), sender.clone()));
        }
        Self {
            probes: handle.stun().probes(),
            handle,
            opened,
            readers,
            datagrams,
        }
    }

    fn carry_out(&self, action: Action) {
        let Action::Send {
            from,
            to,
            hop,
            probe,
        } = action;
        let sent = match from {
            Socket::Punch => self.handle.stun().send(&probe, to),
            Socket::Opened(nth) => match self.opened.get(usize::from(nth)) {
                Some(socket) => socket
                    .set_hops(routers(hop))
                    .and_then(|()| socket.socket().try_send_to(&probe, to).map(|_| ())),
                // The range had fewer free ports.
                None => return,
            },
        };
        if let Err(error) = sent {
            tracing::trace!(%to, %error, "a probe was not sent");
        }
    }

    /// Closes all sockets but the one that was found, which becomes QUIC's. Whether that can be dialed from.
    async fn hand_over(mut self, socket: Socket, remote: SocketAddr) -> bool {
        self.readers.shutdown().await;
        let Socket::Opened(nth) = socket else {
            return true;
        };
        let nth = usize::from(nth);
        if nth >= self.opened.len() {
            return false;
        }
        let found = Arc::into_inner(self.opened.swap_remove(nth));
        let adopted = found.map(|found| self.handle.adopt(found, remote));
        matches!(adopted, Some(Ok(())))
    }
}

const fn routers(hop: Hop) -> Option<u8> {
    match hop {
        Hop::Near => Some(NEAR),
        Hop::Next => Some(NEXT),
        Hop::All => None,
    }
}

/// Passes on what comes to a socket.
async fn read(
    nth: u16,
    socket: Arc<ClaimedUdp>,
    datagrams: mpsc::Sender<(Socket, SocketAddr, Start)>,
) {
    let mut bytes = [0; PROBE + 1];
    loop {
        // An error is one that a router has reported about an earlier packet.
        let Ok((length, from)) = socket.socket().recv_from(&mut bytes).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let datagram = (Socket::Opened(nth), from, (bytes, length));
        if datagrams.send(datagram).await.is_err() {
            return;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
