//! Where a peer may be, as told without any relay: the addresses of services in the DNS, and the answers to multicast DNS.
//!
//! What is told here is believed only as far as that it is worth a dial: who answers there is known by the handshake.

mod links;
mod mdns;
mod services;

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};
use p2pnode_transports::{FamilyPolicy, Handle, Transport, to_multiaddr};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

#[cfg(fuzzing)]
pub use mdns::datagram;

pub(crate) use links::Links;
pub(crate) use mdns::{Presence, Responder};

use crate::{
    config::{Config, Mdns, Service},
    core::dialer::{Candidate, Sources},
};

/// What may wait for the event loop; a search that is ahead of it waits.
const TOLD: usize = 64;

/// The most places whose failure is remembered.
const FAILURES: usize = 64;

/// The transports and families that places are dialed in.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    transports: Vec<Transport>,
    family: FamilyPolicy,
}

/// What a search tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// The peer may be there.
    Found(Vec<Candidate>),
    /// A place could not be asked, and what to do about it.
    Failed(String),
    /// There is no more.
    Over,
}

/// The searches of a node.
#[derive(Debug)]
pub(crate) struct Discovery {
    services: Vec<Service>,
    mdns: Mdns,
    means: Means,
    sockets: Handle,
    links: watch::Receiver<Links>,
    searches: HashMap<PeerId, Search>,
    sender: mpsc::Sender<(PeerId, Told)>,
    told: mpsc::Receiver<(PeerId, Told)>,
    /// The last failure of each place that fails, so that the log says it once.
    failures: HashMap<String, String>,
}

/// A search that ends when nobody waits for it any more.
#[derive(Debug)]
struct Search(JoinHandle<()>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Discovery {
    /// `links` are those of this host, as they come and go.
    pub(crate) fn new(config: &Config, sockets: Handle, links: watch::Receiver<Links>) -> Self {
        let (sender, told) = mpsc::channel(TOLD);
        let dials = |transport: &Transport| match transport {
            Transport::Quic => config.dial.quic,
            Transport::Tcp => config.dial.tcp,
        };
        Self {
            services: config.discovery.dns.clone(),
            mdns: config.discovery.mdns,
            means: Means {
                transports: Transport::ALL.into_iter().filter(dials).collect(),
                family: config.dial.family,
            },
            sockets,
            links,
            searches: HashMap::new(),
            sender,
            told,
            failures: HashMap::new(),
        }
    }

    /// Where dials look.
    pub(crate) fn sources(&self) -> Sources {
        Sources {
            dns: !self.services.is_empty(),
            mdns: self.mdns != Mdns::Off,
        }
    }

    /// Whether this node answers to others.
    pub(crate) fn answers(&self) -> bool {
        self.mdns == Mdns::AskAndAnswer
    }

    /// Looks for a peer, from the beginning if it was being looked for.
    pub(crate) fn search(&mut self, peer: PeerId) {
        let (services, means) = (self.services.clone(), self.means.clone());
        let ask = (self.mdns != Mdns::Off).then(|| mdns::Question {
            peer,
            means: self.means.clone(),
            sockets: self.sockets.clone(),
            links: self.links.clone(),
        });
        let teller = Teller {
            peer,
            sender: self.sender.clone(),
        };
        let task = tokio::spawn(async move {
            let resolve = services.into_iter().map(|service| {
                let (means, teller) = (&means, &teller);
                async move { teller.tell(services::resolve(&service, means).await).await }
            });
            let resolve = futures::future::join_all(resolve);
            match ask {
                Some(question) => {
                    futures::future::join(resolve, question.ask(&teller)).await;
                }
                None => {
                    resolve.await;
                }
            }
            teller.tell(Told::Over).await;
        });
        self.searches.insert(peer, Search(task));
    }

    /// Nobody looks for this peer any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.searches.remove(peer);
    }

    /// What a search has told next.
    pub(crate) async fn next(&mut self) -> (PeerId, Told) {
        loop {
            let Some((peer, told)) = self.told.recv().await else {
                // Never: a sender is held here.
                return std::future::pending().await;
            };
            // What was told before it was forgotten.
            if !self.searches.contains_key(&peer) {
                continue;
            }
            match &told {
                Told::Over => self.forget(&peer),
                Told::Failed(reason) => self.log(reason),
                Told::Found(_) => {}
            }
            return (peer, told);
        }
    }

    /// Says a failure once, and again when another has come in between.
    fn log(&mut self, reason: &str) {
        // The place is what stands before the reason of the system.
        let place = reason.split(": ").next().unwrap_or_default().to_owned();
        if self.failures.get(&place).map(String::as_str) != Some(reason) {
            tracing::warn!("{reason}");
            // Links come and go; what is said twice then is said after many others.
            if self.failures.len() >= FAILURES {
                self.failures.clear();
            }
            self.failures.insert(place, reason.to_owned());
        }
    }
}

/// The way from a search to the event loop.
#[derive(Debug)]
struct Teller {
    peer: PeerId,
    sender: mpsc::Sender<(PeerId, Told)>,
}

impl Teller {
    async fn tell(&self, told: Told) {
        // An error says that the node is gone.
        let _ = self.sender.send((self.peer, told)).await;
    }
}

impl Means {
    /// The addresses of a socket, in each transport.
    fn addrs(&self, host: std::net::SocketAddr) -> Vec<Multiaddr> {
        let addr = |transport: &Transport| to_multiaddr(*transport, host);
        self.transports.iter().map(addr).collect()
    }
}
