//! p2pnode and relay-node with go-libp2p: a `p2pd`, which is go-libp2p-daemon with go-libp2p 0.32.1, behind the NATs of the lab.
//!
//! go-libp2p offers an address of its own once four peers at four addresses have seen it there, and only a public one. So its lab is
//! [`Lab::routable`] and has four relays, of which one gives reservations to it.

mod p2pd;
mod wire;

use std::{fmt, path::Path};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use self::p2pd::P2pd;
use crate::{
    args::{PATIENCE, Transport, range},
    bins::bins,
    events::Event,
    host::Host,
    lab::Lab,
    nat::{NatKind, RANGE},
    node::{Launch, control_socket},
    peer::Peer,
    relay::Relay,
    running::Node,
};

/// The port of the daemon. One of our range: the lab's rewriting NATs rewrite those.
const PORT: u16 = 40025;

/// go-libp2p's `ActivationThresh`.
const OBSERVERS: usize = 4;

/// go-libp2p's DCUtR, which has to be in the log of the daemon before a case begins.
const READY: &str = "Host now has a public address";

/// The protocol of our service, and the one of the daemon's.
const OURS: &str = "/x/web";
const GOS: &str = "/x/go";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Our node dials; the daemon has the reservation and begins DCUtR.
    OursDials,
    /// The daemon dials; our node has the reservation and begins DCUtR.
    GoDials,
}

#[derive(Clone, Copy, Debug)]
pub enum Case {
    Punch {
        ours: NatKind,
        go: NatKind,
        transport: Transport,
        role: Role,
    },
    /// The daemon is the relay of two nodes of ours.
    GoRelays { transport: Transport },
    /// Without a NAT or a relay.
    Raw { transport: Transport },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Punch {
                ours,
                go,
                transport,
                role: Role::OursDials,
            } => write!(f, "{transport}-ours-{ours}-dials-go-{go}"),
            Self::Punch {
                ours,
                go,
                transport,
                role: Role::GoDials,
            } => write!(f, "{transport}-go-{go}-dials-ours-{ours}"),
            Self::GoRelays { transport } => write!(f, "{transport}-go-relays"),
            Self::Raw { transport } => write!(f, "{transport}-raw"),
        }
    }
}

impl Case {
    pub fn all() -> Vec<Self> {
        use NatKind::{EimApdf, EimApdfRewrite, FullCone};
        let mut cases = Vec::new();
        for transport in Transport::ALL {
            for role in [Role::OursDials, Role::GoDials] {
                for (ours, go) in [
                    (EimApdf, EimApdf),
                    (EimApdf, EimApdfRewrite),
                    (EimApdfRewrite, EimApdf),
                    (FullCone, EimApdfRewrite),
                    (EimApdfRewrite, FullCone),
                ] {
                    cases.push(Self::Punch {
                        ours,
                        go,
                        transport,
                        role,
                    });
                }
            }
            cases.push(Self::GoRelays { transport });
            cases.push(Self::Raw { transport });
        }
        cases
    }

    /// Runs it in a lab of its own; returns what came of it, in a line.
    pub async fn run(self, p2pd: &Path) -> Result<String> {
        let lab = Lab::new(&format!("go-{self}")).await?.routable()?;
        let report = match self {
            Self::Punch {
                ours,
                go,
                transport,
                role,
            } => punch(&lab, p2pd, [ours, go], transport, role).await,
            Self::GoRelays { transport } => go_relays(&lab, p2pd, transport).await,
            Self::Raw { transport } => raw(&lab, p2pd, transport).await,
        };
        let report = report?;
        lab.succeeded();
        Ok(report)
    }
}

async fn punch(
    lab: &Lab,
    program: &Path,
    [ours, go]: [NatKind; 2],
    transport: Transport,
    role: Role,
) -> Result<String> {
    let mut relays = Vec::new();
    for number in 0..OBSERVERS {
        relays.push(Relay::start(lab, &format!("relay{number}")).await?);
    }
    let ours = Peer::new(lab, "ours", ours).await?;
    let go = Peer::new(lab, "go", go).await?;
    let relay = relays[0].address(&ours.host, transport)?;
    let args = [
        "-autonat",
        "-forceReachabilityPrivate",
        "-dhtServer",
        "-relayDiscovery=false",
        "-relayService=false",
    ];
    let mut args = args.map(str::to_owned).to_vec();
    args.push(format!("-hostAddrs={}", transport.addr("0.0.0.0", PORT)));
    if role == Role::OursDials {
        args.extend(["-autoRelay".to_owned(), format!("-trustedRelays={relay}")]);
    }
    let mut daemon = P2pd::start(program, "p2pd", &go.host, &args).await?;
    for relay in &relays {
        daemon.connect(&relay.address(&go.host, transport)?).await?;
    }
    daemon.process.logged(READY, PATIENCE).await?;
    daemon.echo(lab.artifacts(), GOS).await?;
    let relay_of_ours = std::slice::from_ref(&relay);
    let node = node(&ours.host, "ours", transport, relay_of_ours, &daemon.id).await?;
    node.process.event("reserved", PATIENCE).await?;
    let began = match role {
        Role::OursDials => {
            has_reservation(&daemon, &relays[0]).await?;
            let dial = node.start_dial("dial", &daemon.id)?;
            let is_connected = |event: &Event| event.name() == "connected";
            let first = node_connects(&node, &daemon.id).await?;
            ensure!(first.path_kind() == "relayed", "first: {}", first.line);
            let _also = dial.first("a connection", 0, is_connected).await?;
            first
        }
        Role::GoDials => {
            let circuit = format!("{relay}/p2p-circuit/p2p/{}", node.id);
            daemon.connect(&circuit).await?;
            node_connects(&node, &daemon.id).await?
        }
    };
    let direct = node.direct(&daemon.id, PATIENCE).await;
    let punches = node.punches(&daemon.id);
    let attempts: Vec<_> = punches.iter().map(|punch| punch.line.as_str()).collect();
    let path = direct.with_context(|| format!("punches: {attempts:#?}"))?;
    let events = node.process.events();
    let connected = events
        .iter()
        .find(|event| event.connects(&daemon.id, "direct"));
    let connected = connected.context("no event of the direct path")?;
    // A raw stream ends with its path, and the surplus ones are closed.
    daemon
        .until(&node.id, "one direct path and no other", |connections| {
            let is_left = connections.len() == 1 && !connections[0].contains("p2p-circuit");
            is_left.then_some(())
        })
        .await?;
    both_ways(&node, &daemon).await?;
    ours.keeps_range().await?;
    daemon.is_unharmed()?;
    Ok(format!(
        "direct {} ms after the circuit, how {}, {} punch events",
        connected.at.duration_since(began.at).as_millis(),
        path["how"],
        punches.len(),
    ))
}

async fn go_relays(lab: &Lab, program: &Path, transport: Transport) -> Result<String> {
    let host = lab.public_host("go").await?;
    let a = Peer::new(lab, "a", NatKind::EimApdf).await?;
    let b = Peer::new(lab, "b", NatKind::EimApdfRewrite).await?;
    let ip = host.ip(false)?;
    let args = [
        "-forceReachabilityPublic".to_owned(),
        "-dhtServer".to_owned(),
        "-autonat".to_owned(),
        format!("-hostAddrs={}", transport.addr(ip, PORT)),
    ];
    let mut daemon = P2pd::start(program, "p2pd", &host, &args).await?;
    let relay = format!("{}/p2p/{}", transport.addr(ip, PORT), daemon.id);
    let relays = [relay];
    let listener = node(&b.host, "b", transport, &relays, &daemon.id).await?;
    listener.process.event("reserved", PATIENCE).await?;
    let dialer = node(&a.host, "a", transport, &relays, &daemon.id).await?;
    let dial = dialer.dial("dial", &listener.id).await?;
    dial.is("direct")?;
    let first = node_connects(&dialer, &listener.id).await?;
    ensure!(first.path_kind() == "relayed", "first: {}", first.line);
    for side in [&a, &b] {
        side.keeps_range().await?;
    }
    daemon.is_unharmed()?;
    let attempts = dialer.punches(&listener.id).len();
    Ok(format!(
        "reserved, relayed, direct; {attempts} punch events"
    ))
}

async fn raw(lab: &Lab, program: &Path, transport: Transport) -> Result<String> {
    let host = lab.public_host("go").await?;
    let ours = lab.public_host("ours").await?;
    let ip = host.ip(false)?;
    let args = [
        "-forceReachabilityPublic".to_owned(),
        "-dhtServer".to_owned(),
        format!("-hostAddrs={}", transport.addr(ip, PORT)),
    ];
    let mut daemon = P2pd::start(program, "p2pd", &host, &args).await?;
    daemon.echo(lab.artifacts(), GOS).await?;
    let node = node(&ours, "ours", transport, &[], &daemon.id).await?;
    let at = format!("{}/p2p/{}", transport.addr(ip, PORT), daemon.id);
    let dial = node.dial_with("dial", &daemon.id, &["--addr", &at]).await?;
    dial.is("direct")?;
    both_ways(&node, &daemon).await?;
    daemon.is_unharmed()?;
    Ok("both ways".to_owned())
}

/// A node with a service that returns what comes, which knows the daemon by name.
async fn node(
    host: &Host,
    name: &str,
    transport: Transport,
    relays: &[String],
    go: &str,
) -> Result<Node> {
    let target = echo(host, name)?;
    let config = format!(
        "relays: {relays:?}\nreservations: {}\n\
         dial: {{ port_range: {}, transports: [{transport}] }}\n\
         peers: {{ go: {{ id: {go} }} }}\n\
         services: {{ web: {{ target: \"unix://{target}\", allow: any, protocol: {OURS} }} }}\n",
        relays.len(),
        range(&RANGE),
    );
    let file = host.file(&format!("{name}.yaml"));
    std::fs::write(&file, config)?;
    let launch =
        Launch::new(name, bins()?.p2pnode).args(["run", "--json", "--log", "debug", "--config"]);
    let key = host.file(&format!("{name}.key"));
    launch.arg(file).arg("--key").arg(key).runs(host).await
}

/// Accepts connections and returns what comes.
fn echo(host: &Host, name: &str) -> Result<String> {
    let path = control_socket(&host.artifacts, &format!("{name}-echo"));
    let listener = UnixListener::bind(&path)?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(path.display().to_string())
}

/// The node's first connection to a peer.
async fn node_connects(node: &Node, peer: &str) -> Result<Event> {
    let connects = |event: &Event| event.name() == "connected" && event.text("/peer") == peer;
    node.process.first("a connection", 0, connects).await
}

/// Waits until the daemon gives out an address at the relay.
async fn has_reservation(daemon: &P2pd, relay: &Relay) -> Result<()> {
    let reserved = timeout(PATIENCE, async {
        let is_at = |at: &String| at.contains(&relay.id) && at.contains("p2p-circuit");
        while !daemon.addresses().await?.iter().any(is_at) {
            sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    });
    reserved
        .await
        .context("p2pd gives out no address at the relay")?
}

/// Bytes through our service, opened by the daemon, and through the daemon's, opened by our forward.
async fn both_ways(node: &Node, daemon: &P2pd) -> Result<()> {
    let to_ours = daemon.open(&node.id, OURS).await?;
    returns(to_ours).await.context("a stream to our service")?;
    let local = control_socket(&node.host.artifacts, "forward-local");
    let listen = format!("unix://{}", local.display());
    let forward = [
        "forward",
        &format!("{GOS}@go"),
        "--json",
        "--listen",
        &listen,
    ];
    let forward = node.control.command("forward", &forward).on(&node.host)?;
    forward.event("listening", PATIENCE).await?;
    let to_go = UnixStream::connect(local).await?;
    returns(to_go).await.context("a stream to p2pd's service")
}

async fn returns(mut stream: UnixStream) -> Result<()> {
    let sent: Vec<u8> = (0..1_u32 << 18).map(|at| (at ^ at >> 8) as u8).collect();
    let (mut from, mut to) = stream.split();
    let mut got = vec![0; sent.len()];
    // The daemon ends a stream in both directions at once, so its ends are no part of the test.
    let moved = async { tokio::try_join!(to.write_all(&sent), from.read_exact(&mut got)) };
    timeout(PATIENCE, moved)
        .await
        .context("not all came back")??;
    ensure!(got == sent, "other bytes came back");
    Ok(())
}
