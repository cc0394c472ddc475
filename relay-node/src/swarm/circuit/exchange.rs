//! The handshakes that turn a stream into a circuit. Each step has [`TIMEOUT`].

use std::{io, time::Duration};

use futures::{
    AsyncWriteExt as _,
    channel::oneshot,
    future::{Either, select},
};
use libp2p::{PeerId, Stream};
use p2pnode_protocol::{
    circuit::{self, Fault, Limit, Request, Status},
    frame::varint::ReadError,
};
use tokio::time::timeout;

use crate::core::CircuitId;

/// How long a peer may take to send its request, a destination to accept a circuit, and a peer to read an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// What came over a stream for a request.
pub(super) enum Heard {
    /// A request.
    Request(Stream, Request),
    /// No valid request. The stream still expects an answer.
    Fault(Stream, Fault),
    /// Nothing: the stream broke.
    Lost(io::Error),
}

/// Reads a request.
pub(super) async fn hear(mut stream: Stream) -> Heard {
    let message = timeout(TIMEOUT, circuit::read(&mut stream)).await;
    let fault = match message {
        Ok(Ok(message)) => match Request::decode(&message) {
            Ok(request) => return Heard::Request(stream, request),
            Err(fault) => fault,
        },
        Ok(Err(ReadError::Stream(error))) => return Heard::Lost(error),
        Ok(Err(ReadError::Length)) => Fault::Malformed("an invalid length"),
        Ok(Err(ReadError::TooLong { .. })) => Fault::Malformed("too long"),
        Ok(Err(ReadError::Truncated)) => Fault::Malformed("cut off"),
        Err(_) => Fault::Malformed("none within the timeout"),
    };
    Heard::Fault(stream, fault)
}

/// Writes the answer and closes the stream.
pub(super) async fn answer(mut stream: Stream, message: Vec<u8>) -> io::Result<()> {
    in_time(async {
        circuit::write(&mut stream, &message).await?;
        stream.close().await
    })
    .await
}

/// The stream to the destination of a circuit, or why there is none.
pub(super) type Taken = Result<Stream, NotTaken>;

/// Why a destination did not accept a circuit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The destination refused.
    #[error("it answered {0}")]
    Refused(Status),
    /// The status is not in the specification.
    #[error("it answered with an unknown status")]
    Unknown,
    /// The answer is not valid.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// There is no answer to decode.
    #[error(transparent)]
    Unread(#[from] ReadError),
    /// The stream broke, or could not be opened.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// The connection to the destination is gone.
    #[error("its connection is gone")]
    Gone,
    /// No answer came in time.
    #[error("it did not answer in {} s", TIMEOUT.as_secs())]
    Late,
}

/// A circuit to offer to a destination.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The peer that dials.
    pub(super) source: PeerId,
    /// What the circuit may carry.
    pub(super) limit: Limit,
    /// Where the stream goes. The source stops waiting after [`TIMEOUT`].
    pub(super) reply: oneshot::Sender<Taken>,
}

/// Offers a circuit to a destination. Ends early when the source no longer waits.
pub(super) async fn ask(mut stream: Stream, ask: Ask) {
    let mut reply = ask.reply;
    let taken = {
        let exchange = std::pin::pin!(async {
            let offer = circuit::offer(&ask.source, ask.limit);
            circuit::write(&mut stream, &offer).await?;
            let answer = circuit::read(&mut stream).await?;
            match circuit::decode_answer(&answer)? {
                Some(Status::Ok) => Ok(()),
                Some(status) => Err(NotTaken::Refused(status)),
                None => Err(NotTaken::Unknown),
            }
        });
        match select(exchange, reply.cancellation()).await {
            Either::Left((taken, _)) => taken,
            Either::Right(((), _)) => return,
        }
    };
    // An error means that the source is gone.
    let _ = reply.send(taken.map(|()| stream));
}

/// A circuit whose source waits.
#[derive(Debug)]
pub(crate) struct Onward {
    pub(super) id: CircuitId,
    /// The stream to the destination.
    pub(super) taken: oneshot::Receiver<Taken>,
    /// The answer to the source if the destination accepts.
    pub(super) granted: Vec<u8>,
}

/// Both streams of a circuit, or why there are not both.
pub(super) enum Joined {
    /// The source, which has its answer, and the destination.
    Both(Stream, Stream),
    /// The destination did not accept. The stream of the source still expects an answer.
    NotTaken(Stream, NotTaken),
    /// The stream of the source broke.
    Lost(io::Error),
}

/// Waits for the destination and answers the source.
pub(super) async fn join(mut source: Stream, onward: Onward) -> Joined {
    let taken = match timeout(TIMEOUT, onward.taken).await {
        Ok(Ok(taken)) => taken,
        Ok(Err(oneshot::Canceled)) => Err(NotTaken::Gone),
        Err(_) => Err(NotTaken::Late),
    };
    match taken {
        Ok(destination) => match in_time(circuit::write(&mut source, &onward.granted)).await {
            Ok(()) => Joined::Both(source, destination),
            Err(error) => Joined::Lost(error),
        },
        Err(why) => Joined::NotTaken(source, why),
    }
}

async fn in_time(exchange: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
}
