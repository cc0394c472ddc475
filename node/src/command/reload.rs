//! SIGHUP: the running node reads its configuration again.

use std::collections::BTreeSet;

use p2pnode_daemon::{
    config::{Fault, Faults, Loaded, Place},
    logging,
};
use tokio::signal::unix::Signal;
use tracing::field::Empty;

use libp2p::PeerId;

use crate::{Handle, config::Config};

const ALLOW: &str = "access.allow";

/// Keys that come into force at once, all others with the next start. Commands read `peers` themselves; the node forgets those that
/// are gone.
const AT_ONCE: [&str; 3] = [ALLOW, "log.level", "peers."];

/// Reads the configuration with `load` at each `hangup` and applies to the node what it can apply.
pub(crate) async fn on_hangup(
    mut hangup: Signal,
    loaded: Loaded<Config>,
    load: impl Fn() -> Result<Loaded<Config>, Faults>,
    node: Handle,
) {
    let mut current = loaded.config.clone();
    while hangup.recv().await.is_some() {
        let new = match load().and_then(|new| check(&current, new)) {
            Ok(new) => new,
            Err(faults) => {
                for line in faults.to_string().lines() {
                    tracing::error!(
                        own = Empty,
                        "SIGHUP: the configuration stays as it was: {line}"
                    );
                }
                continue;
            }
        };
        let access = new.config.allowed_peers != current.allowed_peers;
        let level = new.config.log.level != current.log.level;
        if access {
            current.allowed_peers.clone_from(&new.config.allowed_peers);
            // An error means that the node stops, and with it this task.
            let _ = node.set_access(current.clone()).await;
        }
        for peer in removed(&current, &new.config) {
            tracing::info!(own = Empty, %peer, "SIGHUP: `peers` no longer has this peer; it is not dialed when it is lost");
            let _ = node.forget(peer).await;
        }
        current.peers.clone_from(&new.config.peers);
        if level {
            logging::set(&new.config.log.level);
            current.log.level = new.config.log.level.clone();
        }
        let changed = loaded.changed(&new).into_iter();
        let restart: Vec<_> = changed
            .filter(|key| !AT_ONCE.iter().any(|at_once| key.starts_with(at_once)))
            .collect();
        tracing::info!(
            own = Empty,
            access,
            level,
            "SIGHUP: read the configuration again"
        );
        if !restart.is_empty() {
            tracing::warn!(
                own = Empty,
                keys = restart.join(", "),
                "these keys have changed since the start and take effect with a restart"
            );
        }
    }
}

/// The peers that `peers` named before and names no longer.
fn removed(current: &Config, new: &Config) -> BTreeSet<PeerId> {
    let ids =
        |config: &Config| -> BTreeSet<_> { config.peers.values().map(|peer| peer.id).collect() };
    &ids(current) - &ids(new)
}

/// Refuses what would open a node that is closed, unless `access.allow` is there: a file that is cut short leaves keys out.
fn check(current: &Config, new: Loaded<Config>) -> Result<Loaded<Config>, Faults> {
    let opens = !current.allowed_peers.is_empty() && new.config.allowed_peers.is_empty();
    if !opens || new.is_given(ALLOW) {
        return Ok(new);
    }
    Err(Faults::from(Fault {
        place: Place::Default,
        key: Some(ALLOW.to_owned()),
        problem: "is missing, which would open the node to any peer; restore it, or write access: { allow: [] } if that is meant"
            .to_owned(),
    }))
}
