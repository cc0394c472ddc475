//! A relay's state for people.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use p2pnode_daemon::{
    config::kind::DURATION_LIMIT,
    control::Shown,
    screen::{Cell, PAST_HEAD, Past, Tone, View},
};

use crate::observe::status::{AccessStatus, DrainStatus, Figure, Status, TranslatedStatus};

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
        Some(drain) => head("state", &format!("{yellow}{}{plain}", draining(drain))),
    }
    for address in &status.listen {
        head("listen", address);
    }
    for address in &status.external {
        head("external", address);
    }
    head("access", &access(&status.access));
    if let Some(translated) = &status.translated {
        head(
            "translated",
            &format!("{yellow}{}{plain}", hidden(translated)),
        );
    }
    if status.shared_keys > 0 {
        head(
            "shared keys",
            &format!("{yellow}{}{plain}", shared(status.shared_keys)),
        );
    }
    let head = ["", "NOW", "LIMIT", ""].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(figures(status)).collect();
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

/// What the relay holds: name, number, limit and more about it.
fn figures(status: &Status) -> [[String; 4]; 6] {
    let limit_of = |key: &str| status.limits.get(key).copied().unwrap_or_default();
    let limit = |key: &str| match limit_of(key) {
        0 => "no limit".to_owned(),
        limit => limit.to_string(),
    };
    let memory = match limit_of("memory") {
        0 => "no limit".to_owned(),
        limit => size(Figure::Is(limit)),
    };
    let count =
        |name: &str, count: u64, more| [name.to_owned(), count.to_string(), limit(name), more];
    let bytes = |name: &str, bytes, limit| [name.to_owned(), size(bytes), limit, String::new()];
    [
        count(
            "connections",
            status.connections,
            by(&status.connections_by),
        ),
        count(
            "reservations",
            status.reservations,
            by(&status.reservations_by),
        ),
        count(
            "circuits",
            status.circuits,
            format!("{} closed", status.circuits_closed),
        ),
        bytes(
            "circuit bytes",
            Figure::Is(status.circuit_bytes),
            String::new(),
        ),
        count("records", status.records, String::new()),
        bytes("memory", status.memory_bytes, memory),
    ]
}

impl Shown for Status {
    fn text(&self, colour: bool) -> String {
        status(self, colour)
    }

    fn view(&self, past: &mut Past) -> View {
        let mut view = View::default();
        view.fact("relay", &self.peer_id);
        view.fact(
            "version",
            format!("{}, up {}", self.version, duration(self.uptime_s)),
        );
        view.fact(
            "state",
            match &self.drain {
                None => Cell::new("serving", Tone::Good),
                Some(drain) => Cell::new(draining(drain), Tone::Fair),
            },
        );
        view.fact("listen", self.listen.join(", "));
        if !self.external.is_empty() {
            view.fact("external", self.external.join(", "));
        }
        view.fact("access", access(&self.access));
        if let Some(translated) = &self.translated {
            view.fact("translated", Cell::new(hidden(translated), Tone::Fair));
        }
        if self.shared_keys > 0 {
            view.fact(
                "shared keys",
                Cell::new(shared(self.shared_keys), Tone::Bad),
            );
        }
        let measured = [
            Some(self.connections),
            Some(self.reservations),
            Some(self.circuits),
            None,
            Some(self.records),
            self.memory_bytes.known(),
        ];
        let rows = figures(self).into_iter().zip(measured);
        let rows = rows.map(|([name, now, limit, more], measured)| {
            let bars = measured.map(|number| past.spark(&name, Some(number as f64)));
            [name, now, bars.unwrap_or_default(), limit, more].map(Cell::from)
        });
        view.table(["HELD", "NOW", PAST_HEAD, "LIMIT", ""], rows);
        let denied = self
            .denied
            .iter()
            .map(|(reason, count)| [Cell::from(reason), Cell::new(count.to_string(), Tone::Fair)]);
        view.table(["DENIED", "TIMES"], denied);
        view
    }
}

fn draining(drain: &DrainStatus) -> String {
    format!(
        "draining: {}, {}; ends within {}",
        counted(drain.circuits_left, "circuit"),
        counted(drain.reservations_left, "reservation"),
        duration(drain.seconds_left),
    )
}

fn hidden(translated: &TranslatedStatus) -> String {
    let peers = counted(translated.peers, "peer");
    format!(
        "{peers} at {}: a NAT in front of the relay hides where they are",
        translated.source
    )
}

fn shared(keys: u64) -> String {
    format!("{}: two hosts use one key", counted(keys, "peer"))
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
    fn a_screen_has_the_same_figures_with_their_past_in_80_columns() {
        let (mut past, mut relay) = (Past::default(), relay());
        let _ = relay.view(&mut past);
        relay.connections = 6;
        let lines = relay.view(&mut past).lines(80, 24, false);
        let line = |name: &str| lines.iter().find(|line| line.starts_with(name));
        assert_eq!(
            line("connections").map(String::as_str),
            Some("connections    6                 █▄  16384     quic/ip4 12")
        );
        assert!(
            line("access  ").is_some_and(|line| line.ends_with("not admitted")),
            "{lines:?}"
        );
        assert!(line("DENIED").is_some(), "{lines:?}");
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
