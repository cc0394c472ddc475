//! How many of something a source may have.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use p2pnode_protocol::{Network, Source};

use crate::config::PerSource;

/// Whether `network`, which has `held`, may have one more within `limits`, which are those of one source.
pub(crate) fn admits(limits: PerSource, network: Network, held: usize) -> bool {
    let limit = match network {
        Network::Ip4(_) => limits.ip4,
        Network::Net64(_) | Network::Net56(_) | Network::Net48(_) => limits.ip6_net,
    };
    limit == 0 || held < limit.saturating_mul(network.weight() as usize)
}

/// The same for all networks of a source, of which it has `held`.
pub(crate) fn networks_admit(
    limits: PerSource,
    source: Source,
    held: &HashMap<Network, usize>,
) -> bool {
    source.networks().all(|network| {
        let held = held.get(&network).copied().unwrap_or_default();
        admits(limits, network, held)
    })
}

/// Adds one to each network of a source.
pub(crate) fn increment_networks(held: &mut HashMap<Network, usize>, source: Option<Source>) {
    for network in source.into_iter().flat_map(Source::networks) {
        *held.entry(network).or_default() += 1;
    }
}

/// Takes one away from each network of a source.
pub(crate) fn decrement_networks(held: &mut HashMap<Network, usize>, source: Option<Source>) {
    for network in source.into_iter().flat_map(Source::networks) {
        decrement(held, network);
    }
}

/// Takes one away, and the entry with the last.
pub(crate) fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn each_family_has_its_limit_and_zero_is_none() {
        let limits = PerSource { ip4: 2, ip6_net: 0 };
        let (ip4, net6) = (
            Network::Ip4(Ipv4Addr::LOCALHOST),
            Network::Net48(0x2001_0db8_0000_0000),
        );
        assert!(admits(limits, ip4, 1));
        assert!(!admits(limits, ip4, 2));
        assert!(admits(limits, net6, usize::MAX));
        let limits = PerSource { ip4: 2, ip6_net: 3 };
        assert!(admits(limits, net6, 11));
        assert!(!admits(limits, net6, 12));
    }
}
