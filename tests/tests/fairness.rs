//! One source tries to take everything that a node or a relay has. Others are served: a caller's dial becomes direct, the node's own
//! dial does, and its leg to the relay comes back.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use p2pnode_tests::{
    admin::{self, ADMIN},
    fleet::{self, counted, number, sum},
    flood::{Silent, has_also},
    prelude::*,
    served::Served,
};

lab_tests! {
    silent_sockets_at_a_public_port_and_at_a_punch_port_shut_out_nobody: node(Siege::Silent);
    silent_sockets_leave_a_node_with_few_descriptors_its_relay_and_its_dials: node(Siege::FewFiles);
    half_quic_handshakes_shut_out_nobody: node(Siege::Quic);
    idle_connections_of_one_address_shut_out_nobody: node(Siege::Idle);
    silent_circuits_of_three_peers_shut_out_nobody: node(Siege::Circuits { peers: 3, each: 86 });
    silent_circuits_of_eight_peers_shut_out_nobody: node(Siege::Circuits { peers: 8, each: 32 });
    silent_circuits_of_sixty_four_peers_shut_out_nobody: node(Siege::Circuits { peers: 64, each: 4 });
    silent_sockets_of_one_64_shut_out_nobody_from_a_relay: relay([0, 1, 2, 3].map(|host| net(0, 0, 0, host)));
    silent_sockets_of_four_64s_of_a_56_shut_out_nobody_from_a_relay: relay([0, 1, 2, 3].map(|net64| net(0, 0, net64, 1)));
    silent_sockets_of_four_56s_of_a_48_shut_out_nobody_from_a_relay: relay([0, 1, 2, 3].map(|net56| net(0, net56, 0, 1)));
    silent_sockets_of_four_48s_shut_out_nobody_from_a_relay: relay([0, 1, 2, 3].map(|net48| net(net48, 0, 0, 1)));
}

const PORT: u16 = 4433;
/// Honest peers at one address, over each transport.
const VISITORS: u64 = 8;
const LONG: std::time::Duration = std::time::Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Siege {
    Silent,
    FewFiles,
    Quic,
    Idle,
    Circuits { peers: u16, each: u16 },
}

/// A node is besieged from one host: a public node, or one behind a NAT, which strangers reach over circuits only.
async fn node(siege: Siege) -> Result<()> {
    let lab = Lab::of_test().await?;
    let env = [
        ("RELAY_NODE_LIMITS_CIRCUITS_PER_PEER", "0"),
        ("RELAY_NODE_LIMITS_CONNECTIONS_PER_IP4", "0"),
        ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
    ];
    let mut relay = Relay::start_with(&lab, "relay", &env).await?;
    let is_public = !matches!(siege, Siege::Circuits { .. });
    let (_site, host) = if is_public {
        (None, lab.public_host("b").await?)
    } else {
        let (site, host) = lab.home("b", NatKind::EimApdf).await?;
        (Some(site), host)
    };
    let ip = host.ip(false)?;
    let mut launch = relay.run("b", &host, &Transport::ALL)?;
    let listened = Transport::ALL.into_iter().filter(|_| is_public);
    for transport in listened.clone() {
        launch = launch.args(["--listen", &transport.addr("0.0.0.0", PORT)]);
    }
    launch = launch.env("P2PNODE_ADMIN_LISTEN", ADMIN);
    if siege == Siege::FewFiles {
        launch = launch.open_files(256);
    }
    let mut b = launch.reserves(&host).await?;
    let (_called_site, called) = lab.home("called", NatKind::EimApdf).await?;
    let called = relay.node("called", &called, &Transport::ALL).await?;
    let (_caller_site, caller) = lab.home("caller", NatKind::EimApdf).await?;
    let attacker = lab.public_host("attacker").await?;
    let visitors = lab.public_host("visitors").await?;

    let address = |transport: Transport| format!("{}/p2p/{}", transport.addr(ip, PORT), b.id);
    let mut silent = Vec::new();
    let mut fleets = Vec::new();
    match siege {
        Siege::Silent | Siege::FewFiles => {
            for port in [PORT, punch_port(&b)?] {
                let from = [attacker.ip(false)?];
                let sockets = Silent::start(&attacker, SocketAddr::new(ip, port), &from, 300)?;
                sockets.opened(300).await?;
                silent.push(sockets);
            }
        }
        Siege::Quic => {
            let command = "slow --how initial --connections 100000 --per-second 150";
            let to = address(Transport::Quic);
            let fleet = fleet::start(&attacker, "half", &to, command)?;
            let many = |counts: &Value| number(counts, "opened") >= 300;
            counted(&fleet, "300 first packets", LONG, many).await?;
            fleets.push(fleet);
        }
        Siege::Idle => {
            for transport in Transport::ALL {
                let command = "hold --peers 300 --ask nothing --per-second 200";
                let name = format!("idle-{transport}");
                let fleet = fleet::start(&attacker, &name, &address(transport), command)?;
                let all = |counts: &Value| {
                    let ended = sum(counts, "errors") + sum(counts, "disconnected");
                    number(counts, "connected") + ended >= 300
                };
                counted(&fleet, "300 connections", LONG, all).await?;
                fleets.push(fleet);
            }
        }
        Siege::Circuits { peers, each } => {
            let command = format!(
                "hop --how connect --peers {peers} --times {each} --to {} --per-second 200",
                b.id
            );
            let to = relay.address(&attacker, Transport::Tcp)?;
            let fleet = fleet::start(&attacker, "circuits", &to, &command)?;
            let tried = |counts: &Value| number(counts, "tried") >= u64::from(peers * each);
            counted(&fleet, "circuits", LONG, tried).await?;
            fleets.push(fleet);
        }
    }

    for (turn, transport) in (1..).zip(Transport::ALL) {
        let first = *RANGE.start() + 10 * turn;
        let args = NodeArgs::new(&relay, &caller, &[transport]).range(first..=first + 9);
        let relayed = args.dial(&format!("relayed-{transport}"), &b.id)?;
        let relayed = relayed.args(["--until", "connected", "--count", "1"]);
        let relayed = relayed.env("P2PNODE_PUNCH_ENABLED", "false");
        let relayed = relayed.on(&caller)?.ended().await?;
        let is_relayed = relayed.result()?.path_kind() == "relayed";
        ensure!(
            relayed.code == 0 && (is_public || is_relayed),
            "{relayed:?}"
        );
        let direct = args.dial(&format!("direct-{transport}"), &b.id)?;
        direct.on(&caller)?.ended().await?.is("direct")?;
    }
    for transport in listened {
        let name = format!("visitors-{transport}");
        let command = format!("hold --peers {VISITORS} --ask nothing --at-once 2");
        let visitors = fleet::start(&visitors, &name, &address(transport), &command)?;
        let all = |counts: &Value| {
            let ended = sum(counts, "errors") + sum(counts, "disconnected");
            number(counts, "connected") + ended >= VISITORS
        };
        let counts = counted(&visitors, "a connection each", PATIENCE, all).await?;
        ensure!(number(&counts, "connected") == VISITORS, "{counts}");
    }
    b.dial("own-dial", &called.id).await?.is("direct")?;
    relay.process.kill().await?;
    relay.restart().await?;
    let reserved = |read: &admin::Exposition| {
        // Behind a NAT there is IPv4 only.
        (read.sum("relay_reservations", &[]) >= if is_public { 3.0 } else { 2.0 }).then_some(())
    };
    admin::until(&relay.host, "reservations after a restart", reserved).await?;
    // Half a QUIC handshake has to prove its address before it takes a place, and never does.
    let pressed = !matches!(siege, Siege::Quic | Siege::Circuits { peers: 3, .. });
    let refused = |read: &admin::Exposition| {
        (!pressed || read.sum("p2pnode_refused_total", &[]) > 0.0).then_some(())
    };
    admin::until(&host, "refusals", refused).await?;
    let log = b.process.log();
    ensure!(!log.contains("Too many open files"), "{log}");
    let lines = log.lines().filter(|line| line.contains("ended early"));
    ensure!(lines.count() <= 3, "{log}");
    ensure!(b.process.is_alive()? && !log.contains("panicked"), "{log}");
    Ok(())
}

/// The number of the punch port, which TCP and QUIC share.
fn punch_port(node: &Node) -> Result<u16> {
    let log = node.process.log();
    let (_, ports) = log
        .split_once("tcp/ip4 ")
        .context("no punch port in the log")?;
    let digits: String = ports.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// An address in this /48, /56 and /64 of a documentation network.
fn net(net48: u16, net56: u16, net64: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0x3fff, 0xf00, net48, net56 << 8 | net64, 0, 0, 0, host + 1).into()
}

/// A relay is besieged from four addresses. Good peers have IPv4 and IPv6.
async fn relay(from: [IpAddr; 4]) -> Result<()> {
    let mut served = Served::new(&[]).await?;
    let before = served.state().await?;
    let attacker = served.lab.public_host("attacker").await?;
    has_also(&served.lab, &attacker, &from)?;
    let remote = SocketAddr::new(
        served.relay.host.ip(true)?,
        p2pnode_tests::relay::RELAY_PORT,
    );
    let silent = Silent::start(&attacker, remote, &from, 820)?;
    silent.opened(820).await?;
    served.finds_all().await?;
    // A neighbour of theirs, over the IPv6 that they besiege.
    let host = served.lab.public_host("honest").await?;
    let ip6 = format!(
        "{}/p2p/{}",
        Transport::Tcp.addr(served.relay.host.ip(true)?, 443),
        served.relay.id
    );
    let honest = fleet::start(&host, "honest", &ip6, "hold --peers 8 --at-once 8")?;
    let held = |counts: &Value| number(counts, "held") == 8;
    counted(&honest, "reservations over IPv6", PATIENCE, held).await?;
    let denied = served.denied().await?;
    ensure!(denied.contains_key("displaced"), "{denied:?}");
    drop((silent, honest));
    served.recovers(&before).await?;
    served.unharmed().await
}
