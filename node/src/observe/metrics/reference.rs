//! The reference of the metrics: a registry in which each label has each of its values.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_daemon::reference;
use p2pnode_protocol::mapping::Protocol;
use p2pnode_services::wire::socks::Refused;
use p2pnode_transports::{Family as Ip, FamilyPolicy, Transport};
use prometheus_client::encoding::text;

use super::{labels::DialOutcome, pool::tests::Counts, *};
use crate::{
    core::{
        mappings::{Inside, Method},
        netcheck::{Allocation, Check, Filtering, Id, Kind, Mapping, Nat, Status},
        peers::{How, PathKind},
        port_search::SearchOutcome,
    },
    punch::{CandidateOutcome, Reason, Role, record::Outcome},
};

const TRANSPORTS: [Option<Transport>; 3] = [Some(Transport::Quic), Some(Transport::Tcp), None];
const FAMILIES: [Option<Ip>; 3] = [Some(Ip::Ip4), Some(Ip::Ip6), None];
const KINDS: [Option<PathKind>; 3] = [Some(PathKind::Direct), Some(PathKind::Relayed), None];

fn punches(metrics: &Metrics) {
    let direct = Outcome::Direct {
        connection: ConnectionId::new_unchecked(2),
        dialed: true,
    };
    let failed = Reason::ALL.map(Outcome::Failed);
    let outcomes = failed.into_iter().chain([direct]);
    for (place, outcome) in outcomes.enumerate() {
        let via = TRANSPORTS[place % 3].zip(FAMILIES[place / 3 % 3]);
        let role = [Role::Initiator, Role::Responder][place % 2];
        metrics.punch(&Record {
            peer: PeerId::random(),
            circuit: None,
            role,
            attempt: u32::try_from(place % 3).unwrap() + 1,
            locals: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            skipped: 0,
            rtt: None,
            took: std::time::Duration::ZERO,
            outcome,
            via,
            found: false,
        });
    }
}

fn dials(metrics: &Metrics) {
    let ends = [
        CandidateOutcome::Refused,
        CandidateOutcome::Timeout,
        CandidateOutcome::Unreachable,
        CandidateOutcome::BothDialed,
        CandidateOutcome::Failed,
    ];
    let outcomes = [
        DialOutcome::Connected,
        DialOutcome::WrongPeer,
        DialOutcome::Denied,
        DialOutcome::Aborted,
        DialOutcome::Unsupported,
        DialOutcome::Exhausted,
        DialOutcome::NoReservation,
        DialOutcome::Refused,
    ];
    let all = outcomes.into_iter().chain(ends.map(DialOutcome::Socket));
    for (place, outcome) in all.enumerate() {
        let labels = DialLabels::socket(TRANSPORTS[place % 3], FAMILIES[place / 3 % 3], outcome);
        drop(metrics.dials.get_or_create(&labels));
        drop(metrics.dials.get_or_create(&DialLabels::circuit(outcome)));
    }
}

fn paths(metrics: &Metrics) {
    let causes = [
        PathCause::Made(How::Dialed),
        PathCause::Made(How::Accepted),
        PathCause::Made(How::Punched),
        PathCause::Lost,
        PathCause::Closed,
        PathCause::ClosedByPeer,
        PathCause::Missed,
        PathCause::Ranked,
    ];
    for (place, cause) in causes.into_iter().enumerate() {
        let labels = ChangeLabels::new(KINDS[place % 3], KINDS[(place + 1) % 3], cause);
        drop(metrics.path_changes.get_or_create(&labels));
    }
    let relay = crate::config::RelayAddr {
        addr: "/ip4/192.0.2.1/tcp/443".parse().unwrap(),
        peer: PeerId::random(),
    };
    let now = std::time::Instant::now();
    metrics.set(
        &PeerTable::new(FamilyPolicy::Auto),
        &RelayKeeper::new(&[relay], 1, FamilyPolicy::Auto, now),
        &claims(),
        |_| false,
    );
}

/// A mapping of each protocol and method, verified and not.
fn claims() -> Vec<Claim> {
    let socket = "192.0.2.1:40017".parse().unwrap();
    let verified = [None, Some(socket)];
    let protocols = [Protocol::Udp, Protocol::Tcp];
    let all = Method::ALL.into_iter().flat_map(|method| {
        let of = move |protocol| verified.map(|verified| (protocol, method, verified));
        protocols.into_iter().flat_map(of)
    });
    all.map(|(protocol, method, verified)| Claim {
        inside: Inside {
            protocol,
            port: 40017,
        },
        method,
        external: socket,
        verified,
    })
    .collect()
}

fn searches(metrics: &Metrics) {
    let outcomes = [
        SearchOutcome::Found,
        SearchOutcome::NotFound,
        SearchOutcome::Needless,
        SearchOutcome::Unanswered,
        SearchOutcome::NoSample,
        SearchOutcome::NotTried,
    ];
    for outcome in outcomes {
        let outcome = Label::Is(outcome);
        drop(metrics.searches.get_or_create(&SearchLabels { outcome }));
    }
    for what in ["sent", "received", "ignored"] {
        drop(metrics.probes.get_or_create(&ProbeLabels { what }));
    }
}

fn sessions(metrics: &Metrics) {
    for role in ["forward", "service"] {
        for outcome in ["opened", "refused", "failed"] {
            metrics.sessions.opening(role, "db", outcome);
        }
        drop(metrics.sessions.bytes(role, "db"));
        for kind in KINDS {
            metrics.sessions.on(role, "db", kind);
        }
    }
    for (place, outcome) in ["moved", "resumed", "lost"].into_iter().enumerate() {
        metrics
            .sessions
            .moved(KINDS[place], KINDS[(place + 1) % 3], outcome, None);
    }
    metrics.sessions.moved(None, None, "lost", None);
    for kind in [
        "offset",
        "confirmation",
        "order",
        "frame",
        "resume",
        "silent",
        "header",
    ] {
        metrics.sessions.violation(kind);
    }
    for refused in Refused::ALL {
        metrics.sessions.socks_refused(refused);
    }
}

fn nat(metrics: &Metrics) {
    let mappings = [
        Mapping::None,
        Mapping::Eim,
        Mapping::Adm,
        Mapping::Apdm,
        Mapping::Unknown,
    ];
    let filterings = [
        Filtering::None,
        Filtering::Eif,
        Filtering::Adf,
        Filtering::Apdf,
        Filtering::Unknown,
    ];
    for (place, (mapping, filtering)) in mappings.into_iter().zip(filterings).enumerate() {
        let kind = crate::core::netcheck::AllocationKind::Unknown;
        let (from, to, step) = (None, None, None);
        let check = Check {
            id: Id::Nat,
            status: Status::Ok,
            transport: TRANSPORTS[place % 2],
            family: FAMILIES[place % 2],
            nat: Some(Nat {
                mapping,
                filtering,
                preserved: None,
                allocation: Allocation {
                    kind,
                    from,
                    to,
                    step,
                },
                kind: Kind::Unknown,
            }),
            text: String::new(),
            hidden_from: None,
            remedy: None,
        };
        let labels = NatLabels::of(&check).unwrap();
        metrics.nat.get_or_create(&labels).set(1);
    }
}

#[test]
fn the_reference_of_metrics_is_current() {
    let (mut registry, metrics) = (Registry::default(), Metrics::default());
    metrics.register(&mut registry);
    registry.register_collector(Box::new(Counts));
    punches(&metrics);
    dials(&metrics);
    paths(&metrics);
    searches(&metrics);
    sessions(&metrics);
    nat(&metrics);
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    let values = [
        ("service", "its name, or `other` beyond 256 names"),
        ("relay", "its place in `relays`, from 0"),
    ];
    let page = reference::metrics("p2pnode", &text, &values);
    let stale = reference::stale("docs/reference/metrics-p2pnode.md", &page);
    assert!(matches!(stale, Ok(None)), "{stale:?}");
}
