//! The running node reads its configuration again: at SIGHUP, and when the file has changed.

use std::{collections::BTreeSet, time::Duration};

use libp2p::PeerId;
use p2pnode_daemon::{
    config::{Fault, Faults, Loaded, Place},
    logging,
    reload::{Held, Triggers, Why},
};
use tokio::time::sleep;
use tracing::field::Empty;

use crate::{Handle, config::Config, services::ForwardError};

const ALLOW: &str = "access.allow";

/// Keys that come into force at once, as do `access.allow` and `log.level`, and whose loss ends something. The node forgets the
/// peers that `peers` no longer has. All other keys come into force with the next start.
const KEPT: [&str; 4] = ["peers", "services", "forwards", "socks"];

/// How often a forward is tried again that could not listen.
const AGAIN: Duration = Duration::from_secs(5);

/// Reads the configuration with `load` at each of `triggers` and applies to the node what it can apply.
pub(crate) async fn follow(
    mut triggers: Triggers,
    start: Loaded<Config>,
    load: impl Fn() -> Result<Loaded<Config>, Faults>,
    node: Handle,
) {
    let mut current = start.config.clone();
    let mut last = start.clone();
    let mut failed = Failed::default();
    loop {
        let why = tokio::select! {
            why = triggers.next() => why,
            () = sleep(AGAIN), if !failed.0.is_empty() => {
                failed.report(node.set_services(&current));
                continue;
            }
        };
        let new = match load().and_then(|new| check(&current, new)) {
            Ok(new) => new,
            Err(faults) => {
                for line in faults.to_string().lines() {
                    tracing::error!(
                        own = Empty,
                        "{why}: the configuration stays as it was: {line}"
                    );
                }
                continue;
            }
        };
        match triggers.hold(why, &last, &new, &KEPT) {
            Some(Held::CutShort) => {}
            Some(Held::Allowed) => {
                let config = allowed(&current, &new);
                apply(why, &mut current, &config, &node, &mut failed).await;
            }
            None => {
                apply(why, &mut current, &new.config, &node, &mut failed).await;
                warn_of_restart(&start, &new);
                last = new;
            }
        }
    }
}

/// What is in force, with the lists of who is allowed that `new` has.
fn allowed(current: &Config, new: &Loaded<Config>) -> Config {
    let mut config = current.clone();
    if new.is_given(ALLOW) {
        config.allowed_peers.clone_from(&new.config.allowed_peers);
    }
    for (name, service) in &mut config.services.services {
        if let Some(now) = new.config.services.services.get(name) {
            service.allow.clone_from(&now.allow);
        }
    }
    config
}

/// Applies of `new` what takes effect at once. `current` is what is in force.
async fn apply(why: Why, current: &mut Config, new: &Config, node: &Handle, failed: &mut Failed) {
    let access = new.allowed_peers != current.allowed_peers;
    let level = new.log.level != current.log.level;
    let services = new.services != current.services || new.peers != current.peers;
    let removed = removed(current, new);
    if access || new.peers != current.peers {
        current.allowed_peers.clone_from(&new.allowed_peers);
        current.peers.clone_from(&new.peers);
        // An error means that the node stops, and with it this task.
        let _ = node.reload(current.clone()).await;
    }
    for peer in removed {
        tracing::info!(own = Empty, %peer, "{why}: `peers` no longer has this peer; it is not dialed when it is lost");
        let _ = node.forget(peer).await;
    }
    if services {
        current.services.clone_from(&new.services);
        *failed = Failed::default();
        failed.report(node.set_services(current));
    }
    if level {
        logging::set(&new.log.level);
        current.log.level = new.log.level.clone();
    }
    tracing::info!(
        own = Empty,
        access,
        services,
        level,
        "{why}: read the configuration again"
    );
}

/// Logs the keys that `new` changes and that take effect with the next start only.
fn warn_of_restart(start: &Loaded<Config>, new: &Loaded<Config>) {
    let is_at_once = |key: &String| {
        let kept = KEPT.iter().any(|kept| key.starts_with(kept));
        kept || [ALLOW, "log.level"].contains(&key.as_str())
    };
    let changed = start.changed(new).into_iter();
    let restart: Vec<_> = changed.filter(|key| !is_at_once(key)).collect();
    if !restart.is_empty() {
        tracing::warn!(
            own = Empty,
            keys = restart.join(", "),
            "these keys have changed since the start and take effect with a restart"
        );
    }
}

/// The forwards that could not listen, as they were reported last.
#[derive(Default)]
struct Failed(Vec<String>);

impl Failed {
    /// Reports those that were not reported before.
    fn report(&mut self, failed: Vec<ForwardError>) {
        let failed: Vec<_> = failed.iter().map(ToString::to_string).collect();
        for error in failed.iter().filter(|error| !self.0.contains(error)) {
            tracing::error!(
                own = Empty,
                "{error}; the node tries again every {} s, and the other services and forwards are as configured",
                AGAIN.as_secs()
            );
        }
        self.0 = failed;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::path::Path;

    use p2pnode_daemon::config::{self, Document, Sources};
    use p2pnode_services::config::Allow;

    use super::*;
    use crate::config::{PROGRAM, Purpose};

    fn load(text: &str) -> Loaded<Config> {
        let sources = Sources {
            file: Some(Document::parse(Path::new("f.yaml"), text.to_owned()).unwrap()),
            env: [("HOME".to_owned(), "/nowhere".to_owned())].into(),
            ..Sources::default()
        };
        config::load(&PROGRAM, &sources, |reader| {
            Config::read(reader, Purpose::Run)
        })
        .unwrap()
    }

    #[test]
    fn a_forward_that_is_missing_is_named_by_where_it_listens() {
        let west = format!(
            "peers: {{ west: {{ id: {} }} }}\nforwards:\n",
            PeerId::random()
        );
        let listens = |port| format!("- {{ listen: tcp://127.0.0.1:{port}, to: db@west }}\n");
        let current = load(&(west.clone() + &listens(3) + &listens(4)));
        let lost = current.lost(&load(&(west.clone() + &listens(4))));
        assert_eq!(lost, ["forwards tcp://127.0.0.1:3"]);
        let another = load(&(west + &listens(4) + &listens(5)));
        assert!(current.lost(&another).is_empty());
        // A number may be the name of a service.
        let service = "{ target: tcp://127.0.0.1:1, allow: any }";
        let both = load(&format!("services: {{ '1': {service}, '2': {service} }}\n"));
        let one = load(&format!("services: {{ '2': {service} }}\n"));
        assert_eq!(both.lost(&one), ["services.1"]);
    }

    #[test]
    fn of_a_file_that_leaves_something_out_who_is_allowed_counts_and_nothing_else() {
        let [friend, other] = [(); 2].map(|()| PeerId::random());
        let services = |allow: &str| {
            format!(
                "access: {{ allow: [{allow}] }}\nservices:\n  db: {{ target: tcp://127.0.0.1:1, allow: [{allow}] }}\n"
            )
        };
        let both = services(&format!("{friend}, {other}"));
        let rest = format!(
            "  web: {{ target: tcp://127.0.0.1:2, allow: any }}\npeers: {{ west: {{ id: {friend} }} }}\n"
        );
        let current = load(&format!(
            "{both}{rest}socks: {{ listen: 127.0.0.1:1080 }}\n"
        ));
        let fewer = load(&services(&friend.to_string()));
        let lost = current.lost(&fewer);
        assert_eq!(lost, ["peers.west", "services.web", "socks.listen"]);
        let config = allowed(&current.config, &fewer);
        assert_eq!(config.allowed_peers, BTreeSet::from([friend]));
        let mut services = current.config.services.clone();
        let db = services.services.values_mut().next().unwrap();
        db.allow = Allow::Peers([friend].into());
        assert_eq!(config.services, services);
        assert_eq!(config.peers, current.config.peers);
        // A file without `access` states nothing of it.
        let (_, without) = both.split_once('\n').unwrap();
        let config = allowed(&current.config, &load(without));
        assert_eq!(config.allowed_peers.len(), 2);
    }
}
