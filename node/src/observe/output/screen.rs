//! A node's state on a screen of `status --watch`.

use std::time::Duration;

use p2pnode_daemon::{
    control::Shown,
    screen::{Cell, PAST_HEAD, Past, Tone, View},
};

use super::{
    columns::size,
    short,
    table::{exposed_line, how, mapping_line, ports, rtt, since, state},
};
use crate::{
    core::{json, peers::PathKind},
    observe::status::{
        ForwardStatus, LostStatus, PathStatus, PeerStatus, RefusedStatus, RelayStatus,
        ServiceStatus, SessionStatus, Status,
    },
};

impl Shown for Status {
    fn text(&self, colour: bool) -> String {
        super::status(self, colour)
    }

    fn view(&self, past: &mut Past) -> View {
        let mut view = View::default();
        view.fact("node", self.peer_id.to_string());
        if let Some(at) = self.key_also_at {
            let text = format!("also used by another host, at {at}");
            view.fact("key", Cell::new(text, Tone::Bad));
        }
        for refusal in &self.turned_away {
            view.fact("away", Cell::new(refusal.to_string(), Tone::Bad));
        }
        view.fact(
            "range",
            format!("{}, punching from {}", self.port_range, ports(self)),
        );
        if !self.listen.is_empty() {
            let listen: Vec<_> = self.listen.iter().map(ToString::to_string).collect();
            view.fact("listen", listen.join(", "));
        }
        for mapping in &self.mappings {
            view.fact("mapped", mapping_line(mapping));
        }
        for exposed in &self.exposed {
            view.fact("exposed", exposed_line(exposed));
        }
        let relays = self.relays.iter().map(|of| relay(of, past));
        view.table(["RELAY", "STATE", "OVER", "RTT", PAST_HEAD], relays);
        let peers = self.peers.iter().map(|of| peer(of, self, past));
        let lost = self.lost.iter().map(|of| missing(of, self));
        let refused = self.refused.iter().map(|of| refusing(of, self));
        let rows: Vec<_> = peers.chain(lost).chain(refused).collect();
        view.table(
            ["PEER", "PATH", "OVER", "RTT", PAST_HEAD, "SINCE", "HOW"],
            rows,
        );
        view.table(
            ["SERVICE", "TARGET", "SESSIONS", "IN", "OUT"],
            self.services.iter().map(service),
        );
        let forwards = self.forwards.iter().map(|of| forward(of, self));
        view.table(["FORWARD", "TO", "PEER", "SESSIONS"], forwards);
        let open = self.sessions.iter().flatten().map(|of| session(of, self));
        view.table(
            ["SESSION", "SERVICE", "PEER", "PATH", "OVER", "IN", "OUT"],
            open,
        );
        view
    }
}

/// The name of a peer, or the first characters of its id.
fn name(peer: &libp2p::PeerId, status: &Status) -> String {
    let text = peer.to_string();
    let known = status.names.iter().find(|(_, id)| **id == text);
    known.map_or_else(|| short(peer), |(name, _)| name.clone())
}

/// A text with ids, with names in their place.
fn named(text: &str, status: &Status) -> String {
    let names = status.names.iter();
    names.fold(text.to_owned(), |text, (name, id)| text.replace(id, name))
}

fn kind(kind: PathKind) -> Cell {
    let tone = match kind {
        PathKind::Direct => Tone::Good,
        PathKind::Relayed => Tone::Fair,
    };
    Cell::new(kind.to_string(), tone)
}

/// The transport and family of each hop. `why PEER` has the sockets.
fn over(path: &PathStatus) -> String {
    let hops = path.path.hops.iter();
    let hops: Vec<_> = hops
        .map(|hop| match (hop.transport, hop.family) {
            (Some(transport), Some(family)) => format!("{transport}/{family}"),
            _ => "unknown".to_owned(),
        })
        .collect();
    hops.join(" | ")
}

fn bars(of: &str, path: Option<&PathStatus>, past: &mut Past) -> String {
    past.spark(of, path.and_then(|path| path.rtt).map(json::to_millis))
}

fn relay(relay: &RelayStatus, past: &mut Past) -> [Cell; 5] {
    let path = relay.paths.first();
    let tone = match (relay.refused.is_some(), relay.reserved, relay.connected) {
        (false, true, _) => Tone::Good,
        (false, false, true) => Tone::Fair,
        _ => Tone::Bad,
    };
    let why = [&relay.refused, &relay.reason, &relay.unreserved];
    let why = why.into_iter().flatten().next().cloned();
    let id = relay.relay.to_string();
    [
        relay
            .name
            .clone()
            .unwrap_or_else(|| short(&relay.relay))
            .into(),
        Cell::new(state(relay), tone),
        why.or(path.map(over)).unwrap_or_default().into(),
        path.map(rtt).unwrap_or_default().into(),
        bars(&id, path, past).into(),
    ]
}

fn peer(peer: &PeerStatus, status: &Status, past: &mut Past) -> [Cell; 7] {
    let id = peer.peer.to_string();
    [
        peer.name
            .clone()
            .unwrap_or_else(|| name(&peer.peer, status))
            .into(),
        kind(peer.path.path.kind),
        over(&peer.path).into(),
        rtt(&peer.path).into(),
        bars(&id, Some(&peer.path), past).into(),
        since(peer.path.since).into(),
        how(peer).into(),
    ]
}

fn missing(of: &LostStatus, status: &Status) -> [Cell; 7] {
    without_path(&of.peer, "lost", of.since, of.fate(), status)
}

fn refusing(of: &RefusedStatus, status: &Status) -> [Cell; 7] {
    without_path(&of.peer, "refuses", of.since, of.reason.clone(), status)
}

fn without_path(
    peer: &libp2p::PeerId,
    state: &str,
    since_when: Duration,
    why: String,
    status: &Status,
) -> [Cell; 7] {
    let [none, empty, blank] = ["", "", ""].map(Cell::from);
    [
        name(peer, status).into(),
        Cell::new(state, Tone::Bad),
        none,
        empty,
        blank,
        since(since_when).into(),
        why.into(),
    ]
}

fn service(service: &ServiceStatus) -> [Cell; 5] {
    [
        service.name.clone().into(),
        service.target.clone().into(),
        service.sessions.to_string().into(),
        size(service.bytes_in).into(),
        size(service.bytes_out).into(),
    ]
}

fn forward(forward: &ForwardStatus, status: &Status) -> [Cell; 4] {
    let peer = forward.peer.as_ref().map(|peer| name(peer, status));
    [
        forward.listen.clone().into(),
        named(&forward.to, status).into(),
        peer.map_or_else(|| Cell::new("none has a path", Tone::Bad), Cell::from),
        forward.sessions.to_string().into(),
    ]
}

fn session(session: &SessionStatus, status: &Status) -> [Cell; 7] {
    let waits = || Cell::new("waits", Tone::Bad);
    let transport = session.transport.map(|transport| transport.to_string());
    [
        session.session.clone().into(),
        session.service.clone().into(),
        name(&session.peer, status).into(),
        session.kind.map_or_else(waits, kind),
        transport.unwrap_or_default().into(),
        size(session.bytes_in).into(),
        size(session.bytes_out).into(),
    ]
}
