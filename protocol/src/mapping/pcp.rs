//! Port Control Protocol ([RFC 6887](https://www.rfc-editor.org/rfc/rfc6887)): MAP and ANNOUNCE.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Protocol, u16_at, u32_at};

/// No message is longer (section 7).
pub const LARGEST: usize = 1100;
const VERSION: u8 = 2;
const RESPONSE: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const HEADER: usize = 24;
const MAP_LENGTH: usize = 36;
/// This external port, or none (section 13.2).
const PREFER_FAILURE: [u8; 4] = [2, 0, 0, 0];

/// What distinguishes a client's mappings from those of others on its address.
pub type Nonce = [u8; 12];

/// Asks for a mapping, renews it, or ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// The client's address, as it knows it. The router refuses one that another NAT has translated.
    pub client: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The client's port.
    pub port: u16,
    /// The same in every request for this mapping.
    pub nonce: Nonce,
    /// In seconds; 0 ends the mapping.
    pub lifetime: u32,
    /// The outside address that is wished for: of the last grant, or unspecified.
    pub wish: SocketAddr,
    /// Whether another outside port is no use.
    pub only_wish: bool,
}

impl Map {
    /// The datagram.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = header(MAP, self.lifetime, self.client);
        bytes.extend(self.nonce);
        bytes.extend([self.protocol.number(), 0, 0, 0]);
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(self.wish.port().to_be_bytes());
        bytes.extend(wide(self.wish.ip()).octets());
        if self.only_wish {
            bytes.extend(PREFER_FAILURE);
        }
        bytes
    }
}

/// Asks for the router's epoch alone.
#[must_use]
pub fn announce(client: IpAddr) -> Vec<u8> {
    header(ANNOUNCE, 0, client)
}

fn header(opcode: u8, lifetime: u32, client: IpAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, opcode, 0, 0];
    bytes.extend(lifetime.to_be_bytes());
    bytes.extend(wide(client).octets());
    bytes
}

/// An answer of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Seconds since the router lost its mappings.
    pub epoch: u32,
    /// What it says.
    pub said: Said,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The epoch alone.
    Announce,
    /// A mapping.
    Mapped {
        /// Of the request.
        nonce: Nonce,
        /// Of the request.
        protocol: Protocol,
        /// The client's port.
        port: u16,
        /// The outside address.
        external: SocketAddr,
        /// In seconds; 0 if the mapping has ended.
        lifetime: u32,
    },
    /// No.
    Refused {
        /// Of the request, where the answer has one.
        nonce: Option<Nonce>,
        /// Why (section 7.4).
        code: u8,
        /// Seconds for which the answer is the same.
        lifetime: u32,
    },
}

impl Answer {
    /// Reads a datagram from the router. `None` if it is no answer of this version.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let known = bytes.len() <= LARGEST && bytes.len() >= HEADER && bytes[0] == VERSION;
        let (opcode, code) = (bytes.get(1)?, *bytes.get(3)?);
        if !known || opcode & RESPONSE == 0 {
            return None;
        }
        let (lifetime, epoch) = (u32_at(bytes, 4)?, u32_at(bytes, 8)?);
        let map = bytes.get(HEADER..HEADER + MAP_LENGTH);
        let nonce = map.and_then(|map| map.get(..12)?.try_into().ok());
        let said = match (opcode & !RESPONSE, code) {
            (ANNOUNCE, 0) => Said::Announce,
            (MAP, 0) => {
                let map = map?;
                let protocol = [Protocol::Udp, Protocol::Tcp].into_iter();
                let ip: [u8; 16] = map.get(20..36)?.try_into().ok()?;
                Said::Mapped {
                    nonce: nonce?,
                    protocol: protocol
                        .into_iter()
                        .find(|known| known.number() == map[12])?,
                    port: u16_at(map, 16)?,
                    external: SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16_at(map, 18)?),
                    lifetime,
                }
            }
            (MAP | ANNOUNCE, code) => Said::Refused {
                nonce,
                code,
                lifetime,
            },
            _ => return None,
        };
        Some(Self { epoch, said })
    }
}

/// Whether a datagram says that the router knows another version only: NAT-PMP answers with version 0.
#[must_use]
pub fn is_other_version(bytes: &[u8]) -> bool {
    matches!(bytes, [version, ..] if *version < VERSION)
        || matches!(bytes, [_, opcode, _, 1, ..] if opcode & RESPONSE != 0)
}

/// What a refusal means.
#[must_use]
pub const fn reason(code: u8) -> &'static str {
    match code {
        1 => "unsupported version",
        2 => "not authorized",
        3 => "malformed request",
        4 => "unsupported opcode",
        5 => "unsupported option",
        6 => "malformed option",
        7 => "network failure",
        8 => "no resources",
        9 => "unsupported protocol",
        10 => "quota exceeded",
        11 => "cannot provide this outside address",
        12 => "address mismatch: another NAT is between",
        13 => "too many remote peers",
        _ => "unknown reason",
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Whether an epoch follows from an earlier one, or the router has lost its mappings in between (section 8.5). `passed` is in seconds.
#[must_use]
pub fn is_continuous(before: u32, now: u32, passed: u32) -> bool {
    let (before, now, passed) = (i64::from(before), i64::from(now), i64::from(passed));
    let server = now - before;
    server >= -1 && passed + 2 >= server - server / 16 && server + 2 >= passed - passed / 16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const ASKED: Map = Map {
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2)),
        protocol: Protocol::Udp,
        port: 40017,
        nonce: *b"twelve bytes",
        lifetime: 7200,
        wish: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 40017),
        only_wish: true,
    };

    /// An answer to `ASKED`, as section 11.1 draws it.
    fn answer(code: u8) -> Vec<u8> {
        let mut bytes = ASKED.write();
        bytes.truncate(HEADER + MAP_LENGTH);
        bytes[1] |= RESPONSE;
        bytes[3] = code;
        bytes[8..12].copy_from_slice(&77_u32.to_be_bytes());
        bytes[12..24].fill(0);
        bytes[42..44].copy_from_slice(&41000_u16.to_be_bytes());
        bytes[44..60].copy_from_slice(&"::ffff:203.0.113.7".parse::<Ipv6Addr>().unwrap().octets());
        bytes
    }

    #[test]
    fn a_request_for_a_mapping_has_the_layout_of_rfc_6887() {
        let bytes = ASKED.write();
        assert_eq!(bytes.len(), HEADER + MAP_LENGTH + 4);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x1c, 0x20]);
        assert_eq!(bytes[18..24], [0xff, 0xff, 192, 168, 1, 2]);
        assert_eq!(bytes[24..36], *b"twelve bytes");
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0x9c, 0x51, 0x9c, 0x51]);
        assert_eq!(bytes[60..], PREFER_FAILURE);
        assert_eq!(announce(ASKED.client).len(), HEADER);
    }

    #[test]
    fn answers_are_grants_or_refusals_and_anything_else_is_none() {
        let granted = Answer::read(&answer(0)).unwrap();
        let external = "203.0.113.7:41000".parse().unwrap();
        assert_eq!(granted.epoch, 77);
        assert_eq!(
            granted.said,
            Said::Mapped {
                nonce: ASKED.nonce,
                protocol: Protocol::Udp,
                port: 40017,
                external,
                lifetime: 7200
            }
        );
        let refused = Answer::read(&answer(11)).unwrap().said;
        assert!(
            matches!(refused, Said::Refused { code: 11, nonce: Some(nonce), .. } if nonce == ASKED.nonce)
        );
        // Its own request, a version that is another, and every shorter one.
        assert_eq!(Answer::read(&ASKED.write()), None);
        for cut in 0..HEADER + MAP_LENGTH {
            assert_eq!(Answer::read(&answer(0)[..cut]), None, "{cut}");
        }
        assert_eq!(Answer::read(&[2; LARGEST + 1]), None);
        assert!(is_other_version(&[0, 128, 0, 1, 0, 0, 0, 0]));
        assert!(!is_other_version(&answer(0)));
    }

    #[test]
    fn an_epoch_that_goes_back_or_stands_still_is_a_router_that_has_rebooted() {
        for (before, now, passed, is) in [
            (100, 160, 60, true),
            (100, 158, 60, true),
            (100, 3, 60, false),
            (100, 100, 3600, false),
            (100, 9000, 60, false),
            (0, 3600, 3630, true),
            (5, 4, 0, true),
        ] {
            assert_eq!(
                is_continuous(before, now, passed),
                is,
                "{before} {now} {passed}"
            );
        }
    }
}
