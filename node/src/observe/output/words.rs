//! Peers and values of the JSON as words in a line.

use libp2p::PeerId;

/// The first characters of a peer id: enough to distinguish the peers of one fleet.
pub(crate) fn short(peer: &PeerId) -> String {
    let mut id = peer.to_string();
    id.truncate(14);
    id.push_str("..");
    id
}

/// A peer in a line: its name, if it has one, and the first characters of its id.
pub(crate) fn label(peer: &PeerId, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name} ({})", short(peer)),
        None => short(peer),
    }
}

/// A value of the JSON as words.
pub(crate) fn plain(value: impl std::fmt::Display) -> String {
    value.to_string().replace('_', " ")
}
