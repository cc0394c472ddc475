//! A peer that speaks circuit relay v2 byte by byte, so that it can also speak it wrongly.
//!
//! What it says is written out here and does not come from the code under test.

mod streams;

use std::time::Duration;

use futures::{
    AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _,
    channel::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, SwarmBuilder, identity::Keypair, multiaddr::Protocol, noise,
    swarm::SwarmEvent, tcp, tls, yamux,
};
use tokio::task::JoinHandle;

use streams::{Behaviour, Opened};

/// `HopMessage { type: RESERVE }` behind its length.
pub const RESERVE: &[u8] = &[2, 8, 0];

/// `StopMessage { type: STATUS, status: OK }` behind its length.
pub const TAKEN: &[u8] = &[4, 8, 1, 32, 100];

pub struct Raw {
    pub id: PeerId,
    open: UnboundedSender<Opened>,
    /// Streams on which the relay asks.
    offered: UnboundedReceiver<Stream>,
    running: JoinHandle<()>,
}

impl Raw {
    /// Connects to the relay at `address`.
    pub async fn connect(address: &Multiaddr) -> Self {
        let Some(Protocol::P2p(relay)) = address.iter().last() else {
            panic!("{address} names no relay");
        };
        let (sender, offered) = mpsc::unbounded();
        let (open, mut wanted) = mpsc::unbounded();
        let mut swarm = swarm(Behaviour::new(sender));
        let id = *swarm.local_peer_id();
        swarm.dial(address.clone()).expect("an address");
        let connected = async {
            while !matches!(
                swarm.select_next_some().await,
                SwarmEvent::ConnectionEstablished { .. }
            ) {}
        };
        in_time(connected).await;
        let running = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some(opened) = wanted.next() => swarm.behaviour_mut().open(relay, opened),
                }
            }
        });
        Self {
            id,
            open,
            offered,
            running,
        }
    }

    /// The same, with a reservation.
    pub async fn reserved(address: &Multiaddr) -> Self {
        let mut raw = Self::connect(address).await;
        let answer = raw.ask(RESERVE).await;
        assert_eq!(answer.status, 100);
        raw
    }

    /// A stream of HOP.
    pub async fn hop(&mut self) -> Stream {
        let (opened, stream) = oneshot::channel();
        self.open.unbounded_send(opened).expect("it runs");
        in_time(stream).await.expect("the relay serves")
    }

    /// Says `bytes` on a stream of HOP and keeps it open.
    pub async fn say(&mut self, bytes: &[u8]) -> Stream {
        let mut stream = self.hop().await;
        stream.write_all(bytes).await.expect("sent");
        stream.flush().await.expect("sent");
        stream
    }

    /// The answer to `bytes`.
    pub async fn ask(&mut self, bytes: &[u8]) -> Answer {
        answer(&mut self.say(bytes).await).await
    }

    /// Asks for a circuit to `other` and takes it there: both ends.
    pub async fn circuit(&mut self, other: &mut Self) -> (Stream, Stream) {
        let mut source = self.say(&connect(other.id)).await;
        let destination = other.take().await;
        assert_eq!(answer(&mut source).await.status, 100);
        (source, destination)
    }

    /// What the relay asks next, which is to take a circuit, unanswered.
    pub async fn offered(&mut self) -> (Stream, Vec<u8>) {
        let mut stream = in_time(self.offered.next()).await.expect("a stream");
        let message = read(&mut stream).await;
        (stream, message)
    }

    /// Takes the circuit that the relay offers next.
    pub async fn take(&mut self) -> Stream {
        let (mut stream, _) = self.offered().await;
        stream.write_all(TAKEN).await.expect("sent");
        stream.flush().await.expect("sent");
        stream
    }

    /// Ends without a word.
    pub fn vanish(self) {
        self.running.abort();
    }
}

fn swarm(behaviour: Behaviour) -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .expect("TCP")
        .with_quic()
        .with_behaviour(|_| behaviour)
        .expect("infallible")
        .build()
}

/// `HopMessage { type: CONNECT, peer: { id } }` behind its length.
pub fn connect(destination: PeerId) -> Vec<u8> {
    let id = destination.to_bytes();
    let length = u8::try_from(id.len()).expect("short");
    [&[length + 6, 8, 1, 18, length + 2, 10, length][..], &id].concat()
}

/// What the relay has answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u64,
    /// The fields of the reservation and of the limit.
    pub reservation: Vec<(u64, Field)>,
    pub limit: Vec<(u64, Field)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// Reads an answer.
pub async fn answer(stream: &mut Stream) -> Answer {
    let message = fields(&read(stream).await);
    assert_eq!(message.first(), Some(&(1, Field::Number(2))), "type STATUS");
    let inner = |number| {
        message
            .iter()
            .find_map(|(field, value)| match value {
                Field::Bytes(bytes) if *field == number => Some(fields(bytes)),
                _ => None,
            })
            .unwrap_or_default()
    };
    let status = message.iter().find_map(|(field, value)| match value {
        Field::Number(status) if *field == 5 => Some(*status),
        _ => None,
    });
    Answer {
        status: status.expect("a status"),
        reservation: inner(3),
        limit: inner(4),
    }
}

/// Reads a message of at most 16383 bytes.
async fn read(stream: &mut Stream) -> Vec<u8> {
    in_time(async {
        let mut length = [0; 1];
        stream.read_exact(&mut length).await.expect("a length");
        let mut bytes = usize::from(length[0] & 0x7f);
        if length[0] & 0x80 != 0 {
            stream.read_exact(&mut length).await.expect("a length");
            bytes |= usize::from(length[0]) << 7;
        }
        let mut message = vec![0; bytes];
        stream.read_exact(&mut message).await.expect("a message");
        message
    })
    .await
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a number");
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        fields.push((
            key >> 3,
            if key & 7 == 0 {
                Field::Number(value)
            } else {
                let (value, rest) = bytes.split_at(usize::try_from(value).expect("short"));
                bytes = rest;
                Field::Bytes(value.to_vec())
            },
        ));
    }
    fields
}

/// Longer than any timeout of the relay.
pub async fn in_time<T>(wanted: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wanted)
        .await
        .expect("within 60 s")
}
