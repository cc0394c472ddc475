//! The table of all attacks, for a person.

use super::measured::Row;

pub(super) fn markdown(rows: &[Row]) -> String {
    let mut lines = vec![
        "| attack | target | transport | connections | sent, MiB | RSS, MiB | CPU, s | descriptors | log lines a minute | inner packets | third party: packets, bytes, for each | honest dials: made, failed, ratio | reservations lost | forwarded, MiB, ratio | verdict |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(row));
    for row in rows {
        for (candidate, times) in &row.answers {
            lines.push(format!(
                "\n{}: {candidate}: {times:.2?} s until the next CONNECT",
                row.attack
            ));
        }
    }
    lines.join("\n")
}

fn row(row: &Row) -> String {
    let opened: i64 = row.strangers.iter().map(connections).sum();
    let evil = match (row.evil_dials, row.evil_packets) {
        (Some(dials), Some(packets)) => format!("; to the relay {dials} SYNs, {packets} packets"),
        _ => String::new(),
    };
    format!(
        "| {} | {} | {} | {opened} | {:.2} | {:.0} to {:.0} | {:.1} | {} | {:.0} | {} | {}, {}, {:.2}{evil} | {}, {}, {} | {} | {:.1}, {:.2} | {} |",
        row.attack,
        row.target,
        row.transport,
        row.sent_mib,
        row.rss_before_mib,
        row.rss_peak_mib,
        row.cpu_seconds,
        row.descriptors,
        row.log_lines * 60.0 / row.seconds.max(1.0),
        row.inner_packets,
        row.third_party_packets,
        row.third_party_bytes,
        row.amplification(),
        row.dials_made,
        row.dials_failed,
        row.dial_ratio
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        row.reservations_lost,
        row.forwarded_mib,
        row.forwarded_ratio,
        row.verdict(),
    )
}

fn connections(counts: &serde_json::Value) -> i64 {
    let names = ["connected", "opened", "accepted"];
    names.iter().filter_map(|name| counts[*name].as_i64()).sum()
}
