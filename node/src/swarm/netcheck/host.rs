//! What the kernel says about the ports of the range.

use std::collections::BTreeSet;

use p2pnode_transports::{Family, Handle, PortRange, Transport};

use crate::core::netcheck::HostFacts;

/// After which time conntrack of this host forgets a flow of UDP. It is there if conntrack is.
const UDP_TIMEOUT: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// The capability that ports of the system need.
const NET_BIND_SERVICE: u32 = 10;

/// What the kernel says, and what the sockets of this node show.
pub(super) fn look(sockets: &Handle, transports: &[Transport]) -> HostFacts {
    let range = sockets.range();
    let tables = ["udp", "udp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")));
    let bound: BTreeSet<u16> = tables
        .iter()
        .flatten()
        .flat_map(|table| entries(table))
        .map(|(port, _)| port)
        .filter(|port| range.contains(*port))
        .collect();
    let of = transports
        .iter()
        .flat_map(|transport| Family::ALL.map(|family| (*transport, family)));
    HostFacts {
        taken: bound.len().saturating_sub(sockets.pool_counts().in_use),
        unbound: of
            .filter_map(|(transport, family)| sockets.unbound_for(transport, family))
            .next(),
        ..settings(range)
    }
}

/// Reads it from `/proc`.
pub(super) fn settings(range: PortRange) -> HostFacts {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")));
    HostFacts {
        ephemeral: read("ip_local_port_range").and_then(|text| {
            let mut numbers = text.split_ascii_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        }),
        reserved: read("ip_local_reserved_ports").map_or_else(Vec::new, |text| ranges(&text)),
        udp_timeout: std::fs::read_to_string(UDP_TIMEOUT)
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        timestamps: read("tcp_timestamps").map(|text| text.trim() != "0"),
        waiting: tables
            .iter()
            .flatten()
            .map(|table| waiting(table, range))
            .sum(),
        forbidden: forbidden(range),
        ..HostFacts::default()
    }
}

/// How many ports of the range this process lacks the privilege for.
fn forbidden(range: PortRange) -> usize {
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let start = start.ok().and_then(|text| text.trim().parse::<u16>().ok());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let capabilities = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let may = capabilities.is_none_or(|set| set >> NET_BIND_SERVICE & 1 == 1);
    let needs = |port: &u16| start.is_some_and(|start| *port < start);
    if may {
        0
    } else {
        range.iter().filter(needs).count()
    }
}

/// The local port and the state of each socket of a table of the kernel.
fn entries(table: &str) -> impl Iterator<Item = (u16, &str)> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let (_, port) = local.rsplit_once(':')?;
        Some((u16::from_str_radix(port, 16).ok()?, state))
    })
}

/// `40000-40050,41000`.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

/// How many sockets of the range wait for their end: FIN_WAIT1, FIN_WAIT2, TIME_WAIT.
fn waiting(table: &str, range: PortRange) -> usize {
    let waits =
        |(port, state): &(u16, &str)| range.contains(*port) && ["04", "05", "06"].contains(state);
    entries(table).filter(waits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        assert_eq!(
            ranges("40000-40050,41000\n"),
            [(40000, 40050), (41000, 41000)]
        );
        assert_eq!(ranges("\n"), []);
        let table = "  sl  local_address rem_address   st\n\
            0: 0100007F:9C40 0100007F:01BB 06 0:0\n\
            1: 0100007F:9C41 0100007F:01BB 01 0:0\n\
            2: 0100007F:01BB 0100007F:9C40 06 0:0\n";
        let range = "40000-40050".parse().expect("a range");
        assert_eq!(waiting(table, range), 1);
    }
}
