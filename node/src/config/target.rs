//! The target of a dial: `PEER` and `--addr`, resolved.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::{config::Reader, exit::Usage};
use p2pnode_protocol::addr;
use p2pnode_protocol::quote;

use super::{Config, KnownPeer, keys::other_peer};

/// The peer of a `dial`, and addresses to try alongside circuits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its id.
    pub peer: PeerId,
    /// Its addresses, without `/p2p`: those of `--addr`, then those of `peers:`.
    pub addrs: Vec<Multiaddr>,
}

impl Target {
    /// Resolves `peer`, a peer id or a name of `config.peers`, and parses `addrs`. `None` if a fault was noted.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        config: &Config,
        peer: &str,
        addrs: &[String],
    ) -> Option<Self> {
        let known = match config.peers.get(peer) {
            Some(known) => Some(known),
            None => {
                let id = addr::peer_id(peer).ok();
                config.peers.values().find(|known| Some(known.id) == id)
            }
        };
        let id = known
            .map(|known| known.id)
            .or_else(|| addr::peer_id(peer).ok());
        let mut endpoints = Vec::new();
        for text in addrs {
            match addr::dialable(text) {
                Ok(endpoint) => match id.and_then(|id| other_peer(&endpoint, id)) {
                    Some(problem) => reader.argument("--addr", problem),
                    None => endpoints.push(endpoint.addr),
                },
                Err(error) => reader.argument("--addr", error.to_string()),
            }
        }
        let Some(peer) = id else {
            reader.argument("PEER", unknown(&config.names(), peer));
            return None;
        };
        endpoints.extend(
            known
                .into_iter()
                .flat_map(|known| known.addrs.iter().cloned()),
        );
        if config.relays.is_empty()
            && endpoints.is_empty()
            && addrs.is_empty()
            && config.discovery.is_off()
            && !reader.has_fault_of("relays")
            && !reader.has_fault_of("discovery")
        {
            let problem = format!(
                "{peer} cannot be found: no relay and no address of it is known; give --relay MULTIADDR or --addr MULTIADDR, or \
                 set discovery.dns or discovery.mdns"
            );
            reader.argument("PEER", problem);
        }
        if !config.allowed_peers.is_empty() && !config.allowed_peers.contains(&peer) {
            let problem =
                format!("{peer} is not in access.allow, so this node refuses it; add it there");
            reader.argument("PEER", problem);
        }
        Some(Self {
            peer,
            addrs: endpoints,
        })
    }
}

/// Refuses a dial of the node's own id, which is known once the key is loaded.
///
/// # Errors
/// If `peer` is `own`.
pub(crate) fn check_not_own(peer: PeerId, own: PeerId) -> Result<(), Usage> {
    if peer == own {
        return Err(Usage(format!(
            "PEER: {peer} is this node's own id; give the id of another peer"
        )));
    }
    Ok(())
}

/// The peers of `peers:`, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    known: BTreeMap<String, KnownPeer>,
    /// Those of the running node are among them.
    has_running: bool,
}

impl Names {
    /// The name of a peer, if it has one.
    pub(crate) fn of(&self, peer: &PeerId) -> Option<&str> {
        let mut names = self.known.iter();
        names.find_map(|(name, known)| (known.id == *peer).then_some(name.as_str()))
    }

    /// The peer that `peer`, a peer id or a name, means.
    ///
    /// # Errors
    /// [`Usage`] if it is neither.
    pub(crate) fn peer(&self, peer: &str) -> Result<PeerId, Usage> {
        self.find(peer)
            .map_err(|problem| Usage(format!("PEER: {problem}")))
    }

    /// The same for an argument of another name.
    ///
    /// # Errors
    /// Why it is neither.
    pub(crate) fn find(&self, peer: &str) -> Result<PeerId, String> {
        let known = self.known.get(peer).map(|known| known.id);
        known
            .or_else(|| addr::peer_id(peer).ok())
            .or_else(|| peer_of_address(peer))
            .ok_or_else(|| unknown(self, peer))
    }

    /// With those that the running node knows, as its status has them. A name that is here already stays.
    pub(crate) fn with_running(mut self, running: &BTreeMap<String, String>) -> Self {
        self.has_running = true;
        for (name, id) in running {
            let known = id.parse().map(|id| KnownPeer {
                id,
                addrs: Vec::new(),
            });
            if let Ok(known) = known {
                self.known.entry(name.clone()).or_insert(known);
            }
        }
        self
    }

    /// The addresses of a peer.
    pub(crate) fn addrs<'a>(&'a self, peer: &'a PeerId) -> impl Iterator<Item = &'a Multiaddr> {
        let known = self.known.values().filter(move |known| known.id == *peer);
        known.flat_map(|known| &known.addrs)
    }

    /// The same as a table.
    pub(crate) fn peers(&self) -> p2pnode_services::config::Peers {
        let names = self.known.iter();
        names
            .map(|(name, known)| (name.clone(), known.id))
            .collect()
    }

    /// Each name and its peer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &PeerId)> {
        self.known.iter().map(|(name, known)| (name, &known.id))
    }
}

impl Config {
    /// The names of `peers:`.
    pub(crate) fn names(&self) -> Names {
        Names {
            known: self.peers.clone(),
            has_running: false,
        }
    }
}

/// The id at the end of an address.
pub(crate) fn peer_of_address(text: &str) -> Option<PeerId> {
    addr::endpoint(text).ok()?.peer
}

fn unknown(names: &Names, peer: &str) -> String {
    const MANY: usize = 8;
    if peer.starts_with('/') {
        return format!(
            "{} names no peer; give an address that ends with /p2p/ID, or the id and --addr",
            quote(peer)
        );
    }
    let mut known: Vec<&str> = names.known.keys().map(String::as_str).take(MANY).collect();
    if names.known.len() > MANY {
        known.push("...");
    }
    let known = match (known.is_empty(), names.has_running) {
        (true, false) => String::new(),
        (false, false) => format!(", or one of {}", known.join(", ")),
        (true, true) => "; the running node knows no name".to_owned(),
        (false, true) => format!("; the running node knows {}", known.join(", ")),
    };
    format!(
        "{} is neither a peer id nor a name under `peers:`; give an id such as 12D3KooW..., as `p2pnode id` prints it on \
         that host{known}",
        quote(peer)
    )
}
