//! The responder: answers questions by multicast DNS.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use libp2p::{Multiaddr, PeerId};
use p2pnode_transports::{Family, to_socket_addr};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{DATAGRAM, PORT, datagrams::GroupListener, group, message, name, scope};
use crate::discovery::links::{Link, Links};

/// The most answers per second. All answers are the same, so a lost one does no harm.
const ANSWERS: u32 = 50;

/// From an error of the socket to its next use. The system's errors here are those of the last answer, and pass.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// The error of Linux where a host has no such family (EAFNOSUPPORT), for which Rust has no kind.
const AFNOSUPPORT: i32 = 97;

/// Where this node is, for its neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Its links.
    pub(crate) links: Links,
    /// The addresses at which it can be dialed, best first.
    pub(crate) addrs: Vec<Multiaddr>,
}

/// The responder of a node. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    presence: watch::Sender<Presence>,
    tasks: Vec<JoinHandle<()>>,
}

impl Responder {
    /// Listens on port 5353 in each of these families. A failure is logged: a node without a responder still dials, and peers reach
    /// it through its relays.
    pub(crate) fn start(peer: PeerId, families: impl IntoIterator<Item = Family>) -> Self {
        let presence = watch::Sender::new(Presence::default());
        let mut tasks = Vec::new();
        for family in families {
            match GroupListener::bind(family, PORT) {
                Ok(listener) => tasks.push(tokio::spawn(
                    Listener {
                        listener,
                        family,
                        peer,
                        instance: std::iter::repeat_with(fastrand::alphanumeric)
                            .take(32)
                            .collect(),
                        presence: presence.subscribe(),
                        joined: BTreeSet::new(),
                        allowance: Allowance::new(Instant::now()),
                    }
                    .run(),
                )),
                // The host lacks the family, so no question comes in it.
                Err(error) if error.raw_os_error() == Some(AFNOSUPPORT) => {}
                Err(error) => {
                    tracing::warn!(%family, %error, "cannot listen on UDP port {PORT}: this node answers no multicast DNS over {family}; stop the program that holds the port (`ss -ulpn 'sport = :{PORT}'`), or set discovery.mdns to false");
                }
            }
        }
        Self { presence, tasks }
    }

    /// Sets what the responder answers from now on.
    pub(crate) fn announce(&self, presence: Presence) {
        self.presence.send_if_modified(|known| {
            let is_new = *known != presence;
            *known = presence;
            is_new
        });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The responder of one family.
struct Listener {
    listener: GroupListener,
    family: Family,
    peer: PeerId,
    instance: String,
    presence: watch::Receiver<Presence>,
    joined: BTreeSet<Link>,
    allowance: Allowance,
}

impl Listener {
    async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            tokio::select! {
                changed = self.presence.changed() => match changed {
                    Ok(()) => self.join(),
                    // The node ends.
                    Err(_) => return,
                },
                received = self.listener.receive(&mut buffer) => match received {
                    Ok((length, from)) => {
                        let datagram = buffer.get(..length).unwrap_or_default();
                        if let Err(error) = self.answer(datagram, from).await {
                            tracing::debug!(%from, %error, "cannot answer a question of multicast DNS");
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive multicast DNS");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                },
            }
        }
    }

    /// Joins the group on the links that are new, and forgets those that are gone: the system has left them.
    fn join(&mut self) {
        let links = self.presence.borrow_and_update().links.all();
        self.joined.retain(|link| links.contains(link));
        for link in links {
            let family = match link {
                Link::Ip4(_) => Family::Ip4,
                Link::Ip6(_) => Family::Ip6,
            };
            if family != self.family || self.joined.contains(&link) {
                continue;
            }
            match self.listener.join(group(family), link) {
                Ok(()) => {
                    self.joined.insert(link);
                }
                Err(error) => {
                    tracing::warn!(link = name(link), %error, "cannot receive multicast DNS on a link, so peers there do not find this node by it; correct the cause, or set discovery.mdns to false");
                }
            }
        }
    }

    async fn answer(&mut self, datagram: &[u8], from: SocketAddr) -> io::Result<()> {
        let Some(asked) = message::asked(datagram) else {
            return Ok(());
        };
        let addrs = near(&self.presence.borrow(), from);
        let is_legacy = from.port() != PORT;
        // A host beyond a router gets no answer.
        if addrs.is_empty() || !self.allowance.take(Instant::now()) {
            return Ok(());
        }
        match message::answer(asked, is_legacy, &self.instance, self.peer, &addrs) {
            Some(answer) => self.listener.answer(&answer, from).await,
            None => Ok(()),
        }
    }
}

/// The addresses that a neighbour can dial: those on its link.
fn near(presence: &Presence, neighbour: SocketAddr) -> Vec<Multiaddr> {
    let own = presence.links.own(neighbour.ip(), scope(neighbour));
    let addrs = presence.addrs.iter();
    let near = addrs.filter(|addr| to_socket_addr(addr).is_some_and(|at| own.contains(&at.ip())));
    near.cloned().collect()
}

/// How many answers are left in this second.
#[derive(Debug)]
struct Allowance {
    since: Instant,
    left: u32,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            left: ANSWERS,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_gets_the_addresses_on_its_link_and_other_hosts_none() {
        let addrs = [
            "/ip4/192.168.1.7/udp/40000/quic-v1",
            "/ip4/10.0.0.7/tcp/40000",
        ];
        let addrs = addrs
            .map(|addr| addr.parse::<Multiaddr>().unwrap())
            .to_vec();
        let networks = ["192.168.1.7/24", "10.0.0.7/24"].map(|network| network.parse().unwrap());
        let presence = Presence {
            links: Links::of(networks),
            addrs: addrs.clone(),
        };
        let near = |from: &str| near(&presence, from.parse().unwrap());
        assert_eq!(near("192.168.1.9:40001"), addrs[..1]);
        assert_eq!(near("10.0.0.9:5353"), addrs[1..]);
        assert_eq!(near("203.0.113.9:5353"), Vec::<Multiaddr>::new());
    }

    #[test]
    fn questions_without_end_are_answered_at_a_bounded_rate() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let taken =
            |allowance: &mut Allowance, now| (0..1000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, now), ANSWERS as usize);
        assert_eq!(taken(&mut allowance, now + Duration::from_millis(999)), 0);
        assert_eq!(
            taken(&mut allowance, now + Duration::from_secs(1)),
            ANSWERS as usize
        );
    }
}
