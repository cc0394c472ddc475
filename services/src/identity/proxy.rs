//! The header of the [PROXY protocol](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), version 2. See decision 0705.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libp2p::PeerId;

use crate::config::ServiceName;

/// The type of the field with the caller's peer id, as text.
pub const TYPE_PEER: u8 = 0xe0;

/// The type of the field with the service's name.
pub const TYPE_SERVICE: u8 = 0xe1;

/// What follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Bytes in order.
    Stream,
    /// Datagrams.
    Datagrams,
}

/// With what a header begins.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command PROXY: the connection is made for somebody else.
const VERSION_AND_COMMAND: u8 = 0x21;

const IP4: u8 = 0x10;
const IP6: u8 = 0x20;
const UNIX: u8 = 0x30;

/// Both paths of a Unix socket, which are empty: neither end has a name.
const UNNAMED: [u8; 216] = [0; 216];

/// The header. `client` are the client's address and the one that it connected to, at the caller's forward.
///
/// Without addresses it is a Unix socket without a name. Receivers refuse `AF_UNSPEC` for a connection that is made for somebody
/// else: HAProxy and go-proxyproto do. A client that is no peer has no `peer`.
#[must_use]
pub fn header(
    client: Option<(SocketAddr, SocketAddr)>,
    follows: Follows,
    peer: Option<&PeerId>,
    service: &ServiceName,
) -> Vec<u8> {
    let transport = match follows {
        Follows::Stream => 1,
        Follows::Datagrams => 2,
    };
    let mut body = Vec::with_capacity(UNNAMED.len() + 128);
    let family = match client {
        None => {
            body.extend(UNNAMED);
            UNIX
        }
        Some((source, destination)) => addresses(&mut body, source, destination),
    };
    if let Some(peer) = peer {
        field(&mut body, TYPE_PEER, peer.to_string().as_bytes());
    }
    field(&mut body, TYPE_SERVICE, service.as_str().as_bytes());
    let length = u16::try_from(body.len()).expect("addresses, a peer id and a name are short");
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_AND_COMMAND, family | transport]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}

fn addresses(body: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) -> u8 {
    // A listener of both families writes IPv4 as IPv6.
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            body.extend(source.octets());
            body.extend(destination.octets());
            IP4
        }
        (source, destination) => {
            body.extend(ip6(source).octets());
            body.extend(ip6(destination).octets());
            IP6
        }
    };
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    family
}

fn ip6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn field(body: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("peer ids and names are short");
    body.push(kind);
    body.extend(length.to_be_bytes());
    body.extend(value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    /// What a receiver reads, by the words of the specification.
    #[derive(Debug, PartialEq)]
    struct Read {
        family_and_transport: u8,
        client: Option<(SocketAddr, SocketAddr)>,
        fields: Vec<(u8, String)>,
        behind: Vec<u8>,
    }

    fn read(bytes: &[u8]) -> Read {
        assert_eq!(
            &bytes[..12],
            b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A"
        );
        assert_eq!(bytes[12], 0x21);
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        let (body, behind) = bytes[16..].split_at(length);
        let size = match bytes[13] >> 4 {
            0 => 0,
            1 => 12,
            2 => 36,
            3 => {
                assert_eq!(body[..216], UNNAMED);
                216
            }
            other => panic!("the family {other}"),
        };
        let (addresses, mut fields) = body.split_at(size);
        let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
        let ip = |at: usize, length: usize| match length {
            4 => IpAddr::from(<[u8; 4]>::try_from(&addresses[at..at + 4]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&addresses[at..at + 16]).unwrap()),
        };
        let client = (size < 216).then(|| {
            let length = (size - 4) / 2;
            let (source, destination) = (ip(0, length), ip(length, length));
            let ports = (port(size - 4), port(size - 2));
            ((source, ports.0).into(), (destination, ports.1).into())
        });
        let mut read = Vec::new();
        while let [kind, high, low, rest @ ..] = fields {
            let (value, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            read.push((*kind, String::from_utf8(value.to_vec()).unwrap()));
            fields = behind;
        }
        Read {
            family_and_transport: bytes[13],
            client,
            fields: read,
            behind: behind.to_vec(),
        }
    }

    fn made(source: &str, destination: &str, follows: Follows) -> Vec<u8> {
        let client = (source.parse().unwrap(), destination.parse().unwrap());
        header(
            Some(client),
            follows,
            Some(&PEER.parse().unwrap()),
            &"db".parse().unwrap(),
        )
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        // Section 2.2: signature, 0x21, TCP over IPv4, the length, both addresses, both ports; then type, length, value.
        let expected = [
            &b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11"[..],
            &[0, 12 + 3 + 52 + 3 + 2],
            &[192, 0, 2, 7, 127, 0, 0, 1, 0xcf, 0x82, 0x15, 0x38],
            &[0xe0, 0, 52],
            PEER.as_bytes(),
            &[0xe1, 0, 2],
            b"db",
        ];
        let made = made("192.0.2.7:53122", "127.0.0.1:5432", Follows::Stream);
        assert_eq!(made, expected.concat());
    }

    #[test]
    fn each_family_and_transport_is_read_back() {
        for (source, destination, follows, byte) in [
            ("192.0.2.7:1", "127.0.0.1:2", Follows::Stream, 0x11),
            ("192.0.2.7:1", "127.0.0.1:2", Follows::Datagrams, 0x12),
            ("[2001:db8::1]:1", "[::1]:2", Follows::Stream, 0x21),
            ("[2001:db8::1]:1", "[::1]:65535", Follows::Datagrams, 0x22),
        ] {
            let mut bytes = made(source, destination, follows);
            bytes.extend(b"hello");
            let fields = vec![(0xe0, PEER.to_owned()), (0xe1, "db".to_owned())];
            let client = Some((source.parse().unwrap(), destination.parse().unwrap()));
            let expected = Read {
                family_and_transport: byte,
                client,
                fields,
                behind: b"hello".to_vec(),
            };
            assert_eq!(read(&bytes), expected);
        }
    }

    #[test]
    fn mapped_addresses_are_ip4() {
        let follows = Follows::Stream;
        let mapped = made("[::ffff:192.0.2.7]:1", "[::ffff:127.0.0.1]:2", follows);
        assert_eq!(mapped, made("192.0.2.7:1", "127.0.0.1:2", follows));
    }

    #[test]
    fn addresses_of_two_families_are_both_ip6() {
        let read = read(&made("192.0.2.7:1", "[::1]:2", Follows::Stream));
        assert_eq!(read.family_and_transport, 0x21);
        let client = (
            "[::ffff:192.0.2.7]:1".parse().unwrap(),
            "[::1]:2".parse().unwrap(),
        );
        assert_eq!(read.client, Some(client));
    }

    #[test]
    fn a_client_without_an_address_still_has_its_fields() {
        let peer = PEER.parse().unwrap();
        let read = read(&header(
            None,
            Follows::Stream,
            Some(&peer),
            &"db".parse().unwrap(),
        ));
        assert_eq!((read.family_and_transport, read.client), (0x31, None));
        assert_eq!(read.fields[0], (0xe0, PEER.to_owned()));
    }
}
