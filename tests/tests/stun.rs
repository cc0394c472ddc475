//! STUN as others' tools see it: Debian's `stun` (RFC 3489), coturn's `turnutils_stunclient` and `turnutils_natdiscovery` (RFC 5780).

use std::net::SocketAddr;

use p2pnode_tests::{
    node,
    prelude::*,
    probe,
    relay::RELAY_PORT,
    sandbox::{has_tool, tool},
};

lab_tests! {
    tools_of_others_learn_their_nat_from_two_relays_that_name_each_other: tools();
    no_answer_is_longer_than_its_request_but_for_the_address: lengths();
    both_ports_answer_over_both_transports_and_families: everywhere();
}

const STUN_PORT: u16 = 3478;

struct Two {
    lab: Lab,
    relay: Relay,
    _partner: Relay,
}

/// Two relays that name each other.
async fn two() -> Result<Two> {
    let lab = Lab::of_test().await?;
    let (a, b) = (
        lab.public_host("relay").await?,
        lab.public_host("partner").await?,
    );
    let partner = |of: &Host| -> String {
        let ips: Vec<_> = of.addresses.iter().map(ToString::to_string).collect();
        ips.join(",")
    };
    let (of_a, of_b) = (partner(&b), partner(&a));
    let relay = Relay::start_on(
        "relay",
        a,
        &[("RELAY_NODE_STUN_PARTNER", of_a.as_str())],
        &[],
    )
    .await?;
    let partner = Relay::start_on(
        "partner",
        b,
        &[("RELAY_NODE_STUN_PARTNER", of_b.as_str())],
        &[],
    )
    .await?;
    Ok(Two {
        lab,
        relay,
        _partner: partner,
    })
}

async fn says(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let output = node::output(&host.device, &tool(program), args, PATIENCE).await?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

async fn tools() -> Result<()> {
    for (program, package) in [
        ("stun", "stun-client"),
        ("turnutils_natdiscovery", "coturn"),
    ] {
        ensure!(
            has_tool(program),
            "{program} is not here: apt-get install {package}"
        );
    }
    const EIM: &str = "Endpoint Independent Mapping";
    let two = two().await?;
    let server = two.relay.host.ip(false)?.to_string();
    // It also waits for an answer to a port from which it has sent nothing (RESPONSE-PORT): behind most NATs without end.
    let client = two.lab.public_host("client").await?;
    let own = client.ip(false)?.to_string();
    for port in [RELAY_PORT, STUN_PORT] {
        let port = port.to_string();
        let args = ["-p", &port, "-L", &own, &server];
        let said = says(&client, "turnutils_stunclient", &args).await?;
        let seen = format!("UDP reflexive addr: {own}:");
        ensure!(said.contains(&seen), "{said}");
    }
    let mut homes = Vec::new();
    for (name, kind, expected) in [
        (
            "a",
            NatKind::EimApdf,
            [
                EIM,
                "Address and Port Dependent Filtering",
                "Port Dependent Filter",
            ],
        ),
        (
            "b",
            NatKind::FullCone,
            [EIM, "Endpoint Independent Filtering", "Independent Filter"],
        ),
        (
            "c",
            NatKind::AddressRestricted,
            [
                EIM,
                "Address Dependent Filtering",
                "Address Dependent Filter",
            ],
        ),
        (
            "d",
            NatKind::Symmetric,
            [
                "Address and Port Dependent Mapping",
                "Address and Port Dependent Filtering",
                "Dependent Mapping",
            ],
        ),
    ] {
        homes.push((two.lab.home(name, kind).await?, expected));
    }
    let said = |at: usize| {
        let ((site, host), expected) = &homes[at];
        says_all(site, host, &server, *expected)
    };
    tokio::try_join!(said(0), said(1), said(2), said(3))?;
    Ok(())
}

/// What the tools say about a host behind a NAT.
async fn says_all(
    site: &Site,
    host: &Host,
    server: &str,
    [mapping, filtering, classic]: [&str; 3],
) -> Result<()> {
    let kind = site.kind;
    let inside = host.ip(false)?.to_string();
    for (flag, expected) in [("-m", mapping), ("-f", filtering)] {
        let args = [flag, "-L", &inside, "-p", "3478", server];
        let said = says(host, "turnutils_natdiscovery", &args).await?;
        let verdict = format!("NAT with {expected}!");
        ensure!(said.contains(&verdict), "{kind} {flag}: {said}");
    }
    let said = says(host, "stun", &[server, "-i", &inside]).await?;
    ensure!(said.contains(classic), "{kind}: {said}");
    Ok(())
}

/// Sends a bare request, and another one that has room, and compares lengths.
async fn lengths() -> Result<()> {
    let two = two().await?;
    let client = two.lab.public_host("client").await?;
    for ip6 in [false, true] {
        for port in [RELAY_PORT, STUN_PORT] {
            let server = SocketAddr::new(two.relay.host.ip(ip6)?, port);
            let socket = client
                .device
                .spawn(move |_| async move {
                    let any: SocketAddr = if ip6 {
                        "[::]:0".parse()?
                    } else {
                        "0.0.0.0:0".parse()?
                    };
                    anyhow::Ok(tokio::net::UdpSocket::bind(any).await?)
                })?
                .await??;
            // The address, and the partner's.
            let floor = if ip6 { 20 + 24 + 24 } else { 20 + 12 + 12 };
            for padding in [0u16, 8, 40, 200] {
                let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
                request.extend([7; 12]);
                if padding > 0 {
                    request[2..4].copy_from_slice(&padding.to_be_bytes());
                    request.extend([0, 0x26]);
                    request.extend((padding - 4).to_be_bytes());
                    request.resize(20 + usize::from(padding), 0);
                }
                socket.send_to(&request, server).await?;
                let mut answer = [0; 2048];
                let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut answer));
                let (length, from) = received.await.context("an answer")??;
                ensure!(from == server, "from {from}");
                ensure!(
                    length <= request.len().max(floor),
                    "{length} for {}",
                    request.len()
                );
            }
        }
    }
    Ok(())
}

async fn everywhere() -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let client = lab.public_host("client").await?;
    let request = [
        0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    for ip6 in [false, true] {
        let mut host = client.clone();
        host.addresses.retain(|ip| ip.is_ipv6() == ip6);
        for port in [RELAY_PORT, STUN_PORT] {
            let server = SocketAddr::new(relay.host.ip(ip6)?, port);
            let mut stream = probe::connect(&host, 40007, server).await?;
            for _ in 0..2 {
                stream.write_all(&request).await?;
                let mut answer = [0; 32];
                tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
                ensure!(
                    answer[..2] == [1, 1] && answer[8..20] == request[8..],
                    "{answer:?}"
                );
                let length = usize::from(answer[3]) + 20 - 32;
                stream.read_exact(&mut vec![0; length]).await?;
            }
        }
    }
    // The ports still are those of QUIC and TCP.
    let node = relay.node("node", &client, &Transport::ALL).await?;
    ensure!(!node.id.is_empty(), "a node reserves");
    Ok(())
}
