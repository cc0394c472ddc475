//! The IPv4 addresses of this host, as the kernel lists them in `/proc/net/fib_trie`: without a socket.

use std::net::{IpAddr, Ipv4Addr};

/// The addresses of the network namespace of this process. Empty if the kernel does not list them.
pub(crate) fn own_ip4() -> Vec<IpAddr> {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    local(&trie).map(IpAddr::from).collect()
}

/// An address, and in a line below it what the address is.
fn local(trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    trie.lines().filter_map(move |line| {
        match line.trim_start_matches([' ', '|']).strip_prefix("-- ") {
            Some(address) => {
                last = address.parse().ok();
                None
            }
            None => last.filter(|_| line.trim() == "/32 host LOCAL"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_distinguished_from_networks_and_broadcasts() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 10.0.3.0/24 2 0 2\n        \
                    |-- 10.0.3.0\n           /24 link UNICAST\n        |-- 10.0.3.7\n           /32 host LOCAL\n        \
                    |-- 10.0.3.255\n           /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        let found: Vec<_> = local(trie).collect();
        assert_eq!(found, [Ipv4Addr::new(10, 0, 3, 7), Ipv4Addr::LOCALHOST]);
    }
}
