//! How many of something a source may have.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use p2pnode_protocol::Source;

use crate::config::PerSource;

/// Whether `source`, which has `held`, may have one more within `limits`.
pub(crate) fn admits(limits: PerSource, source: Source, held: usize) -> bool {
    let limit = match source {
        Source::Ip4(_) => limits.ip4,
        Source::Net6(_) => limits.ip6_net,
    };
    limit == 0 || held < limit
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
            Source::Ip4(Ipv4Addr::LOCALHOST),
            Source::Net6([0x2001, 0xdb8, 0, 7]),
        );
        assert!(admits(limits, ip4, 1));
        assert!(!admits(limits, ip4, 2));
        assert!(admits(limits, net6, usize::MAX));
    }
}
