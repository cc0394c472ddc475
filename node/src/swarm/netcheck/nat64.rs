//! The prefix of a NAT64, if the resolver is a DNS64 ([RFC 7050](https://www.rfc-editor.org/rfc/rfc7050)). The question leaves from a
//! port of the range.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt as _, future::ready, stream::FuturesUnordered};
use p2pnode_protocol::dns64;
use p2pnode_transports::{Family, Handle};
use tokio::time::{Instant, timeout_at};

use crate::core::netcheck::Nat64;

/// Where the system has its resolvers, and the port of the DNS.
const RESOLVERS: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// Resolvers that are asked, how long they have, and after which time one is asked again.
const MOST: usize = 3;
const ANSWER: Duration = Duration::from_millis(1_500);
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn look(sockets: &Handle) -> Nat64 {
    let text = std::fs::read_to_string(RESOLVERS).unwrap_or_default();
    let resolvers = resolvers(&text);
    let deadline = Instant::now() + ANSWER;
    // At once: a host without IPv4 may have a resolver of IPv4 in its file.
    let asked = Family::ALL.map(|family| {
        let of_family = resolvers.iter().filter(|ip| Family::from(**ip) == family);
        let resolvers: Vec<_> = of_family.map(|ip| SocketAddr::new(*ip, PORT)).collect();
        async move { ask(sockets, family, &resolvers, deadline).await }
    });
    let asked = asked.into_iter().collect::<FuturesUnordered<_>>();
    let answer = asked.filter_map(ready).next().await;
    answer.unwrap_or(Nat64::Unknown)
}

/// The first resolvers of the file, without those that need the name of an interface.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = servers.filter_map(|server| server.trim().parse().ok());
    servers.take(MOST).collect()
}

async fn ask(
    sockets: &Handle,
    family: Family,
    resolvers: &[SocketAddr],
    deadline: Instant,
) -> Option<Nat64> {
    if resolvers.is_empty() {
        return None;
    }
    let socket = sockets.claim_udp(family).ok()?;
    let (id, mut buffer) = (fastrand::u16(..), [0; 1500]);
    while Instant::now() < deadline {
        for resolver in resolvers {
            // Without a route there is no answer.
            let _ = socket
                .socket()
                .send_to(&dns64::question(id), resolver)
                .await;
        }
        let until = deadline.min(Instant::now() + AGAIN);
        while let Ok(received) = timeout_at(until, socket.socket().recv_from(&mut buffer)).await {
            // An error is one that a router has reported about an earlier packet.
            let Ok((length, from)) = received else {
                continue;
            };
            if resolvers.contains(&from)
                && let Some(prefix) = dns64::answer(id, &buffer[..length])
            {
                return Some(prefix.map_or(Nat64::None, Nat64::Prefix));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_the_systems_file() {
        let text = "# comment\nsearch example.net\nnameserver 192.0.2.53\n nameserver 2001:db8::53 \nnameserver fe80::1%eth0\noptions edns0\n";
        let expected: Vec<IpAddr> = ["192.0.2.53", "2001:db8::53"]
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        assert_eq!(resolvers(text), expected);
    }
}
