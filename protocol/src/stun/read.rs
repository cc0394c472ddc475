//! From bytes to a [`Message`].

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::message::{
    Change, Class, FINGERPRINT_LENGTH, FINGERPRINT_XOR, HEADER, LARGEST, Malformed, Message,
    OnBehalf, Port, RelayInfo, Transaction, crc32, kind, xored,
};

impl Message {
    /// The message in these bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        message(bytes)
    }
}

fn message(bytes: &[u8]) -> Result<Message, Malformed> {
    let [type_high, type_low, length_high, length_low, id @ ..] = bytes else {
        return Err(Malformed::Length);
    };
    let id = id.first_chunk::<16>().ok_or(Malformed::Length)?;
    let class = match u16::from_be_bytes([*type_high, *type_low]) {
        0x0001 => Class::Request,
        0x0011 => Class::Indication,
        0x0101 => Class::Success,
        0x0111 => Class::Error,
        _ => return Err(Malformed::Type),
    };
    let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
    let attributes = &bytes[HEADER..];
    if attributes.len() != length || length % 4 != 0 || bytes.len() > LARGEST {
        return Err(Malformed::Length);
    }
    let mut message = Message::new(class, Transaction(*id));
    let mut rest = attributes;
    while let [high, low, length_high, length_low, after @ ..] = rest {
        let of = u16::from_be_bytes([*high, *low]);
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let padded = length.next_multiple_of(4);
        // RFC 3489 knew no padding, and its attributes have lengths that need none.
        let value = after.get(..length).ok_or(Malformed::Attribute(of))?;
        let next = after.get(padded..).ok_or(Malformed::Attribute(of))?;
        if of == kind::FINGERPRINT {
            // It is the last one, and covers all before it.
            let covered = &bytes[..bytes.len() - rest.len()];
            let sum = crc32(covered) ^ FINGERPRINT_XOR;
            if !next.is_empty() || rest.len() != FINGERPRINT_LENGTH || value != sum.to_be_bytes() {
                return Err(Malformed::Fingerprint);
            }
            message.fingerprint = true;
        } else {
            attribute(&mut message, of, value)?;
        }
        rest = next;
    }
    Ok(message)
}

/// Adds an attribute. Of several of one type the first counts, except for MAPPED-ADDRESS, which the XORed one replaces.
fn attribute(message: &mut Message, of: u16, value: &[u8]) -> Result<(), Malformed> {
    let malformed = Malformed::Attribute(of);
    let read = || address(value).ok_or(malformed);
    let transaction = message.transaction;
    match of {
        kind::MAPPED_ADDRESS => message.mapped = message.mapped.or(Some(read()?)),
        kind::XOR_MAPPED_ADDRESS | kind::OLD_XOR_MAPPED_ADDRESS => {
            message.mapped = Some(xored(read()?, &transaction));
        }
        kind::CHANGE_REQUEST => {
            let [_, _, _, flags] = value else {
                return Err(malformed);
            };
            message.change = message.change.or(Some(Change {
                ip: flags & 4 != 0,
                port: flags & 2 != 0,
            }));
        }
        kind::RESPONSE_PORT => {
            let [high, low, _, _] = *value else {
                return Err(malformed);
            };
            let port = NonZeroU16::new(u16::from_be_bytes([high, low])).ok_or(malformed)?;
            message.response_port = message.response_port.or(Some(port));
        }
        kind::SOURCE_ADDRESS | kind::RESPONSE_ORIGIN => {
            message.origin = message.origin.or(Some(read()?));
        }
        kind::CHANGED_ADDRESS | kind::OTHER_ADDRESS => {
            message.other = message.other.or(Some(read()?));
        }
        kind::ERROR_CODE => {
            let [_, _, hundreds, rest, ..] = value else {
                return Err(malformed);
            };
            let code = u16::from(hundreds & 7) * 100 + u16::from(rest % 100);
            message.error = message.error.or(Some(code));
        }
        kind::UNKNOWN_ATTRIBUTES => {
            let types = value.chunks_exact(2);
            message.unknown = types.map(|of| u16::from_be_bytes([of[0], of[1]])).collect();
        }
        kind::PADDING => message.padding += value.len(),
        kind::RELAY_INFO => {
            let value: &[u8; 12] = value.try_into().map_err(|_| malformed)?;
            let [flags, _, high, low, time @ ..] = *value;
            message.info = message.info.or(Some(RelayInfo {
                second_port: u16::from_be_bytes([high, low]),
                unix_ms: u64::from_be_bytes(time),
                pads: flags & 1 != 0,
                is_hidden: flags & 2 != 0,
            }));
        }
        kind::ON_BEHALF => {
            let (flags, asker) = value.split_first_chunk::<4>().ok_or(malformed)?;
            let asker = address(asker).ok_or(malformed)?;
            message.on_behalf = message.on_behalf.or(Some(OnBehalf {
                asker: xored(asker, &transaction),
                to: NonZeroU16::new(u16::from_be_bytes([flags[0], flags[1]])),
                from: if flags[3] & 1 == 0 {
                    Port::Quic
                } else {
                    Port::Second
                },
                tcp: flags[3] & 2 != 0,
            }));
        }
        // Credentials are not asked for, and an address to answer to is not believed.
        kind::USERNAME
        | kind::MESSAGE_INTEGRITY
        | kind::MESSAGE_INTEGRITY_SHA256
        | kind::REALM
        | kind::NONCE
        | kind::RESPONSE_ADDRESS => {}
        of if of < kind::OPTIONAL => message.unknown.push(of),
        _ => {}
    }
    Ok(())
}

fn address(value: &[u8]) -> Option<SocketAddr> {
    let [_, family, high, low, ip @ ..] = value else {
        return None;
    };
    let ip = match family {
        1 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
}
