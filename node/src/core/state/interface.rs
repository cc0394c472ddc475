//! What a node's state is given, what it asks for, and what it reports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};
use p2pnode_protocol::{
    Reach,
    hop::{Near, Request},
};
use p2pnode_transports::{Class, FamilyPolicy, PortRange, Sockets};

use crate::{
    config::{RelayAddr, Rotate},
    core::{
        dialer::{CircuitFailure, Fault, Sources},
        event,
        inquiries::Circuit,
        introductions::IntroductionRequest,
        liveness::Ended,
        peers::{PathCause, PathKind},
        port_search::{Ask, Begin, SearchReport},
        tokens::Tokens,
    },
    punch::{FoundPair, Introduced, Observation, Record},
};

/// What a node is configured to do.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The node itself.
    pub(crate) local: PeerId,
    /// Whether that is an identity that ends with the process.
    pub(crate) is_throwaway: bool,
    /// Its relays, in the order of preference.
    pub(crate) relays: Vec<RelayAddr>,
    /// On how many of them it holds a reservation.
    pub(crate) reservations: usize,
    /// The IP families that it uses.
    pub(crate) family: FamilyPolicy,
    /// The source ports that its packets leave from.
    pub(crate) port_range: PortRange,
    /// Whether it punches.
    pub(crate) punches: bool,
    /// Whether it searches for ports where a punch fails.
    pub(crate) searches: bool,
    /// When direct paths move before a mapping dies of age.
    pub(crate) rotate: Rotate,
    /// The relays that it asks for introductions.
    pub(crate) introducers: BTreeSet<PeerId>,
    /// The peers that may connect; `None` lets every peer connect.
    pub(crate) allowed: Option<BTreeSet<PeerId>>,
    /// Where dials look for a peer without any relay.
    pub(crate) sources: Sources,
    /// Its join tokens, if a file of them is configured.
    pub(crate) tokens: Option<Tokens>,
    /// Seed of the jitter.
    pub(crate) seed: u64,
}

/// Names a dial that [`NodeState::handle_dial`](super::NodeState::handle_dial) began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DialId(pub(super) u64);

/// How a listener has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenerEnd {
    /// With the connection that carried it.
    Connection,
    /// By this host's clock, what the relay has granted is over.
    Clock,
    /// For this reason: a refusal of the relay, or an error.
    Failed(String),
}

/// What a dial of the swarm is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The leg of this number to a configured relay.
    Leg(usize),
    /// A leg to a relay that a record names.
    FoundLeg(PeerId),
    /// The peer of a [`Dialer`](crate::core::dialer::Dialer), at its own addresses.
    Direct(PeerId),
    /// The peer of a dialer, at a place that the DNS or a link named.
    Local {
        /// The peer.
        peer: PeerId,
        /// The place.
        host: SocketAddr,
    },
    /// The peer of a dialer, through a relay.
    Circuit {
        /// The peer.
        peer: PeerId,
        /// The relay.
        relay: PeerId,
    },
    /// A peer that is relayed already, over a leg of the family of its far hop.
    SameFamilyCircuit(PeerId),
    /// A peer that was lost, through a relay or at its own addresses.
    Reconnect {
        /// The peer.
        peer: PeerId,
        /// The relay.
        relay: Option<PeerId>,
    },
}

/// Names a question to the directory, or a registration in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueryId(pub(super) u64);

/// What a question to the directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The record of a peer that is dialed.
    Peer(PeerId),
    /// This node's own record of an earlier run, before the next one is registered at this relay.
    OwnRecord {
        /// The relay.
        relay: PeerId,
    },
}

/// What the swarm is to do. Actions are carried out in their order. The docs of each name the `handle_*` that continues it.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Dial the peer at all of these addresses at once, whether it is connected or not. First
    /// [`handle_dialing`](super::NodeState::handle_dialing) with the id of the connection-to-be; then
    /// [`handle_established`](super::NodeState::handle_established) or
    /// [`handle_dial_failed`](super::NodeState::handle_dial_failed).
    Dial {
        /// The peer.
        peer: PeerId,
        /// Its addresses.
        addresses: Vec<Multiaddr>,
        /// For `handle_dialing`.
        purpose: Purpose,
        /// Where names among the addresses may lead; `None` is no limit.
        reach: Option<Reach>,
    },
    /// Close a connection; [`handle_closed`](super::NodeState::handle_closed) follows.
    Close(ConnectionId),
    /// Ask the relay, which is connected at this address, for a reservation: listen on its circuit address. First
    /// [`handle_reserving`](super::NodeState::handle_reserving) with the id of the listener; then
    /// [`handle_reserved`](super::NodeState::handle_reserved) or
    /// [`handle_listener_closed`](super::NodeState::handle_listener_closed).
    Reserve(RelayAddr),
    /// Ask the relay of a circuit this about its other leg, over the connection `via`;
    /// [`handle_hop_reply`](super::NodeState::handle_hop_reply) follows.
    AskHop(Circuit, Request),
    /// Ask a relay to admit this node; [`handle_join_reply`](super::NodeState::handle_join_reply) follows.
    Join(JoinRequest),
    /// Ask a relay on this connection to introduce this node to a peer;
    /// [`handle_introduction_reply`](super::NodeState::handle_introduction_reply) follows unless the connection closes.
    AskIntroduction {
        /// To which peer, by which relay.
        request: IntroductionRequest,
        /// The connection to ask on.
        connection: ConnectionId,
    },
    /// Ask the directory for the record of `peer`. [`handle_record`](super::NodeState::handle_record) follows any number of
    /// times, then [`handle_lookup_ended`](super::NodeState::handle_lookup_ended).
    LookUp {
        /// Names the question.
        query: QueryId,
        /// Whose record.
        peer: PeerId,
    },
    /// Register a record of this node with these addresses at a relay, under the number of
    /// [`next_seq`](super::NodeState::next_seq); [`handle_registered`](super::NodeState::handle_registered) follows.
    Register {
        /// Names the registration.
        query: QueryId,
        /// The relay.
        relay: PeerId,
        /// The addresses. An empty list means that this node has left.
        addrs: Vec<Multiaddr>,
    },
    /// Ping a connection now; [`handle_ping`](super::NodeState::handle_ping) with `asked` follows, unless the connection closes.
    Ping {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// Look for a peer in the DNS and on the links; [`handle_candidates`](super::NodeState::handle_candidates) and
    /// [`handle_search_failed`](super::NodeState::handle_search_failed) any number of times, then
    /// [`handle_search_ended`](super::NodeState::handle_search_ended).
    Search(PeerId),
    /// The last dial of this peer is over: its search reports nothing from now on.
    EndSearch(PeerId),
    /// Only these peers may connect, if not every peer may, and these are named by the configuration.
    SetAccess {
        /// The peers that may connect.
        allowed: Option<BTreeSet<PeerId>>,
        /// Those that the configuration names.
        named: BTreeSet<PeerId>,
    },
    /// Let a peer connect that `access.allow` does not name.
    Allow(PeerId),
    /// Let it connect no longer.
    Disallow(PeerId),
    /// A relay has introduced a peer: pass the introduction to the punch machine. Pass its decision to
    /// [`handle_introduced`](super::NodeState::handle_introduced).
    Punch(Introduced),
    /// Have a relay look at the punch socket, and at the range if that has two mappings;
    /// [`handle_port_sample`](super::NodeState::handle_port_sample) follows.
    SamplePorts(PeerId),
    /// Have a relay look at so many ports that have not been used. They are kept for the search that follows. The same follows.
    SampleNextPorts(PeerId, usize),
    /// Have this relay look at the punch socket again and again, or none;
    /// [`handle_punch_socket_seen`](super::NodeState::handle_punch_socket_seen) follows each time.
    WatchPort(Option<PeerId>),
    /// Ask the relay on this connection to pass an offer of a search on;
    /// [`handle_offer_refused`](super::NodeState::handle_offer_refused) follows if it does not.
    OfferSearch(Ask, ConnectionId),
    /// Search for a pair of ports; [`handle_ports_searched`](super::NodeState::handle_ports_searched) follows.
    SearchPorts(Begin),
    /// End the look at the range, or the search for ports.
    StopPorts,
    /// A search has found a pair of sockets: hand it to the punch machine.
    PunchFound(FoundPair),
    /// A relayed peer is to be direct: hand the wish to the punch machine.
    Want(PeerId),
    /// A relay has observed a mapping of a punch port: hand it to the punch machine.
    Observe(Observation),
    /// What was observed on this connection holds no longer: hand it to the punch machine.
    ForgetObservation(ConnectionId),
    /// A configured relay reports what the ends of a circuit to a peer share: hand it to the punch machine.
    Vouch {
        /// The relay.
        relay: PeerId,
        /// The peer.
        peer: PeerId,
        /// What they share.
        near: Near,
        /// Where the relay sees the peer, of the addresses that the peer lists.
        seen: Vec<IpAddr>,
    },
    /// The sockets of this host at its punch ports, and its networks: hand them to the punch machine.
    SetInterfaces {
        /// The sockets.
        addresses: Vec<Multiaddr>,
        /// The networks.
        networks: Vec<IpNet>,
    },
    /// Where this node is reached because a router maps its punch ports, as a check from outside has proved: hand them to the punch
    /// machine.
    SetMapped(Vec<Multiaddr>),
    /// From now on the connections of a peer have the budget of this class. Every peer begins as a stranger.
    Classify {
        /// The peer.
        peer: PeerId,
        /// Its class.
        class: Class,
    },
    /// Answer neighbours who ask for this node with these addresses.
    Announce(Vec<Multiaddr>),
}

/// What the node reports.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// For stdout of `run`.
    Node(event::Event),
    /// For the reader of a dial. [`event::Event::Result`] is the last of a dial.
    Dial {
        /// Which.
        dial: DialId,
        /// What.
        event: event::Event,
    },
    /// The time of a peer to a direct path counts from now on, if it does not yet.
    Wanted(PeerId),
    /// It counts no longer, if the peer is not connected.
    Unwanted(PeerId),
    /// Something that may have moved the best path of a peer has happened to one of its connections.
    BestPath {
        /// The peer.
        peer: PeerId,
        /// Its best connection now.
        best: Option<(ConnectionId, PathKind)>,
        /// What happened.
        cause: PathCause,
    },
    /// A dial that services asked for has ended without a path.
    NoPath {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// An attempt at a punch has ended.
    Punch(Box<Record>),
    /// A search for ports has ended.
    Searched(SearchReport),
    /// A relay admits this node.
    Admitted(PeerId),
    /// A dial left from outside the port range.
    OutOfRange,
}

/// A connection that is open.
#[derive(Debug, Clone)]
pub(crate) struct Established {
    /// The connection.
    pub(crate) connection: ConnectionId,
    /// The peer at its far end.
    pub(crate) peer: PeerId,
    /// How it came about.
    pub(crate) endpoint: ConnectedPoint,
    /// Its true sockets, if it is direct and they are known.
    pub(crate) sockets: Option<Sockets>,
}

/// A connection that was open.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    /// The connection.
    pub(crate) connection: ConnectionId,
    /// The peer at its far end.
    pub(crate) peer: PeerId,
    /// Which side ended it.
    pub(crate) ended: Ended,
    /// Why, for a person.
    pub(crate) reason: String,
}

/// Why a dial failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DialFailure {
    /// In one line, for a person.
    pub(crate) reason: String,
    /// Who answered in the peer's place, if any node did.
    pub(crate) answered_by: Option<AnsweredBy>,
    /// What it means for the next circuit, if a circuit was dialed.
    pub(crate) circuit: CircuitFailure,
    /// Where the fault lies.
    pub(crate) fault: Fault,
}

/// Who answered a dial in the peer's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    /// Another peer.
    Other(PeerId),
    /// This node itself.
    Local,
}

/// A request to a relay to admit this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRequest {
    /// The relay.
    pub(crate) relay: PeerId,
    /// The connection to ask on.
    pub(crate) connection: ConnectionId,
    /// The token to present, if there is one.
    pub(crate) token: Option<String>,
    /// Whether the relay was asked on this connection before.
    pub(crate) again: bool,
}
