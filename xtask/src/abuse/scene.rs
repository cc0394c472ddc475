//! Who takes part in an attack: its target, and others than honest peers.

use anyhow::Result;
use p2pnode_tests::{
    admin::{ADMIN, ADMIN_LISTEN},
    args::{NodeArgs, PATIENCE, Transport},
    bins::{self, bins},
    capture::Capture,
    host::Host,
    lab::Lab,
    nat::NatKind,
    node::{Launch, Process, printed},
    probe,
    relay::{RELAY_PORT, Relay},
    running::Node,
};
use tokio::net::TcpListener;

use super::attacks::{Attack, Target};

pub(super) const TEXT_PORT: u16 = 444;

/// Prefixes of four addresses each: of one /56, of one /48, of four /48.
pub(super) const SOURCES: [(&str, [&str; 4]); 3] = [
    (
        "{nearest}",
        [
            "2001:db8:a000::1",
            "2001:db8:a000:1::1",
            "2001:db8:a000:2::1",
            "2001:db8:a000:3::1",
        ],
    ),
    (
        "{near}",
        [
            "2001:db8:a000::1",
            "2001:db8:a000:100::1",
            "2001:db8:a000:200::1",
            "2001:db8:a000:300::1",
        ],
    ),
    (
        "{far}",
        [
            "2001:db8:a000::1",
            "2001:db8:a001::1",
            "2001:db8:a002::1",
            "2001:db8:a003::1",
        ],
    ),
];

pub(super) struct HomeOf {
    pub(super) capture: Capture,
    pub(super) inside: Host,
    _service: TcpListener,
}

pub(super) fn stranger(name: &str) -> Result<Launch> {
    Ok(Launch::new(name, bins::stranger()?))
}

/// A second node on the host, whose output is text.
pub(super) async fn text(relay: &Relay, host: &Host, key: &str) -> Result<(Process, String)> {
    let program = bins()?.p2pnode;
    let id = printed(host, &program, &["id", "--key", key]).await?;
    let mut launch = Launch::new("text", program).args(["run", "--key", key]);
    for transport in Transport::ALL {
        launch = launch
            .args(["--relay", &relay.address(host, transport)?])
            .args(["--listen", &transport.addr(host.ip(false)?, TEXT_PORT)]);
    }
    let process = launch.on(host)?;
    let reserved = |event: &p2pnode_tests::events::Event| event.line.contains("reserved");
    process.first("a reservation", 0, reserved).await?;
    Ok((process, id))
}

pub(super) async fn evil(lab: &Lab, words: &str) -> Result<(Host, Process)> {
    let host = lab.public_host("evil").await?;
    let mut args = vec![
        "attack".to_owned(),
        words.to_owned(),
        "--seconds".to_owned(),
        "100000".to_owned(),
    ];
    for transport in Transport::ALL {
        args.extend([
            "--at".to_owned(),
            transport.addr(host.ip(false)?, RELAY_PORT),
        ]);
    }
    let process = stranger("evil")?.args(args).on(&host)?;
    process.event("started", PATIENCE).await?;
    Ok((host, process))
}

pub(super) async fn target(
    lab: &Lab,
    attack: &Attack,
    relay: &Relay,
    evil: Option<&(Host, Process)>,
) -> Result<(Node, Option<HomeOf>)> {
    let mut home = None;
    let host = if attack.target == Target::Home {
        let (site, host) = lab.home("target", NatKind::DualStack).await?;
        let inside = lab.host("inside", &site).await?;
        home = Some(HomeOf {
            _service: probe::listen(&inside, 6443).await?,
            capture: lab.capture(&site).await?,
            inside,
        });
        host
    } else {
        lab.public_host("target").await?
    };
    let mut args = NodeArgs::new(relay, &host, &Transport::ALL);
    if let Some((host, process)) = evil {
        let started = process.event("started", PATIENCE).await?;
        for transport in Transport::ALL {
            let address = transport.addr(host.ip(false)?, RELAY_PORT);
            args.relays
                .push(format!("{address}/p2p/{}", started.text("/peer_id")));
        }
    }
    let mut launch = args.run_on(&host, "target")?.env(ADMIN_LISTEN, ADMIN);
    if let Some(networks) = attack.allows {
        launch = launch.env("P2PNODE_PUNCH_ALLOW", networks);
    }
    if home.is_none() {
        for ip in &host.addresses {
            for transport in Transport::ALL {
                launch = launch.args(["--listen", &transport.addr(ip, RELAY_PORT)]);
            }
        }
    }
    Ok((launch.reserves(&host).await?, home))
}
