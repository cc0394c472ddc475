//! Whether the system lets the relay have as many sockets as its limits admit.

use crate::config::Limits;

/// Files that a relay has open besides the sockets of peers: listeners, the runtime's, the admin server's, those that it reads.
const OTHERS: u64 = 64;

/// What to say of a relay that may have `files` open at once, `None` for no limit, and whose limits admit more; nothing if they do
/// not, or if there is no limit of connections, of which somebody has thought then.
pub(crate) fn warning(limits: &Limits, files: Option<u64>) -> Option<String> {
    let (files, connections) = (files?, u64::from(limits.connections));
    let needed = connections + u64::from(limits.pending_connections) + OTHERS;
    (connections != 0 && files < needed).then(|| {
        format!(
            "this process may have {files} files open, and limits.connections and limits.pending_connections admit {needed} over TCP; \
             raise LimitNOFILE of the service (`ulimit -Hn`), or lower the limits"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    const UNLIMITED: Limits = Limits::UNLIMITED;

    #[test]
    fn a_relay_that_cannot_have_its_connections_says_so() {
        let limits = Limits {
            connections: 1000,
            pending_connections: 100,
            ..UNLIMITED
        };
        let text = warning(&limits, Some(1163)).expect("too few");
        assert!(
            text.contains("1163 files") && text.contains("1164"),
            "{text}"
        );
        assert_eq!(warning(&limits, Some(1164)), None);
        assert_eq!(warning(&limits, None), None);
        assert_eq!(warning(&UNLIMITED, Some(1)), None);
    }
}
