//! A relay's state for people.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use p2pnode_daemon::config::kind::DURATION_LIMIT;

use crate::observe::status::{AccessStatus, Figure, Status};

const BOLD: &str = "\x1b[1m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// The whole relay; in colour for a terminal.
pub(crate) fn status(status: &Status, colour: bool) -> String {
    let (bold, yellow, plain) = if colour {
        (BOLD, YELLOW, PLAIN)
    } else {
        ("", "", "")
    };
    let mut text = String::new();
    let mut head = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:14} {value}");
    };
    head("relay", &status.peer_id);
    let up = duration(status.uptime_s);
    head("version", &format!("{}, up {up}", status.version));
    match &status.drain {
        None => head("state", "serving"),
        Some(drain) => head(
            "state",
            &format!(
                "{yellow}draining{plain}: {}, {}; ends within {}",
                counted(drain.circuits_left, "circuit"),
                counted(drain.reservations_left, "reservation"),
                duration(drain.seconds_left),
            ),
        ),
    }
    for address in &status.listen {
        head("listen", address);
    }
    for address in &status.external {
        head("external", address);
    }
    head("access", &access(&status.access));
    if let Some(translated) = &status.translated {
        let peers = counted(translated.peers, "peer");
        let text = format!(
            "{yellow}{peers} at {}{plain}: a NAT in front of the relay hides where they are",
            translated.source
        );
        head("translated", &text);
    }
    if status.shared_keys > 0 {
        let peers = counted(status.shared_keys, "peer");
        head(
            "shared keys",
            &format!("{yellow}{peers}{plain}: two hosts use one key"),
        );
    }
    let limit = |key: &str| match status.limits.get(key).copied().unwrap_or_default() {
        0 => "no limit".to_owned(),
        limit => limit.to_string(),
    };
    let rows = [
        ["", "NOW", "LIMIT", ""].map(str::to_owned),
        [
            "connections".to_owned(),
            status.connections.to_string(),
            limit("connections"),
            by(&status.connections_by),
        ],
        [
            "reservations".to_owned(),
            status.reservations.to_string(),
            limit("reservations"),
            by(&status.reservations_by),
        ],
        [
            "circuits".to_owned(),
            status.circuits.to_string(),
            limit("circuits"),
            format!("{} closed", status.circuits_closed),
        ],
        [
            "circuit bytes".to_owned(),
            size(Figure::Is(status.circuit_bytes)),
            String::new(),
            String::new(),
        ],
        [
            "records".to_owned(),
            status.records.to_string(),
            limit("records"),
            String::new(),
        ],
        [
            "memory".to_owned(),
            size(status.memory_bytes),
            match status.limits.get("memory").copied().unwrap_or_default() {
                0 => "no limit".to_owned(),
                limit => size(Figure::Is(limit)),
            },
            String::new(),
        ],
    ];
    text.push('\n');
    table(&mut text, &rows, bold, plain);
    if !status.denied.is_empty() {
        let rows: Vec<_> = std::iter::once(["DENIED".to_owned(), String::new()])
            .chain(
                status
                    .denied
                    .iter()
                    .map(|(reason, count)| [reason.clone(), count.to_string()]),
            )
            .collect();
        text.push('\n');
        table(&mut text, &rows, bold, plain);
    }
    text
}

fn access(access: &AccessStatus) -> String {
    if access.open {
        return "any peer".to_owned();
    }
    let mut text = counted(access.allow, "peer") + " by id";
    if access.tokens {
        let _ = write!(
            text,
            ", join tokens ({} connected, {} revoked)",
            access.by_token, access.revoked
        );
    }
    if access.waiting > 0 {
        let _ = write!(text, "; {} not admitted", access.waiting);
    }
    text
}

fn by(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = counts
        .iter()
        .map(|(leg, count)| format!("{leg} {count}"))
        .collect();
    parts.join(", ")
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn duration(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        seconds => (DURATION_LIMIT.print)(&Duration::from_secs(seconds)),
    }
}

fn size(bytes: Figure) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Figure::Is(bytes) = bytes else {
        return "unknown".to_owned();
    };
    // The greatest unit of which there is one at least.
    let unit = (bytes.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    match unit {
        0 => format!("{bytes} B"),
        unit => format!(
            "{:.1} {}",
            bytes as f64 / 1024_f64.powi(unit as i32),
            UNITS[unit]
        ),
    }
}

/// Columns as wide as their widest cell; the first row is the head.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]], bold: &str, plain: &str) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    // The first column lines up with what stands above.
    widths[0] = widths[0].max(14);
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$} ");
        }
        let line = line.trim_end();
        let _ = match number {
            0 => writeln!(text, "{bold}{line}{plain}"),
            _ => writeln!(text, "{line}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::DrainStatus;

    fn relay() -> Status {
        let limits = [("connections", 16384), ("reservations", 4096)];
        let by = |count| BTreeMap::from([("quic/ip4".to_owned(), count)]);
        Status {
            peer_id: "12D3KooWRelay".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_s: 192,
            listen: vec!["/ip4/203.0.113.10/udp/443/quic-v1".to_owned()],
            external: Vec::new(),
            connections: 12,
            connections_by: by(12),
            peers: 6,
            reservations: 6,
            reservations_by: by(6),
            circuits: 2,
            circuits_closed: 17,
            circuit_bytes: 35_861_299,
            records: 6,
            translated: None,
            shared_keys: 0,
            memory_bytes: None.into(),
            access: AccessStatus {
                open: false,
                allow: 1,
                tokens: true,
                revoked: 2,
                by_token: 5,
                waiting: 1,
            },
            denied: BTreeMap::from([("access".to_owned(), 3)]),
            limits: limits.map(|(key, limit)| (key.to_owned(), limit)).into(),
            draining: false,
            drain: None,
        }
    }

    #[test]
    fn columns_line_up_and_what_is_unknown_is_called_so() {
        let text = status(&relay(), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "relay          12D3KooWRelay",
                "version        0.1.0, up 3m 12s",
                "state          serving",
                "listen         /ip4/203.0.113.10/udp/443/quic-v1",
                "access         1 peer by id, join tokens (5 connected, 2 revoked); 1 not admitted",
                "",
                "               NOW      LIMIT",
                "connections    12       16384    quic/ip4 12",
                "reservations   6        4096     quic/ip4 6",
                "circuits       2        no limit 17 closed",
                "circuit bytes  34.2 MiB",
                "records        6        no limit",
                "memory         unknown  no limit",
                "",
                "DENIED",
                "access         3",
            ]
        );
    }

    #[test]
    fn a_drain_tells_what_is_left_and_only_a_terminal_sees_colours() {
        let mut relay = relay();
        relay.drain = Some(DrainStatus {
            circuits_left: 1,
            reservations_left: 2,
            seconds_left: 17,
        });
        let text = status(&relay, false);
        assert!(
            text.contains("draining: 1 circuit, 2 reservations; ends within 17s\n"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        assert!(status(&relay, true).contains(YELLOW));
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(Some(bytes).into()), text);
        }
    }
}
