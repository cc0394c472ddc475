//! Names, resolved before a transport sees them.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    core::transport::{DialOpts, ListenerId, Transport, TransportError},
    multiaddr::Multiaddr,
};
use p2pnode_protocol::{Family, Reach};

use crate::net::{
    addr::{DialAddr, Host},
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

/// Dials names through `inner`, which dials IP addresses. All A and AAAA records at once, the preferred family a little
/// earlier; the first success wins.
pub(crate) struct Resolving<T> {
    /// Shared with dials, which begin once their name is resolved.
    inner: Arc<Mutex<T>>,
    policy: FamilyPolicy,
    /// Where the sockets of a dial are remembered, if they are.
    shared: Option<Shared>,
}

impl<T> Resolving<T> {
    pub(crate) fn new(inner: T, policy: FamilyPolicy, shared: Option<Shared>) -> Self {
        Self {
            inner: Arc::new(Mutex::new(inner)),
            policy,
            shared,
        }
    }
}

fn lock<T>(inner: &Mutex<T>) -> MutexGuard<'_, T> {
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
        Ok(async move {
            let ips = resolve(&host, only, policy, reach).await?;
            let (connection, winner) = race(&inner, host, &target, ips, policy, opts).await?;
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

/// The addresses of a name that may be used, preferred family first, in the resolver's order within a family.
async fn resolve(
    host: &str,
    only: Option<Family>,
    policy: FamilyPolicy,
    reach: Option<Reach>,
) -> Result<Vec<IpAddr>, Error> {
    let failed = |reason: String| Error::Resolve {
        host: host.to_owned(),
        reason,
    };
    let lookup = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 0)));
    let found = match lookup.await {
        Ok(Ok(found)) => found.map(|socket| socket.ip()).collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => {
            return Err(failed(format!(
                "no answer within {} s",
                RESOLVE_TIMEOUT.as_secs()
            )));
        }
    };
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

/// Pure part of [`resolve`].
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

/// Dials all addresses; the connection and the address of the first success.
async fn race<T>(
    inner: &Mutex<T>,
    host: String,
    target: &DialAddr,
    ips: Vec<IpAddr>,
    policy: FamilyPolicy,
    opts: DialOpts,
) -> Result<(Connection, Multiaddr), Error>
where
    T: Transport<Output = Connection, Error = Error>,
{
    let first_rank = ips.first().map_or(0, |ip| policy.rank(Family::from(*ip)));
    let mut dials: FuturesUnordered<_> = ips
        .into_iter()
        .map(|ip| async move {
            let addr = target.at(ip);
            if policy.rank(Family::from(ip)) > first_rank {
                tokio::time::sleep(HEAD_START).await;
            }
            let dial = lock(inner).dial(addr.clone(), opts);
            let done = match dial {
                Ok(dial) => dial.await,
                Err(TransportError::Other(error)) => Err(error),
                Err(error @ TransportError::MultiaddrNotSupported(_)) => {
                    Err(Error::io("cannot dial", std::io::Error::other(error)))
                }
            };
            (addr, done)
        })
        .collect();
    let mut failures = Vec::new();
    while let Some((addr, done)) = dials.next().await {
        match done {
            Ok(connection) => return Ok((connection, addr)),
            Err(error) => failures.push((addr, error)),
        }
    }
    Err(Error::Unreachable { host, failures })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

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

    #[test]
    fn on_a_remotes_word_a_name_leads_only_to_addresses_within_reach() {
        let inside = [
            "10.0.0.5",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "fd00::5",
            "::1",
            "fd00:ec2::254",
            "64:ff9b::a00:1",
        ];
        let (none, outside) = (Reach::default(), ips(&["192.0.2.1", "2001:db8::1"]));
        for text in inside {
            let found = ips(&[text]);
            let error = within(Some(none), "relay.example", found.clone()).unwrap_err();
            let reason = format!("relay.example is at {text}, where a remote's word does not lead");
            assert_eq!(error.to_string(), reason);
            let mixed = [found.clone(), outside.clone()].concat();
            assert_eq!(within(Some(none), "relay.example", mixed).unwrap(), outside);
            assert_eq!(within(None, "relay.example", found.clone()).unwrap(), found);
        }
        let near = Reach {
            private: true,
            host: false,
        };
        let found = within(Some(near), "relay.example", ips(&inside)).unwrap();
        assert_eq!(found, ips(&["10.0.0.5", "192.168.1.1", "fd00::5"]));
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named_in_the_error() {
        let error = resolve("no-such-host.invalid", None, FamilyPolicy::Auto, None)
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
