//! `/p2pnode/meet/1`: a relay introduces two peers to each other, so that both punch while the circuit between them is still
//! being made.
//!
//! DCUtR tells each side the other's addresses over the circuit, which takes several round trips to make. The relay sees the
//! mappings of both. Asked by the one that dials, it tells each side in the same moment what it observes of the other, and
//! what it told the other of it; both dial as soon as they hear.
//!
//! A node asks on a stream of its own: one [`Request`] and one [`Answer`]. A node is told on a stream that its relay opens: one
//! [`Introduction`], and the end. Frames are as in [`hop`](crate::hop), with at most [`MAX_MESSAGE`] bytes of JSON. Unknown fields
//! are ignored, as are addresses that cannot be read and those beyond [`MAX_ADDRS`].
//!
//! Who speaks the protocol takes `/tls/1.0.0` over TCP: the side that dials in the role of the client sends its first words of TLS
//! along with the proposal, without waiting for consent.

use std::io;

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::frame;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/meet/1");

/// The most addresses in a list: what is dialed because of an introduction is bounded by it.
pub const MAX_ADDRS: usize = 8;

/// The most bytes of an address as text. The longest that can be punched has 65.
const MAX_ADDR: usize = 128;

/// The most bytes of JSON in a frame: two full lists of the longest addresses, and room to say more.
pub const MAX_MESSAGE: usize = 4096;

/// Asks to be introduced to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The peer.
    #[serde(with = "frame::peer_id")]
    pub peer: PeerId,
    /// Addresses of the asking peer that the relay cannot see.
    #[serde(default, with = "addresses")]
    pub addrs: Vec<Multiaddr>,
}

/// What the relay answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The peer was told of the one that asked, in this moment.
    Introduced(Meeting),
    /// It was not, and why.
    Refused(Refusal),
}

/// Where two peers are: what the one that hears it is to dial, and what the other one is told to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meeting {
    /// The other side's addresses.
    #[serde(default, with = "addresses")]
    pub addrs: Vec<Multiaddr>,
    /// What the other side is told of the one that hears this.
    #[serde(default, with = "addresses")]
    pub told: Vec<Multiaddr>,
}

/// Tells a peer of another one that asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The one that asked.
    #[serde(with = "frame::peer_id")]
    pub peer: PeerId,
    /// Where the two are.
    #[serde(flatten)]
    pub meeting: Meeting,
}

/// Why the relay does not introduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The peer holds no reservation here.
    NoReservation,
    /// The peer takes no introductions: another implementation, or it does not punch.
    Unsupported,
    /// The two have no transport and IP family in common, as far as the relay sees by now.
    NothingInCommon,
    /// The peer asks too often, or is asked for too often.
    TooOften,
    /// The relay ends.
    Draining,
}

/// Writes one message.
///
/// # Errors
///
/// Those of the stream.
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    frame::write_up_to(MAX_MESSAGE, stream, message).await
}

/// Reads one message.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` for a message that is too long or none. No more than [`MAX_MESSAGE`] bytes are
/// read or held.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    frame::read_up_to(MAX_MESSAGE, stream).await
}

/// A list of addresses as text, cut to [`MAX_ADDRS`] both when it is written and when it is read.
mod addresses {
    use super::{Deserialize as _, Deserializer, MAX_ADDR, MAX_ADDRS, Multiaddr, Serializer};

    pub(super) fn serialize<S: Serializer>(
        addrs: &[Multiaddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts = addrs.iter().map(Multiaddr::to_string);
        serializer.collect_seq(texts.filter(|text| text.len() <= MAX_ADDR).take(MAX_ADDRS))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Multiaddr>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let short = texts.iter().filter(|text| text.len() <= MAX_ADDR);
        Ok(short
            .filter_map(|text| text.parse().ok())
            .take(MAX_ADDRS)
            .collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    fn written<T: Serialize>(message: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        block_on(write(&mut bytes, message)).unwrap();
        bytes
    }

    fn read_from<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        block_on(read(&mut Cursor::new(bytes)))
    }

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn meeting() -> Meeting {
        Meeting {
            addrs: addrs(&["/ip4/198.51.100.7/udp/40000/quic-v1"]),
            told: addrs(&["/ip4/203.0.113.9/tcp/40001"]),
        }
    }

    #[test]
    fn messages_are_the_json_that_the_protocol_says() {
        let request = Request {
            peer: PEER.parse().unwrap(),
            addrs: addrs(&["/ip6/2001:db8::7/udp/40000/quic-v1"]),
        };
        let json = format!(r#"{{"peer":"{PEER}","addrs":["/ip6/2001:db8::7/udp/40000/quic-v1"]}}"#);
        assert_eq!(written(&request), frame(json.as_bytes()));
        let lists = r#""addrs":["/ip4/198.51.100.7/udp/40000/quic-v1"],"told":["/ip4/203.0.113.9/tcp/40001"]"#;
        let json = format!(r#"{{"introduced":{{{lists}}}}}"#);
        let introduced = Answer::Introduced(meeting());
        assert_eq!(written(&introduced), frame(json.as_bytes()));
        let refused = Answer::Refused(Refusal::NothingInCommon);
        assert_eq!(
            written(&refused),
            frame(br#"{"refused":"nothing_in_common"}"#)
        );
        let introduction = Introduction {
            peer: PEER.parse().unwrap(),
            meeting: meeting(),
        };
        let json = format!(r#"{{"peer":"{PEER}",{lists}}}"#);
        assert_eq!(written(&introduction), frame(json.as_bytes()));
        assert_eq!(
            read_from::<Introduction>(&frame(json.as_bytes())).unwrap(),
            introduction
        );
    }

    #[test]
    fn what_a_later_version_adds_is_ignored_and_what_is_missing_is_empty() {
        let json = format!(r#"{{"peer":"{PEER}","mood":"good"}}"#);
        let request = read_from::<Request>(&frame(json.as_bytes())).unwrap();
        assert!(request.addrs.is_empty());
        let json = br#"{"introduced":{"addrs":["/ip4/1.2.3.4/tcp/5","/new/7","nonsense"]}}"#;
        let answer = read_from::<Answer>(&frame(json)).unwrap();
        let Answer::Introduced(meeting) = answer else {
            panic!("refused")
        };
        assert_eq!(meeting.addrs, addrs(&["/ip4/1.2.3.4/tcp/5"]));
        assert!(meeting.told.is_empty());
    }

    #[test]
    fn lists_are_cut_whoever_writes_them() {
        let many: Vec<String> = (1..=100)
            .map(|port| format!("/ip4/1.2.3.4/tcp/{port}"))
            .collect();
        let request = Request {
            peer: PEER.parse().unwrap(),
            addrs: many.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let read = read_from::<Request>(&written(&request)).unwrap();
        assert_eq!(read.addrs, request.addrs[..MAX_ADDRS]);
        let json = serde_json::json!({ "peer": PEER, "addrs": many }).to_string();
        let read = read_from::<Request>(&frame(json.as_bytes())).unwrap();
        assert_eq!(read.addrs, request.addrs[..MAX_ADDRS]);
    }

    #[test]
    fn two_full_lists_of_the_longest_addresses_fit() {
        let longest = "/ip6/2001:db8:1111:2222:3333:4444:5555:6666/udp/40000/quic-v1";
        let full = addrs(&[longest; MAX_ADDRS]);
        let introduction = Introduction {
            peer: PEER.parse().unwrap(),
            meeting: Meeting {
                addrs: full.clone(),
                told: full,
            },
        };
        let read = read_from::<Introduction>(&written(&introduction)).unwrap();
        assert_eq!(read, introduction);
    }

    #[test]
    fn a_message_longer_than_the_limit_is_refused_unread() {
        let error = read_from::<Request>(&u16::MAX.to_be_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read_from::<Request>(&bytes);
            let _ = read_from::<Answer>(&frame(&bytes));
            let _ = read_from::<Introduction>(&frame(&bytes));
        }
    }
}
