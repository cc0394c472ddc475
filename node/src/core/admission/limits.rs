//! How many connections and handshakes a node takes.

/// Open files that are kept for listeners, the runtime, the admin server and the control socket, and for this node's own dials.
pub(super) const KEPT_FILES: usize = 128;

/// What sessions have in the smallest process: `sessions.memory` takes no less.
const LEAST_MEMORY: u64 = 1 << 20;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) handshakes: usize,
    pub(super) circuits: usize,
    pub(super) punches: usize,
    pub(super) connections: usize,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        handshakes: 128,
        circuits: 128,
        punches: 128,
        connections: 4096,
    };

    /// What fits into `files` open files; `None` is no limit. A TCP connection is one file, also while it is a handshake.
    pub(super) fn within(files: Option<u64>) -> Self {
        let files = files.and_then(|files| usize::try_from(files).ok());
        let strangers = files
            .unwrap_or(usize::MAX)
            .saturating_sub(KEPT_FILES)
            .max(8);
        let quarter = strangers / 4;
        Self {
            handshakes: Self::DEFAULT.handshakes.min(quarter),
            punches: Self::DEFAULT.punches.min(quarter),
            connections: Self::DEFAULT.connections.min(strangers - 2 * quarter),
            ..Self::DEFAULT
        }
    }
}

/// How many bytes sessions may hold of a process that may take `limit`, of which 0 is no limit. What its connections receive and send
/// for sessions takes as much again, and the process something at rest. If sessions alone exceeded the limit, no end of a connection
/// would free anything: the session goes on on the next one.
pub(crate) fn memory_of_services(wanted: u64, limit: u64) -> u64 {
    match limit {
        0 => wanted,
        _ => wanted.min(limit / 4).max(LEAST_MEMORY),
    }
}

/// How many files local sockets of services may hold: what strangers leave of those that are not kept, and at least half of these.
pub(crate) fn of_services(files: Option<u64>) -> usize {
    let Some(files) = files.and_then(|files| usize::try_from(files).ok()) else {
        return usize::MAX;
    };
    let limits = Limits::within(Some(files as u64));
    let strangers = limits.handshakes + limits.punches + limits.connections;
    let rest = files - KEPT_FILES.min(files / 2);
    rest.saturating_sub(strangers).max(rest / 2)
}
