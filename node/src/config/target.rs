//! The target of a dial: `PEER` and `--addr`, resolved.

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::{config::Reader, exit::Usage};
use p2pnode_protocol::addr;
use p2pnode_protocol::quote;

use super::{Config, keys::other_peer};

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
            reader.argument("PEER", unknown(config, peer));
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

impl Config {
    /// The peer that `peer`, a peer id or a name of `peers:`, means.
    ///
    /// # Errors
    /// [`Usage`] if it is neither.
    pub(crate) fn peer(&self, peer: &str) -> Result<PeerId, Usage> {
        let known = self.peers.get(peer).map(|known| known.id);
        known
            .or_else(|| addr::peer_id(peer).ok())
            .or_else(|| peer_of_address(peer))
            .ok_or_else(|| Usage(format!("PEER: {}", unknown(self, peer))))
    }
}

/// The id at the end of an address.
pub(crate) fn peer_of_address(text: &str) -> Option<PeerId> {
    addr::endpoint(text).ok()?.peer
}

fn unknown(config: &Config, peer: &str) -> String {
    if peer.starts_with('/') {
        return format!(
            "{} names no peer; give an address that ends with /p2p/ID, or the id and --addr",
            quote(peer)
        );
    }
    format!(
        "{} is neither a peer id nor a name under `peers:`; give an id such as 12D3KooW..., as `p2pnode id` prints it on \
         that host{}",
        quote(peer),
        names(config)
    )
}

fn names(config: &Config) -> String {
    const MANY: usize = 8;
    let names: Vec<&str> = config.peers.keys().take(MANY).map(String::as_str).collect();
    match (names.is_empty(), config.peers.len() > MANY) {
        (true, _) => String::new(),
        (false, false) => format!(", or one of {}", names.join(", ")),
        (false, true) => format!(", or one of {}, ...", names.join(", ")),
    }
}
