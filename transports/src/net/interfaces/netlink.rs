//! Reads the addresses of this host and the routes out of it: rtnetlink ([RFC 3549](https://www.rfc-editor.org/rfc/rfc3549), `linux/rtnetlink.h`).
//!
//! Each message is a header, a fixed part, and attributes. Integers are of this machine's byte order.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::address::{HostAddress, Medium};

pub(in crate::net) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// The list changed while it was read.
const NLM_F_DUMP_INTR: u16 = 0x10;

pub(in crate::net) const AF_INET: u8 = 2;
pub(in crate::net) const AF_INET6: u8 = 10;

pub(in crate::net) const HEADER: usize = 16;
/// `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_POINTOPOINT: u32 = 0x10;
const IFF_RUNNING: u32 = 0x40;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// How often a list is read that changes while it is read. Afterwards the last one counts: the change rings.
const READS: usize = 4;

/// The addresses of this host that can be used, each with the index of its interface.
pub(super) fn addresses() -> io::Result<Vec<(HostAddress, u32)>> {
    let links: HashMap<u32, Link> = dump(RTM_GETLINK, LINK)?
        .iter()
        .filter_map(|message| link(message))
        .collect();
    let addresses = dump(RTM_GETADDR, ADDRESS)?;
    let addresses = addresses
        .iter()
        .filter_map(|message| address(message, &links));
    Ok(addresses.collect())
}

/// All messages of a list, each with its header.
fn dump(request: u16, fixed: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut list = Vec::new();
    for _ in 0..READS {
        list.clear();
        if read(NETLINK_ROUTE, request, &vec![0; fixed], &mut list)? {
            break;
        }
    }
    Ok(list)
}

/// Reads a list once. Whether it is of one moment.
pub(in crate::net) fn read(
    protocol: isize,
    request: u16,
    content: &[u8],
    list: &mut Vec<Vec<u8>>,
) -> io::Result<bool> {
    let socket = ask(protocol, request, NLM_F_DUMP, content)?;
    let mut is_whole = true;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            is_whole &= u16_at(message, 6).is_some_and(|flags| flags & NLM_F_DUMP_INTR == 0);
            match u16_at(message, 4) {
                Some(NLMSG_DONE) => return Ok(is_whole),
                Some(NLMSG_ERROR) => return Err(error(message)),
                Some(_) => list.push(message.to_vec()),
                None => {}
            }
        }
    }
}

/// What an error message says. Code 0 acknowledges a request.
pub(in crate::net) fn error(message: &[u8]) -> io::Error {
    let code = u32_at(message, HEADER).unwrap_or_default().cast_signed();
    io::Error::from_raw_os_error(code.wrapping_neg())
}

/// Sends a request on a socket of its own.
fn ask(protocol: isize, request: u16, flags: u16, content: &[u8]) -> io::Result<Socket> {
    let socket = connected(protocol)?;
    socket.send(&message(request, flags, content), 0)?;
    Ok(socket)
}

/// A socket to the kernel, which writes an answer while it is asked for: what is not there will not come.
pub(in crate::net) fn connected(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.set_non_blocking(true)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A request with its header.
pub(in crate::net) fn message(request: u16, flags: u16, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + content.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + content.len());
    message.extend(length.to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(content);
    message
}

/// Where packets to an address leave from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The index of the interface.
    pub(super) interface: u32,
    /// The next router, unless the address is on the link.
    pub(super) gateway: Option<IpAddr>,
}

/// The way to an address; `None` without a route.
pub(super) fn way(to: IpAddr) -> Option<Way> {
    let octets = match to {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (family, bits) = match to {
        IpAddr::V4(_) => (AF_INET, 32),
        IpAddr::V6(_) => (AF_INET6, 128),
    };
    let mut content = vec![family, bits];
    content.resize(ROUTE, 0);
    content.extend(u16::try_from(4 + octets.len()).ok()?.to_ne_bytes());
    content.extend(RTA_DST.to_ne_bytes());
    content.extend(octets);
    let socket = ask(NETLINK_ROUTE, RTM_GETROUTE, 0, &content).ok()?;
    let (datagram, _) = socket.recv_from_full().ok()?;
    route(messages(&datagram).next()?)
}

fn route(message: &[u8]) -> Option<Way> {
    if u16_at(message, 4)? != RTM_NEWROUTE {
        return None;
    }
    let attributes = message.get(HEADER + ROUTE..)?;
    Some(Way {
        interface: u32_at(attribute(attributes, RTA_OIF)?, 0)?,
        gateway: attribute(attributes, RTA_GATEWAY).and_then(ip),
    })
}

/// What of an interface matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    medium: Medium,
    is_up: bool,
    is_running: bool,
}

fn link(message: &[u8]) -> Option<(u32, Link)> {
    if u16_at(message, 4)? != RTM_NEWLINK {
        return None;
    }
    let (index, flags) = (u32_at(message, HEADER + 4)?, u32_at(message, HEADER + 8)?);
    let info = attribute(message.get(HEADER + LINK..)?, IFLA_LINKINFO);
    let kind = info.and_then(|info| attribute(info, IFLA_INFO_KIND));
    let kind = kind.map_or(&[][..], |kind| kind.strip_suffix(&[0]).unwrap_or(kind));
    let link = Link {
        medium: medium(kind, flags),
        is_up: flags & IFF_UP != 0,
        is_running: flags & IFF_RUNNING != 0,
    };
    Some((index, link))
}

/// An interface of a kernel module has a kind; a network card has none.
fn medium(kind: &[u8], flags: u32) -> Medium {
    match kind {
        _ if flags & IFF_LOOPBACK != 0 => Medium::Loopback,
        b"bridge" | b"veth" | b"dummy" | b"ifb" | b"vxlan" | b"geneve" | b"openvswitch"
        | b"vrf" | b"nlmon" | b"netkit" => Medium::Virtual,
        b"tun" | b"wireguard" => Medium::Tunnel,
        _ if flags & IFF_POINTOPOINT != 0 => Medium::Tunnel,
        _ => Medium::Physical,
    }
}

fn address(message: &[u8], links: &HashMap<u32, Link>) -> Option<(HostAddress, u32)> {
    if u16_at(message, 4)? != RTM_NEWADDR {
        return None;
    }
    let (prefix_len, short_flags) = (*message.get(HEADER + 1)?, *message.get(HEADER + 2)?);
    let index = u32_at(message, HEADER + 4)?;
    let attributes = message.get(HEADER + ADDRESS..)?;
    // On a point-to-point link IFA_ADDRESS is the other end.
    let address = attribute(attributes, IFA_ADDRESS).and_then(ip);
    let local = attribute(attributes, IFA_LOCAL).and_then(ip);
    let ip = local.or(address)?;
    let flags = attribute(attributes, IFA_FLAGS).and_then(|flags| u32_at(flags, 0));
    let flags = flags.unwrap_or_else(|| u32::from(short_flags));
    let is_unproved = flags & IFA_F_TENTATIVE != 0 && flags & IFA_F_OPTIMISTIC == 0;
    // An interface that came between the two lists.
    let unknown = Link {
        medium: Medium::Physical,
        is_up: true,
        is_running: true,
    };
    let link = links.get(&index).copied().unwrap_or(unknown);
    if is_unproved || flags & IFA_F_DADFAILED != 0 || !link.is_up {
        return None;
    }
    let alone = if ip.is_ipv4() { 32 } else { 128 };
    let is_alone = local.is_some() && address.is_some_and(|address| address != ip);
    let address = HostAddress {
        prefix_len: if is_alone {
            alone
        } else {
            prefix_len.min(alone)
        },
        medium: link.medium,
        is_running: link.is_running,
        is_deprecated: flags & IFA_F_DEPRECATED != 0,
        ..HostAddress::plain(ip, alone)
    };
    Some((address, index))
}

/// The messages of a datagram, each with its header.
pub(in crate::net) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = datagram.get(..length).filter(|_| length >= HEADER)?;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(message)
    })
}

/// The content of the first attribute of this type. The two high bits of a type are flags.
pub(in crate::net) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let content = attributes.get(4..length)?;
        if u16_at(attributes, 2)? & 0x3fff == wanted {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

pub(in crate::net) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let ip4 = <[u8; 4]>::try_from(bytes).map(|ip| Ipv4Addr::from(ip).into());
    ip4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|ip| Ipv6Addr::from(ip).into()))
        .ok()
}

pub(in crate::net) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

pub(in crate::net) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn with_attributes(kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message.extend(fixed);
        for (kind, content) in attributes {
            let length = u16::try_from(4 + content.len()).unwrap();
            message.extend(length.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(*content);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message
    }

    fn link_of(index: u8, flags: u32, kind: &[u8]) -> Option<(u32, Link)> {
        let mut fixed = [0; LINK];
        fixed[4..8].copy_from_slice(&u32::from(index).to_ne_bytes());
        fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
        let info = with_attributes(0, &[], &[(IFLA_INFO_KIND, kind)]);
        let info = (IFLA_LINKINFO | 0x8000, &info[HEADER..]);
        let attributes = if kind.is_empty() {
            vec![(3, &b"eth0\0"[..])]
        } else {
            vec![(3, &b"x\0"[..]), info]
        };
        link(&with_attributes(RTM_NEWLINK, &fixed, &attributes))
    }

    fn address_of(flags: u32, attributes: &[(u16, &[u8])]) -> Option<HostAddress> {
        let links = HashMap::from([link_of(7, IFF_UP | IFF_RUNNING, b"").unwrap()]);
        let mut fixed = [0; ADDRESS];
        fixed[1] = 24;
        fixed[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let flags = flags.to_ne_bytes();
        let attributes: Vec<_> = attributes
            .iter()
            .copied()
            .chain([(IFA_FLAGS, &flags[..])])
            .collect();
        address(&with_attributes(RTM_NEWADDR, &fixed, &attributes), &links)
            .map(|(address, _)| address)
    }

    #[test]
    fn the_address_of_a_point_to_point_link_is_its_own_end() {
        let address = address_of(
            0,
            &[(IFA_ADDRESS, &[10, 0, 0, 2]), (IFA_LOCAL, &[10, 0, 0, 1])],
        );
        assert_eq!(
            address,
            Some(HostAddress::plain("10.0.0.1".parse().unwrap(), 32))
        );
        let both = [10, 0, 0, 1];
        let address = address_of(0, &[(IFA_ADDRESS, &both), (IFA_LOCAL, &both)]);
        assert_eq!(
            address,
            Some(HostAddress::plain("10.0.0.1".parse().unwrap(), 24))
        );
        let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
        let address = address_of(0, &[(IFA_ADDRESS, &ip6.octets())]);
        assert_eq!(address, Some(HostAddress::plain(ip6.into(), 24)));
    }

    #[test]
    fn a_route_names_its_interface_and_its_gateway() {
        let oif = 7_u32.to_ne_bytes();
        let of = |attributes: &[(u16, &[u8])]| {
            route(&with_attributes(RTM_NEWROUTE, &[0; ROUTE], attributes))
        };
        let gateway = Some("10.0.0.1".parse().unwrap());
        let way = Way {
            interface: 7,
            gateway,
        };
        assert_eq!(
            of(&[(RTA_OIF, &oif), (RTA_GATEWAY, &[10, 0, 0, 1])]),
            Some(way)
        );
        let on_link = Way {
            gateway: None,
            ..way
        };
        assert_eq!(of(&[(RTA_OIF, &oif)]), Some(on_link));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn the_way_to_this_host_is_loopback() {
        if let Some(way) = way(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
            assert_eq!(way.gateway, None);
        }
    }

    #[test]
    fn addresses_that_are_not_proved_are_left_out_and_deprecated_ones_are_marked() {
        let of = |flags| address_of(flags, &[(IFA_ADDRESS, &[10, 0, 0, 1])]);
        assert!(!of(0).unwrap().is_deprecated);
        assert!(of(IFA_F_DEPRECATED).unwrap().is_deprecated);
        assert!(of(IFA_F_TENTATIVE | IFA_F_OPTIMISTIC).is_some());
        assert_eq!(of(IFA_F_TENTATIVE), None);
        assert_eq!(of(IFA_F_DADFAILED | IFA_F_TENTATIVE), None);
    }

    #[test]
    fn an_interface_is_what_its_kind_and_its_flags_say() {
        for (flags, kind, medium) in [
            (IFF_LOOPBACK, &b""[..], Medium::Loopback),
            (0, b"", Medium::Physical),
            (0, b"vlan\0", Medium::Physical),
            (0, b"bridge\0", Medium::Virtual),
            (0, b"veth", Medium::Virtual),
            (IFF_POINTOPOINT, b"tun\0", Medium::Tunnel),
            (IFF_POINTOPOINT, b"ppp\0", Medium::Tunnel),
            (IFF_POINTOPOINT, b"", Medium::Tunnel),
        ] {
            let (index, link) = link_of(3, flags, kind).unwrap();
            assert_eq!((index, link.medium), (3, medium), "{kind:?}");
            assert!(!link.is_up && !link.is_running);
        }
    }

    #[test]
    fn messages_and_attributes_that_are_cut_short_end_the_list() {
        let whole = with_attributes(RTM_NEWADDR, &[0; ADDRESS], &[(IFA_ADDRESS, &[10, 0, 0, 1])]);
        let two = [whole.clone(), whole.clone()].concat();
        assert_eq!(messages(&two).count(), 2);
        for cut in 0..whole.len() {
            assert_eq!(messages(&two[..whole.len() + cut]).count(), 1, "{cut}");
            assert_eq!(address(&whole[..cut], &HashMap::new()), None, "{cut}");
        }
        assert_eq!(attribute(&[0, 0, 0, 0], 1), None);
    }
}
