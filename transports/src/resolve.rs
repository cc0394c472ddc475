//! Names, resolved before a transport sees them.

mod names;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    core::transport::{DialOpts, ListenerId, Transport, TransportError},
    multiaddr::Multiaddr,
};
use p2pnode_protocol::{Family, Reach, escape};

use names::{Answer, Names};

use crate::net::{
    addr::{DialAddr, Host, to_socket_addr},
    connection::{Connection, Event, Incoming},
    error::Error,
    family::FamilyPolicy,
    shared::Shared,
};

/// How long the system's resolver may take. It tries each of its servers for 5 s; a dial does not wait for all of them.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The head start of the preferred family. [RFC 8305](https://www.rfc-editor.org/rfc/rfc8305) wants 100 ms or more to spare
/// the network a handshake; here it only decides ties, since both connections to a relay are cheap and both families are
/// dialed anyway.
const HEAD_START: Duration = Duration::from_millis(50);

/// How many addresses of a name are dialed. Names of relays have a few; one that has hundreds must not make as many sockets.
const MAX_ADDRESSES: usize = 16;

/// The head start of the addresses that a name has now before those that it had. A relay that answers is there earlier.
const REMEMBERED: Duration = Duration::from_secs(2);

/// Asks the system for the addresses of a name.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The resolver, and what it remembers. Cheap to clone.
#[derive(Clone)]
struct Resolver {
    names: Arc<Mutex<Names>>,
    /// One question per name at a time.
    asking: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    lookup: Lookup,
}

/// Dials names through `inner`, which dials IP addresses. All A and AAAA records at once, the preferred family a little
/// earlier; the first success wins.
pub(crate) struct Resolving<T> {
    /// Shared with dials, which begin once their name is resolved.
    inner: Arc<Mutex<T>>,
    policy: FamilyPolicy,
    /// Where the sockets of a dial are remembered, if they are.
    shared: Option<Shared>,
    resolver: Resolver,
}

impl<T> Resolving<T> {
    pub(crate) fn new(inner: T, policy: FamilyPolicy, shared: Option<Shared>) -> Self {
        Self::with(
            inner,
            policy,
            shared,
            Arc::new(|host| ask_system(host).boxed()),
        )
    }

    fn with(inner: T, policy: FamilyPolicy, shared: Option<Shared>, lookup: Lookup) -> Self {
        Self {
            resolver: Resolver {
                names: Arc::default(),
                asking: Arc::default(),
                lookup,
            },
            inner: Arc::new(Mutex::new(inner)),
            policy,
            shared,
        }
    }
}

fn lock<U>(inner: &Mutex<U>) -> MutexGuard<'_, U> {
    // A transport that panicked while it was polled panics the swarm as well.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Transport for Resolving<T>
where
    T: Transport<Output = Connection, Error = Error, ListenerUpgrade = Incoming>
        + Send
        + Unpin
        + 'static,
    T::Dial: Send + 'static,
{
    type Output = Connection;
    type Error = Error;
    type ListenerUpgrade = Incoming;
    type Dial = BoxFuture<'static, Result<Connection, Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        lock(&self.inner).listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        lock(&self.inner).remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Error>> {
        let target = DialAddr::parse(&addr)
            .ok_or_else(|| TransportError::MultiaddrNotSupported(addr.clone()))?;
        let reach = self.shared.as_ref().and_then(Shared::reach);
        let (host, only) = match target.host.clone() {
            Host::Ip(ip) => {
                within(reach, &ip.to_string(), vec![ip]).map_err(TransportError::Other)?;
                return Ok(lock(&self.inner).dial(addr, opts)?.boxed());
            }
            Host::DnsAddr(host) => return Err(TransportError::Other(Error::DnsAddr { host })),
            Host::Name(host, only) => (host, only),
        };
        let (inner, policy, shared) = (Arc::clone(&self.inner), self.policy, self.shared.clone());
        let resolver = self.resolver.clone();
        Ok(async move {
            let places = resolver.places(&host, only, policy, reach).await?;
            let (connection, winner) =
                race(&inner, host.clone(), &target, places, policy, opts).await?;
            if target.peer.is_none_or(|peer| peer == connection.0)
                && let Some(socket) = to_socket_addr(&winner)
            {
                lock(&resolver.names).handle_good(&host, socket.ip(), Instant::now());
            }
            if let Some(shared) = shared
                && let Some(sockets) = shared.sockets(&winner)
            {
                shared.record(&addr, sockets);
            }
            Ok(connection)
        }
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        Pin::new(&mut *lock(&self.inner)).poll(cx)
    }
}

/// An address of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    ip: IpAddr,
    /// The right peer answered there once, and the resolver does not name it now.
    is_remembered: bool,
}

impl Resolver {
    /// Where to dial a name: the addresses that it has, preferred family first and in the resolver's order within a family, and those
    /// at which the peer answered before.
    async fn places(
        &self,
        host: &str,
        only: Option<Family>,
        policy: FamilyPolicy,
        reach: Option<Reach>,
    ) -> Result<Vec<Place>, Error> {
        let answer = self.ask(host).await;
        let good = within(reach, host, lock(&self.names).good(host)).unwrap_or_default();
        let mut good = select(good, only, policy);
        let usable = match usable(host, answer, only, policy, reach) {
            Err(error) if good.is_empty() => return Err(error),
            usable => usable.unwrap_or_default(),
        };
        good.retain(|ip| !usable.contains(ip));
        let place = |is_remembered| move |ip| Place { ip, is_remembered };
        let places = usable.into_iter().map(place(false));
        Ok(places.chain(good.into_iter().map(place(true))).collect())
    }

    /// The addresses of a name. The system is asked once for all that ask at one time, and ever less often while it has no answer.
    async fn ask(&self, host: &str) -> Answer {
        let turn = Arc::clone(lock(&self.asking).entry(host.to_owned()).or_default());
        let answer = {
            let _turn = turn.lock().await;
            let known = lock(&self.names).answer(host, Instant::now());
            match known {
                Some(answer) => answer,
                None => self.ask_now(host).await,
            }
        };
        drop(turn);
        // The last one that asks leaves nothing behind.
        lock(&self.asking).retain(|_, turn| Arc::strong_count(turn) > 1);
        answer
    }

    async fn ask_now(&self, host: &str) -> Answer {
        let answer = (self.lookup)(host.to_owned()).await;
        let (now, jitter) = (Instant::now(), fastrand::f64());
        let mut names = lock(&self.names);
        let failures = names.handle_answer(host, answer.clone(), now, jitter);
        if let Err(reason) = &answer
            && failures == 1
            && let remembered @ [_, ..] = &names.good(host)[..]
        {
            tracing::warn!(name = %escape(host), %reason, ?remembered, "a name cannot be resolved; dialing the addresses at which its peer answered last");
        }
        answer
    }
}

async fn ask_system(host: String) -> Answer {
    let lookup = tokio::net::lookup_host((host.as_str(), 0));
    match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(found)) => Ok(found.map(|socket| socket.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
    }
}

/// The addresses of a name that may be dialed.
fn usable(
    host: &str,
    answer: Answer,
    only: Option<Family>,
    policy: FamilyPolicy,
    reach: Option<Reach>,
) -> Result<Vec<IpAddr>, Error> {
    let failed = |reason: String| Error::Resolve {
        host: host.to_owned(),
        reason,
    };
    let found = answer.map_err(failed)?;
    let usable = select(within(reach, host, found)?, only, policy);
    if usable.is_empty() {
        let wanted = only.map_or_else(
            || format!("the family policy {policy}"),
            |family| family.to_string(),
        );
        return Err(failed(format!("none of its addresses suits {wanted}")));
    }
    Ok(usable)
}

/// Those of the addresses of `host` that are within reach.
fn within(reach: Option<Reach>, host: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Error> {
    let admits = |ip: &IpAddr| reach.is_none_or(|reach| reach.admits(*ip));
    let (near, far): (Vec<_>, Vec<_>) = found.into_iter().partition(admits);
    match far.first() {
        Some(ip) if near.is_empty() => Err(Error::OutOfReach {
            host: host.to_owned(),
            ip: *ip,
        }),
        _ => Ok(near),
    }
}

/// Those of a family that may be used, preferred family first.
fn select(found: Vec<IpAddr>, only: Option<Family>, policy: FamilyPolicy) -> Vec<IpAddr> {
    let usable = |ip: &IpAddr| {
        let family = Family::from(*ip);
        policy.allows(family) && only.is_none_or(|only| only == family)
    };
    let mut seen = BTreeSet::new();
    let mut ips: Vec<IpAddr> = found
        .into_iter()
        .filter(|ip| usable(ip) && seen.insert(*ip))
        .collect();
    // Stable: keeps the order of the resolver (RFC 6724) within a family.
    ips.sort_by_key(|ip| policy.rank(Family::from(*ip)));
    ips.truncate(MAX_ADDRESSES);
    ips
}

/// Dials all addresses; the connection and the address of the first success. A connection with another peer than the wanted one
/// counts only if there is no better one.
async fn race<T>(
    inner: &Mutex<T>,
    host: String,
    target: &DialAddr,
    places: Vec<Place>,
    policy: FamilyPolicy,
    opts: DialOpts,
) -> Result<(Connection, Multiaddr), Error>
where
    T: Transport<Output = Connection, Error = Error>,
{
    let first = places.first().copied();
    let rank = |place: Place| policy.rank(Family::from(place.ip));
    let wait = move |place: Place| match first {
        Some(first) if place.is_remembered && !first.is_remembered => REMEMBERED,
        Some(first) if rank(place) > rank(first) => HEAD_START,
        Some(_) | None => Duration::ZERO,
    };
    let mut dials: FuturesUnordered<_> = places
        .into_iter()
        .map(|place| async move {
            let addr = target.at(place.ip);
            tokio::time::sleep(wait(place)).await;
            let dial = lock(inner).dial(addr.clone(), opts);
            let done = match dial {
                Ok(dial) => dial.await,
                Err(TransportError::Other(error)) => Err(error),
                Err(error @ TransportError::MultiaddrNotSupported(_)) => {
                    Err(Error::io("cannot dial", std::io::Error::other(error)))
                }
            };
            (place, addr, done)
        })
        .collect();
    let (mut failures, mut other) = (Vec::new(), None);
    while let Some((place, addr, done)) = dials.next().await {
        match done {
            Ok(connection) if target.peer.is_none_or(|peer| peer == connection.0) => {
                if place.is_remembered {
                    tracing::info!(name = %escape(&host), address = %addr, "connected at a remembered address of a name, which the resolver does not give now");
                }
                return Ok((connection, addr));
            }
            Ok(connection) => other = other.or(Some((connection, addr))),
            Err(error) => failures.push((addr, error)),
        }
    }
    other.ok_or(Error::Unreachable { host, failures })
}

#[cfg(test)]
mod tests;
