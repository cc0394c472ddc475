//! The IP family that a node prefers, as a name in the list of protocols that identify sends.
//!
//! Two peers may have a direct connection in each family, of which one has to go. One side decides that alone, and has to know
//! what the other side prefers. Identify reaches the peer over whatever path there is. Other implementations skip the name.

use libp2p::StreamProtocol;

use crate::Family;

const IP4: StreamProtocol = StreamProtocol::new("/p2pnode/prefers/ip4/1");
const IP6: StreamProtocol = StreamProtocol::new("/p2pnode/prefers/ip6/1");

/// The name that stands for this preference. Nothing is spoken over it.
#[must_use]
pub const fn name(family: Family) -> StreamProtocol {
    match family {
        Family::Ip4 => IP4,
        Family::Ip6 => IP6,
    }
}

/// The family that a peer prefers, which supports these protocols. A peer that names both prefers none.
#[must_use]
pub fn of(protocols: &[StreamProtocol]) -> Option<Family> {
    let names = |family: &Family| protocols.contains(&name(*family));
    let mut named = Family::ALL.into_iter().filter(names);
    named.next().filter(|_| named.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_prefers_the_family_that_it_names_alone() {
        let other = StreamProtocol::new("/ipfs/ping/1.0.0");
        assert_eq!(of(&[other.clone(), IP6]), Some(Family::Ip6));
        assert_eq!(of(&[IP4, other.clone()]), Some(Family::Ip4));
        assert_eq!(of(&[IP4, IP6]), None);
        assert_eq!(of(&[other]), None);
    }
}
