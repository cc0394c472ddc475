//! `/libp2p/autonat/2`: [AutoNAT v2](https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md). A peer asks a relay whether
//! one of its addresses is reached from outside.
//!
//! 1. The peer sends a [`Request`]: addresses, the best first, and a nonce.
//! 2. The relay dials the first address that it is willing to dial, from a port that it uses for nothing else. It sends the nonce
//!    back on that connection ([`DialBack`]).
//! 3. It answers with a [`Response`]: which address it was, and how far the dial came.
//!
//! A server of another make may dial another address than the one at which it sees the peer. Before that it asks for 30 to 100 kB of
//! data, so that a dial costs the asking peer more than the dialed host. The peer sends them. A p2pnode relay dials no such address, and
//! asks for none.
//!
//! Each message is one protocol buffer in a [`varint`] frame.

use std::{io, ops::RangeInclusive};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _, FutureExt as _, future::BoxFuture};
use libp2p::{Multiaddr, Stream, StreamProtocol};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{exchange, frame::varint};

/// The most bytes of a message. Other implementations have the same limit.
const MAX_MESSAGE: usize = 4096;

/// The most addresses of a request that are looked at.
pub const MAX_ADDRESSES: usize = 16;

/// The bytes of data that a server may ask for. A peer that is asked for others sends none.
const DATA: RangeInclusive<u64> = 30_000..=100_000;

/// The data of one message. The specification allows 4,096.
const DATA_MESSAGE: u64 = 4_000;

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
        #[prost(message, tag = "3")]
        DataRequest(DataRequest),
        #[prost(message, tag = "4")]
        DataResponse(DataResponse),
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
    pub(super) struct DataRequest {
        #[prost(uint32, tag = "1")]
        pub(super) addr_idx: u32,
        #[prost(uint64, tag = "2")]
        pub(super) num_bytes: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DataResponse {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) data: Vec<u8>,
    }

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

    fn converse<'a>(
        stream: &'a mut Stream,
        request: &'a Request,
    ) -> BoxFuture<'a, io::Result<Response>> {
        async move {
            let response = converse(stream, request).await;
            // The server may have closed the stream before. The answer is here.
            let _closed = stream.close().await;
            response
        }
        .boxed()
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

/// Asks, and sends the data if the server wants some.
async fn converse(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &Request,
) -> io::Result<Response> {
    varint::write(stream, &request.encode()).await?;
    let mut answer = varint::read(MAX_MESSAGE, stream).await?;
    if let Some(wire::Body::DataRequest(wanted)) = body(&answer) {
        let is_listed =
            usize::try_from(wanted.addr_idx).is_ok_and(|address| address < request.addresses.len());
        if !is_listed || !DATA.contains(&wanted.num_bytes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut left = wanted.num_bytes;
        while left > 0 {
            let length = left.min(DATA_MESSAGE);
            left -= length;
            let data = vec![0; usize::try_from(length).unwrap_or_default()];
            let data = wire::Body::DataResponse(wire::DataResponse { data });
            varint::write(stream, &message(data)).await?;
        }
        answer = varint::read(MAX_MESSAGE, stream).await?;
    }
    Response::decode(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
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
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures::executor::block_on;
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

    /// A stream on which all that will come is there already.
    struct Canned {
        comes: io::Cursor<Vec<u8>>,
        sent: Vec<u8>,
    }

    impl AsyncRead for Canned {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(io::Read::read(&mut self.comes, to))
        }
    }

    impl AsyncWrite for Canned {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(io::Write::write(&mut self.sent, from))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What a client of a server that wants data gets, and the bytes of data in each of its messages.
    fn asked_for(num_bytes: u64, addr_idx: u32) -> (io::Result<Response>, Vec<usize>) {
        let request = Request {
            addresses: vec![Some("/ip4/1.2.3.4/tcp/5".parse().unwrap())],
            nonce: 7,
        };
        let wanted = wire::DataRequest {
            addr_idx,
            num_bytes,
        };
        let answer = Response::Dialed {
            address: 0,
            outcome: Outcome::Reached,
        };
        let mut comes = Vec::new();
        for bytes in [message(wire::Body::DataRequest(wanted)), answer.encode()] {
            block_on(varint::write(&mut comes, &bytes)).unwrap();
        }
        let mut stream = Canned {
            comes: io::Cursor::new(comes),
            sent: Vec::new(),
        };
        let response = block_on(converse(&mut stream, &request));
        let mut sent = &stream.sent[..];
        let first = block_on(varint::read(MAX_MESSAGE, &mut sent)).unwrap();
        assert_eq!(Request::decode(&first), Some(request));
        let mut data = Vec::new();
        while let Ok(bytes) = block_on(varint::read(MAX_MESSAGE, &mut sent)) {
            let Some(wire::Body::DataResponse(message)) = body(&bytes) else {
                panic!("{bytes:?}");
            };
            data.push(message.data.len());
        }
        (response, data)
    }

    #[test]
    fn a_server_that_wants_data_gets_what_it_wants_within_the_bounds_of_the_specification() {
        for wanted in [30_000, 99_999, 100_000] {
            let (asked, data) = asked_for(wanted, 0);
            assert!(matches!(asked, Ok(Response::Dialed { .. })), "{asked:?}");
            assert_eq!(data.iter().sum::<usize>(), usize::try_from(wanted).unwrap());
            assert!(data.iter().all(|length| (1..=4096).contains(length)));
        }
        for (wanted, address) in [(29_999, 0), (100_001, 0), (u64::MAX, 0), (30_000, 1)] {
            let (asked, data) = asked_for(wanted, address);
            assert!(asked.is_err(), "{wanted}: {asked:?}");
            assert!(data.is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Request::decode(&bytes), Response::decode(&bytes));
        }
    }
}
