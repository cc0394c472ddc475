//! NAT-PMP ([RFC 6886](https://www.rfc-editor.org/rfc/rfc6886)), IPv4 only.

use std::net::Ipv4Addr;

use super::{Protocol, u16_at, u32_at};

const RESPONSE: u8 = 128;

/// Asks for the router's outside address.
pub const ADDRESS_REQUEST: [u8; 2] = [0, 0];

/// Asks for a mapping of `port`, renews it, or ends it with a `lifetime` of 0 seconds. `wish` is the outside port that is wished for, 0 for an end.
#[must_use]
pub fn map_request(protocol: Protocol, port: u16, wish: u16, lifetime: u32) -> [u8; 12] {
    let ([p0, p1], [w0, w1]) = (port.to_be_bytes(), wish.to_be_bytes());
    let [l0, l1, l2, l3] = lifetime.to_be_bytes();
    [0, opcode(protocol), 0, 0, p0, p1, w0, w1, l0, l1, l2, l3]
}

const fn opcode(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 1,
        Protocol::Tcp => 2,
    }
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
    /// The outside address.
    Address(Ipv4Addr),
    /// A mapping.
    Mapped {
        /// Of the request.
        protocol: Protocol,
        /// The client's port.
        port: u16,
        /// The outside port.
        external: u16,
        /// In seconds; 0 if the mapping has ended.
        lifetime: u32,
    },
    /// No, with the code of section 3.5.
    Refused(u16),
}

impl Answer {
    /// Reads a datagram from the router. `None` if it is no answer.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&version, opcode) = (bytes.first()?, bytes.get(1)?.checked_sub(RESPONSE)?);
        let (code, epoch) = (u16_at(bytes, 2)?, u32_at(bytes, 4)?);
        if version != 0 || opcode > 2 {
            return None;
        }
        let said = match (opcode, code) {
            (0, 0) => {
                let ip: [u8; 4] = bytes.get(8..12)?.try_into().ok()?;
                Said::Address(ip.into())
            }
            (_, 0) => Said::Mapped {
                protocol: if opcode == 1 {
                    Protocol::Udp
                } else {
                    Protocol::Tcp
                },
                port: u16_at(bytes, 8)?,
                external: u16_at(bytes, 10)?,
                lifetime: u32_at(bytes, 12)?,
            },
            (_, code) => Said::Refused(code),
        };
        Some(Self { epoch, said })
    }
}

/// What a refusal means.
#[must_use]
pub const fn reason(code: u16) -> &'static str {
    match code {
        1 => "unsupported version",
        2 => "not authorized",
        3 => "network failure",
        4 => "no resources",
        5 => "unsupported opcode",
        _ => "unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_have_the_layout_of_rfc_6886() {
        let request = map_request(Protocol::Tcp, 40017, 40018, 7200);
        assert_eq!(
            request,
            [0, 2, 0, 0, 0x9c, 0x51, 0x9c, 0x52, 0, 0, 0x1c, 0x20]
        );
        let address = Answer::read(&[0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7]);
        let said = Said::Address(Ipv4Addr::new(203, 0, 113, 7));
        assert_eq!(address, Some(Answer { epoch: 9, said }));
        let mapped = [
            0, 129, 0, 0, 0, 0, 0, 9, 0x9c, 0x51, 0xa0, 0x28, 0, 0, 0x1c, 0x20,
        ];
        let said = Said::Mapped {
            protocol: Protocol::Udp,
            port: 40017,
            external: 41000,
            lifetime: 7200,
        };
        assert_eq!(Answer::read(&mapped), Some(Answer { epoch: 9, said }));
        let refused = Answer::read(&[0, 130, 0, 2, 0, 0, 0, 9]);
        assert_eq!(refused.map(|answer| answer.said), Some(Said::Refused(2)));
        for cut in 0..mapped.len() {
            assert_eq!(Answer::read(&mapped[..cut]), None, "{cut}");
        }
        assert_eq!(Answer::read(&request), None);
        assert_eq!(
            Answer::read(&[2, 129, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]),
            None
        );
    }
}
