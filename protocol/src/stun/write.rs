//! From a [`Message`] to bytes.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::message::{
    Class, FINGERPRINT_LENGTH, FINGERPRINT_XOR, HEADER, Message, Port, crc32, kind, xored,
};

impl Message {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        message(self)
    }
}

fn message(message: &Message) -> Vec<u8> {
    let of: u16 = match message.class {
        Class::Request => 0x0001,
        Class::Indication => 0x0011,
        Class::Success => 0x0101,
        Class::Error => 0x0111,
    };
    let mut bytes = of.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(message.transaction.0);
    attributes(message, &mut bytes);
    if message.fingerprint {
        set_length(&mut bytes, FINGERPRINT_LENGTH);
        let sum = crc32(&bytes) ^ FINGERPRINT_XOR;
        put(&mut bytes, kind::FINGERPRINT, &sum.to_be_bytes());
    }
    set_length(&mut bytes, 0);
    bytes
}

/// The most important first: for an answer, that is the order in which they may be left out, from the end.
fn attributes(message: &Message, bytes: &mut Vec<u8>) {
    let is_classic = message.transaction.is_classic();
    let id = &message.transaction;
    if let Some(mapped) = message.mapped {
        if is_classic {
            put(bytes, kind::MAPPED_ADDRESS, &address(mapped));
        } else {
            put(bytes, kind::XOR_MAPPED_ADDRESS, &address(xored(mapped, id)));
        }
    }
    if let Some(code) = message.error {
        let (hundreds, rest) = ((code / 100) as u8 & 7, (code % 100) as u8);
        put(bytes, kind::ERROR_CODE, &[0, 0, hundreds, rest]);
        if !message.unknown.is_empty() {
            let types = message.unknown.iter().flat_map(|of| of.to_be_bytes());
            put(bytes, kind::UNKNOWN_ATTRIBUTES, &types.collect::<Vec<_>>());
        }
    }
    if let Some(change) = message.change {
        let flags = u8::from(change.ip) << 2 | u8::from(change.port) << 1;
        put(bytes, kind::CHANGE_REQUEST, &[0, 0, 0, flags]);
    }
    if let Some(port) = message.response_port {
        let [high, low] = port.get().to_be_bytes();
        put(bytes, kind::RESPONSE_PORT, &[high, low, 0, 0]);
    }
    let (other, origin) = if is_classic {
        (kind::CHANGED_ADDRESS, kind::SOURCE_ADDRESS)
    } else {
        (kind::OTHER_ADDRESS, kind::RESPONSE_ORIGIN)
    };
    if let Some(at) = message.other {
        put(bytes, other, &address(at));
    }
    if let Some(at) = message.origin {
        put(bytes, origin, &address(at));
    }
    if let Some(info) = message.info {
        let flags = u8::from(info.pads) | u8::from(info.is_hidden) << 1;
        let mut value = vec![flags, 0];
        value.extend(info.second_port.to_be_bytes());
        value.extend(info.unix_ms.to_be_bytes());
        put(bytes, kind::RELAY_INFO, &value);
    }
    if let Some(ask) = message.on_behalf {
        let flags = u8::from(ask.from == Port::Second) | u8::from(ask.tcp) << 1;
        let [high, low] = ask.to.map_or(0, NonZeroU16::get).to_be_bytes();
        let mut value = vec![high, low, 0, flags];
        value.extend(address(xored(ask.asker, id)));
        put(bytes, kind::ON_BEHALF, &value);
    }
    if message.padding > 0 {
        put(bytes, kind::PADDING, &vec![0; message.padding]);
    }
}

fn put(bytes: &mut Vec<u8>, of: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    bytes.extend(of.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(&value[..usize::from(length)]);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Writes the length of what follows the header and of so many bytes that are still to come.
fn set_length(bytes: &mut [u8], more: usize) {
    let length = u16::try_from(bytes.len() - HEADER + more).unwrap_or(u16::MAX);
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

fn address(address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    value.extend(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets()),
        IpAddr::V6(ip) => value.extend(ip.octets()),
    }
    value
}
