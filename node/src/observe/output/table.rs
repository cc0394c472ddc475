//! A node's state as tables for people.

use std::{fmt::Write as _, time::Duration};

use super::{
    columns::{BOLD, PLAIN, table},
    explain, label, plain,
    served::{served, sessions},
    short,
    text::{in_the_way, search},
};
use crate::{
    core::{
        json,
        peers::{How, PathKind},
    },
    observe::status::{
        ExposeStatus, MappingStatus, PathStatus, PeerStatus, RelayStatus, Status, Why,
    },
};

/// The whole node; in colour for a terminal.
pub(crate) fn status(status: &Status, colour: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "node    {}", status.peer_id);
    if let Some(at) = status.key_also_at {
        let _ = writeln!(text, "key     also used by another host, at {at}");
    }
    let _ = writeln!(
        text,
        "range   {}, punching from {}",
        status.port_range,
        ports(status)
    );
    for refusal in &status.turned_away {
        let _ = writeln!(text, "away    {refusal}");
    }
    for listen in &status.listen {
        let _ = writeln!(text, "listen  {listen}");
    }
    for mapping in &status.mappings {
        let _ = writeln!(text, "mapped  {}", mapping_line(mapping));
    }
    for exposed in &status.exposed {
        let _ = writeln!(text, "exposed {}", exposed_line(exposed));
    }
    for relay in &status.relays {
        let _ = writeln!(text, "relay   {}", relay_line(relay));
    }
    for lost in &status.lost {
        let _ = writeln!(text, "lost    {lost}");
    }
    for refused in &status.refused {
        let _ = writeln!(text, "refuses {refused}");
    }
    text.push('\n');
    let mut rows = vec![["PEER", "PATH", "HOP", "RTT", "SINCE", "HOW"].map(str::to_owned)];
    rows.extend(status.peers.iter().map(peer_row));
    table(&mut text, &rows, colour);
    served(&mut text, status, colour);
    text
}

/// The punch ports of a node.
pub(super) fn ports(status: &Status) -> String {
    let ports = status.punch_ports.iter();
    let ports: Vec<_> = ports
        .map(|((transport, family), port)| format!("{transport}/{family} {port}"))
        .collect();
    match &ports[..] {
        [] => "no port".to_owned(),
        ports => ports.join(", "),
    }
}

/// A port that a router maps.
pub(super) fn mapping_line(mapping: &MappingStatus) -> String {
    let (protocol, method) = (mapping.protocol.name(), mapping.method.as_str());
    let at = match mapping.verified {
        Some(at) => format!("{at}, verified from outside"),
        None => format!(
            "{} as {} says, not verified: not offered",
            mapping.external,
            mapping.method.witness()
        ),
    };
    let name = mapping.name.as_ref().map(|name| format!(" ({name})"));
    let name = name.unwrap_or_default();
    format!("{protocol} {}{name} to {at} ({method})", mapping.port)
}

/// A port that leads to a target.
pub(super) fn exposed_line(exposed: &ExposeStatus) -> String {
    let (name, protocol) = (&exposed.name, exposed.protocol.name());
    let port = exposed.port.map_or_else(
        || "no port of the range is free".to_owned(),
        |port| port.to_string(),
    );
    format!("{name}: {protocol} {port}, to {}", exposed.target)
}

/// Why a peer's path is what it is.
pub(crate) fn why(why: &Why, colour: bool) -> String {
    let mut text = String::new();
    let (bold, end) = if colour { (BOLD, PLAIN) } else { ("", "") };
    let name = why.name.as_ref().map(|name| format!(" ({name})"));
    let _ = writeln!(text, "{bold}{}{}{end}", why.peer, name.unwrap_or_default());
    for (place, candidate) in why.candidates.iter().enumerate() {
        let mark = if place == 0 { ">" } else { " " };
        let _ = writeln!(
            text,
            "{mark} {:8} {}",
            candidate.path.path.kind,
            hops(&candidate.path)
        );
        let score: Vec<String> = candidate
            .score
            .iter()
            .map(|(axis, value)| format!("{axis} {value}"))
            .collect();
        let _ = writeln!(
            text,
            "           {}; {}",
            score.join(", "),
            candidate.path.path.how
        );
    }
    match &why.decided_by {
        Some(axis) => {
            let _ = writeln!(text, "decided by {axis}");
        }
        None => text.push_str("the only path\n"),
    }
    if let Some(reason) = why.reason {
        let _ = writeln!(text, "not direct: {}{}", plain(reason), explain(reason));
    }
    for mapping in &why.mappings {
        let _ = writeln!(text, "mapped here: {}", mapping_line(mapping));
    }
    if let Some(finding) = &why.finding {
        let what = match why.reason {
            Some(_) => "in the way",
            None => "on the path",
        };
        let _ = writeln!(text, "{what}{}", in_the_way(finding));
    }
    if let Some(report) = &why.last_search {
        let _ = writeln!(text, "last search: {}", search(report));
    }
    if let Some(punch) = &why.last_punch {
        let reason = punch
            .reason
            .map(|reason| format!(" ({})", plain(reason)))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "last punch: attempt {} as {}: {}{reason}",
            punch.attempt, punch.role, punch.outcome
        );
        for sent in &punch.sent {
            let _ = writeln!(text, "  sent      {sent}");
        }
        for received in &punch.received {
            let _ = writeln!(
                text,
                "  received  {}: {}",
                received.addr,
                plain(received.outcome)
            );
        }
    }
    if !why.sessions.is_empty() {
        text.push('\n');
        sessions(&mut text, &why.sessions, colour);
    }
    text
}

fn relay_line(relay: &RelayStatus) -> String {
    let label = label(&relay.relay, relay.name.as_deref());
    if let Some(refused) = &relay.refused {
        return format!("{label} {:11} {refused}", state(relay));
    }
    let state = state(relay);
    let legs: Vec<String> = relay
        .paths
        .iter()
        .map(|path| format!("{} {}", hops(path), rtt(path)))
        .collect();
    let mut text = legs.join(", ");
    if relay.found {
        text.push_str("  (named by the record of a peer)");
    }
    let unreserved = relay.unreserved.as_ref();
    let unreserved = unreserved.map(|reason| format!("no reservation: {reason}"));
    if let Some(reason) = relay.reason.clone().or(unreserved) {
        let gap = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{gap}{reason}");
    }
    if let Some(at) = relay.hidden_at {
        let _ = write!(
            text,
            "; relay_nat: it sees this node at {at}, a NAT's address"
        );
    }
    format!("{label} {state:11} {text}").trim_end().to_owned()
}

/// How a relay and this node stand.
pub(super) fn state(relay: &RelayStatus) -> &'static str {
    match (relay.refused.is_some(), relay.reserved, relay.connected) {
        (true, _, _) => "refused",
        (false, true, _) => "reserved",
        (false, false, true) => "connected",
        (false, false, false) => "unreachable",
    }
}

fn peer_row(peer: &PeerStatus) -> [String; 6] {
    [
        label(&peer.peer, peer.name.as_deref()),
        peer.path.path.kind.to_string(),
        hops(&peer.path),
        rtt(&peer.path),
        since(peer.path.since),
        how(peer),
    ]
}

/// How a direct path came to be; why a relayed one is not direct.
pub(super) fn how(peer: &PeerStatus) -> String {
    let last = peer.last_punch.as_ref();
    let how = peer.path.path.how;
    if peer.path.path.kind == PathKind::Direct {
        return match last {
            Some(punch) if how == How::Punched => {
                format!(
                    "punched, {} attempt{}",
                    punch.attempt,
                    if punch.attempt == 1 { "" } else { "s" }
                )
            }
            Some(_) | None => how.to_string(),
        };
    }
    let reason = match peer.reason.or(last.and_then(|punch| punch.reason)) {
        Some(reason) => plain(reason),
        None => how.to_string(),
    };
    match peer.next_punch {
        Some(time) => format!("{reason}; next try in {}", since(time)),
        None => reason,
    }
}

fn hops(path: &PathStatus) -> String {
    let mut text = path.path.to_string();
    if let Some(relay) = &path.path.relay {
        let _ = write!(text, " ({})", short(relay));
    }
    text
}

pub(super) fn rtt(path: &PathStatus) -> String {
    path.rtt.map_or_else(
        || "unknown".to_owned(),
        |rtt| format!("{:.0} ms", json::to_millis(rtt)),
    )
}

pub(super) fn since(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::collections::BTreeMap;

    use libp2p::PeerId;
    use p2pnode_transports::{Family, Sockets, Transport};

    use p2pnode_daemon::{control::Shown as _, screen::Past};

    use super::*;
    use crate::core::peers::{Hop, Path};

    const A: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    const B: &str = "12D3KooWGrWn9wdGcHi6Ut1ZQTvw9YwMRGZNhpLBgyCxHbNrpjKi";

    fn id(text: &str) -> PeerId {
        text.parse().unwrap()
    }

    fn direct() -> PathStatus {
        let hop = Hop::seen(Sockets {
            transport: Transport::Quic,
            local: "10.0.1.2:40017".parse().unwrap(),
            remote: "198.51.100.7:51234".parse().unwrap(),
        });
        PathStatus {
            path: Path {
                kind: PathKind::Direct,
                relay: None,
                how: How::Punched,
                hops: vec![hop],
            },
            rtt: Some(Duration::from_micros(12_100)),
            since: Duration::from_secs(192),
        }
    }

    fn node(peers: Vec<PeerStatus>) -> Status {
        Status {
            peer_id: id(A),
            key_also_at: None,
            turned_away: Vec::new(),
            listen: Vec::new(),
            port_range: "40000-40050".parse().unwrap(),
            punch_ports: BTreeMap::from([((Transport::Quic, Family::Ip4), 40017)]),
            mappings: Vec::new(),
            exposed: Vec::new(),
            relays: Vec::new(),
            peers,
            lost: Vec::new(),
            refused: Vec::new(),
            names: BTreeMap::new(),
            services: Vec::new(),
            forwards: Vec::new(),
            sessions: None,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn columns_are_aligned_and_plain_where_no_terminal_reads_them() {
        let path = direct();
        let mut relayed = path.clone();
        relayed.path.kind = PathKind::Relayed;
        relayed.path.how = How::Dialed;
        relayed.path.relay = Some(id(A));
        relayed.path.hops.push(Hop::default());
        let peer = |peer: &str, path: PathStatus| PeerStatus {
            peer: id(peer),
            name: None,
            reason: None,
            paths: vec![path.clone()],
            path,
            last_punch: None,
            next_punch: Some(Duration::from_secs(28)),
        };
        let known = node(vec![peer(A, path), peer(B, relayed)]);
        let text = status(&known, false);
        let screen = known.view(&mut Past::default()).lines(80, 24, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[3..],
            [
                "PEER              PATH     HOP                                                                        RTT    SINCE  HOW",
                "12D3KooWHimNhb..  direct   quic/ip4 10.0.1.2:40017 > 198.51.100.7:51234                               12 ms  3m12s  punched",
                "12D3KooWGrWn9w..  relayed  quic/ip4 10.0.1.2:40017 > 198.51.100.7:51234 | unknown (12D3KooWHimNhb..)  12 ms  3m12s  dialed; next try in 28s",
            ]
        );
        assert!(!text.contains('\x1b'));
        assert!(status(&node(Vec::new()), true).contains(BOLD));
        assert!(
            screen.iter().all(|line| line.chars().count() <= 80),
            "{screen:?}"
        );
        for columns in 1..=80 {
            let lines = known.view(&mut Past::default()).lines(columns, 24, false);
            let fits = |line: &String| line.chars().count() <= columns.max(4);
            assert!(lines.iter().all(fits), "{columns}: {lines:?}");
        }
        let narrow = known.view(&mut Past::default()).lines(40, 24, false);
        assert_eq!(
            narrow[3..],
            [
                "PEER     PATH     OVER     RTT    HOW",
                "12D…w..  relayed  qui…own  12 ms  dia…8s",
                "12D…b..  direct   qui…ip4  12 ms  pun…ed",
            ]
        );
        assert_eq!(
            screen[3..],
            [
                "PEER            PATH     OVER            RTT    LAST 10 S   SINCE  HOW",
                "12D3Koo…Wn9w..  relayed  quic/ip…nknown  12 ms           █  3m12s  dialed…in 28s",
                "12D3Koo…mNhb..  direct   quic/ip4        12 ms           █  3m12s  punched",
            ]
        );
    }
}
