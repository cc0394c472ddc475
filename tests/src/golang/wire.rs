//! Protobuf and multiaddrs as bytes: as much as the control protocol of go-libp2p-daemon needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use multibase::Base;

/// A field of a message: a number, or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value);
        self
    }

    pub(super) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    pub(super) fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// With its length before it.
    pub(super) fn delimited(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint(&mut bytes, self.0.len() as u64);
        bytes.extend_from_slice(&self.0);
        bytes
    }
}

pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Value)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            2 => Value::Bytes(take_prefixed(&mut bytes)?.to_vec()),
            other => bail!("a field of wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    Ok(fields)
}

pub(super) fn all(fields: &[(u64, Value)], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields
        .iter()
        .filter_map(move |(number, value)| match value {
            Value::Bytes(bytes) if *number == wanted => Some(bytes.as_slice()),
            Value::Bytes(_) | Value::Number(_) => None,
        })
}

pub(super) fn peer_id(text: &str) -> Result<Vec<u8>> {
    Base::Base58Btc
        .decode(text)
        .with_context(|| text.to_owned())
}

pub(super) fn peer_text(id: &[u8]) -> String {
    Base::Base58Btc.encode(id)
}

/// What follows the code of a protocol.
#[derive(Clone, Copy)]
enum Size {
    Fixed(usize),
    Prefixed,
}

const PROTOCOLS: [(u64, &str, Size); 12] = [
    (4, "ip4", Size::Fixed(4)),
    (41, "ip6", Size::Fixed(16)),
    (6, "tcp", Size::Fixed(2)),
    (273, "udp", Size::Fixed(2)),
    (460, "quic", Size::Fixed(0)),
    (461, "quic-v1", Size::Fixed(0)),
    (465, "webtransport", Size::Fixed(0)),
    (466, "certhash", Size::Prefixed),
    (477, "ws", Size::Fixed(0)),
    (290, "p2p-circuit", Size::Fixed(0)),
    (421, "p2p", Size::Prefixed),
    (400, "unix", Size::Prefixed),
];

/// The bytes of a multiaddr (<https://github.com/multiformats/multiaddr>).
pub(super) fn multiaddr(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut words = text.trim_start_matches('/').split('/');
    while let Some(name) = words.next() {
        let known = PROTOCOLS.iter().find(|(_, known, _)| *known == name);
        let (code, _, size) = known.with_context(|| format!("{name} in {text}"))?;
        varint(&mut bytes, *code);
        if *code == 400 {
            let path: Vec<&str> = words.by_ref().collect();
            let path = format!("/{}", path.join("/"));
            varint(&mut bytes, path.len() as u64);
            bytes.extend_from_slice(path.as_bytes());
            continue;
        }
        let mut word = || words.next().with_context(|| text.to_owned());
        match (name, size) {
            (_, Size::Fixed(0)) => {}
            ("ip4", _) => bytes.extend(word()?.parse::<Ipv4Addr>()?.octets()),
            ("ip6", _) => bytes.extend(word()?.parse::<Ipv6Addr>()?.octets()),
            ("tcp" | "udp", _) => bytes.extend(word()?.parse::<u16>()?.to_be_bytes()),
            ("p2p", _) => {
                let id = peer_id(word()?)?;
                varint(&mut bytes, id.len() as u64);
                bytes.extend(id);
            }
            _ => bail!("{name} in {text}"),
        }
    }
    Ok(bytes)
}

pub(super) fn multiaddr_text(mut bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    while !bytes.is_empty() {
        let code = take_varint(&mut bytes)?;
        let known = PROTOCOLS.iter().find(|(known, ..)| *known == code);
        let (_, name, size) = known.with_context(|| format!("protocol {code} after {text}"))?;
        text.push_str(&format!("/{name}"));
        let value = match size {
            Size::Fixed(size) => {
                let (value, rest) = bytes.split_at_checked(*size).context("a short address")?;
                bytes = rest;
                value
            }
            Size::Prefixed => take_prefixed(&mut bytes)?,
        };
        match (*name, value) {
            (_, []) => {}
            ("p2p", id) => text.push_str(&format!("/{}", peer_text(id))),
            ("unix", path) => text.push_str(&String::from_utf8_lossy(path)),
            (_, [a, b]) => text.push_str(&format!("/{}", u16::from_be_bytes([*a, *b]))),
            (_, [a, b, c, d]) => text.push_str(&format!("/{a}.{b}.{c}.{d}")),
            (_, other) => match <[u8; 16]>::try_from(other) {
                Ok(ip6) => text.push_str(&format!("/{}", Ipv6Addr::from(ip6))),
                Err(_) => text.push_str("/..."),
            },
        }
    }
    Ok(text)
}

pub(super) fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().context("a short varint")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a long varint")
}

fn take_prefixed<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?)?;
    let (value, rest) = bytes.split_at_checked(length).context("a short field")?;
    *bytes = rest;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_after_they_were_bytes() -> Result<()> {
        for text in [
            "/ip4/192.31.196.2/udp/40025/quic-v1",
            "/ip6/2001:db8::1/tcp/443/p2p/12D3KooWKd72x2upHR4MxssBd9RMWZ7EYWjGA6e8WMdY9UVbneCm/p2p-circuit",
            "/unix/tmp/a/b.sock",
        ] {
            assert_eq!(multiaddr_text(&multiaddr(text)?)?, text);
        }
        Ok(())
    }

    #[test]
    fn a_message_is_read_as_it_was_written() -> Result<()> {
        let inner = Message::default().bytes(1, "a").number(2, 300);
        let message = Message::default().number(1, 1).message(7, &inner);
        let read = fields(&message.delimited()[1..])?;
        assert_eq!(read[0], (1, Value::Number(1)));
        let inner = fields(all(&read, 7).next().context("the inner one")?)?;
        assert_eq!(inner[1], (2, Value::Number(300)));
        Ok(())
    }
}
