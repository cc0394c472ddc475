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
use p2pnode_protocol::{Family, escape};

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
        let (host, only) = match target.host.clone() {
            Host::Ip(_) => return Ok(lock(&self.inner).dial(addr, opts)?.boxed()),
            Host::DnsAddr(host) => return Err(TransportError::Other(Error::DnsAddr { host })),
            Host::Name(host, only) => (host, only),
        };
        let (inner, policy, shared) = (Arc::clone(&self.inner), self.policy, self.shared.clone());
        let resolver = self.resolver.clone();
        Ok(async move {
            let places = resolver.places(&host, only, policy).await?;
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
    ) -> Result<Vec<Place>, Error> {
        let found = self.ask(host).await;
        let usable = found.map(|found| select(found, only, policy));
        let reason = match &usable {
            Ok(usable) if !usable.is_empty() => None,
            Ok(_) => Some(match only {
                Some(family) => format!("none of its addresses suits {family}"),
                None => format!("none of its addresses suits the family policy {policy}"),
            }),
            Err(reason) => Some(reason.clone()),
        };
        let usable = usable.unwrap_or_default();
        let good = select(lock(&self.names).good(host), only, policy);
        let good: Vec<_> = good.into_iter().filter(|ip| !usable.contains(ip)).collect();
        let place = |is_remembered| move |ip| Place { ip, is_remembered };
        let places: Vec<_> = usable.into_iter().map(place(false)).collect();
        let remembered = good.into_iter().map(place(true));
        let places: Vec<_> = places.into_iter().chain(remembered).collect();
        match reason {
            Some(reason) if places.is_empty() => Err(Error::Resolve {
                host: host.to_owned(),
                reason,
            }),
            _ => Ok(places),
        }
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

/// The addresses that may be dialed, preferred family first.
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use libp2p::{
        PeerId,
        core::{
            Endpoint,
            muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
            transport::PortUse,
        },
    };

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_are_filtered_ordered_and_told_once() {
        let found = || ips(&["2001:db8::1", "192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        for (only, policy, expected) in [
            (
                None,
                FamilyPolicy::Auto,
                ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
            ),
            (
                None,
                FamilyPolicy::PreferIp4,
                ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            ),
            (
                None,
                FamilyPolicy::PreferIp6,
                ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
            ),
            (None, FamilyPolicy::OnlyIp6, ips(&["2001:db8::1"])),
            (
                Some(Family::Ip4),
                FamilyPolicy::Auto,
                ips(&["192.0.2.1", "192.0.2.2"]),
            ),
            (Some(Family::Ip4), FamilyPolicy::OnlyIp6, ips(&[])),
        ] {
            assert_eq!(select(found(), only, policy), expected, "{only:?} {policy}");
        }
    }

    #[test]
    fn a_name_with_hundreds_of_addresses_is_not_dialed_hundreds_of_times() {
        let found = (0..=255).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert_eq!(select(found, None, FamilyPolicy::Auto).len(), MAX_ADDRESSES);
    }

    /// Answers dials of these addresses with this peer, and knows which were dialed.
    struct Peers(Vec<(IpAddr, PeerId)>, Arc<Mutex<Vec<IpAddr>>>);

    impl Transport for Peers {
        type Output = Connection;
        type Error = Error;
        type ListenerUpgrade = Incoming;
        type Dial = BoxFuture<'static, Result<Connection, Error>>;

        fn listen_on(&mut self, _: ListenerId, _: Multiaddr) -> Result<(), TransportError<Error>> {
            Ok(())
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(
            &mut self,
            addr: Multiaddr,
            _: DialOpts,
        ) -> Result<Self::Dial, TransportError<Error>> {
            let ip = to_socket_addr(&addr).unwrap().ip();
            lock(&self.1).push(ip);
            let peer = self.0.iter().find(|(there, _)| *there == ip);
            Ok(std::future::ready(match peer {
                Some((_, peer)) => Ok((*peer, StreamMuxerBox::new(Never))),
                None => Err(Error::io("nobody", std::io::ErrorKind::TimedOut.into())),
            })
            .boxed())
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Event> {
            Poll::Pending
        }
    }

    struct Never;

    impl StreamMuxer for Never {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = std::io::Error;

        fn poll_inbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<std::io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<std::io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<std::io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    /// A resolver whose answer a test sets, over hosts that answer.
    struct Bench {
        resolving: Resolving<Peers>,
        answer: Arc<Mutex<Answer>>,
        asked: Arc<Mutex<u32>>,
        dialed: Arc<Mutex<Vec<IpAddr>>>,
    }

    impl Bench {
        fn new(peers: Vec<(IpAddr, PeerId)>) -> Self {
            let answer = Arc::new(Mutex::new(Err("refused".to_owned())));
            let (asked, dialed) = (Arc::<Mutex<u32>>::default(), Arc::default());
            let (next, count) = (Arc::clone(&answer), Arc::clone(&asked));
            let lookup: Lookup = Arc::new(move |_| {
                *lock(&count) += 1;
                std::future::ready(lock(&next).clone()).boxed()
            });
            let peers = Peers(peers, Arc::clone(&dialed));
            Self {
                resolving: Resolving::with(peers, FamilyPolicy::Auto, None, lookup),
                answer,
                asked,
                dialed,
            }
        }

        async fn dial(&mut self, peer: PeerId) -> Result<PeerId, Error> {
            let addr = format!("/dns/relay.example/tcp/443/p2p/{peer}")
                .parse()
                .unwrap();
            let opts = DialOpts {
                role: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            };
            let dial = self.resolving.dial(addr, opts).unwrap();
            dial.await.map(|connection| connection.0)
        }

        fn answers(&self, answer: Answer) {
            *lock(&self.answer) = answer;
            // As after the time of the last answer.
            *lock(&self.resolving.resolver.names) = {
                let (mut names, now) = (Names::default(), Instant::now());
                for ip in lock(&self.resolving.resolver.names)
                    .good("relay.example")
                    .iter()
                    .rev()
                {
                    names.handle_good("relay.example", *ip, now);
                }
                names
            };
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_is_dialed_where_it_answered_last_while_its_name_cannot_be_resolved() {
        let (peer, there) = (PeerId::random(), ips(&["192.0.2.1"]));
        let mut bench = Bench::new(vec![(there[0], peer)]);
        assert!(matches!(bench.dial(peer).await, Err(Error::Resolve { .. })));
        bench.answers(Ok(there.clone()));
        assert_eq!(bench.dial(peer).await.unwrap(), peer);
        bench.answers(Err("refused".to_owned()));
        for _ in 0..20 {
            assert_eq!(bench.dial(peer).await.unwrap(), peer);
        }
        assert_eq!(*lock(&bench.asked), 3, "the system is not asked each time");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_or_is_another_peers_is_no_end() {
        let (peer, other, there) = (
            PeerId::random(),
            PeerId::random(),
            ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        );
        let mut bench = Bench::new(vec![(there[0], peer), (there[2], other)]);
        bench.answers(Ok(vec![there[0]]));
        bench.dial(peer).await.unwrap();
        for wrong in &there[1..] {
            bench.answers(Ok(vec![*wrong]));
            assert_eq!(bench.dial(peer).await.unwrap(), peer, "{wrong}");
            assert_eq!(
                lock(&bench.dialed)[lock(&bench.dialed).len() - 2..],
                [*wrong, there[0]]
            );
        }
        // Where the other peer was is not remembered.
        bench.answers(Err("refused".to_owned()));
        lock(&bench.dialed).clear();
        bench.dial(peer).await.unwrap();
        assert_eq!(*lock(&bench.dialed), [there[0]]);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named_in_the_error() {
        let resolving = Bench::new(Vec::new()).resolving;
        let resolver = Resolver {
            lookup: Arc::new(|host| ask_system(host).boxed()),
            ..resolving.resolver
        };
        let error = resolver
            .places("no-such-host.invalid", None, FamilyPolicy::Auto)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot resolve no-such-host.invalid: "),
            "{error}"
        );
    }
}
