//! One handshake at a time: what is said on a stream before it is a circuit. Each step has [`TIMEOUT`].

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

/// How long a peer may take to ask, a destination to take a circuit, a peer to take an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// What has become of a request.
pub(super) enum Heard {
    /// It came.
    Request(Stream, Request),
    /// It did not come, or was none; to be answered on the stream.
    Fault(Stream, Fault),
    /// The stream is gone.
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
        Ok(Err(ReadError::Length)) => Fault::Malformed("a length that is none"),
        Ok(Err(ReadError::TooLong { .. })) => Fault::Malformed("too long"),
        Ok(Err(ReadError::Truncated)) => Fault::Malformed("cut off"),
        Err(_) => Fault::Malformed("none in time"),
    };
    Heard::Fault(stream, fault)
}

/// Answers, and ends the stream.
pub(super) async fn answer(mut stream: Stream, message: Vec<u8>) -> io::Result<()> {
    in_time(async {
        circuit::write(&mut stream, &message).await?;
        stream.close().await
    })
    .await
}

/// The destination's side of a circuit, or why there is none.
pub(super) type Taken = Result<Stream, NotTaken>;

/// Why a destination did not take a circuit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// It said no.
    #[error("it answered {0}")]
    Refused(Status),
    /// It said something else.
    #[error("it answered with no status that is known")]
    Unknown,
    /// It said nothing that can be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Nor that.
    #[error(transparent)]
    Unread(#[from] ReadError),
    /// The stream is gone, or could not be opened.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// Its connection is gone.
    #[error("its connection is gone")]
    Gone,
    /// It did not answer.
    #[error("it did not answer in {} s", TIMEOUT.as_secs())]
    Late,
}

/// A destination is to be asked.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Who dials it.
    pub(super) source: PeerId,
    /// What the circuit may carry.
    pub(super) limit: Limit,
    /// Where its stream goes. The asking side stops waiting in time.
    pub(super) reply: oneshot::Sender<Taken>,
}

/// Asks a destination. Ends early when nobody waits for it any more.
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

/// A circuit of which the source waits.
#[derive(Debug)]
pub(crate) struct Onward {
    pub(super) id: CircuitId,
    /// The destination's side.
    pub(super) taken: oneshot::Receiver<Taken>,
    /// The answer to the source if the destination accepts.
    pub(super) granted: Vec<u8>,
}

/// Both sides of a circuit, or why there are not both.
pub(super) enum Joined {
    /// The source, which has its answer, and the destination.
    Both(Stream, Stream),
    /// The destination did not take it; to be answered on the source's stream.
    NotTaken(Stream, NotTaken),
    /// The source is gone.
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
