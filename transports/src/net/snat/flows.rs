//! Flows whose port was translated (`linux/netfilter/nfnetlink_conntrack.h`). Integers in attributes are of network byte order.

use std::{io, net::IpAddr};

use netlink_sys::protocols::NETLINK_NETFILTER;
use p2pnode_protocol::Family;

use super::{ask::ask, kept::KeptPorts, message};
use crate::net::interfaces::netlink::{self, HEADER};

const NEW: u16 = 1 << 8;
const GET: u16 = NEW | 1;
const DELETE: u16 = NEW | 2;
const ACK: u16 = 0x4;
const NESTED: u16 = 0x8000;
/// `struct nfgenmsg`.
const FIXED: usize = 4;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTOCOLS: [u8; 2] = [6, 17];

pub(super) fn end(kept: &KeptPorts, family: Family) -> io::Result<usize> {
    let mut list = Vec::new();
    netlink::read(
        NETLINK_NETFILTER,
        GET,
        &message::fixed(family, 0),
        &mut list,
    )?;
    let socket = netlink::connected(NETLINK_NETFILTER)?;
    let mut ended = 0;
    for flow in &list {
        let Some(tuple) = translated(kept, flow) else {
            continue;
        };
        let content = [
            &message::fixed(family, 0)[..],
            &message::attribute(NESTED | TUPLE_ORIG, tuple),
        ];
        match ask(&socket, &netlink::message(DELETE, ACK, &content.concat())) {
            Ok(()) => ended += 1,
            // It has ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// The original tuple of a flow from a pod and a port of the range that left with a port outside the range.
fn translated<'a>(kept: &KeptPorts, flow: &'a [u8]) -> Option<&'a [u8]> {
    let attributes = flow.get(HEADER + FIXED..)?;
    let original = netlink::attribute(attributes, TUPLE_ORIG)?;
    let reply = netlink::attribute(attributes, TUPLE_REPLY)?;
    let (source, destination) = addresses(original)?;
    let pods = |ip| kept.pods.iter().any(|pods| pods.contains(&ip));
    let protocol = netlink::attribute(original, TUPLE_PROTO)?;
    let number = netlink::attribute(protocol, PROTO_NUM)?.first()?;
    let left_from = port(netlink::attribute(reply, TUPLE_PROTO)?, PROTO_DST_PORT)?;
    let is_translated = PROTOCOLS.contains(number)
        && pods(source)
        && !pods(destination)
        && kept.range.contains(port(protocol, PROTO_SRC_PORT)?)
        && !kept.range.contains(left_from);
    is_translated.then_some(original)
}

/// Source and destination: attributes 1 and 2 over IPv4, 3 and 4 over IPv6.
fn addresses(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ips = netlink::attribute(tuple, TUPLE_IP)?;
    let ip = |kind| netlink::attribute(ips, kind).and_then(netlink::ip);
    Some((ip(1).or_else(|| ip(3))?, ip(2).or_else(|| ip(4))?))
}

fn port(protocol: &[u8], kind: u16) -> Option<u16> {
    let port = netlink::attribute(protocol, kind)?.try_into().ok()?;
    Some(u16::from_be_bytes(port))
}
