//! A peer that breaks the protocol of sessions, at a node that serves others in the meantime.

use std::time::Instant;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{PeerId, Stream, swarm::ConnectionId};
use p2pnode_services::{
    core::sessions::Role,
    wire::{Accept, Carries, Frame, HEADER, Open, Refusal, ResetReason, Resume, SessionId},
};

use super::*;
use crate::services::{Hub, OpenError, carrier::Carrier};

/// The node `peer` as the hostile `hub` reaches it.
struct Hostile {
    hub: Hub,
    peer: PeerId,
    sessions: u128,
}

impl Hostile {
    async fn stream(&self) -> (ConnectionId, Stream) {
        loop {
            let changed = self.hub.paths_changed();
            match self.hub.open_stream(&self.peer).await {
                Ok(opened) => return opened,
                Err(OpenError::NoPath) => changed.await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn carrier(&self) -> Carrier {
        let (connection, stream) = self.stream().await;
        Carrier::new(self.hub.stream_id(), connection, stream)
    }

    /// A session that the peer has accepted.
    async fn session(&mut self) -> (Carrier, SessionId) {
        let mut carrier = self.carrier().await;
        let open = self.open("it");
        let id = open.session;
        carrier.send([Frame::Open(open)]).await.unwrap();
        let answer = carrier.frame().await.unwrap();
        assert!(matches!(answer, Some(Frame::Accept(_))), "{answer:?}");
        (carrier, id)
    }

    fn open(&mut self, service: &str) -> Open {
        self.sessions += 1;
        Open {
            session: SessionId(self.sessions.to_be_bytes()),
            instance: self.hub.instance(),
            attempt: 1,
            service: service.parse().unwrap(),
            carries: Carries::Bytes,
            limit: 1 << 18,
            client: None,
            linger: None,
        }
    }

    /// The refusal that answers `first`.
    async fn refused(&self, first: Frame) -> Refusal {
        let mut carrier = self.carrier().await;
        carrier.send([first.clone()]).await.unwrap();
        match carrier.frame().await.unwrap() {
            Some(Frame::Refuse(refuse)) => refuse.refusal,
            other => panic!("{first:?}: {other:?}"),
        }
    }
}

/// An honest client of the third node, whose session stays.
struct Honest(TcpStream);

impl Honest {
    async fn is_served(&mut self) {
        let begin = Instant::now();
        self.0.write_all(b"honest").await.unwrap();
        let mut answer = [0; 6];
        self.0.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"honest", "after {:?}", begin.elapsed());
    }
}

async fn echo() -> String {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", target.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = target.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    at
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_reset_refused_and_bounded_while_others_are_served() {
    let (a, b, a_id, b_id) = pair(45_600).await;
    let at = echo().await;
    let (_offering, _forwarding, listen) = served((&a, &b, a_id), &at, Source::Any).await;
    let mut honest = Honest(TcpStream::connect(listen).await.unwrap());
    honest.is_served().await;
    let c_config = b_config(&a, a_id, 45_620).await;
    let c = Node::start(&Keypair::generate_ed25519(), &c_config).unwrap();
    let hub = c.handle().hub().clone();
    let _wish = hub.wish(a_id);
    let mut hostile = Hostile {
        hub,
        peer: a_id,
        sessions: 0,
    };
    breaks_frames(&mut hostile, &mut honest).await;
    resumes_of_others(&mut hostile, &a, b_id).await;
    honest.is_served().await;
    let counted = |kind| a.handle().hub().metrics().violations(kind);
    let kinds = ["offset", "confirmation", "order", "resume"];
    // The malformed first frame is out of place as well.
    assert_eq!(kinds.map(counted), [3, 2, 2, 2]);
    breaks_lengths(&hostile, &mut honest).await;
    assert!(counted("frame") > 0);
    floods(&mut hostile, &a, &mut honest).await;
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
}

/// Wrong offsets, confirmations of what was never sent, frames in a wrong place.
async fn breaks_frames(hostile: &mut Hostile, honest: &mut Honest) {
    let data = |offset| Frame::Data {
        offset,
        bytes: vec![7; 10].into(),
    };
    let acknowledges = Frame::Ack {
        delivered: 1 << 40,
        limit: 1 << 50,
    };
    let rewinds = Frame::Rewind {
        from: 1 << 40,
        limit: u64::MAX >> 1,
    };
    let ends = Frame::Fin { offset: 1 << 40 };
    let frames = [
        data(5),
        data(1 << 40),
        acknowledges,
        rewinds,
        ends,
        Frame::Done,
    ];
    for frame in frames {
        let (mut carrier, _) = hostile.session().await;
        carrier.send([frame.clone()]).await.unwrap();
        let answer = carrier.frame().await.unwrap();
        let Some(Frame::Reset(reset)) = answer else {
            panic!("{frame:?}: {answer:?}");
        };
        assert_eq!(reset.reason, ResetReason::Violation, "{frame:?}");
        honest.is_served().await;
    }
}

/// Ids of sessions of somebody else, and of nobody.
async fn resumes_of_others(hostile: &mut Hostile, a: &Node, b: PeerId) {
    let of_b = a
        .handle()
        .hub()
        .state()
        .of_peer(b)
        .find_map(|running| (running.key.role == Role::Service).then_some(running.key.session));
    for session in [of_b.unwrap(), SessionId([9; 16])] {
        let progress = Accept {
            instance: hostile.hub.instance(),
            received: 1 << 40,
            delivered: 1 << 40,
            limit: 1 << 50,
            ..Accept::default()
        };
        let resume = Frame::Resume(Resume {
            session,
            instance: hostile.hub.instance(),
            attempt: u32::MAX,
            progress,
        });
        assert_eq!(hostile.refused(resume).await, Refusal::UnknownSession);
    }
    assert_eq!(hostile.refused(Frame::Done).await, Refusal::Malformed);
    let open = hostile.open("secret");
    assert_eq!(
        hostile.refused(Frame::Open(open)).await,
        Refusal::Unavailable
    );
}

/// Headers of any length, and streams that end or stay within a frame.
async fn breaks_lengths(hostile: &Hostile, honest: &mut Honest) {
    let mut silent = Vec::new();
    for round in 0..64_u8 {
        let (_, mut stream) = hostile.stream().await;
        let header = [round, 0xff, 0xff, 0xff];
        stream
            .write_all(&header[..1 + usize::from(round) % HEADER])
            .await
            .unwrap();
        stream.flush().await.unwrap();
        match round % 2 {
            // What has no first frame is dropped later.
            0 => silent.push(stream),
            _ => {
                stream.close().await.unwrap();
                // It ends, with whatever the peer has to say.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    }
    honest.is_served().await;
}

/// More opens than a peer may have, at once.
async fn floods(hostile: &mut Hostile, a: &Node, honest: &mut Honest) {
    let mut carriers = Vec::new();
    for _ in 0..1_000 {
        let mut carrier = hostile.carrier().await;
        let opens = Frame::Open(hostile.open("it"));
        carrier.send([opens]).await.unwrap();
        carriers.push(carrier);
        if carriers.len() % 250 == 0 {
            honest.is_served().await;
        }
        // A class of peers has so many streams: the earliest go.
        if carriers.len() == 500 {
            carriers.clear();
        }
    }
    // A session of the flood waits for its peer, and no longer than it lingers.
    assert!(a.handle().hub().sessions() <= 2_000);
    honest.is_served().await;
}
