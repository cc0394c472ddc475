//! The lab itself: each NAT maps and filters as its name says. No program under test takes part.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;

use p2pnode_tests::{capture::Side, prelude::*, probe};
use tokio::net::{TcpListener, UdpSocket};

lab_tests! {
    eim_apdf_keeps_the_port_and_lets_in_only_contacted_endpoints: is(NatKind::EimApdf, Preserving, ByAddressAndPort);
    eim_apdf_rewrite_gives_one_other_port_for_all_destinations: is(NatKind::EimApdfRewrite, Rewriting, ByAddressAndPort);
    a_full_cone_lets_in_anybody: is(NatKind::FullCone, Preserving, Open);
    address_restricted_lets_in_every_port_of_a_contacted_address: is(NatKind::AddressRestricted, Preserving, ByAddress);
    a_firewall_translates_nothing_and_lets_in_only_contacted_endpoints: is(NatKind::Firewall, Preserving, ByAddressAndPort);
    an_ip6_firewall_lets_in_only_contacted_endpoints: is(NatKind::Ip6Firewall, Preserving, ByAddressAndPort);
    a_carriers_nat_over_a_home_nat_rewrites_and_filters: is(NatKind::Cgnat, Rewriting, ByAddressAndPort);
    a_range_firewall_maps_like_a_home_router: is(NatKind::RangeFirewall, Preserving, ByAddressAndPort);
    a_range_firewall_lets_out_no_source_port_beside_the_range: only_the_range();
    a_dual_stack_site_translates_ip4: is(NatKind::DualStack, Preserving, ByAddressAndPort);
    a_dual_stack_site_firewalls_its_untranslated_ip6: is_over(true, NatKind::DualStack, Preserving, ByAddressAndPort);
    symmetric_gives_every_destination_another_port: is(NatKind::Symmetric, Symmetric, ByAddressAndPort);
    a_public_host_is_reached_by_anybody: is(NatKind::None, Preserving, Open);
    tcp_opens_simultaneously_through_two_nats_that_keep_ports: simultaneous_open(NatKind::EimApdf);
    tcp_opens_simultaneously_through_two_nats_that_rewrite_ports: simultaneous_open(NatKind::EimApdfRewrite);
    tcp_opens_simultaneously_through_two_carriers: simultaneous_open(NatKind::Cgnat);
}

const PORT: u16 = 40007;
const FIRST: u16 = 7001;
const SECOND: u16 = 7002;
/// Nobody listens there.
const CLOSED: u16 = 7003;

#[derive(Debug, PartialEq, Eq)]
enum Mapping {
    Preserving,
    Rewriting,
    Symmetric,
}

#[derive(Debug, PartialEq, Eq)]
enum Filtering {
    Open,
    ByAddress,
    ByAddressAndPort,
}

use Filtering::*;
use Mapping::*;

/// A host behind a NAT, and three endpoints on the public internet: two ports of `x`, one of `y`.
///
/// Their sockets are bound once: a port that is closed and bound again can be held for a moment by a process that another
/// test has just forked.
struct Behind {
    lab: Lab,
    site: Site,
    host: Host,
    x: Host,
    y: Host,
    udp: [UdpSocket; 3],
    tcp: [TcpListener; 3],
}

impl Behind {
    async fn new(kind: NatKind, ip6: bool) -> Result<Self> {
        let lab = Lab::of_test().await?;
        let x = only(lab.public_host("x").await?, ip6);
        let y = only(lab.public_host("y").await?, ip6);
        let (site, host) = lab.home("a", kind).await?;
        let host = only(host, ip6);
        // A first packet waits until its neighbours are found, and the kernel drops it if that takes long. A SYN is repeated.
        for remote in [&x, &y] {
            let closed = SocketAddr::new(remote.addresses[0], CLOSED);
            probe::connects(&host, PORT + 2, closed).await?;
        }
        let udp = [
            probe::udp(&x, FIRST).await?,
            probe::udp(&x, SECOND).await?,
            probe::udp(&y, FIRST).await?,
        ];
        let tcp = [
            probe::listen(&x, FIRST).await?,
            probe::listen(&x, SECOND).await?,
            probe::listen(&y, FIRST).await?,
        ];
        Ok(Self {
            lab,
            site,
            host,
            x,
            y,
            udp,
            tcp,
        })
    }

    fn endpoints(&self) -> [SocketAddr; 3] {
        let endpoint = |host: &Host, port| SocketAddr::new(host.addresses[0], port);
        [
            endpoint(&self.x, FIRST),
            endpoint(&self.x, SECOND),
            endpoint(&self.y, FIRST),
        ]
    }

    async fn mapping(&self) -> Result<Mapping> {
        let socket = probe::udp(&self.host, PORT).await?;
        let mut seen = Vec::new();
        for (observer, endpoint) in self.udp.iter().zip(self.endpoints()) {
            socket.send_to(&[0], endpoint).await?;
            let (_, from) = probe::receive(observer).await?;
            if endpoint.is_ipv4() {
                assert_eq!(
                    from.ip(),
                    self.site.outside_ip4().unwrap_or(self.host.addresses[0])
                );
            }
            seen.push(from.port());
        }
        Ok(classify(&seen))
    }

    async fn tcp_mapping(&self) -> Result<Mapping> {
        let mut seen = Vec::new();
        for (observer, endpoint) in self.tcp.iter().zip(self.endpoints()) {
            let _dialed = probe::connect(&self.host, PORT, endpoint).await?;
            seen.push(observer.accept().await?.1.port());
        }
        Ok(classify(&seen))
    }

    async fn filtering(&self) -> Result<Filtering> {
        let socket = probe::udp(&self.host, PORT + 1).await?;
        let [contacted, same_address, stranger] = &self.udp;
        // Strangers try before and after the mapping exists: what comes early must not spoil what comes later.
        if let Some(outside) = self
            .site
            .outside_ip4()
            .filter(|_| self.endpoints()[0].is_ipv4())
        {
            stranger.send_to(b"e", (outside, PORT + 1)).await?;
        }
        socket.send_to(&[0], self.endpoints()[0]).await?;
        let (_, mapped) = probe::receive(contacted).await?;
        stranger.send_to(b"s", mapped).await?;
        same_address.send_to(b"a", mapped).await?;
        contacted.send_to(b"c", mapped).await?;
        let mut received = vec![probe::receive(&socket).await?.0];
        received.extend(probe::drain(&socket).await?);
        received.sort_unstable();
        assert!(
            received.contains(&b'c'),
            "the contacted endpoint must get in"
        );
        Ok(match received.as_slice() {
            b"acs" => Open,
            b"ac" => ByAddress,
            b"c" => ByAddressAndPort,
            other => panic!("no filtering of RFC 4787 admits {other:?}"),
        })
    }

    async fn tcp_filtering(&self) -> Result<Filtering> {
        let port = PORT + 1;
        let _accepts = probe::listen(&self.host, port).await?;
        let _held = probe::connect(&self.host, port, self.endpoints()[0]).await?;
        let (_open, mapped) = self.tcp[0].accept().await?;
        let stranger = probe::connects(&self.y, FIRST, mapped).await?;
        let same_address = probe::connects(&self.x, SECOND, mapped).await?;
        Ok(match (same_address, stranger) {
            (true, true) => Open,
            (true, false) => ByAddress,
            (false, false) => ByAddressAndPort,
            (false, true) => panic!("a stranger gets in where the contacted address does not"),
        })
    }
}

fn only(mut host: Host, ip6: bool) -> Host {
    host.addresses.retain(|ip| ip.is_ipv6() == ip6);
    host
}

fn classify(seen: &[u16]) -> Mapping {
    match seen {
        [a, b, c] if a == b && b == c && *a == PORT => Preserving,
        [a, b, c] if a == b && b == c => Rewriting,
        _ => Symmetric,
    }
}

async fn is(kind: NatKind, mapping: Mapping, filtering: Filtering) -> Result<()> {
    is_over(!kind.has_ip4(), kind, mapping, filtering).await
}

async fn is_over(ip6: bool, kind: NatKind, mapping: Mapping, filtering: Filtering) -> Result<()> {
    let behind = Behind::new(kind, ip6).await?;
    assert_eq!(behind.mapping().await?, mapping, "UDP mapping");
    assert_eq!(behind.filtering().await?, filtering, "UDP filtering");
    assert_eq!(behind.tcp_mapping().await?, mapping, "TCP mapping");
    assert_eq!(behind.tcp_filtering().await?, filtering, "TCP filtering");
    Ok(())
}

async fn only_the_range() -> Result<()> {
    let behind = Behind::new(NatKind::RangeFirewall, false).await?;
    let capture = behind.lab.capture(&behind.site).await?;
    let observer = behind.endpoints()[0];
    for port in [RANGE.start() - 1, RANGE.end() + 1, 443] {
        let socket = probe::udp(&behind.host, port).await?;
        socket.send_to(&[0], observer).await?;
        assert!(
            probe::drain(&behind.udp[0]).await?.is_empty(),
            "UDP from {port}"
        );
        assert!(
            !probe::connects(&behind.host, port, observer).await?,
            "TCP from {port}"
        );
    }
    for port in [*RANGE.start(), *RANGE.end()] {
        let socket = probe::udp(&behind.host, port).await?;
        socket.send_to(&[0], observer).await?;
        assert_eq!(probe::receive(&behind.udp[0]).await?.1.port(), port, "UDP");
        let _open = probe::connect(&behind.host, port, observer).await?;
    }
    capture.settle().await?;
    let sent = capture.sent_by(&behind.host.addresses);
    let left = capture.packets(Side::Outside);
    assert!(
        sent.iter().any(|packet| packet.source.port() == 443),
        "the capture inside sees what the firewall stops"
    );
    assert!(
        left.iter()
            .filter(|packet| packet.outgoing)
            .all(|packet| RANGE.contains(&packet.source.port()))
    );
    Ok(())
}

/// Both learn their mapping from a public host over TCP, then dial each other from the same port at once.
async fn simultaneous_open(kind: NatKind) -> Result<()> {
    let lab = Lab::of_test().await?;
    let x = lab.public_host("x").await?;
    let observer = probe::listen(&x, FIRST).await?;
    let mut held = Vec::new();
    let mut sides = Vec::new();
    for name in ["a", "b"] {
        let (_site, host) = lab.home(name, kind).await?;
        let dialed = probe::connect(&host, PORT, SocketAddr::new(x.ip(false)?, FIRST)).await?;
        let (accepted, mapped) = observer.accept().await?;
        held.push((dialed, accepted));
        sides.push((host, mapped));
    }
    let [(a, a_mapped), (b, b_mapped)] = &sides[..] else {
        panic!("two sides")
    };
    let (from_a, from_b) = tokio::try_join!(
        probe::connect(a, PORT, *b_mapped),
        probe::connect(b, PORT, *a_mapped)
    )?;
    from_a.writable().await?;
    from_a.try_write(b"a")?;
    from_b.readable().await?;
    let mut byte = [0];
    from_b.try_read(&mut byte)?;
    assert_eq!(&byte, b"a");
    assert_eq!(from_a.peer_addr()?, *b_mapped);
    Ok(())
}
