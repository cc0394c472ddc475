//! A node's state as tables for people.

use std::fmt::Write as _;

use crate::observe::status::{HopStatus, PathStatus, PeerStatus, RelayStatus, Status, Why};

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// The whole node; in colour for a terminal.
pub fn status(status: &Status, colour: bool) -> String {
    let mut text = String::new();
    let ports: Vec<String> = status
        .punch_ports
        .iter()
        .map(|(of, port)| format!("{of} {port}"))
        .collect();
    let _ = writeln!(text, "node    {}", status.peer_id);
    let _ = writeln!(
        text,
        "range   {}, punching from {}",
        status.port_range,
        or(&ports.join(", "), "no port")
    );
    for listen in &status.listen {
        let _ = writeln!(text, "listen  {listen}");
    }
    for relay in &status.relays {
        let _ = writeln!(text, "relay   {}", relay_line(relay));
    }
    text.push('\n');
    let mut rows = vec![["PEER", "PATH", "HOP", "RTT", "SINCE", "HOW"].map(str::to_owned)];
    rows.extend(status.peers.iter().map(peer_row));
    table(&mut text, &rows, colour);
    text
}

/// Why a peer's path is what it is.
pub fn why(why: &Why, colour: bool) -> String {
    let mut text = String::new();
    let (bold, plain) = if colour { (BOLD, PLAIN) } else { ("", "") };
    let _ = writeln!(text, "{bold}{}{plain}", why.peer);
    for (place, candidate) in why.candidates.iter().enumerate() {
        let mark = if place == 0 { ">" } else { " " };
        let _ = writeln!(
            text,
            "{mark} {:8} {}",
            candidate.path.kind,
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
            candidate.path.how
        );
    }
    match &why.decided_by {
        Some(axis) => {
            let _ = writeln!(text, "decided by {axis}");
        }
        None => text.push_str("the only path\n"),
    }
    if let Some(punch) = &why.last_punch {
        let reason = punch
            .reason
            .as_deref()
            .map(|reason| format!(" ({reason})"))
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
            let _ = writeln!(text, "  received  {}: {}", received.addr, received.outcome);
        }
    }
    text
}

fn relay_line(relay: &RelayStatus) -> String {
    if let Some(refused) = &relay.refused {
        return format!("{} refused     {refused}", short(&relay.relay));
    }
    let state = match (relay.reserved, relay.connected) {
        (true, _) => "reserved",
        (false, true) => "connected",
        (false, false) => "unreachable",
    };
    let legs: Vec<String> = relay
        .paths
        .iter()
        .map(|path| format!("{} {}", hops(path), rtt(path)))
        .collect();
    format!("{} {state:11} {}", short(&relay.relay), legs.join(", "))
        .trim_end()
        .to_owned()
}

fn peer_row(peer: &PeerStatus) -> [String; 6] {
    [
        short(&peer.peer),
        peer.path.kind.clone(),
        hops(&peer.path),
        rtt(&peer.path),
        since(peer.path.since_s),
        how(peer),
    ]
}

/// How a direct path came to be; why a relayed one is not direct.
fn how(peer: &PeerStatus) -> String {
    let last = peer.last_punch.as_ref();
    if peer.path.kind == "direct" {
        return match last {
            Some(punch) if peer.path.how == "punched" => {
                format!(
                    "punched, {} attempt{}",
                    punch.attempt,
                    if punch.attempt == 1 { "" } else { "s" }
                )
            }
            _ => peer.path.how.clone(),
        };
    }
    let reason = last
        .and_then(|punch| punch.reason.clone())
        .unwrap_or_else(|| peer.path.how.clone());
    match peer.next_punch_s {
        Some(seconds) => format!("{reason}; next try in {}", since(seconds)),
        None => reason,
    }
}

fn hops(path: &PathStatus) -> String {
    let mut text: Vec<String> = path.hops.iter().map(hop).collect();
    if let (Some(relay), Some(far)) = (&path.relay, text.last_mut()) {
        let _ = write!(far, " ({})", short(relay));
    }
    text.join(" | ")
}

fn hop(hop: &HopStatus) -> String {
    let mut text = match (hop.transport.as_str(), hop.family.as_str()) {
        ("unknown", "unknown") => "unknown".to_owned(),
        (transport, family) => format!("{transport}/{family}"),
    };
    if let (Some(local), Some(remote)) = (&hop.local, &hop.remote) {
        let _ = write!(text, " {local} > {remote}");
    }
    text
}

fn rtt(path: &PathStatus) -> String {
    path.rtt_ms
        .map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:.0} ms"))
}

fn since(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

fn short(peer: &str) -> String {
    let mut short: String = peer.chars().take(14).collect();
    short.push_str("..");
    short
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// Columns as wide as their widest cell; the first row is the head.
fn table(text: &mut String, rows: &[[String; 6]], colour: bool) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.chars().count();
            let shade = match (colour, number, cell.as_str()) {
                (true, 0, _) => BOLD,
                (true, _, "direct") => GREEN,
                (true, _, "relayed") => YELLOW,
                _ => "",
            };
            let end = if shade.is_empty() { "" } else { PLAIN };
            let _ = write!(line, "{shade}{cell}{end}{:padding$}  ", "");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn direct() -> PathStatus {
        PathStatus {
            kind: "direct".to_owned(),
            relay: None,
            how: "punched".to_owned(),
            hops: vec![HopStatus {
                transport: "quic".to_owned(),
                family: "ip4".to_owned(),
                local: Some("10.0.1.2:40017".to_owned()),
                remote: Some("198.51.100.7:51234".to_owned()),
                rtt_ms: Some(12.1),
                reported_by: None,
            }],
            rtt_ms: Some(12.1),
            since_s: 192,
        }
    }

    fn node(peers: Vec<PeerStatus>) -> Status {
        Status {
            peer_id: "12D3KooWNode".to_owned(),
            listen: Vec::new(),
            port_range: "40000-40050".to_owned(),
            punch_ports: BTreeMap::from([("quic/ip4".to_owned(), 40017)]),
            relays: Vec::new(),
            peers,
        }
    }

    #[test]
    fn columns_are_aligned_and_plain_where_no_terminal_reads_them() {
        let path = direct();
        let mut relayed = path.clone();
        relayed.kind = "relayed".to_owned();
        relayed.how = "dialed".to_owned();
        relayed.relay = Some("12D3KooWRelayRelay".to_owned());
        relayed.hops.push(HopStatus {
            transport: "unknown".to_owned(),
            family: "unknown".to_owned(),
            local: None,
            remote: None,
            rtt_ms: None,
            reported_by: None,
        });
        let peer = |peer: &str, path: PathStatus| PeerStatus {
            peer: peer.to_owned(),
            paths: vec![path.clone()],
            path,
            last_punch: None,
            next_punch_s: Some(28),
        };
        let text = status(
            &node(vec![
                peer("12D3KooWAbAbAbAb", path),
                peer("12D3KooWCdCdCdCd", relayed),
            ]),
            false,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[3..],
            [
                "PEER              PATH     HOP                                                                        RTT    SINCE  HOW",
                "12D3KooWAbAbAb..  direct   quic/ip4 10.0.1.2:40017 > 198.51.100.7:51234                               12 ms  3m12s  punched",
                "12D3KooWCdCdCd..  relayed  quic/ip4 10.0.1.2:40017 > 198.51.100.7:51234 | unknown (12D3KooWRelayR..)  12 ms  3m12s  dialed; next try in 28s",
            ]
        );
        assert!(!text.contains('\x1b'));
        assert!(status(&node(Vec::new()), true).contains(BOLD));
    }
}
