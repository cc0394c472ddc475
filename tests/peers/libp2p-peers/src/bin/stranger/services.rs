//! What a peer may do to another on streams of services: `/p2pnode/service/1`, whose frames it writes by hand.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    identity::Keypair,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use libp2p_peers::{Role, circuit, meet, peer, tell, varint, write};
use libp2p_stream::Control;
use serde_json::{Value, json};
use tokio::time::timeout;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/service/1");

const OPEN: u8 = 1;
const RESUME: u8 = 2;
const ACCEPT: u8 = 3;
const REFUSE: u8 = 4;
const DATA: u8 = 5;
const FIN: u8 = 6;
const ACK: u8 = 7;
const REWIND: u8 = 9;
const RESET: u8 = 10;
const DONE: u8 = 11;
const HELLO: u8 = 12;

/// Offsets that no session comes to.
const FAR: u64 = 1 << 40;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Streams that never end, at once: fewer than a peer takes of somebody whom it does not know.
const SILENT: usize = 6;

/// How long the peer may take to close a connection of which it has two.
const SETTLE: Duration = Duration::from_secs(5);

/// How it reaches the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Path {
    Relayed,
    Direct,
}

/// One identity with a path to the peer.
struct Caller {
    control: Control,
    to: PeerId,
    /// This process, as the peer is to know it.
    instance: u64,
    sessions: u64,
}

/// Does all of it to a service of a peer, `times` opens of a flood included, and prints the answers.
pub(crate) async fn run(
    relay: Multiaddr,
    listen: &[Multiaddr],
    to: PeerId,
    service: &str,
    path: Path,
    times: u32,
) -> Result<()> {
    let mut caller = Caller::connect(&relay, listen, to, path).await?;
    let mut other = Caller::connect(&relay, &[], to, Path::Relayed).await?;
    let mut answers = caller.breaks_sessions(service).await?;
    let (mut kept, session) = caller.session(service).await?;
    let theft = answer(&mut other.first(&resume(session, other.instance)).await?).await?;
    answers.insert("resume of another peer's session", theft);
    let unknown = answer(&mut caller.first(&resume(FAR, caller.instance)).await?).await?;
    answers.insert("resume of no session", unknown);
    // It says that it is another process: what the one before it opens comes too late.
    let (_of_earlier, _) = other.session(service).await?;
    let earlier = other.open(service);
    let hello = [&[0x09][..], &fastrand::u64(..).to_le_bytes()].concat();
    let greeted = answer(&mut other.first(&frame(HELLO, &hello)).await?).await?;
    answers.insert("a greeting of another process", greeted);
    let late = answer(&mut other.first(&earlier).await?).await?;
    answers.insert("an opening of an earlier process", late);
    let secret = caller.open("secret");
    answers.insert(
        "an unknown service",
        answer(&mut caller.first(&secret).await?).await?,
    );
    answers.insert(
        "no opening",
        answer(&mut caller.first(&frame(DONE, &[])).await?).await?,
    );
    // Nobody took it over, or ended it.
    write(&mut kept, &data(0, b"mine")).await?;
    answers.insert(
        "the session that was to be stolen",
        answer(&mut kept).await?,
    );
    caller.breaks_lengths(service).await?;
    let flood = caller.floods(service, times).await;
    tell(&json!({"event": "abused", "answers": answers, "flood": flood}));
    std::future::pending().await
}

impl Caller {
    async fn connect(
        relay: &Multiaddr,
        listen: &[Multiaddr],
        to: PeerId,
        path: Path,
    ) -> Result<Self> {
        let role = match path {
            Path::Relayed => Role::Client,
            Path::Direct => Role::Punches,
        };
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let mut swarm = peer(key, role)?;
        for address in listen {
            swarm.listen_on(address.clone())?;
        }
        meet(&mut swarm, relay, |_| ()).await?;
        let dial = DialOpts::peer_id(to).addresses(vec![circuit(relay, to)]);
        swarm.dial(dial.build())?;
        let mut relayed = None;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished {
                    peer_id,
                    endpoint,
                    connection_id,
                    ..
                } if peer_id == to => match (endpoint.is_relayed(), path) {
                    (true, Path::Relayed) => break,
                    (true, Path::Direct) => relayed = Some(connection_id),
                    (false, _) => break,
                },
                SwarmEvent::OutgoingConnectionError { peer_id, error, .. }
                    if peer_id == Some(to) && relayed.is_none() =>
                {
                    bail!("no circuit: {error}");
                }
                _ => {}
            }
        }
        if let Some(relayed) = relayed {
            // Streams would go over any connection. Of two direct ones the peer closes one.
            swarm.close_connection(relayed);
            let settles = async {
                loop {
                    swarm.select_next_some().await;
                }
            };
            let _elapsed = timeout(SETTLE, settles).await;
        }
        tell(&json!({"event": "connected", "id": id.to_string()}));
        let control = swarm.behaviour().stream.new_control();
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Ok(Self {
            control,
            to,
            instance: fastrand::u64(..),
            sessions: 0,
        })
    }

    /// A stream that begins with this. Beyond the streams that the peer takes at once, one waits until another has ended.
    async fn first(&mut self, bytes: &[u8]) -> Result<Stream> {
        let mut opened = self.control.open_stream(self.to, PROTOCOL).await;
        for _ in 0..3 {
            if opened.is_err() {
                opened = self.control.open_stream(self.to, PROTOCOL).await;
            }
        }
        let mut stream = opened.context("no stream")?;
        write(&mut stream, bytes).await?;
        Ok(stream)
    }

    fn open(&mut self, service: &str) -> Vec<u8> {
        self.sessions += 1;
        let body = [
            &id(self.sessions)[..],
            &[0x11],
            &self.instance.to_le_bytes(),
            &[0x18, 1, 0x22],
            &varint(service.len()),
            service.as_bytes(),
            &[0x30],
            &varint(1 << 18),
        ];
        frame(OPEN, &body.concat())
    }

    /// A session that the peer has accepted, and its number.
    async fn session(&mut self, service: &str) -> Result<(Stream, u64)> {
        let open = self.open(service);
        let mut stream = self.first(&open).await?;
        let (kind, body) = read(&mut stream).await?;
        anyhow::ensure!(kind == ACCEPT, "{kind} answers an opening: {body:?}");
        Ok((stream, self.sessions))
    }

    /// Wrong offsets, confirmations of what was never sent, and frames out of place, each in a session of its own.
    async fn breaks_sessions(&mut self, service: &str) -> Result<BTreeMap<&'static str, Value>> {
        let limits = |first: u64, second: u64| [first.to_be_bytes(), second.to_be_bytes()].concat();
        let mut answers = BTreeMap::new();
        for (name, bytes) in [
            ("data behind a gap", data(5, &[7; 10])),
            ("data beyond the limit", data(FAR, &[7; 10])),
            (
                "a confirmation of what was never sent",
                frame(ACK, &limits(FAR, FAR)),
            ),
            (
                "a rewind to what was never sent",
                frame(REWIND, &limits(FAR, FAR)),
            ),
            ("an end behind a gap", frame(FIN, &FAR.to_be_bytes())),
            ("an end of everything", frame(DONE, &[])),
            ("an opening in a session", self.open(service)),
            ("an unknown frame", frame(40, &[7; 10])),
            ("data without a byte", data(0, &[])),
            ("an opening that is no message", frame(OPEN, &[7; 10])),
        ] {
            let (mut stream, _) = self.session(service).await?;
            write(&mut stream, &bytes).await?;
            answers.insert(name, answer(&mut stream).await?);
        }
        Ok(answers)
    }

    /// Headers of any type and length, with bodies that mean nothing, before an opening and behind it. Some never end.
    async fn breaks_lengths(&mut self, service: &str) -> Result<()> {
        let mut silent = VecDeque::new();
        for round in 0..128_u8 {
            let kind = round % 20;
            if kind == HELLO {
                // Some random ones are messages: from then on this would be another process.
                continue;
            }
            let open = match round % 4 {
                0 | 1 => Vec::new(),
                _ => self.open(service),
            };
            let length =
                [0xff_ff_ff, fastrand::u32(..2_000), 70_000, 8][usize::from(round / 4 % 4)];
            let [_, length @ ..] = length.to_be_bytes();
            let body: Vec<u8> = (0..fastrand::usize(..4_000))
                .map(|_| fastrand::u8(..))
                .collect();
            let bytes = [&open[..], &[kind], &length, &body].concat();
            let mut stream = self.first(&bytes).await?;
            if silent.len() > SILENT {
                silent.pop_front();
            }
            match round % 2 {
                0 => silent.push_back(stream),
                _ => {
                    // It may have ended by itself.
                    let _ended = stream.close().await;
                }
            }
        }
        Ok(())
    }

    /// So many openings as fast as they can be. How many were accepted, refused, and not answered.
    async fn floods(&mut self, service: &str, times: u32) -> [u32; 4] {
        let (mut counts, mut held) = ([0; 4], Vec::new());
        for _ in 0..times {
            let open = self.open(service);
            let opened = self.first(&open).await;
            held.extend(opened.ok());
            if held.len() < 100 {
                continue;
            }
            for mut stream in held.drain(..) {
                let kind = timeout(PATIENCE, read(&mut stream)).await;
                match kind.map(|read| read.map(|(kind, _)| kind)) {
                    Ok(Ok(ACCEPT)) => counts[0] += 1,
                    Ok(Ok(REFUSE)) => counts[1] += 1,
                    Ok(_) => counts[3] += 1,
                    Err(_) => counts[2] += 1,
                }
            }
        }
        counts
    }
}

/// Field 1: the id of a session.
fn id(session: u64) -> Vec<u8> {
    [&[0x0a, 16][..], &[0; 8], &session.to_be_bytes()].concat()
}

fn resume(session: u64, instance: u64) -> Vec<u8> {
    let progress = [&[0x09][..], &instance.to_le_bytes(), &[0x30, 0]].concat();
    let body = [
        &id(session)[..],
        &[0x10, 7, 0x1a],
        &varint(progress.len()),
        &progress,
    ];
    frame(RESUME, &body.concat())
}

fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, &[&offset.to_be_bytes()[..], bytes].concat())
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, _, _, _, _, length @ ..] = (body.len() as u64).to_be_bytes();
    [&[kind][..], &length, body].concat()
}

async fn read(stream: &mut Stream) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    let [high, middle, low] = length.map(usize::from);
    let mut body = vec![0; high << 16 | middle << 8 | low];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// What the peer sends next: the reason of a reset or a refusal by its number, data, or the end.
async fn answer(stream: &mut Stream) -> Result<Value> {
    loop {
        let read = timeout(PATIENCE, read(stream)).await.context("no answer")?;
        return Ok(match read {
            Ok((RESET, body)) => json!({"reset": body.last()}),
            Ok((REFUSE, body)) => json!({"refused": body.last()}),
            Ok((DATA, body)) => json!({"data": body.len() - 8}),
            // A confirmation comes with it.
            Ok((ACK, _)) => continue,
            Ok((kind, _)) => json!({"frame": kind}),
            Err(_) => json!("ended"),
        });
    }
}
