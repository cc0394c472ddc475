//! Finding a peer without any relay: at the addresses of a service in the DNS, and by multicast DNS on a LAN.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use p2pnode_tests::{
    capture::Capture,
    packet::{Packet, Protocol},
    prelude::*,
};

lab_tests! {
    two_pods_of_a_service_connect_over_quic_by_their_ids_without_any_relay: two_pods(Transport::Quic);
    two_pods_of_a_service_connect_over_tcp_by_their_ids_without_any_relay: two_pods(Transport::Tcp);
    other_pods_of_the_service_are_no_error_and_are_not_asked_twice: other_pods();
    a_peer_on_the_lan_is_found_by_multicast_dns_without_any_relay: mdns();
    a_peer_on_a_lan_with_ipv6_alone_is_found_by_multicast_dns: mdns_over_ip6();
    a_node_whose_mdns_port_is_taken_says_so_and_runs_on: mdns_port_taken();
    a_name_that_does_not_resolve_is_logged_once_and_the_dial_goes_on_over_the_relay: no_such_name();
    a_peer_that_is_not_among_the_pods_of_the_service_is_reached_over_the_relay: elsewhere();
}

const NAME: &str = "p2pnode.ns.svc.cluster.local";
const SERVICE: &str = "p2pnode.ns.svc.cluster.local:443";
const PORT: u16 = 443;
const MDNS: u16 = 5353;
const DNS_KEY: &str = "P2PNODE_DISCOVERY_DNS";
const MDNS_KEY: &str = "P2PNODE_DISCOVERY_MDNS";
const NOBODY: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

/// Hosts on one LAN whose firewall lets only the range out, and no relay.
struct Lan {
    hosts: Vec<Host>,
    capture: Capture,
    // Its router is the LAN.
    _site: Site,
    _lab: Lab,
}

fn without_relay(transports: &[Transport]) -> NodeArgs {
    NodeArgs::with_relays(Vec::new(), transports)
}

impl Lan {
    async fn new(kind: NatKind, hosts: usize) -> Result<Self> {
        let lab = Lab::of_test().await?;
        let site = lab.site("lan", kind).await?;
        let mut made = Vec::new();
        for n in 0..hosts {
            made.push(lab.host(&format!("pod-{n}"), &site).await?);
        }
        Ok(Self {
            hosts: made,
            capture: lab.capture(&site).await?,
            _site: site,
            _lab: lab,
        })
    }

    async fn answers(&self, host: usize) -> Result<Node> {
        let host = &self.hosts[host];
        let launch = without_relay(&Transport::ALL).run_on(host, host.device.name())?;
        launch.env(MDNS_KEY, "true").runs(host).await
    }

    async fn asks(&self, peer: &str) -> Result<Dial> {
        let dial = without_relay(&Transport::ALL).dial("dial", peer)?;
        dial.env(MDNS_KEY, "true").on(&self.hosts[0])?.ended().await
    }

    async fn pod(&self, number: usize, transports: &[Transport]) -> Result<Node> {
        let host = &self.hosts[number];
        let mut launch = without_relay(transports).run_on(host, host.device.name())?;
        for transport in transports {
            launch = launch.args(["--listen", &transport.addr("0.0.0.0", PORT)]);
        }
        let node = launch.env(DNS_KEY, SERVICE).runs(host).await?;
        let on = host.ip(false)?.to_string();
        let there =
            |event: &&Event| event.name() == "listening" && event.text("/address").contains(&on);
        let listens = |events: &[Event]| {
            (events.iter().filter(there).count() == transports.len()).then_some(())
        };
        node.process
            .until("its listeners", PATIENCE, listens)
            .await?;
        Ok(node)
    }

    /// In the hosts file of the first host the service has these endpoints.
    fn resolves(&self, endpoints: &[usize]) -> Result<()> {
        for endpoint in endpoints {
            let ip = self.hosts[*endpoint].ip(false)?;
            self.hosts[0].device.set_host(NAME, ip)?;
        }
        Ok(())
    }

    fn addresses(&self, hosts: &[usize]) -> Vec<IpAddr> {
        let of = |host: &usize| self.hosts[*host].addresses.clone();
        hosts.iter().flat_map(of).collect()
    }

    /// How many TCP connections the first host has begun to these others. Each place is dialed over both transports at once.
    async fn opened(&self, others: &[usize]) -> Result<usize> {
        self.capture.settle().await?;
        let others = self.addresses(others);
        let sent = self.capture.sent_by(&self.hosts[0].addresses);
        let opens = |packet: &&Packet| {
            matches!(packet.protocol, Protocol::Tcp { opens: true, .. })
                && others.contains(&packet.destination.ip())
        };
        Ok(sent.iter().filter(opens).count())
    }

    /// Every packet of the host that asked left from the range, and none went anywhere but to the LAN or a group on it.
    async fn verify_asker(&self) -> Result<()> {
        self.capture.keeps(&self.hosts[0], &RANGE).await?;
        let lan = self.addresses(&(0..self.hosts.len()).collect::<Vec<_>>());
        for packet in self.capture.sent_by(&self.hosts[0].addresses) {
            let to = packet.destination.ip();
            ensure!(lan.contains(&to) || to.is_multicast(), "sent to {to}");
        }
        Ok(())
    }
}

fn found<'a>(dial: &'a Dial, found_by: &str) -> Result<&'a Event> {
    let result = dial.is("direct")?;
    result.has(&json!({"found_by": found_by, "path": {"how": "dialed"}}))?;
    let relayed = dial
        .events
        .iter()
        .find(|event| event.path_kind() == "relayed");
    ensure!(relayed.is_none(), "{relayed:?}");
    Ok(result)
}

async fn two_pods(transport: Transport) -> Result<()> {
    let lan = Lan::new(NatKind::RangeFirewall, 2).await?;
    lan.resolves(&[0, 1])?;
    let a = lan.pod(0, &[transport]).await?;
    let b = lan.pod(1, &[transport]).await?;
    let dial = a.dial("a-dial", &b.id).await?;
    let to = SocketAddr::new(b.host.ip(false)?, PORT).to_string();
    found(&dial, "dns")?.has(&json!({"path": {"hops": [{"remote": to}]}}))?;
    let why = a.control.why(&b.id).await?;
    events::has(&why, &json!({"candidates": [{"path": {"kind": "direct"}}]}))?;
    lan.verify_asker().await?;
    // B has originated nothing: what it sent are replies of its listener to A.
    for packet in lan.capture.sent_by(&b.host.addresses) {
        let replies = packet.source.port() == PORT && RANGE.contains(&packet.destination.port());
        ensure!(replies, "{packet}");
    }
    Ok(())
}

async fn other_pods() -> Result<()> {
    let lan = Lan::new(NatKind::RangeFirewall, 4).await?;
    lan.resolves(&[0, 1, 2, 3])?;
    let a = lan.pod(0, &Transport::ALL).await?;
    let _others = [
        lan.pod(1, &Transport::ALL).await?,
        lan.pod(2, &Transport::ALL).await?,
    ];
    // The last address has nobody yet, and says so to TCP alone: the dial ends after all handshakes are long over.
    let dial = a.dial("a-failed", NOBODY).await?;
    let reason = dial.is("unreachable")?.text("/reason");
    let places = "of 3 place(s) that discovery.dns told, 2 are other peers and 1 failed: ";
    ensure!(reason.contains(places), "{reason}");
    let before = lan.opened(&[1, 2]).await?;
    ensure!(before > 0, "nothing was opened to the others");

    let b = lan.pod(3, &Transport::ALL).await?;
    found(&a.dial("a-dial", &b.id).await?, "dns")?;
    let opened = lan.opened(&[1, 2]).await?;
    ensure!(
        opened == before,
        "pods that are known to be others were dialed again"
    );
    lan.verify_asker().await
}

async fn mdns() -> Result<()> {
    let lan = Lan::new(NatKind::RangeFirewall, 3).await?;
    let b = lan.answers(1).await?;
    let _other = lan.answers(2).await?;
    found(&lan.asks(&b.id).await?, "mdns")?;
    lan.verify_asker().await?;
    let group = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 251), MDNS));
    let sent = lan.capture.sent_by(&lan.hosts[0].addresses);
    let asked = sent.iter().any(|packet| packet.destination == group);
    ensure!(asked, "no question is in the capture");
    // What leaves from 5353 are answers to the asker; the rest leaves from the range.
    for packet in lan.capture.sent_by(&lan.hosts[1].addresses) {
        let answers = packet.source.port() == MDNS
            && packet.destination.ip() == lan.hosts[0].ip(false)?
            && RANGE.contains(&packet.destination.port());
        ensure!(answers || RANGE.contains(&packet.source.port()), "{packet}");
    }
    Ok(())
}

async fn mdns_over_ip6() -> Result<()> {
    let lan = Lan::new(NatKind::Ip6Firewall, 2).await?;
    let b = lan.answers(1).await?;
    let dial = lan.asks(&b.id).await?;
    found(&dial, "mdns")?.has(&json!({"path": {"hops": [{"family": "ip6"}]}}))?;
    lan.verify_asker().await
}

async fn mdns_port_taken() -> Result<()> {
    let lan = Lan::new(NatKind::RangeFirewall, 2).await?;
    // For itself: without SO_REUSEADDR.
    let taken = &lan.hosts[1].device;
    let _taken = taken.run_sync(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, MDNS))?))?;
    let b = lan.answers(1).await?;
    let warning =
        "this node answers no multicast DNS over ip4; stop the program that holds the port";
    b.process.logged(warning, PATIENCE).await?;
    let reason = json!({"reason": "multicast DNS told no place where it may be"});
    lan.asks(&b.id).await?.is("unreachable")?.has(&reason)?;
    b.control.status().await?;
    Ok(())
}

async fn no_such_name() -> Result<()> {
    let peers = Pair::of_test(NatKind::EimApdf, NatKind::EimApdf)
        .start()
        .await?;
    let a = peers.relay.run("a", &peers.a.host, &Transport::ALL)?;
    let a = a
        .env(DNS_KEY, "no-such-service.invalid:443")
        .reserves(&peers.a.host)
        .await?;
    let warning = "cannot resolve no-such-service.invalid of discovery.dns";
    let dial = a.dial("a-failed", NOBODY).await?;
    let reason = dial.is("unreachable")?.text("/reason");
    ensure!(reason.contains(warning), "{reason}");
    let dial = a.dial("a-dial", &peers.b_id).await?;
    dial.is("direct")?.has(&json!({"found_by": "relay"}))?;
    let log = a.process.log();
    ensure!(log.matches(warning).count() == 1, "{log}");
    let remedy = "correct the name, or check that the service has endpoints";
    ensure!(log.contains(remedy), "{log}");
    peers.verify_range().await
}

async fn elsewhere() -> Result<()> {
    let peers = Pair::of_test(NatKind::EimApdf, NatKind::EimApdf)
        .start()
        .await?;
    let other = peers.lab.host("host-other", &peers.a.site).await?;
    let launch = without_relay(&Transport::ALL).run_on(&other, "other")?;
    let launch = launch.args(["--listen", &Transport::Quic.addr("0.0.0.0", PORT)]);
    let other_node = launch.runs(&other).await?;
    other_node.process.event("listening", PATIENCE).await?;
    peers.a.host.device.set_host(NAME, other.ip(false)?)?;
    let dial = peers
        .relay
        .dial("a", &peers.a.host, &Transport::ALL, &peers.b_id)?;
    let dial = dial
        .env(DNS_KEY, SERVICE)
        .on(&peers.a.host)?
        .ended()
        .await?;
    dial.is("direct")?.has(&json!({"found_by": "relay"}))?;
    peers.verify_range().await
}
