//! The search for a peer without any relay: at the addresses of DNS services, and by multicast DNS.
//!
//! DNS and mDNS answers are hints: they may cause a dial, nothing more. The handshake of the dial proves who is there.

mod links;
mod mdns;
mod search;
mod services;

use std::collections::HashMap;

use libp2p::PeerId;
use p2pnode_transports::{Handle, Transport};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

#[cfg(any(fuzzing, test))]
#[allow(unreachable_pub, reason = "the fuzz targets are programs of their own")]
pub use mdns::datagram;

pub(crate) use links::Links;
pub(crate) use mdns::{Presence, Responder};
pub(crate) use search::SearchEvent;

use search::{EventSender, Means};

use crate::{
    config::{Config, Mdns, Service},
    core::dialer::Sources,
};

/// Events that may wait for the event loop. A search that is ahead of the loop waits.
const EVENTS: usize = 64;

/// The most places whose last failure is remembered.
const FAILURES: usize = 64;

/// The searches of a node.
#[derive(Debug)]
pub(crate) struct Discovery {
    services: Vec<Service>,
    mdns: Mdns,
    means: Means,
    sockets: Handle,
    links: watch::Receiver<Links>,
    searches: HashMap<PeerId, Search>,
    sender: mpsc::Sender<(PeerId, SearchEvent)>,
    events: mpsc::Receiver<(PeerId, SearchEvent)>,
    /// The last failure of each place that fails, so that each is logged once.
    failures: HashMap<String, String>,
}

/// A search. It ends when this value is dropped.
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
        let (sender, events) = mpsc::channel(EVENTS);
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
            events,
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

    /// Whether this node answers questions of others.
    pub(crate) fn answers(&self) -> bool {
        self.mdns == Mdns::AskAndAnswer
    }

    /// Starts a search for a peer, and ends the earlier one if there is one.
    pub(crate) fn search(&mut self, peer: PeerId) {
        let (services, means) = (self.services.clone(), self.means.clone());
        let ask = (self.mdns != Mdns::Off).then(|| mdns::Question {
            peer,
            means: self.means.clone(),
            sockets: self.sockets.clone(),
            links: self.links.clone(),
        });
        let events = EventSender {
            peer,
            sender: self.sender.clone(),
        };
        let task = tokio::spawn(async move {
            let resolve = services.into_iter().map(|service| {
                let (means, events) = (&means, &events);
                async move { events.send(services::resolve(&service, means).await).await }
            });
            let resolve = futures::future::join_all(resolve);
            match ask {
                Some(question) => {
                    futures::future::join(resolve, question.ask(&events)).await;
                }
                None => {
                    resolve.await;
                }
            }
            events.send(SearchEvent::Over).await;
        });
        self.searches.insert(peer, Search(task));
    }

    /// Ends the search for this peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.searches.remove(peer);
    }

    /// The next event of any search.
    pub(crate) async fn next(&mut self) -> (PeerId, SearchEvent) {
        loop {
            let Some((peer, event)) = self.events.recv().await else {
                // Unreachable: this value holds a sender.
                return std::future::pending().await;
            };
            // The search was ended after this event was sent.
            if !self.searches.contains_key(&peer) {
                continue;
            }
            match &event {
                SearchEvent::Over => self.forget(&peer),
                SearchEvent::Failed(reason) => self.log(reason),
                SearchEvent::Found(_) => {}
            }
            return (peer, event);
        }
    }

    /// Logs a failure, unless it is the same as the last one of its place.
    fn log(&mut self, reason: &str) {
        // The place stands before the system's reason.
        let place = reason.split(": ").next().unwrap_or_default().to_owned();
        if self.failures.get(&place).map(String::as_str) != Some(reason) {
            tracing::warn!("{reason}");
            // Links come and go. A repeated line then follows many others.
            if self.failures.len() >= FAILURES {
                self.failures.clear();
            }
            self.failures.insert(place, reason.to_owned());
        }
    }
}
