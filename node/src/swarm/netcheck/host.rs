//! What the kernel says about the ports of the range.

use p2pnode_transports::PortRange;

use crate::core::netcheck::HostFacts;

/// After which time conntrack of this host forgets a flow of UDP. It is there if conntrack is.
const UDP_TIMEOUT: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// Reads it from `/proc`.
pub(super) async fn look(range: PortRange) -> HostFacts {
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
    }
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
    let waits = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1), fields.nth(1));
        let port = local.and_then(|local| local.rsplit_once(':'));
        let port = port.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        port.is_some_and(|port| range.contains(port))
            && state.is_some_and(|state| ["04", "05", "06"].contains(&state))
    };
    table.lines().skip(1).filter(waits).count()
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
