//! Whether a resolver is a DNS64, and the prefix of its NAT64: [RFC 7050](https://www.rfc-editor.org/rfc/rfc7050).
//!
//! `ipv4only.arpa` has two addresses of IPv4 and none of IPv6. A resolver that answers with addresses of IPv6 has made them of those
//! two, with the prefix of its NAT64 ([RFC 6052](https://www.rfc-editor.org/rfc/rfc6052)).

use std::{fmt, net::Ipv6Addr};

/// `ipv4only.arpa`, as labels.
const NAME: &[u8] = b"\x08ipv4only\x04arpa\0";

/// The addresses that it has.
const KNOWN: [[u8; 4]; 2] = [[192, 0, 0, 170], [192, 0, 0, 171]];

/// The type AAAA, and the class of the Internet.
const AAAA: [u8; 2] = [0, 28];
const IN: [u8; 2] = [0, 1];

const HEADER: usize = 12;

/// The prefix of a NAT64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    ip: Ipv6Addr,
    length: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

/// The question for the addresses of IPv6.
#[must_use]
pub fn question(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    // Recursion is desired; one question.
    let header = [high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header, NAME, &AAAA, &IN].concat()
}

/// Reads the answer: the prefix, or `Some(None)` if the resolver is no DNS64. `None` if this is no answer, or an error.
#[must_use]
pub fn answer(id: u16, bytes: &[u8]) -> Option<Option<Prefix>> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let (is_response, code) = (header[2] & 0x80 != 0, header[3] & 0x0f);
    if header[..2] != id.to_be_bytes() || !is_response || code != 0 {
        return None;
    }
    let questions = u16::from_be_bytes([header[4], header[5]]);
    let answers = u16::from_be_bytes([header[6], header[7]]);
    let mut at = HEADER;
    for _ in 0..questions {
        at = skip_name(bytes, at)? + 4;
    }
    for _ in 0..answers {
        at = skip_name(bytes, at)?;
        let fixed = bytes.get(at..at + 10)?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = bytes.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        if fixed[..2] == AAAA
            && let Ok(octets) = <[u8; 16]>::try_from(data)
            && let Some(prefix) = prefix(octets)
        {
            return Some(Some(prefix));
        }
    }
    Some(None)
}

/// Behind the name that begins at `at`.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            // A pointer ends the name.
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The prefix of an address that has one of the known addresses of IPv4 in it.
fn prefix(octets: [u8; 16]) -> Option<Prefix> {
    let length = [12, 8, 7, 6, 5, 4].into_iter().find(|length| {
        // The octet at 8 is zero, and no part of the address of IPv4.
        let places = (*length..16).filter(|place| *place != 8 || *length == 12);
        let inner: Vec<u8> = places.take(4).map(|place| octets[place]).collect();
        KNOWN.iter().any(|known| inner == known)
    })?;
    let mut ip = [0; 16];
    ip[..length].copy_from_slice(&octets[..length]);
    Some(Prefix {
        ip: ip.into(),
        length: u8::try_from(length * 8).ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(id: u16, records: &[([u8; 2], &[u8])]) -> Vec<u8> {
        let mut bytes = question(id);
        (bytes[2], bytes[7]) = (0x81, u8::try_from(records.len()).unwrap());
        for (kind, data) in records {
            let length = u16::try_from(data.len()).unwrap().to_be_bytes();
            // A pointer to the name of the question.
            bytes.extend([&[0xc0, 12][..], kind, &IN, &[0, 0, 0, 60], &length, data].concat());
        }
        bytes
    }

    #[test]
    fn every_length_of_a_prefix_is_found() {
        for (ip, prefix) in [
            ("64:ff9b::192.0.0.170", "64:ff9b::/96"),
            ("2001:db8:122:344::192.0.0.171", "2001:db8:122:344::/96"),
            ("2001:db8:122:344:c0:0:aa00::", "2001:db8:122:344::/64"),
            ("2001:db8:122:3c0:0:aa::", "2001:db8:122:300::/56"),
            ("2001:db8:122:c000:0:aa00::", "2001:db8:122::/48"),
            ("2001:db8:1c0:0:aa::", "2001:db8:100::/40"),
            ("2001:db8:c000:aa::", "2001:db8::/32"),
        ] {
            let ip: Ipv6Addr = ip.parse().unwrap();
            let bytes = says(7, &[(AAAA, &ip.octets())]);
            let found = answer(7, &bytes).unwrap().unwrap();
            assert_eq!(found.to_string(), prefix, "{ip}");
        }
    }

    #[test]
    fn an_answer_without_such_an_address_is_no_dns64_and_an_error_is_no_answer() {
        assert_eq!(answer(7, &says(7, &[])), Some(None));
        let other: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let records = [([0, 5], &b"\x01a\0"[..]), (AAAA, &other.octets()[..])];
        assert_eq!(answer(7, &says(7, &records)), Some(None));
        assert_eq!(answer(8, &says(7, &[])), None, "another question");
        assert_eq!(answer(7, &question(7)), None, "a question");
        let mut failed = says(7, &[]);
        failed[3] = 3;
        assert_eq!(answer(7, &failed), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            let _ = answer(7, &bytes);
            if let Some(header) = bytes.first_chunk_mut::<4>() {
                *header = [0, 7, 0x81, 0];
            }
            let _ = answer(7, &bytes);
        }
    }
}
