//! What mends a finding: an id, a sentence, and a command where there is one.

use std::net::SocketAddr;

use p2pnode_transports::{Exhausted, PortRange, Transport};

use super::Fault;
use crate::core::finding::Remedy;

impl Remedy {
    fn new(id: &str, text: impl Into<String>, command: Option<String>) -> Self {
        Self {
            id: id.to_owned(),
            text: text.into(),
            command,
        }
    }

    /// The NAT gives each destination another port.
    pub(crate) fn preserve_range() -> Self {
        Self::new(
            "preserve_range",
            "the NAT maps each destination to another port; if it is a cluster's masquerade, exempt the range on the host of the pod",
            Some("p2pnode firewall --format nft-snat | nft -f -".to_owned()),
        )
    }

    /// A NAT in front of a relay replaces the sources of what comes in.
    pub(crate) fn keep_source() -> Self {
        Self::new(
            "keep_source",
            "where the relay runs, let the source addresses through: `externalTrafficPolicy: Local` or the host's network in Kubernetes, `userland-proxy: false` in Docker, no masquerade of what comes in; or use another relay",
            None,
        )
    }

    pub(crate) fn look_there() -> Self {
        Self::new(
            "look_there",
            "look at the network of the peer, on its host",
            Some("p2pnode netcheck".to_owned()),
        )
    }

    /// The router is behind another NAT, which it does not command.
    pub(crate) fn double_nat() -> Self {
        Self::new(
            "double_nat",
            "what the inner router maps is not reached from outside: put it in bridge mode, or map the port at the outer router as well",
            None,
        )
    }

    /// The router has mapped a port, and does not pass on what comes in there.
    pub(crate) fn dead_mapping(at: SocketAddr) -> Self {
        Self::new(
            "dead_mapping",
            format!(
                "let the router, and any firewall outside it, pass on what comes in at {at}; restart the router or update it if it should already"
            ),
            None,
        )
    }

    pub(crate) fn udp_blocked(range: PortRange) -> Self {
        Self::new(
            "udp_blocked",
            format!(
                "let UDP from source ports {range} out, and its answers in; these are the rules for a firewall of Linux"
            ),
            Some("p2pnode firewall --format nft".to_owned()),
        )
    }

    pub(crate) fn range_blocked(range: PortRange) -> Self {
        Self::new(
            "range_blocked",
            format!(
                "let all source ports of {range} out, or configure the range that is let out in dial.port_range"
            ),
            Some("p2pnode firewall --format nft".to_owned()),
        )
    }

    pub(crate) fn slow_path() -> Self {
        Self::new(
            "slow_path",
            "the relays answer so late that more may have come after the look had ended: look again when the path is faster, or with a relay that is nearer",
            None,
        )
    }

    pub(crate) fn unreachable(range: PortRange) -> Self {
        Self::new(
            "relay_unreachable",
            format!(
                "check the address of the relay and that it runs, and let source ports {range} out"
            ),
            Some("p2pnode firewall --format nft".to_owned()),
        )
    }

    pub(crate) fn resolver() -> Self {
        Self::new(
            "resolver",
            "names of relays are not resolved: check that the servers in /etc/resolv.conf answer and know the names, or give the relays by address as well",
            None,
        )
    }

    pub(crate) fn wrong_peer() -> Self {
        Self::new(
            "wrong_peer",
            "check the address and the id of the relay; `relay-node id` prints it where the relay runs",
            None,
        )
    }

    /// IPv4 is there for names alone.
    pub(crate) fn nat64() -> Self {
        Self::new(
            "nat64",
            "a direct path takes one IP family that both sides have: give this host IPv4 as well (464XLAT, such as clatd), or the peers IPv6",
            None,
        )
    }

    pub(crate) fn no_handshake() -> Self {
        Self::new(
            "no_handshake",
            "what answers there does not prove to be the relay: check the address and its port, and that no proxy or other server has it",
            None,
        )
    }

    pub(crate) fn no_route() -> Self {
        Self::new(
            "no_route",
            "this host has no route to the IP family of the relay: give an address of the relay in a family that the host has",
            None,
        )
    }

    pub(crate) fn open_files() -> Self {
        Self::new(
            "open_files",
            "this process has as many files open as it may: raise the limit (`ulimit -n`, LimitNOFILE of the service)",
            None,
        )
    }

    /// This host does not send.
    pub(crate) fn fault(fault: Fault, range: PortRange) -> Self {
        match fault {
            Fault::Files => Self::open_files(),
            Fault::InUse => Self::new(
                "ports_in_use",
                "other programs of this host have ports of the range: stop them, or set dial.port_range to another range",
                None,
            ),
            Fault::Forbidden => Self::new(
                "forbidden_here",
                format!(
                    "a firewall or a policy of this host itself forbids packets from source ports {range}: let them out"
                ),
                Some("p2pnode firewall --format nft".to_owned()),
            ),
            Fault::Memory => Self::new(
                "no_buffers",
                "this host has no buffers left for packets: look at its memory, and at the queue of its interface",
                None,
            ),
        }
    }

    pub(crate) fn no_socket() -> Self {
        Self::new(
            "no_socket",
            "this host gives no socket for the IP family and transport of the relay: give an address of the relay that it can have",
            None,
        )
    }

    /// A punch socket has no port.
    pub(crate) fn no_port(exhausted: &Exhausted) -> Self {
        match exhausted.is_forbidden() {
            true => Self::privileged_ports(),
            false => Self::new(
                "exhausted",
                "stop the programs that hold the ports, or set dial.port_range to another range",
                None,
            ),
        }
    }

    pub(crate) fn privileged_ports() -> Self {
        Self::new(
            "privileged_ports",
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or set dial.port_range to ports above 1023",
            None,
        )
    }

    pub(crate) fn few_ports() -> Self {
        Self::new(
            "few_ports",
            "no port of the range is free to look from: widen dial.port_range, or look again with fewer connections",
            None,
        )
    }

    pub(crate) fn partners() -> Self {
        Self::new(
            "partners",
            "the relays name no other relay in this IP family: let them name each other in `relays`, by addresses of this family",
            None,
        )
    }

    /// Full packets are lost.
    pub(super) fn too_long(transport: Transport) -> Self {
        match transport {
            Transport::Quic => Self::mtu(),
            Transport::Tcp => Self::segments(),
        }
    }

    pub(crate) fn second_relay() -> Self {
        Self::new(
            "second_relay",
            "one relay cannot show this: run a second one at another address, let both name each other in `relays`, and configure both",
            None,
        )
    }

    pub(crate) fn newer_relay() -> Self {
        Self::new(
            "relay_without_stun",
            "the relay answers no STUN on the port of QUIC: run a relay-node of this release",
            None,
        )
    }

    pub(crate) fn mtu() -> Self {
        Self::new(
            "mtu",
            "QUIC needs datagrams of 1,200 bytes: raise the MTU of the interface or the tunnel to 1280 at least",
            None,
        )
    }

    pub(crate) fn segments() -> Self {
        Self::new(
            "mtu",
            "full segments are lost, and nobody says so: lower the MTU of the interface, or clamp the MSS at the router",
            None,
        )
    }

    pub(crate) fn udp_timeout() -> Self {
        Self::new(
            "udp_timeout",
            "flows of UDP end between two keep-alives: let conntrack keep them longer",
            Some("sysctl -w net.netfilter.nf_conntrack_udp_timeout_stream=120".to_owned()),
        )
    }

    /// The NAT drops mappings that are used, at this age in seconds.
    pub(crate) fn punch_rotate(age: u32) -> Self {
        Self::new(
            "punch_rotate",
            format!(
                "set punch.rotate to {age}s: direct paths then leave each mapping before its end"
            ),
            None,
        )
    }

    pub(crate) fn clock() -> Self {
        Self::new(
            "clock",
            "set the clock that is wrong, this host's or the relay's: reservations, join tokens and certificates have times",
            Some("timedatectl set-ntp true".to_owned()),
        )
    }

    pub(crate) fn reserve_ports(range: PortRange, reserved: &[(u16, u16)]) -> Self {
        let others = reserved
            .iter()
            .map(|(first, last)| format!("{first}-{last},"));
        let others: String = others.collect();
        Self::new(
            "reserve_ports",
            "other programs of this host may take ports of the range: reserve it",
            Some(format!(
                "sysctl -w net.ipv4.ip_local_reserved_ports={others}{range}"
            )),
        )
    }

    pub(crate) fn timestamps() -> Self {
        Self::new(
            "timestamps",
            "without TCP timestamps a port of the range is held for a minute after each connection",
            Some("sysctl -w net.ipv4.tcp_timestamps=1".to_owned()),
        )
    }
}
