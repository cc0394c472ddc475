//! Which of its addresses a host offers, and what a relay does if a NAT hides those of its peers.

use std::net::{IpAddr, SocketAddr};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p2pnode_tests::{
    admin::{self, ADMIN},
    prelude::*,
};

lab_tests! {
    two_hosts_of_one_lan_with_six_bridges_each_are_direct_over_quic: bridges(Transport::Quic);
    two_hosts_of_one_lan_with_six_bridges_each_are_direct_over_tcp: bridges(Transport::Tcp);
    a_host_with_eight_deprecated_ip6_addresses_offers_the_one_that_packets_leave_from: deprecated();
    programs_on_a_point_to_point_link_report_their_own_end_of_it: point_to_point();
    a_relay_without_external_addresses_advertises_the_public_one_alone: public_alone();
    the_addresses_are_right_after_an_overrun_of_netlink: overrun();
    a_relay_whose_peers_are_hidden_by_a_nat_says_so_and_brings_none_of_them_together: hidden();
    nodes_report_a_relay_that_sees_an_inside_address_in_place_of_theirs: inside();
}

/// Bridges of containers, whose addresses come before those of the LAN in the order of numbers.
fn add_bridges(host: &Host) -> Result<()> {
    for net in 17..=22 {
        host.ip_commands(format!(
            "link add br-{net} type bridge\nlink set br-{net} up\naddr add 172.{net}.0.1/16 dev br-{net}\n"
        ))?;
    }
    Ok(())
}

async fn bridges(transport: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (site, a) = lab.home("a", NatKind::EimApdf).await?;
    let b = lab.host("host-b", &site).await?;
    add_bridges(&a)?;
    add_bridges(&b)?;
    let b_node = relay.node("b", &b, &[transport]).await?;
    let dial = relay.dial("a", &a, &[transport], &b_node.id)?;
    let dial = dial.on(&a)?.ended().await?;
    let result = dial.is("direct")?;
    let remote: SocketAddr = result.text("/path/hops/0/remote").parse()?;
    ensure!(remote.ip() == b.ip(false)?, "direct to {remote}");
    offers(&dial, &format!("/ip4/{}/", a.ip(false)?))
}

async fn deprecated() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (_site_a, a) = lab.home("a", NatKind::DualStack).await?;
    let (_site_b, b) = lab.home("b", NatKind::DualStack).await?;
    for (host, net) in [(&a, 1), (&b, 2)] {
        for n in 1..=8 {
            host.ip_commands(format!(
                "addr add 2001:db7:{net}::{n}/64 dev eth0 nodad preferred_lft 0\n"
            ))?;
        }
    }
    // No relay sees an IPv6 address of either, and IPv4 is not punched.
    let mut relays = relay.addresses(&a, &Transport::ALL);
    relays.retain(|address| address.starts_with("/ip4/"));
    let args = NodeArgs::with_relays(relays, &Transport::ALL);
    let deny = ("P2PNODE_PUNCH_DENY", "0.0.0.0/0");
    let b_node = args.run_on(&b, "b")?.env(deny.0, deny.1);
    let b_node = b_node.reserves(&b).await?;
    let dial = args.dial("a", &b_node.id)?.env(deny.0, deny.1);
    let dial = dial.on(&a)?.ended().await?;
    dial.is("direct")?;
    offers(&dial, &format!("/ip6/{}/", a.ip(true)?))
}

/// Some attempt at a punch offered an address that begins like this.
fn offers(dial: &Dial, start: &str) -> Result<()> {
    let sent = dial
        .all("punch")
        .filter_map(|punch| punch.json["sent"].as_array());
    let sent: Vec<_> = sent.flatten().filter_map(Value::as_str).collect();
    ensure!(
        sent.iter().any(|sent| sent.starts_with(start)),
        "{start} is not among {sent:?}"
    );
    Ok(())
}

async fn point_to_point() -> Result<()> {
    let lab = Lab::of_test().await?;
    let host = lab.public_host("host").await?;
    host.ip_commands("addr add 203.0.113.1 peer 203.0.113.2/32 dev eth0\n")?;
    let listen = Transport::ALL.map(|transport| transport.addr("0.0.0.0", 4443));
    let listen = listen.iter().flat_map(|addr| ["--listen", addr]);
    let relay = Launch::new("relay", bins()?.relay_node)
        .arg("run")
        .args(listen.clone());
    let relay = relay
        .arg("--key")
        .arg(lab.artifacts().file("relay.key"))
        .on(&host)?;
    let node = NodeArgs::with_relays(Vec::new(), &Transport::ALL).run_on(&host, "node")?;
    let other = Transport::ALL.map(|transport| transport.addr("0.0.0.0", 4444));
    let node = node
        .args(other.iter().flat_map(|addr| ["--listen", addr]))
        .on(&host)?;
    for (process, port) in [(&relay, 4443), (&node, 4444)] {
        for transport in Transport::ALL {
            let (own, peers) = (
                transport.addr("203.0.113.1", port),
                transport.addr("203.0.113.2", port),
            );
            let look = |events: &[Event]| {
                events
                    .iter()
                    .any(|event| event.line.contains(&own))
                    .then_some(())
            };
            process.until("its own end", PATIENCE, look).await?;
            let wrong = process
                .events()
                .iter()
                .any(|event| event.line.contains(&peers));
            ensure!(!wrong, "{} listens on the other end", process.name());
        }
    }
    Ok(())
}

/// A relay on this host that listens on every IPv4 address over TCP, and logs what it does.
fn relay_on(lab: &Lab, host: &Host) -> Result<Process> {
    let launch = Launch::new("relay", bins()?.relay_node);
    let launch = launch.args(["run", "--listen", "/ip4/0.0.0.0/tcp/443", "--key"]);
    let launch = launch.arg(lab.artifacts().file("relay.key"));
    launch.env("RELAY_NODE_LOG_LEVEL", "debug").on(host)
}

async fn public_alone() -> Result<()> {
    let lab = Lab::of_test().await?;
    let host = lab.public_host("host").await?;
    add_bridges(&host)?;
    host.ip_commands("addr add 192.168.7.7/24 dev eth0\n")?;
    let relay = relay_on(&lab, &host)?;
    let external = |ip: &str| format!("external address address=/ip4/{ip}/tcp/443");
    relay
        .logged(&external(&host.ip(false)?.to_string()), PATIENCE)
        .await?;
    let listens = |events: &[Event]| {
        let all = ["127.0.0.1", "192.168.7.7", "172.22.0.1"];
        let on = |ip: &&str| events.iter().any(|event| event.line.contains(*ip));
        all.iter().all(on).then_some(())
    };
    relay.until("all its addresses", PATIENCE, listens).await?;
    let log = relay.log();
    let added = log
        .lines()
        .filter(|line| line.contains("external address address=") && !line.contains("no longer"));
    let added: Vec<_> = added.collect();
    ensure!(added.len() == 1, "{added:?}");
    Ok(())
}

async fn overrun() -> Result<()> {
    let lab = Lab::of_test().await?;
    let host = lab.public_host("host").await?;
    let relay = relay_on(&lab, &host)?;
    let listens = |ip: &str| {
        let address = format!("/ip4/{ip}/tcp/443");
        move |events: &[Event]| {
            events
                .iter()
                .any(|event| event.line.contains(&address))
                .then_some(())
        }
    };
    relay
        .until("loopback", PATIENCE, listens("127.0.0.1"))
        .await?;
    kill(Pid::from_raw(relay.pid()), Signal::SIGSTOP)?;
    host.ip_commands("link add d0 type bridge\nlink set d0 up\n")?;
    let add = (0..3000).map(|n| format!("addr add 10.98.{}.{}/32 dev d0\n", n / 250, n % 250 + 1));
    host.ip_commands(
        add.collect::<String>() + "addr flush dev d0\naddr add 10.99.0.1/32 dev d0\n",
    )?;
    let sockets = host
        .device
        .run_sync(|| Ok(std::fs::read_to_string("/proc/thread-self/net/netlink")?))?;
    kill(Pid::from_raw(relay.pid()), Signal::SIGCONT)?;
    // Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode.
    let drops = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    ensure!(drops.sum::<u64>() > 0, "nothing was lost: {sockets}");
    relay
        .until("the last address", PATIENCE, listens("10.99.0.1"))
        .await?;
    let stale = relay
        .events()
        .iter()
        .any(|event| event.line.contains("/10.98."));
    ensure!(!stale, "it listens on addresses that were gone");
    Ok(())
}

async fn netcheck_names_it(relay: &Relay, host: &Host) -> Result<()> {
    let checks = relay.netcheck(host).await?;
    let is_it = |check: &Value| {
        let text = check["text"].as_str().unwrap_or_default();
        text.starts_with("relay_nat: ") && check["remedy"]["id"] == "keep_source"
    };
    ensure!(checks.iter().any(is_it), "{checks:?}");
    let mut nats = checks.iter().filter(|check| check["id"] == "nat");
    ensure!(
        nats.all(|nat| nat["kind"] == "unknown" && nat["remedy"]["id"] == "keep_source"),
        "{checks:?}"
    );
    Ok(())
}

async fn hidden() -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start_with(&lab, "relay", &[("RELAY_NODE_ADMIN_LISTEN", ADMIN)]).await?;
    lab.masquerade_towards(&relay.host)?;
    let a = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let b = Peer::new(&lab, "b", NatKind::EimApdf).await?;
    // Both LANs have the same addresses: another one than A's.
    let b_host = lab.host("host-b2", &b.site).await?;
    let b_node = relay.node("b", &b_host, &Transport::ALL).await?;
    let dial = relay.dial("a", &a.host, &Transport::ALL, &b_node.id)?;
    let mut dial = dial.on(&a.host)?;
    relay
        .process
        .logged("a NAT in front of the relay hides where they are", PATIENCE)
        .await?;
    let body = admin::readiness(&relay.host, 200).await?;
    ensure!(
        body.starts_with("ready\nsource addresses: every peer has the source address"),
        "{body:?}"
    );
    admin::metrics(&relay.host)
        .await?
        .is("relay_translated_peers", &[], 2.0)?;
    let dial = dial.ended().await?;
    names_it(&dial)?;
    netcheck_names_it(&relay, &a.host).await?;
    a.settle().await?;
    b.settle().await?;
    for (peer, host) in [(&a, &a.host), (&b, &b_host)] {
        sends_nothing_inside(peer, host)?;
    }
    Ok(())
}

fn sends_nothing_inside(peer: &Peer, host: &Host) -> Result<()> {
    let is_inside = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_private());
    let sent = peer.home.sent_by(&host.addresses);
    let stray = sent
        .iter()
        .find(|packet| is_inside(packet.destination.ip()));
    ensure!(stray.is_none(), "{stray:?}");
    ensure!(!sent.is_empty(), "nothing was captured");
    Ok(())
}

/// The relay does not know this NAT, which is none of its routers.
async fn inside() -> Result<()> {
    const FRONT: &str = "10.255.0.1";
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    lab.translate_towards(&relay.host, &format!("snat to {FRONT}"))?;
    let a = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let b = Peer::new(&lab, "b", NatKind::EimApdf).await?;
    let b_host = lab.host("host-b2", &b.site).await?;
    let b_node = relay.node("b", &b_host, &Transport::ALL).await?;
    let dial = relay.dial("a", &a.host, &Transport::ALL, &b_node.id)?;
    names_it(&dial.on(&a.host)?.ended().await?)?;
    names_it_through(&relay, &a, &b_node).await?;
    let look = |status: &Value| (status["relays"][0]["hidden_at"] == FRONT).then_some(());
    b_node.until("the NAT of the relay", PATIENCE, look).await?;
    netcheck_names_it(&relay, &a.host).await?;
    a.settle().await?;
    b.settle().await?;
    for (peer, host) in [(&a, &a.host), (&b, &b_host)] {
        sends_nothing_inside(peer, host)?;
    }
    Ok(())
}

/// A node that runs, its dial and its `why`.
async fn names_it_through(relay: &Relay, a: &Peer, b: &Node) -> Result<()> {
    let node = relay.node("a-runs", &a.host, &Transport::ALL).await?;
    names_it(&node.dial("a-through", &b.id).await?)?;
    let why = node.control.why(&b.id).await?;
    ensure!(why["finding"]["id"] == "relay_nat", "{why}");
    Ok(())
}

fn names_it(dial: &Dial) -> Result<()> {
    let result = dial.is("relayed")?;
    let finding = &result.json["finding"];
    let names = finding["id"] == "relay_nat" && finding["remedy"]["id"] == "keep_source";
    ensure!(names, "{}", result.line);
    Ok(())
}
