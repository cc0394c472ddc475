//! Values that cannot work, each of which the chart or the binaries have to refuse, and to name.

use anyhow::Result;
use p2pnode_tests::k8s::faults;

use super::bench::Bench;

struct Mutation {
    chart: &'static str,
    set: &'static str,
    /// What has to be told.
    told: &'static str,
}

const fn node(set: &'static str, told: &'static str) -> Mutation {
    Mutation {
        chart: "p2pnode",
        set,
        told,
    }
}

const fn relay(set: &'static str, told: &'static str) -> Mutation {
    Mutation {
        chart: "relay-node",
        set,
        told,
    }
}

const MUTATIONS: &[Mutation] = &[
    // Ranges.
    node(
        "ports.range=40050-40000",
        "the last port is below the first",
    ),
    node("ports.range=40000", "/ports/range"),
    node("ports.range=40000-70000", "a port is at most 65535"),
    node("ports.perOrdinal=30", "enough for 1 pods"),
    node("ports.perOrdinal=0", "would use the same ports"),
    node("replicas=6", "enough for 5 pods"),
    node("admin.port=40001", "is in ports.range"),
    node("test.peer=db,replicas=5", "has none left for it"),
    // Identity.
    node("identity.from=secret", "/identity/secretName"),
    relay("identity.secretName=", "/identity/secretName"),
    // Relays and addresses.
    node("relays=null", "relays"),
    node(
        "relays[0]=/dns/relay.example.net/udp/443/quic-v1",
        "/relays/0",
    ),
    node(
        "relays[0]=/dns/relay.example.net/udp/443/quic-v1/p2p/12D3KooWshort",
        "invalid multihash",
    ),
    node(
        "relays[0]=/dns/relay.example.net/udp/443/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
        "relays",
    ),
    node("publicIp.from=value", "/publicIp/value"),
    relay("externalHost=", "/externalHost"),
    relay("relays[0]=/dns/relay2.example.net/tcp/443", "/relays/0"),
    // Tokens.
    node("join.secret=p2pnode-join", "/join"),
    node("join.secretName=P2pnode_join", "/join/secretName"),
    relay("tokens.enabled=yes", "/tokens/enabled"),
    relay("tokens.revoked={p2pjoin1_abc}", "/tokens/revoked/0"),
    relay("tokens.revoked={1234567890123456}", "/tokens/revoked/0"),
    relay("config.access.tokens=maybe", "access.tokens"),
    // Unknown keys and impossible values.
    node("network=bridge", "/network"),
    node("port.range=40000-40010", "port"),
    node("config.punsh.enabled=true", "punsh"),
    node("config.punch.advertice={x}", "punch.advertice"),
    node("config.dial.family=ipv4", "dial.family"),
    node("config.peers.db.id=me", "peers.db.id"),
    node(
        "terminationGracePeriodSeconds=1",
        "/terminationGracePeriodSeconds",
    ),
    relay("config.limits.reservations=many", "limits.reservations"),
    relay("config.access.alow={x}", "access.alow"),
    relay("drainSeconds=-1", "/drainSeconds"),
];

/// The mutations that nobody refuses, or whose fault is not named.
pub(super) fn uncaught(bench: &Bench) -> Result<Vec<String>> {
    let mut uncaught = Vec::new();
    for Mutation { chart, set, told } in MUTATIONS {
        let values = format!("{chart}-values.yaml");
        let refused = match bench.try_helm(chart, &values, &[set])? {
            Ok(manifests) => faults(&manifests, &bench.bins),
            Err(error) => vec![error.to_string()],
        };
        if refused.is_empty() {
            uncaught.push(format!("{chart} with {set} is refused by nobody"));
        } else if !refused.iter().any(|refusal| refusal.contains(told)) {
            uncaught.push(format!(
                "{chart} with {set}: {told:?} is not told, but {refused:?}"
            ));
        }
    }
    println!(
        "  {} of {} are refused, each by name",
        MUTATIONS.len() - uncaught.len(),
        MUTATIONS.len()
    );
    Ok(uncaught)
}
