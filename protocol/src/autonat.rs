//! `/libp2p/autonat/2`: [AutoNAT v2](https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md). A peer asks a relay whether
//! one of its addresses is reached from outside.
//!
//! 1. The peer sends a [`Request`]: addresses, the best first, and a nonce.
//! 2. The relay dials the first address that it is willing to dial, from a port that it uses for nothing else. It sends the nonce
//!    back on that connection ([`DialBack`]).
//! 3. It answers with a [`Response`]: which address it was, and how far the dial came.
//!
//! Each message is one protocol buffer in a [`varint`] frame.

use std::io;

use futures::{FutureExt as _, future::BoxFuture};
use libp2p::{Multiaddr, Stream, StreamProtocol};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{exchange, frame::varint};

/// The most bytes of a message. Other implementations have the same limit.
const MAX_MESSAGE: usize = 4096;

/// The most addresses of a request that are looked at.
pub const MAX_ADDRESSES: usize = 16;

/// The exchange by which a peer asks.
#[derive(Debug)]
pub enum Autonat {}

/// The exchange by which the nonce comes back.
#[derive(Debug)]
pub enum DialBack {}

/// Asks to be dialed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The addresses, in the order of preference. One that cannot be decoded keeps its place.
    pub addresses: Vec<Option<Multiaddr>>,
    /// What comes back on the connection.
    pub nonce: u64,
}

/// What has become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The relay has dialed the address at this place.
    Dialed {
        /// Which of the addresses.
        address: usize,
        /// How far it came.
        outcome: Outcome,
    },
    /// The relay dials none of these addresses.
    DialRefused,
    /// The relay takes no request now.
    Rejected,
    /// Anything else.
    Failed,
}

/// How far a dial came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The nonce was delivered.
    Reached,
    /// No connection.
    DialError,
    /// A connection, on which the nonce was not taken.
    DialBackError,
}

/// The nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce(pub u64);

/// That a nonce has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken;

mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Message {
        #[prost(oneof = "Body", tags = "1, 2, 3, 4")]
        pub(super) body: Option<Body>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Body {
        #[prost(message, tag = "1")]
        Request(DialRequest),
        #[prost(message, tag = "2")]
        Response(DialResponse),
        /// The relay wants data before it dials an address of another host. A p2pnode relay dials none.
        #[prost(message, tag = "3")]
        DataRequest(Empty),
        #[prost(message, tag = "4")]
        DataResponse(Empty),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialRequest {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) addrs: Vec<Vec<u8>>,
        #[prost(fixed64, tag = "2")]
        pub(super) nonce: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialResponse {
        #[prost(int32, tag = "1")]
        pub(super) status: i32,
        #[prost(uint32, tag = "2")]
        pub(super) addr_idx: u32,
        #[prost(int32, tag = "3")]
        pub(super) dial_status: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Empty {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialBack {
        #[prost(fixed64, tag = "1")]
        pub(super) nonce: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DialBackResponse {
        #[prost(int32, tag = "1")]
        pub(super) status: i32,
    }
}

const OK: i32 = 200;
const REJECTED: i32 = 100;
const DIAL_REFUSED: i32 = 101;
const DIAL_ERROR: i32 = 100;
const DIAL_BACK_ERROR: i32 = 101;

impl Request {
    /// The message without its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let addresses = self.addresses.iter().flatten();
        let request = wire::DialRequest {
            addrs: addresses.map(Multiaddr::to_vec).collect(),
            nonce: self.nonce,
        };
        message(wire::Body::Request(request))
    }

    /// Decodes a message without its length; `None` if it is another one, or malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let Some(wire::Body::Request(request)) = body(bytes) else {
            return None;
        };
        let addresses = request.addrs.into_iter().take(MAX_ADDRESSES);
        Some(Self {
            addresses: addresses
                .map(|bytes| Multiaddr::try_from(bytes).ok())
                .collect(),
            nonce: request.nonce,
        })
    }
}

impl Response {
    /// The message without its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (status, address, dial_status) = match self {
            Self::Dialed { address, outcome } => {
                let dial_status = match outcome {
                    Outcome::Reached => OK,
                    Outcome::DialError => DIAL_ERROR,
                    Outcome::DialBackError => DIAL_BACK_ERROR,
                };
                (OK, *address, dial_status)
            }
            Self::DialRefused => (DIAL_REFUSED, 0, 0),
            Self::Rejected => (REJECTED, 0, 0),
            Self::Failed => (0, 0, 0),
        };
        message(wire::Body::Response(wire::DialResponse {
            status,
            addr_idx: u32::try_from(address).unwrap_or(u32::MAX),
            dial_status,
        }))
    }

    /// Decodes a message without its length; `None` if it is another one, or malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let Some(wire::Body::Response(response)) = body(bytes) else {
            return None;
        };
        let outcome = match response.dial_status {
            OK => Some(Outcome::Reached),
            DIAL_ERROR => Some(Outcome::DialError),
            DIAL_BACK_ERROR => Some(Outcome::DialBackError),
            _ => None,
        };
        Some(match (response.status, outcome) {
            (OK, Some(outcome)) => Self::Dialed {
                address: usize::try_from(response.addr_idx).ok()?,
                outcome,
            },
            (DIAL_REFUSED, _) => Self::DialRefused,
            (REJECTED, _) => Self::Rejected,
            _ => Self::Failed,
        })
    }
}

fn message(body: wire::Body) -> Vec<u8> {
    wire::Message { body: Some(body) }.encode_to_vec()
}

fn body(bytes: &[u8]) -> Option<wire::Body> {
    wire::Message::decode(bytes).ok()?.body
}

impl exchange::Protocol for Autonat {
    const NAME: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
    type Request = Request;
    type Answer = Response;

    fn read_request(stream: &mut Stream) -> BoxFuture<'_, io::Result<Request>> {
        read(stream, Request::decode)
    }

    fn write_request<'a>(
        stream: &'a mut Stream,
        request: &'a Request,
    ) -> BoxFuture<'a, io::Result<()>> {
        write(stream, request.encode())
    }

    fn read_answer(stream: &mut Stream) -> BoxFuture<'_, io::Result<Response>> {
        read(stream, Response::decode)
    }

    fn write_answer(stream: &mut Stream, answer: Response) -> BoxFuture<'_, io::Result<()>> {
        write(stream, answer.encode())
    }
}

impl exchange::Protocol for DialBack {
    const NAME: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");
    type Request = Nonce;
    type Answer = Taken;

    fn read_request(stream: &mut Stream) -> BoxFuture<'_, io::Result<Nonce>> {
        read(stream, |bytes| {
            let message = wire::DialBack::decode(bytes).ok()?;
            Some(Nonce(message.nonce))
        })
    }

    fn write_request<'a>(
        stream: &'a mut Stream,
        request: &'a Nonce,
    ) -> BoxFuture<'a, io::Result<()>> {
        write(stream, wire::DialBack { nonce: request.0 }.encode_to_vec())
    }

    fn read_answer(stream: &mut Stream) -> BoxFuture<'_, io::Result<Taken>> {
        read(stream, |bytes| {
            let message = wire::DialBackResponse::decode(bytes).ok()?;
            (message.status == 0).then_some(Taken)
        })
    }

    fn write_answer(stream: &mut Stream, Taken: Taken) -> BoxFuture<'_, io::Result<()>> {
        write(stream, wire::DialBackResponse { status: 0 }.encode_to_vec())
    }
}

fn read<T: Send + 'static>(
    stream: &mut Stream,
    decode: impl FnOnce(&[u8]) -> Option<T> + Send + 'static,
) -> BoxFuture<'_, io::Result<T>> {
    async move {
        let bytes = varint::read(MAX_MESSAGE, stream).await?;
        decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
    .boxed()
}

fn write(stream: &mut Stream, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
    async move { varint::write(stream, &bytes).await }.boxed()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_the_bytes_of_the_specification() {
        let address: Multiaddr = "/ip4/1.2.3.4/udp/5".parse().unwrap();
        let request = Request {
            addresses: vec![Some(address)],
            nonce: 7,
        };
        let bytes = [
            10, 20, 10, 9, 4, 1, 2, 3, 4, 145, 2, 0, 5, 17, 7, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(request.encode(), bytes);
        assert_eq!(Request::decode(&bytes), Some(request));
        let response = Response::Dialed {
            address: 1,
            outcome: Outcome::DialError,
        };
        let bytes = [18, 7, 8, 200, 1, 16, 1, 24, 100];
        assert_eq!(response.encode(), bytes);
        assert_eq!(Response::decode(&bytes), Some(response));
        for response in [Response::DialRefused, Response::Rejected, Response::Failed] {
            assert_eq!(Response::decode(&response.encode()), Some(response));
        }
        // A request for data is no answer.
        assert_eq!(Response::decode(&[26, 0]), None);
    }

    #[test]
    fn an_address_that_cannot_be_decoded_keeps_its_place_and_few_are_read() {
        let request = wire::DialRequest {
            addrs: vec![vec![255; 4]; 100],
            nonce: 1,
        };
        let read = Request::decode(&message(wire::Body::Request(request))).unwrap();
        assert_eq!(read.addresses, vec![None; MAX_ADDRESSES]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Request::decode(&bytes), Response::decode(&bytes));
        }
    }
}
