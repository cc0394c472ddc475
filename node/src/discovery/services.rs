//! The addresses of a service.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2pnode_transports::{Family, FamilyPolicy};

use super::search::{Means, SearchEvent};
use crate::{
    config::Service,
    core::{
        dialer::{Candidate, Standing},
        event::FoundBy,
    },
};

/// How long the system's resolver may take: as long as for the name of a relay.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the system's resolver for all addresses of `service`.
pub(super) async fn resolve(service: &Service, means: &Means) -> SearchEvent {
    let (name, port) = (service.name.as_str(), service.port);
    let failed = |reason: &str| {
        SearchEvent::Failed(format!(
            "cannot resolve {name} of discovery.dns: {reason}; correct the name, or check that the service has endpoints"
        ))
    };
    let lookup = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, port)));
    let found = match lookup.await {
        Ok(Ok(found)) => select(found, means.family),
        Ok(Err(error)) => return failed(&error.to_string()),
        Err(_) => return failed(&format!("no answer within {} s", TIMEOUT.as_secs())),
    };
    if found.is_empty() {
        return failed(&format!(
            "none of its addresses suits dial.family {}",
            means.family
        ));
    }
    let candidate = |host| Candidate {
        host,
        addrs: means.addrs(host),
        by: FoundBy::Dns,
        standing: Standing::New,
    };
    SearchEvent::Found(found.into_iter().map(candidate).collect())
}

/// The addresses that can be dialed, the preferred family first. Within a family the resolver's order stays, which spreads the load.
fn select(found: impl Iterator<Item = SocketAddr>, policy: FamilyPolicy) -> Vec<SocketAddr> {
    let is_unicast = |ip: IpAddr| {
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
    };
    let mut seen = BTreeSet::new();
    let mut hosts: Vec<SocketAddr> = found
        .map(|host| SocketAddr::new(host.ip().to_canonical(), host.port()))
        .filter(|host| is_unicast(host.ip()) && policy.allows(Family::from(host.ip())))
        .filter(|host| seen.insert(*host))
        .collect();
    hosts.sort_by_key(|host| policy.rank(Family::from(host.ip())));
    hosts
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use p2pnode_transports::Transport;

    use super::*;

    #[test]
    fn only_what_can_be_dialed_is_and_once() {
        let hosts = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = hosts(&[
            "0.0.0.0:1",
            "224.0.0.251:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::fb]:1",
            "[fd00::7]:1",
            "10.0.0.1:1",
            "[::ffff:10.0.0.1]:1",
            "10.0.0.2:1",
        ]);
        let select = |policy| select(found.iter().copied(), policy);
        assert_eq!(
            select(FamilyPolicy::PreferIp4),
            hosts(&["10.0.0.1:1", "10.0.0.2:1", "[fd00::7]:1"])
        );
        assert_eq!(select(FamilyPolicy::OnlyIp6), hosts(&["[fd00::7]:1"]));
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_reported_with_what_to_do() {
        let means = Means {
            transports: vec![Transport::Quic],
            family: FamilyPolicy::Auto,
        };
        let service: Service = "no-such-host.invalid:443".parse().unwrap();
        let SearchEvent::Failed(reason) = resolve(&service, &means).await else {
            panic!("it was resolved");
        };
        assert!(
            reason.starts_with("cannot resolve no-such-host.invalid of discovery.dns: ")
                && reason.ends_with("correct the name, or check that the service has endpoints"),
            "{reason}"
        );
        let service: Service = "localhost:443".parse().unwrap();
        let SearchEvent::Found(found) = resolve(&service, &means).await else {
            panic!("localhost was not resolved");
        };
        assert!(
            found
                .iter()
                .all(|one| one.host.ip().is_loopback() && one.addrs.len() == 1)
        );
    }
}
