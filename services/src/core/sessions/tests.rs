#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use p2pnode_protocol::bucket::Measure;

use super::*;
use crate::{
    config::{Allow, Identity, Service, Source},
    simulation::access,
    wire::{Accept, datagram::FlowNumber},
};

struct Bench {
    table: Sessions,
    friend: PeerId,
    now: Instant,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let friend = PeerId::random();
        let memory = Memory::new(1 << 20);
        Self {
            table: Sessions::new(7, memory, access(&[friend]), limits),
            friend,
            now: Instant::now(),
        }
    }

    fn open(&mut self, peer: PeerId, session: u8, instance: u64) -> Verdict {
        self.open_at("db", peer, session, instance)
    }

    fn open_at(&mut self, service: &str, peer: PeerId, session: u8, instance: u64) -> Verdict {
        let open = Frame::Open(Open {
            session: SessionId([session; 16]),
            instance,
            attempt: 1,
            service: service.parse().unwrap(),
            carries: Carries::Bytes,
            limit: 0,
            client: None,
            linger: None,
        });
        self.table.handle_first_frame(peer, &open, self.now)
    }

    fn raw(&mut self, peer: PeerId, service: &str, session: u8) -> bool {
        let (key, service) = (raw_key(peer, session), service.parse().unwrap());
        self.table.handle_raw(key, &service, self.now)
    }

    fn over_raw(&mut self, peer: PeerId, session: u8) {
        self.table.handle_over(raw_key(peer, session));
    }

    fn resume(&mut self, peer: PeerId, session: u8, instance: u64) -> Verdict {
        let resume = Frame::Resume(Resume {
            session: SessionId([session; 16]),
            instance,
            attempt: 2,
            progress: Accept {
                instance,
                ..Accept::default()
            },
        });
        self.table.handle_first_frame(peer, &resume, self.now)
    }
}

fn raw_key(peer: PeerId, session: u8) -> Key {
    Key {
        peer,
        role: Role::Service,
        session: SessionId([session; 16]),
    }
}

/// A service for every peer, and one that names `friend`.
fn any_and(friend: PeerId) -> Access {
    let any = Service {
        name: "dns".parse().unwrap(),
        allow: Allow::Any,
        target: "tcp://127.0.0.1:1".parse().unwrap(),
        identity: Identity::None,
        protocol: None,
        source: Source::Any,
        udp_idle: Duration::ZERO,
    };
    let named = Service {
        name: "db".parse().unwrap(),
        allow: Allow::Peers([friend].into()),
        ..any.clone()
    };
    Access::new(&[any, named])
}

fn refusal(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Answer(Frame::Refuse(Refuse {
            instance: 7,
            refusal,
        })) => refusal,
        Verdict::New(..) | Verdict::Attach(_) | Verdict::Answer(_) | Verdict::Later(_) => {
            panic!("no refusal")
        }
    }
}

#[test]
fn a_session_belongs_to_the_peer_that_opened_it() {
    let mut bench = Bench::new(Limits::default());
    let (friend, stranger) = (bench.friend, PeerId::random());
    let verdict = bench.open(friend, 1, 5);
    assert!(
        matches!(verdict, Verdict::New(Key { peer, role: Role::Service, .. }, _) if peer == friend)
    );
    assert!(matches!(bench.resume(friend, 1, 5), Verdict::Attach(_)));
    assert!(
        matches!(bench.open(friend, 1, 5), Verdict::Attach(_)),
        "repeated"
    );
    assert_eq!(
        refusal(bench.resume(stranger, 1, 5)),
        Refusal::UnknownSession
    );
    assert_eq!(refusal(bench.resume(friend, 2, 5)), Refusal::UnknownSession);
    assert_eq!(refusal(bench.open(stranger, 1, 5)), Refusal::Unavailable);
    assert_eq!(
        (bench.table.len(), bench.table.accepted_from(&friend)),
        (1, 1)
    );
    assert_eq!(bench.table.peers.len(), 1, "a stranger costs no memory");
}

#[test]
fn an_id_of_this_side_is_not_one_of_the_peer() {
    let mut bench = Bench::new(Limits::default());
    let key = Key {
        peer: bench.friend,
        role: Role::Forward,
        session: SessionId([1; 16]),
    };
    let share = bench
        .table
        .handle_open(key, "db".parse().unwrap(), Carries::Bytes, bench.now);
    assert!(share.is_some());
    let friend = bench.friend;
    assert_eq!(refusal(bench.resume(friend, 1, 5)), Refusal::UnknownSession);
    assert_eq!(bench.table.accepted_from(&friend), 0);
}

#[test]
fn another_process_of_the_peer_ends_the_sessions_of_the_earlier_one_and_that_one_stays_out() {
    let mut bench = Bench::new(Limits::default());
    let friend = bench.friend;
    bench.open(friend, 1, 5);
    assert_eq!(refusal(bench.resume(friend, 1, 6)), Refusal::UnknownSession);
    let ended: Vec<_> = std::iter::from_fn(|| bench.table.poll_action()).collect();
    let [Action::PeerIs(key, 6)] = ended[..] else {
        panic!("{ended:?}")
    };
    bench.table.handle_over(key);
    assert!(matches!(bench.open(friend, 2, 6), Verdict::New(..)));
    assert_eq!(refusal(bench.open(friend, 3, 5)), Refusal::UnknownSession);
    assert_eq!(bench.table.poll_action(), None);
    bench.table.handle_hello(
        friend,
        Hello {
            instance: 8,
            lists: false,
        },
    );
    assert!(matches!(
        bench.table.poll_action(),
        Some(Action::PeerIs(_, 8))
    ));
}

#[test]
fn a_process_answers_who_it_is() {
    let mut bench = Bench::new(Limits::default());
    let hello = Frame::Hello(Hello {
        instance: 3,
        lists: false,
    });
    let verdict = bench
        .table
        .handle_first_frame(PeerId::random(), &hello, bench.now);
    assert!(matches!(
        verdict,
        Verdict::Answer(Frame::Hello(Hello {
            instance: 7,
            lists: false
        }))
    ));
    assert!(bench.table.peers.is_empty(), "a stranger costs no memory");
    let verdict = bench
        .table
        .handle_first_frame(PeerId::random(), &Frame::Done, bench.now);
    assert_eq!(refusal(verdict), Refusal::Malformed);
}

#[test]
fn sessions_and_opens_of_a_peer_are_bounded() {
    let mut bench = Bench::new(Limits {
        sessions: 2,
        ..Limits::default()
    });
    let friend = bench.friend;
    assert!(matches!(bench.open(friend, 1, 5), Verdict::New(..)));
    assert!(matches!(bench.open(friend, 2, 5), Verdict::New(..)));
    assert_eq!(refusal(bench.open(friend, 3, 5)), Refusal::Busy);
    let opens = Measure {
        burst: 3,
        period: Duration::from_secs(1),
    };
    let mut bench = Bench::new(Limits {
        opens,
        ..Limits::default()
    });
    let friend = bench.friend;
    for session in 1..=3 {
        assert!(matches!(bench.open(friend, session, 5), Verdict::New(..)));
    }
    assert_eq!(refusal(bench.open(friend, 4, 5)), Refusal::Busy);
    bench.now += Duration::from_secs(1);
    assert!(matches!(bench.open(friend, 4, 5), Verdict::New(..)));
}

#[test]
fn sessions_beyond_the_memory_are_refused() {
    let mut bench = Bench::new(Limits::default());
    let friend = bench.friend;
    let mut shares = Vec::new();
    // 1 MiB has room for 128 floors.
    for session in 0..128 {
        let Verdict::New(_, share) = bench.open(friend, session, 5) else {
            panic!("{session}")
        };
        shares.push(share);
    }
    assert_eq!(refusal(bench.open(friend, 200, 5)), Refusal::Busy);
    shares.pop();
    assert!(matches!(bench.open(friend, 201, 5), Verdict::New(..)));
}

#[test]
fn strangers_leave_half_of_the_memory_to_others_however_many_ids_they_have() {
    let mut bench = Bench::new(Limits::default());
    let friend = bench.friend;
    bench.table.handle_access(any_and(friend));
    let mut shares = Vec::new();
    for session in 0..64 {
        let Verdict::New(_, share) = bench.open_at("dns", PeerId::random(), session, 1) else {
            panic!("{session}");
        };
        shares.push(share);
    }
    let stranger = PeerId::random();
    let refused = bench.open_at("dns", stranger, 64, 1);
    assert_eq!(refusal(refused), Refusal::Busy);
    assert!(matches!(
        bench.open_at("dns", friend, 1, 1),
        Verdict::New(..)
    ));
    shares.pop();
    let admitted = bench.open_at("dns", stranger, 64, 1);
    assert!(matches!(admitted, Verdict::New(..)));
}

#[test]
fn a_peer_that_is_removed_loses_its_sessions_at_once() {
    let mut bench = Bench::new(Limits::default());
    let friend = bench.friend;
    bench.open(friend, 1, 5);
    bench.table.handle_access(access(&[friend]));
    assert_eq!(
        bench.table.poll_action(),
        None,
        "what did not change keeps its sessions"
    );
    bench.table.handle_access(access(&[]));
    let reset = bench.table.poll_action();
    assert!(matches!(
        reset,
        Some(Action::Reset(_, ResetReason::NotAllowed))
    ));
    bench.table.handle_access(Access::default());
    let reset = bench.table.poll_action();
    assert!(matches!(
        reset,
        Some(Action::Reset(_, ResetReason::ServiceGone))
    ));
    bench.table.handle_service_changed(&"db".parse().unwrap());
    let reset = bench.table.poll_action();
    assert!(matches!(
        reset,
        Some(Action::Reset(_, ResetReason::ServiceGone))
    ));
}

#[test]
fn a_flow_at_a_service_of_bytes_is_refused_as_that_only_to_a_peer_that_may_use_it() {
    let mut bench = Bench::new(Limits::default());
    let open = Frame::Open(Open {
        session: SessionId([1; 16]),
        instance: 1,
        attempt: 1,
        service: "db".parse().unwrap(),
        carries: Carries::Datagrams(FlowNumber::FIRST),
        limit: 0,
        client: None,
        linger: None,
    });
    for (peer, refused) in [
        (bench.friend, Refusal::TakesStreams),
        (PeerId::random(), Refusal::Unavailable),
    ] {
        let verdict = bench.table.handle_first_frame(peer, &open, bench.now);
        assert_eq!(refusal(verdict), refused);
    }
}

#[test]
fn raw_streams_are_bounded_in_number_and_in_opens_a_second_and_resumes_in_the_latter() {
    let mut bench = Bench::new(Limits {
        raw: 3,
        opens: Measure {
            burst: 5,
            period: Duration::from_secs(1),
        },
        ..Limits::default()
    });
    let friend = bench.friend;
    assert!(matches!(bench.open(friend, 1, 1), Verdict::New(..)));
    let admitted = [2, 3, 4].map(|number| bench.raw(friend, "db", number));
    assert_eq!(admitted, [true, true, false], "as many as may be");
    bench.over_raw(friend, 2);
    assert!(bench.raw(friend, "db", 4));
    assert!(matches!(bench.resume(friend, 1, 1), Verdict::Attach(_)));
    bench.over_raw(friend, 3);
    assert!(!bench.raw(friend, "db", 5), "too many lately");
    // A session is not lost: its opener asks again.
    assert!(matches!(bench.resume(friend, 1, 1), Verdict::Later(_)));
    assert!(matches!(bench.open(friend, 1, 1), Verdict::Later(_)));
    assert_eq!(refusal(bench.open(friend, 2, 1)), Refusal::Busy);
    bench.now += Duration::from_secs(1);
    assert!(matches!(bench.resume(friend, 1, 1), Verdict::Attach(_)));
}

#[test]
fn a_peer_that_no_service_names_is_refused_before_its_connection_has_no_stream_left() {
    let limits = Limits {
        unnamed: 3,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    let (friend, stranger) = (bench.friend, PeerId::random());
    bench.table.handle_access(any_and(friend));
    // Whatever they are, and of which services.
    let mut fill = |peer| {
        let raw = [("dns", 1), ("db", 2), ("dns", 3)];
        let raw = raw.map(|(service, number)| bench.raw(peer, service, number));
        let opened = [11, 12]
            .map(|session| matches!(bench.open_at("dns", peer, session, 1), Verdict::New(..)));
        bench.over_raw(peer, 2);
        (
            raw,
            opened,
            matches!(bench.open_at("dns", peer, 13, 1), Verdict::New(..)),
            bench.raw(peer, "db", 4),
        )
    };
    assert_eq!(fill(friend), ([true; 3], [true; 2], true, true));
    assert_eq!(fill(stranger), ([true; 3], [false; 2], true, false));
    let crowded = [friend, stranger].map(|peer| bench.table.is_crowded(&peer));
    assert_eq!(crowded, [false, true]);
}
