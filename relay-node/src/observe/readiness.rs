//! When work can be given to the relay: it listens at every configured address, and knows an external one.

use std::net::IpAddr;

use libp2p::Multiaddr;
use p2pnode_daemon::admin::Readiness;

use crate::core::Hop;

const LISTENING: &str = "listening";
const EXTERNAL: &str = "external address";

const DRAIN: &str = "draining";

/// Nothing is there yet.
pub(crate) fn new() -> Readiness {
    Readiness::new([(LISTENING, "not bound yet"), (EXTERNAL, "none yet")])
}

/// The relay was asked to end, and will never be ready again.
pub(crate) fn draining(readiness: &Readiness) {
    readiness.missing(
        DRAIN,
        "takes no reservations and no circuits, because it was asked to end",
    );
}

/// A NAT in front of the relay hides where peers are, behind this address. The relay works on, without introductions.
pub(crate) fn translated(readiness: &Readiness, source: Option<IpAddr>) {
    let note = |source| {
        format!(
            "every peer has the source address {source}, which is that of a NAT in front of the relay; let the source addresses through"
        )
    };
    readiness.note("source addresses", source.map(note));
}

/// Takes over into `readiness` what is there now, and which configured addresses have no listener.
pub(crate) fn update<'a>(
    readiness: &Readiness,
    missing: impl Iterator<Item = &'a Multiaddr>,
    hop: Hop,
) {
    let missing: Vec<_> = missing.map(Multiaddr::to_string).collect();
    if missing.is_empty() {
        readiness.present(LISTENING);
    } else {
        readiness.missing(LISTENING, format!("not on {}", missing.join(", ")));
    }
    match hop {
        Hop::Withheld => readiness.missing(
            EXTERNAL,
            "none, and so no reservations; configure `external` or give --external",
        ),
        Hop::Offered => readiness.present(EXTERNAL),
    }
}
