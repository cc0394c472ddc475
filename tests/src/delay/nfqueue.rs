//! The messages of nfnetlink_queue (`linux/netfilter/nfnetlink_queue.h`), as far as a delay needs them.
//!
//! Each is a netlink header, a header of netfilter, and attributes. Netlink's integers are of this machine's byte order,
//! netfilter's are of the network's.

use std::io;

const SUBSYSTEM: u16 = 3;
const PACKET: u16 = SUBSYSTEM << 8;
const VERDICT: u16 = SUBSYSTEM << 8 | 1;
const CONFIG: u16 = SUBSYSTEM << 8 | 2;
const VERDICT_BATCH: u16 = SUBSYSTEM << 8 | 3;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_HEADER: usize = 16;
/// With netfilter's own: family, version, queue.
const HEADER: usize = NLMSG_HEADER + 4;
const ATTRIBUTE_HEADER: usize = 4;
/// The flags in an attribute's type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CFG_MASK: u16 = 4;
const CFG_FLAGS: u16 = 5;
/// `NFQA_CFG_F_GSO`
const WHOLE: u32 = 1 << 2;
const BIND: u8 = 1;
/// Tell of a packet that it is there, and nothing of what is in it.
const COPY_META: u8 = 1;
const ATTR_PACKET_HDR: u16 = 1;
const ATTR_VERDICT_HDR: u16 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A packet waits for its verdict under this number.
    Packet(u32),
    /// The answer to a request: zero, or the number of an error.
    Answer(i32),
}

/// Takes the queue, asks for numbers of packets without their contents, and sets how many packets may wait.
pub(super) fn setup(queue: u16, packets: u32) -> [Vec<u8>; 3] {
    let config = |attribute, value: &[u8]| request(CONFIG, NLM_F_ACK, queue, attribute, value);
    [
        config(CFG_CMD, &[BIND, 0, 0, 0]),
        config(CFG_PARAMS, &[0, 0, 0, 0, COPY_META]),
        config(CFG_QUEUE_MAXLEN, &packets.to_be_bytes()),
    ]
}

/// Asks for what was sent as one piece for segmentation offload as one packet, instead of cut into those of the wire.
pub(super) fn whole(queue: u16) -> Vec<u8> {
    let value = WHOLE.to_be_bytes();
    let mut bytes = request(CONFIG, NLM_F_ACK, queue, CFG_FLAGS, &value);
    append(&mut bytes, CFG_MASK, &value);
    bytes
}

/// Lets go of all packets up to this one that have no verdict yet.
pub(super) fn accept_up_to(queue: u16, packet: u32) -> Vec<u8> {
    let value = verdict(NF_ACCEPT, packet);
    request(VERDICT_BATCH, 0, queue, ATTR_VERDICT_HDR, &value)
}

pub(super) fn drop(queue: u16, packet: u32) -> Vec<u8> {
    let value = verdict(NF_DROP, packet);
    request(VERDICT, 0, queue, ATTR_VERDICT_HDR, &value)
}

fn verdict(verdict: u32, packet: u32) -> [u8; 8] {
    (u64::from(verdict) << 32 | u64::from(packet)).to_be_bytes()
}

pub(super) fn read(datagram: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
        let Some(message) = usize::try_from(length)
            .ok()
            .filter(|length| *length >= NLMSG_HEADER)
            .and_then(|length| rest.get(..length))
        else {
            break;
        };
        let read = match kind {
            NLMSG_ERROR => u32_at(message, NLMSG_HEADER)
                .map(|code| Message::Answer(code.cast_signed().wrapping_neg())),
            PACKET => message
                .get(HEADER..)
                .and_then(packet_number)
                .map(Message::Packet),
            _ => None,
        };
        messages.extend(read);
        rest = rest.get(aligned(message.len())..).unwrap_or_default();
    }
    messages
}

pub(super) fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn packet_number(mut attributes: &[u8]) -> Option<u32> {
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind & ATTRIBUTE_TYPE == ATTR_PACKET_HDR {
            return Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?));
        }
        attributes = attributes.get(aligned(length)..)?;
    }
    None
}

fn request(kind: u16, flags: u16, queue: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes[18..20].copy_from_slice(&queue.to_be_bytes());
    append(&mut bytes, attribute, value);
    bytes
}

fn append(bytes: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    // No value here is longer than eight bytes.
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
