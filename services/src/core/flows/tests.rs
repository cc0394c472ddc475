#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what does not fit is a failed test"
)]

mod bounds;
mod moves;

use super::*;
use crate::wire::{Accept, Open, Resume};

const SECOND: Duration = Duration::from_secs(1);

fn client(port: u16) -> ClientId {
    ClientId {
        forward: ForwardId(1),
        client: ([127, 0, 0, 1], port).into(),
        listener: ([127, 0, 0, 1], 53).into(),
    }
}

/// A caller and a service, over streams and QUIC datagrams that arrive at once.
struct Pair {
    now: Instant,
    peers: [PeerId; 2],
    flows: [Flows; 2],
    /// The streams that are open: whose flow.
    streams: BTreeMap<u64, [Option<FlowKey>; 2]>,
    next: u64,
    /// Whether streams can be opened.
    path: bool,
    /// How many resumes come too soon.
    later: usize,
    delivered: [Vec<(FlowKey, Bytes)>; 2],
    carried: [Vec<Option<Duration>>; 2],
    ended: [Vec<(FlowKey, End)>; 2],
    quic: u32,
}

impl Pair {
    fn new(settings: &Settings) -> Self {
        let flows = [1, 2].map(|instance| Flows::new(instance, settings.clone()));
        Self {
            now: Instant::now(),
            peers: [PeerId::random(), PeerId::random()],
            flows,
            streams: BTreeMap::new(),
            next: 0,
            path: true,
            later: 0,
            delivered: Default::default(),
            carried: Default::default(),
            ended: Default::default(),
            quic: 0,
        }
    }

    fn client(&mut self, port: u16, payload: &[u8]) {
        self.client_to(&[self.peers[1]], port, payload);
    }

    fn client_to(&mut self, peers: &[PeerId], port: u16, payload: &[u8]) {
        let from = FromClient {
            id: client(port),
            to: peers
                .iter()
                .map(|id| ("dns".parse().unwrap(), *id))
                .collect(),
            session: SessionId(u128::from(port).to_be_bytes()),
            payload: payload.to_vec().into(),
        };
        self.flows[0].handle_client(from, self.now);
    }

    fn path(&mut self, size: Option<usize>) {
        for side in 0..2 {
            self.flows[side].handle_path(self.peers[1 - side], size);
        }
    }

    fn run(&mut self) {
        loop {
            let actions = [0, 1].map(|side| self.act(side));
            let moved = self.pump();
            if actions == [0, 0] && !moved {
                return;
            }
        }
    }

    fn act(&mut self, side: usize) -> usize {
        let mut actions = 0;
        while let Some(action) = self.flows[side].poll_action() {
            actions += 1;
            match action {
                Action::OpenStream(key) if self.path && key.peer == self.peers[1 - side] => {
                    self.next += 1;
                    self.streams.insert(self.next, [Some(key), None]);
                    self.flows[side].handle_stream(key, StreamId(self.next), self.now);
                }
                Action::OpenStream(key) => self.flows[side].handle_stream_failed(key, self.now),
                Action::CloseStream(_, stream, reason) => {
                    if let Some(reason) = reason
                        && let Some([_, _]) = self.streams.get(&stream.0)
                    {
                        let reset = Frame::Reset(crate::wire::Reset { reason });
                        self.frame(stream.0, 1 - side, reset);
                    }
                    self.close(stream.0, 1 - side);
                }
                Action::SendDatagram(peer, datagram) => {
                    assert_eq!(peer, self.peers[1 - side]);
                    self.quic += 1;
                    self.flows[1 - side].handle_datagram(self.peers[side], datagram, self.now);
                }
                Action::Deliver(key, payload) => self.delivered[side].push((key, payload)),
                Action::Opened(key) => assert_eq!(key.role, Role::Forward),
                Action::Carried(_, paused) => self.carried[side].push(paused),
                Action::Closed(key, _, end) => self.ended[side].push((key, end)),
            }
        }
        actions
    }

    /// The stream ends; `side` notices.
    fn close(&mut self, stream: u64, side: usize) {
        let keys = self.streams.remove(&stream);
        if let Some(key) = keys.and_then(|keys| keys[side]) {
            self.flows[side].handle_stream_lost(key, StreamId(stream), self.now);
        }
    }

    fn lose_streams(&mut self) {
        for (stream, keys) in std::mem::take(&mut self.streams) {
            for (flows, key) in self.flows.iter_mut().zip(keys) {
                if let Some(key) = key {
                    flows.handle_stream_lost(key, StreamId(stream), self.now);
                }
            }
        }
    }

    fn pump(&mut self) -> bool {
        let mut moved = false;
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            for side in 0..2 {
                while let Some(key) = self.streams.get(&stream).and_then(|keys| keys[side])
                    && let Some(frame) = self.flows[side].poll_transmit(key, StreamId(stream))
                {
                    moved = true;
                    self.frame(stream, 1 - side, frame);
                }
            }
        }
        moved
    }

    fn frame(&mut self, stream: u64, side: usize, frame: Frame) {
        let (id, now, peer) = (StreamId(stream), self.now, self.peers[1 - side]);
        if let Some(key) = self.streams[&stream][side] {
            return self.flows[side].handle_frame(key, id, frame, now);
        }
        if matches!(frame, Frame::Resume(_)) && self.later > 0 {
            self.later -= 1;
            return self.close(stream, 1 - side);
        }
        let flows = &mut self.flows[side];
        let key = match &frame {
            Frame::Open(open) => flows.handle_open(peer, open, 60 * SECOND, id, now),
            Frame::Resume(resume) => {
                let key = flows.handle_resume(peer, resume, id, now);
                key.ok_or(crate::wire::Refuse {
                    instance: 2,
                    refusal: Refusal::UnknownSession,
                })
            }
            _ => panic!("{frame:?} comes first"),
        };
        match key {
            Ok(key) => self.streams.get_mut(&stream).unwrap()[side] = Some(key),
            Err(refusal) => {
                let refusal = Frame::Refuse(refusal);
                let asked = self.streams[&stream][1 - side].unwrap();
                self.flows[1 - side].handle_frame(asked, id, refusal, now);
            }
        }
    }

    fn payloads(&self, side: usize) -> Vec<&[u8]> {
        self.delivered[side]
            .iter()
            .map(|(_, bytes)| &bytes[..])
            .collect()
    }
}

#[test]
fn datagrams_go_behind_the_open_and_then_as_quic_datagrams_where_they_fit() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"a");
    pair.client(1, b"b");
    pair.run();
    assert_eq!((pair.payloads(1), pair.quic), (vec![&b"a"[..], b"b"], 0));
    pair.client(1, b"c");
    pair.client(1, &[7; 1199]);
    pair.run();
    assert_eq!(pair.quic, 2);
    pair.client(1, &[7; 1200]);
    pair.client(1, &[8; MAX_DATAGRAM]);
    pair.run();
    assert_eq!(
        (pair.quic, pair.delivered[1].len()),
        (2, 6),
        "framed on the stream"
    );
    let key = pair.delivered[1][0].0;
    pair.flows[1].handle_target(key, Bytes::from_static(b"answer"), pair.now);
    pair.run();
    assert_eq!((pair.payloads(0), pair.quic), (vec![&b"answer"[..]], 3));
    let client = pair.flows[0].client(&pair.delivered[0][0].0);
    assert_eq!(client, Some(self::client(1)));
}

#[test]
fn a_path_without_quic_datagrams_frames_all_of_them() {
    let mut pair = Pair::new(&Settings::default());
    for byte in 0..10 {
        pair.client(1, &[byte]);
    }
    pair.run();
    pair.client(1, b"");
    pair.run();
    assert_eq!((pair.delivered[1].len(), pair.quic), (11, 0));
}

#[test]
fn each_client_has_its_flow_and_one_without_datagrams_ends_after_its_idle_time() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"a");
    pair.client(2, b"a");
    pair.run();
    assert_eq!(pair.flows[1].len(), 2);
    pair.now += 40 * SECOND;
    pair.client(2, b"b");
    pair.run();
    pair.now += 20 * SECOND;
    for side in 0..2 {
        assert!(pair.flows[side].poll_timeout().unwrap() <= pair.now);
        pair.flows[side].handle_timeout(pair.now);
        assert!(pair.flows[side].poll_timeout().unwrap() > pair.now);
    }
    pair.run();
    assert_eq!(pair.flows[0].len(), 1);
    assert!(matches!(pair.ended[0][..], [(_, End::Idle)]));
    pair.now += 60 * SECOND;
    pair.flows
        .iter_mut()
        .for_each(|flows| flows.handle_timeout(pair.now));
    pair.run();
    assert!(
        pair.flows
            .iter()
            .all(|flows| flows.is_empty() && flows.held() == 0)
    );
    assert!(
        pair.flows
            .iter()
            .all(|flows| flows.poll_timeout().is_none())
    );
}

#[test]
fn a_flow_that_ends_at_its_service_ends_at_its_forward_and_the_next_datagram_makes_another_one() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"a");
    pair.run();
    // The service waits for a shorter time than the forward.
    pair.flows[1].handle_timeout(pair.now + 60 * SECOND);
    pair.run();
    assert!(pair.flows.iter().all(Flows::is_empty));
    assert!(matches!(pair.ended[0][..], [(_, End::Idle)]));
    pair.client(1, b"b");
    pair.run();
    assert_eq!(pair.payloads(1), [b"a", b"b"]);
}

#[test]
fn a_forward_that_leads_elsewhere_keeps_the_flows_to_where_it_still_leads() {
    let mut pair = Pair::new(&Settings::default());
    let (peer, other) = (pair.peers[1], PeerId::random());
    pair.client(1, b"a");
    pair.run();
    let to = |peers: &[PeerId]| -> Destinations {
        let dns = peers.iter().map(|id| ("dns".parse().unwrap(), *id));
        dns.collect()
    };
    pair.flows[0].handle_redirect(ForwardId(2), &to(&[other]));
    pair.flows[0].handle_redirect(ForwardId(1), &to(&[other, peer]));
    assert_eq!(pair.flows[0].len(), 1);
    pair.flows[0].handle_redirect(ForwardId(1), &to(&[other]));
    pair.run();
    assert!(pair.flows.iter().all(Flows::is_empty));
    assert!(matches!(pair.ended[0][..], [(_, End::Reset)]));
}

#[test]
fn a_refusal_loses_no_datagram_that_the_next_destination_takes() {
    let mut pair = Pair::new(&Settings::default());
    let (peer, unused) = (pair.peers[1], "nosuch".parse().unwrap());
    let from = |payload: &'static [u8]| FromClient {
        id: client(1),
        to: [
            (ServiceName::clone(&unused), peer),
            ("dns".parse().unwrap(), peer),
        ]
        .into(),
        session: SessionId([1; 16]),
        payload: Bytes::from_static(payload),
    };
    let first = pair.flows[0].handle_client(from(b"a"), pair.now).unwrap();
    pair.flows[0].handle_client(from(b"b"), pair.now);
    pair.flows[0].handle_stream(first, StreamId(99), pair.now);
    let open = pair.flows[0].poll_transmit(first, StreamId(99));
    assert!(matches!(open, Some(Frame::Open(_))));
    assert_eq!(
        pair.flows[0].poll_transmit(first, StreamId(99)),
        None,
        "they wait"
    );
    let refuse = crate::wire::Refuse {
        instance: 2,
        refusal: Refusal::Unavailable,
    };
    // The stream of the action that the test has taken over.
    pair.flows[0].poll_action();
    pair.flows[0].handle_frame(first, StreamId(99), Frame::Refuse(refuse), pair.now);
    pair.run();
    assert_eq!(pair.payloads(1), [b"a", b"b"]);
}

#[test]
fn a_refused_flow_ends_with_the_reason_and_so_does_one_whose_peer_breaks_the_protocol() {
    let settings = Settings {
        flows_per_peer: 0,
        ..Settings::default()
    };
    let mut pair = Pair::new(&Settings::default());
    pair.flows[1] = Flows::new(2, settings);
    pair.client(1, b"a");
    pair.run();
    assert!(matches!(
        pair.ended[0][..],
        [(_, End::Refused(Refusal::Busy))]
    ));
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    pair.run();
    let (stream, keys) = pair.streams.first_key_value().unwrap();
    let (stream, key) = (StreamId(*stream), keys[0].unwrap());
    pair.flows[0].handle_frame(key, stream, Frame::Fin { offset: 0 }, pair.now);
    pair.run();
    assert!(matches!(pair.ended[0][..], [(_, End::Violation)]));
}

#[test]
fn a_peer_that_was_restarted_gets_a_new_flow_even_if_datagrams_go_beside_the_streams() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"a");
    pair.run();
    pair.lose_streams();
    pair.flows[1] = Flows::new(3, Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"lost");
    pair.run();
    assert!(matches!(
        pair.ended[0][..],
        [(_, End::Refused(Refusal::UnknownSession))]
    ));
    pair.client(1, b"b");
    pair.run();
    assert_eq!(pair.payloads(1), [b"a", b"b"]);
}

#[test]
fn a_flow_goes_to_the_first_peer_that_takes_it_with_the_datagrams_that_waited() {
    for refuses in [false, true] {
        let mut pair = Pair::new(&Settings::default());
        let (gone, peer) = (PeerId::random(), pair.peers[1]);
        let to = match refuses {
            // It is full, and then it is not.
            true => [peer, peer],
            false => [gone, peer],
        };
        if refuses {
            let settings = Settings {
                flows_per_peer: 0,
                ..Settings::default()
            };
            pair.flows[1] = Flows::new(2, settings);
        }
        pair.client_to(&to, 1, b"a");
        pair.run();
        if refuses {
            assert_eq!(pair.flows[0].len(), 0, "both are the one that refused");
            pair.client_to(&to, 1, b"a");
            assert_eq!(
                pair.flows[0].dropped().refused,
                1,
                "not asked again at once"
            );
            continue;
        }
        assert_eq!(pair.payloads(1), [b"a"]);
        let ended = &pair.ended[0];
        assert!(matches!(ended[..], [(key, End::Unreachable)] if key.peer == gone));
        // Another client does not try the first one at once.
        pair.client_to(&to, 2, b"b");
        assert!(
            matches!(pair.flows[0].poll_action(), Some(Action::OpenStream(key)) if key.peer == peer)
        );
    }
}

#[test]
fn an_answer_that_overtakes_the_acceptance_is_delivered() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"question");
    let (peer, now) = (pair.peers[1], pair.now);
    let answer = datagram::encode(FlowNumber::FIRST, Opener::Receiver, b"answer");
    pair.flows[0].handle_datagram(peer, answer, now);
    let delivered = std::iter::from_fn(|| pair.flows[0].poll_action());
    let delivered: Vec<_> = delivered.collect();
    assert!(
        matches!(&delivered[..], [Action::OpenStream(_), Action::Deliver(_, bytes)] if &bytes[..] == b"answer"),
        "{delivered:?}"
    );
}
