//! Finding a peer without any relay: at the addresses of a service in the DNS, and by multicast DNS on a LAN.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved, strays},
    bins::{Bins, bins},
    capture::Capture,
    events::Event,
    lab::{Host, Lab, Site},
    nat::{NatKind, RANGE},
    node::{Launch, Process},
    packet::{Packet, Protocol},
    pair::Pair,
    running::Node,
};

p2pnode_tests::lab_tests!();

/// A headless service of the pods, and the port that they listen on.
const NAME: &str = "p2pnode.ns.svc.cluster.local";
const PORT: u16 = 443;
const MDNS: u16 = 5353;

const DNS_KEY: &str = "P2PNODE_DISCOVERY_DNS";
const MDNS_KEY: &str = "P2PNODE_DISCOVERY_MDNS";

fn service() -> String {
    format!("{NAME}:{PORT}")
}

/// Hosts on one LAN whose firewall lets only the range out, and no relay.
struct Lan {
    hosts: Vec<Host>,
    capture: Capture,
    bins: Bins,
    // Its router is the LAN.
    _site: Site,
    lab: Lab,
}

impl Lan {
    async fn new(name: &str, kind: NatKind, hosts: usize) -> Result<Self> {
        let bins = bins()?;
        let lab = Lab::new(name).await?;
        let site = lab.site("lan", kind).await?;
        let mut made = Vec::new();
        for n in 0..hosts {
            made.push(lab.host(&format!("pod-{n}"), &site).await?);
        }
        Ok(Self {
            hosts: made,
            capture: lab.capture(&site).await?,
            _site: site,
            bins,
            lab,
        })
    }

    fn args(transports: &[Transport]) -> NodeArgs {
        NodeArgs {
            relays: Vec::new(),
            transports: transports.to_vec(),
            range: RANGE,
        }
    }

    fn run(&self, name: &str, transports: &[Transport]) -> Launch {
        Self::args(transports).run(&self.lab, &self.bins, name)
    }

    async fn start(&self, host: usize, launch: Launch) -> Result<Node> {
        Node::start(&self.lab, &self.bins, &self.hosts[host], launch).await
    }

    /// A node that listens as the pods of a service do.
    async fn pod(&self, host: usize, transports: &[Transport]) -> Result<Node> {
        let mut launch = self.run(&format!("pod-{host}"), transports);
        for transport in transports {
            let addr = match transport {
                Transport::Quic => format!("/ip4/0.0.0.0/udp/{PORT}/quic-v1"),
                Transport::Tcp => format!("/ip4/0.0.0.0/tcp/{PORT}"),
            };
            launch = launch.args(["--listen", &addr]);
        }
        let node = self.start(host, launch.env(DNS_KEY, service())).await?;
        let on = self.hosts[host].ip(false)?.to_string();
        let listens = |events: &[Event]| {
            let told = events.iter().filter(|event| event.name() == "listening");
            let there = told.filter(|event| event.text("/address").contains(&on));
            (there.count() == transports.len()).then_some(())
        };
        node.process
            .until("its listeners", PATIENCE, listens)
            .await?;
        Ok(node)
    }

    /// In the hosts file of `host` the service has these endpoints.
    fn resolves(&self, host: usize, endpoints: &[usize]) -> Result<()> {
        for endpoint in endpoints {
            let ip = self.hosts[*endpoint].ip(false)?;
            self.hosts[host].device.set_host(NAME, ip)?;
        }
        Ok(())
    }

    /// How many TCP connections the host has begun to these others. Each place is dialed over both transports at once.
    async fn opened(&self, host: usize, others: &[usize]) -> Result<usize> {
        self.capture.settle().await?;
        let others: Vec<IpAddr> = others
            .iter()
            .flat_map(|other| self.hosts[*other].addresses.clone())
            .collect();
        let sent = self.capture.sent_by(&self.hosts[host].addresses);
        let opens = |packet: &&Packet| {
            matches!(packet.protocol, Protocol::Tcp { opens: true, .. })
                && others.contains(&packet.destination.ip())
        };
        Ok(sent.iter().filter(opens).count())
    }

    /// Every packet of the host that asked left from the range, and none went anywhere but to the LAN or a group on it.
    async fn verify_asker(&self, host: usize) -> Result<()> {
        self.capture.settle().await?;
        let host = &self.hosts[host];
        let strays = strays(&self.capture, host, &RANGE);
        ensure!(strays.is_empty(), "from outside the range: {strays:?}");
        let lan: Vec<IpAddr> = self
            .hosts
            .iter()
            .flat_map(|host| host.addresses.clone())
            .collect();
        let sent = self.capture.sent_by(&host.addresses);
        ensure!(!sent.is_empty(), "the capture holds no packet");
        for packet in sent {
            let to = packet.destination.ip();
            ensure!(lan.contains(&to) || to.is_multicast(), "sent to {to}");
        }
        Ok(())
    }
}

/// The end of a dial that must be direct, found so, without a circuit.
async fn direct(dial: &mut Process, found_by: &str) -> Result<Event> {
    let status = dial.exit(PATIENCE * 2).await?;
    let events = dial.events();
    let result = result(&events)?;
    ensure!(
        status.code() == Some(0)
            && result.text("/outcome") == "direct"
            && result.text("/found_by") == found_by
            && result.text("/path/how") == "dialed",
        "{status}: {}; {}",
        result.line,
        dial.log()
    );
    let relayed = events.iter().find(|event| event.path_kind() == "relayed");
    ensure!(relayed.is_none(), "{relayed:?}");
    Ok(result.clone())
}

fn result(events: &[Event]) -> Result<&Event> {
    let result = events.iter().find(|event| event.name() == "result");
    result.context("there is no result")
}

async fn two_pods(name: &str, transport: Transport) -> Result<()> {
    let lan = Lan::new(name, NatKind::RangeFirewall, 2).await?;
    lan.resolves(0, &[0, 1])?;
    let a = lan.pod(0, &[transport]).await?;
    let b = lan.pod(1, &[transport]).await?;
    let mut dial = a
        .control
        .dial("a-dial", &b.id)
        .start(&a.host.device, lan.lab.artifacts())?;
    let result = direct(&mut dial, "dns").await?;
    let to = SocketAddr::new(b.host.ip(false)?, PORT).to_string();
    ensure!(result.text("/path/hops/0/remote") == to, "{}", result.line);
    let why = a.control.why(&b.id).await?;
    ensure!(why["candidates"][0]["path"]["kind"] == "direct", "{why}");
    lan.verify_asker(0).await?;
    // B has originated nothing: what it sent are replies of its listener to A.
    let sent = lan.capture.sent_by(&b.host.addresses);
    for packet in &sent {
        ensure!(
            packet.source.port() == PORT && RANGE.contains(&packet.destination.port()),
            "{packet:?}"
        );
    }
    lan.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn two_pods_of_a_service_connect_over_quic_by_their_ids_without_any_relay() -> Result<()> {
    two_pods("local-dns-quic", Transport::Quic).await
}

#[tokio::test]
async fn two_pods_of_a_service_connect_over_tcp_by_their_ids_without_any_relay() -> Result<()> {
    two_pods("local-dns-tcp", Transport::Tcp).await
}

#[tokio::test]
async fn other_pods_of_the_service_are_no_error_and_are_not_asked_twice() -> Result<()> {
    let lan = Lan::new("local-dns-others", NatKind::RangeFirewall, 4).await?;
    lan.resolves(0, &[0, 1, 2, 3])?;
    let a = lan.pod(0, &Transport::ALL).await?;
    let mut others = Vec::new();
    for host in [1, 2] {
        others.push(lan.pod(host, &Transport::ALL).await?);
    }
    // The last address has nobody yet, and says so to TCP alone: the dial ends after all handshakes are long over.
    let stranger = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    let dial = |name: &str, peer: &str| {
        let dial = a.control.dial(name, peer);
        dial.start(&a.host.device, lan.lab.artifacts())
    };
    let mut vain = dial("a-vain", stranger)?;
    let status = vain.exit(PATIENCE * 2).await?;
    let events = vain.events();
    let reason = result(&events)?.text("/reason").to_owned();
    ensure!(
        status.code() == Some(4)
            && reason.contains(
                "of 3 place(s) that discovery.dns told, 2 are other peers and 1 failed: "
            ),
        "{status}: {reason}"
    );
    let before = lan.opened(0, &[1, 2]).await?;
    ensure!(before > 0, "nothing was opened to the others");

    let b = lan.pod(3, &Transport::ALL).await?;
    direct(&mut dial("a-dial", &b.id)?, "dns").await?;
    ensure!(
        lan.opened(0, &[1, 2]).await? == before,
        "pods that are known to be others were dialed again"
    );
    lan.verify_asker(0).await?;
    lan.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_peer_on_the_lan_is_found_by_multicast_dns_without_any_relay() -> Result<()> {
    let lan = Lan::new("local-mdns", NatKind::RangeFirewall, 3).await?;
    let mdns = |name: &str| lan.run(name, &Transport::ALL).env(MDNS_KEY, "true");
    let b = lan.start(1, mdns("b")).await?;
    let _other = lan.start(2, mdns("other")).await?;
    let mut dial = Lan::args(&Transport::ALL)
        .dial(&lan.bins, "a", &b.id)
        .env(MDNS_KEY, "true")
        .start(&lan.hosts[0].device, lan.lab.artifacts())?;
    direct(&mut dial, "mdns").await?;
    lan.verify_asker(0).await?;
    let asked = |packet: &Packet| {
        packet.destination == SocketAddr::new(Ipv4Addr::new(224, 0, 0, 251).into(), MDNS)
    };
    let sent = lan.capture.sent_by(&lan.hosts[0].addresses);
    ensure!(sent.iter().any(asked), "no question is in the capture");
    // What leaves from 5353 are answers to who asked; the rest leaves from the range.
    for packet in lan.capture.sent_by(&lan.hosts[1].addresses) {
        let answers = packet.source.port() == MDNS
            && packet.destination.ip() == lan.hosts[0].ip(false)?
            && RANGE.contains(&packet.destination.port());
        ensure!(
            answers || RANGE.contains(&packet.source.port()),
            "{packet:?}"
        );
    }
    lan.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_peer_on_a_lan_with_ipv6_alone_is_found_by_multicast_dns() -> Result<()> {
    let lan = Lan::new("local-mdns-ip6", NatKind::Ip6Firewall, 2).await?;
    let run = lan.run("b", &Transport::ALL).env(MDNS_KEY, "true");
    let b = lan.start(1, run).await?;
    let mut dial = Lan::args(&Transport::ALL)
        .dial(&lan.bins, "a", &b.id)
        .env(MDNS_KEY, "true")
        .start(&lan.hosts[0].device, lan.lab.artifacts())?;
    let result = direct(&mut dial, "mdns").await?;
    ensure!(
        result.text("/path/hops/0/family") == "ip6",
        "{}",
        result.line
    );
    lan.verify_asker(0).await?;
    lan.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_node_whose_mdns_port_is_taken_says_so_and_runs_on() -> Result<()> {
    let lan = Lan::new("local-mdns-taken", NatKind::RangeFirewall, 2).await?;
    // For itself: without SO_REUSEADDR.
    let taken = lan.hosts[1]
        .device
        .run_sync(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, MDNS))?))?;
    let run = lan.run("b", &Transport::ALL).env(MDNS_KEY, "true");
    let b = lan.start(1, run).await?;
    let warning =
        "this node answers no multicast DNS over ip4; stop the program that holds the port";
    b.process.logged(warning, PATIENCE).await?;
    let mut dial = Lan::args(&Transport::ALL)
        .dial(&lan.bins, "a", &b.id)
        .env(MDNS_KEY, "true")
        .start(&lan.hosts[0].device, lan.lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    let events = dial.events();
    let reason = result(&events)?.text("/reason").to_owned();
    ensure!(
        status.code() == Some(4) && reason == "multicast DNS told no place where it may be",
        "{status}: {reason}"
    );
    b.control.status().await?;
    drop(taken);
    lan.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_once_and_the_dial_goes_on_over_the_relay()
-> Result<()> {
    let peers = Pair::new("local-dns-vain", NatKind::EimApdf, NatKind::EimApdf)
        .start()
        .await?;
    let lab = &peers.lab;
    let args = NodeArgs::new(&peers.relay, &peers.a.host, &Transport::ALL);
    let run = args
        .run(lab, &peers.bins, "a")
        .env(DNS_KEY, "no-such-service.invalid:443");
    let a = Node::start(lab, &peers.bins, &peers.a.host, run).await?;
    reserved(&a.process).await?;
    let stranger = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
    for (name, peer, code) in [("a-vain", stranger, 4), ("a-dial", peers.b_id.as_str(), 0)] {
        let mut dial = a
            .control
            .dial(name, peer)
            .start(&a.host.device, lab.artifacts())?;
        let status = dial.exit(PATIENCE * 2).await?;
        let events = dial.events();
        let result = result(&events)?;
        ensure!(status.code() == Some(code), "{status}: {}", result.line);
        let expected = "cannot resolve no-such-service.invalid of discovery.dns: ";
        ensure!(
            code == 0 || result.text("/reason").contains(expected),
            "{}",
            result.line
        );
        ensure!(
            code != 0 || result.text("/found_by") == "relay",
            "{}",
            result.line
        );
    }
    let log = a.process.log();
    let told = log
        .matches("cannot resolve no-such-service.invalid of discovery.dns")
        .count();
    ensure!(told == 1, "told {told} times: {log}");
    ensure!(
        log.contains("correct the name, or check that the service has endpoints"),
        "{log}"
    );
    peers.verify_range().await?;
    peers.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_peer_that_is_not_among_the_pods_of_the_service_is_reached_over_the_relay() -> Result<()>
{
    let peers = Pair::new("local-dns-elsewhere", NatKind::EimApdf, NatKind::EimApdf)
        .start()
        .await?;
    let (lab, bins) = (&peers.lab, &peers.bins);
    let other = lab.host("host-other", &peers.a.site).await?;
    let listen = format!("/ip4/0.0.0.0/udp/{PORT}/quic-v1");
    let launch = Lan::args(&Transport::ALL)
        .run(lab, bins, "other")
        .args(["--listen", &listen]);
    let other_node = Node::start(lab, bins, &other, launch).await?;
    other_node.process.event("listening", PATIENCE).await?;
    peers.a.host.device.set_host(NAME, other.ip(false)?)?;
    let mut dial = NodeArgs::new(&peers.relay, &peers.a.host, &Transport::ALL)
        .dial(bins, "a", &peers.b_id)
        .env(DNS_KEY, service())
        .start(&peers.a.host.device, lab.artifacts())?;
    let status = dial.exit(PATIENCE * 2).await?;
    let events = dial.events();
    let result = result(&events)?;
    ensure!(
        status.code() == Some(0)
            && result.text("/outcome") == "direct"
            && result.text("/found_by") == "relay",
        "{status}: {}",
        result.line
    );
    peers.verify_range().await?;
    peers.lab.succeeded();
    Ok(())
}
