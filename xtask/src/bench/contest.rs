//! Ours, plain libp2p and iroh, doing the same in turn in one lab: a peer waits behind a NAT, another one behind a NAT reaches it.
//!
//! Each program has two NATs and two hosts, and each dial a port of the lab's range: no NAT remembers another dial, and each NAT
//! treats all programs alike. Ours and plain libp2p meet at our relay, iroh at its own, which is as far away.
//!
//! Times are those of the lines that a program prints. A cold dial begins with its process, a warm one with the request. It ends
//! with the direct path, and with the first byte that came back over that path.
//!
//! Every packet of ours is captured in its two routers, and the benchmark fails if one left from outside the range.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{bins, iroh_peer},
    capture::Capture,
    control::Control,
    delay::Link,
    events::Event,
    host::Host,
    iroh::IrohRelay,
    lab::{Lab, Site},
    nat::{NatKind, RANGE},
    node::{Process, control_socket},
    plain::{ANY, IP4, PlainArgs},
    relay::Relay,
};

use super::programs::{Named, Program, iroh, plain};
use crate::cargo::{self, Build};

/// How many dials a lab can have: one for each port of the range but that of the peer that waits.
pub(super) const MOST_DIALS: u16 = 50;

#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    /// Before the peer that dials, and before the one that waits.
    pub(super) nats: (NatKind, NatKind),
    pub(super) transport: Transport,
    pub(super) link: Link,
    pub(super) timeout_s: u64,
}

/// How a dial went: milliseconds from its start; `None` did not come in time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Dialed {
    pub(super) open: Option<f64>,
    pub(super) first_byte: Option<f64>,
}

/// From where a dial starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// From nothing: a fresh process.
    Cold,
    /// From a peer that is at its relay. Ours is asked as a user would, by a `p2pnode dial` that finds the running node's socket;
    /// the time of that process counts. The others are told on stdin.
    Warm,
}

pub(super) type Measured = Vec<(Program, Vec<Dialed>)>;

/// Builds the programs that take part, but for those that are named, and says where they are: for the process in the lab.
pub(super) fn programs(named: &[Program]) -> Result<Vec<Named>> {
    let taking_part = Program::chosen(named);
    let bins = cargo::bins(Build::Release)?;
    let mut programs = vec![
        ("P2PNODE_BIN", bins.p2pnode),
        ("RELAY_NODE_BIN", bins.relay_node),
    ];
    // Who does not take part need not be there: to build all of `tests/peers` takes minutes.
    if taking_part.contains(&Program::Plain) {
        programs.push(plain()?);
    }
    if taking_part.contains(&Program::Iroh) {
        programs.push(iroh()?);
    }
    Ok(programs)
}

/// Lets those of `programs` that speak the transport dial in turn, `runs` times each.
pub(super) async fn compete(
    terms: Terms,
    programs: &[Program],
    start: Start,
    runs: u16,
) -> Result<Measured> {
    let mut present = programs.to_vec();
    present.retain(|program| program.speaks(terms.transport));
    let mut contest = Contest::new(terms, &present).await?;
    let mut measured: Measured = present.into_iter().map(|one| (one, Vec::new())).collect();
    for _ in 0..runs {
        for (program, dials) in &mut measured {
            dials.push(contest.dial(*program, start).await?);
        }
    }
    contest.over().await?;
    Ok(measured)
}

struct Contest {
    terms: Terms,
    relay: Relay,
    iroh: Option<IrohRelay>,
    contenders: Vec<Contender>,
    // Last, so that it outlives what runs in it.
    lab: Lab,
}

struct Contender {
    program: Program,
    a: Host,
    peer: String,
    dials: u16,
    /// Of ours: what left each of the two hosts.
    captures: Vec<(Host, Capture)>,
    _waiting: Process,
    _sites: [Site; 2],
}

impl Contest {
    async fn new(terms: Terms, programs: &[Program]) -> Result<Self> {
        let mut lab = Lab::new(&terms.name).await?;
        let relay = Relay::start(&lab, "relay").await?;
        let iroh = if programs.contains(&Program::Iroh) {
            Some(IrohRelay::start(&lab, &iroh_peer()?, "iroh-relay").await?)
        } else {
            None
        };
        let mut places = Vec::new();
        for program in programs {
            let sites = [
                lab.site(&format!("a-{program}"), terms.nats.0).await?,
                lab.site(&format!("b-{program}"), terms.nats.1).await?,
            ];
            let a = lab.host(&format!("host-a-{program}"), &sites[0]).await?;
            let b = lab.host(&format!("host-b-{program}"), &sites[1]).await?;
            places.push((*program, a, b, sites));
        }
        if terms.link != Link::default() {
            lab.impair(terms.link)?;
        }
        let mut contest = Self {
            terms,
            relay,
            iroh,
            contenders: Vec::new(),
            lab,
        };
        for (program, a, b, sites) in places {
            let mut captures = Vec::new();
            if program == Program::Ours {
                for (site, host) in sites.iter().zip([&a, &b]) {
                    captures.push((host.clone(), contest.lab.capture(site).await?));
                }
            }
            let (waiting, peer) = contest.wait(program, &b).await?;
            contest.contenders.push(Contender {
                program,
                a,
                peer,
                dials: 0,
                captures,
                _waiting: waiting,
                _sites: sites,
            });
        }
        Ok(contest)
    }

    async fn wait(&self, program: Program, host: &Host) -> Result<(Process, String)> {
        let name = format!("{program}-b");
        let port = *RANGE.start();
        let launch = match program {
            Program::Ours => self.ours(host, RANGE).run_on(host, &name)?,
            Program::Plain => self.plain(host, port)?.listen(&name)?,
            Program::Iroh => self.iroh()?.listen(&name, host, port)?,
        };
        let process = launch.on(host)?;
        let id = match program {
            Program::Ours | Program::Plain => reserved(&process).await?,
            Program::Iroh => {
                let listening = process.event("listening", PATIENCE).await?;
                listening.text("/id").to_owned()
            }
        };
        Ok((process, id))
    }

    async fn dial(&mut self, program: Program, start: Start) -> Result<Dialed> {
        let contender = self
            .contenders
            .iter_mut()
            .find(|contender| contender.program == program)
            .with_context(|| format!("{program} does not take part"))?;
        ensure!(
            contender.dials < MOST_DIALS,
            "more than {MOST_DIALS} dials in one lab"
        );
        contender.dials += 1;
        let port = RANGE.start() + contender.dials;
        let (host, peer) = (contender.a.clone(), contender.peer.clone());
        let name = format!("{program}-{}", contender.dials);
        let timeout_s = self.terms.timeout_s;
        let timeout = format!("{timeout_s}s");
        let is_cold = start == Start::Cold;
        let mut running = None;
        let launch = match program {
            Program::Ours => {
                let args = self.ours(&host, port..=port);
                let dial = if is_cold {
                    args.dial_within(&name, &peer, &timeout)?
                } else {
                    let node = args.run_on(&host, &format!("{name}-node"))?;
                    let node = running.insert(node.on(&host)?);
                    reserved(node).await?;
                    let socket = control_socket(self.lab.artifacts(), node.name());
                    Control::new(&bins()?.p2pnode, &socket).dial_within(&name, &peer, &timeout)
                };
                dial.args(["--count", "1"])
            }
            Program::Plain => {
                let to = is_cold.then_some(peer.as_str());
                self.plain(&host, port)?.dial(&name, to, timeout_s)?
            }
            Program::Iroh => {
                let to = is_cold.then_some(peer.as_str());
                self.iroh()?.dial(&name, &host, port, to, timeout_s)?
            }
        };
        let mut began = Instant::now();
        let mut process = launch.on(&host)?;
        if !is_cold && program != Program::Ours {
            process.event("ready", PATIENCE).await?;
            began = Instant::now();
            process.tell(&peer).await?;
        }
        // Beyond its own timeout it has only to close.
        let within = PATIENCE + Duration::from_secs(timeout_s);
        process.exit(within).await?;
        let events = process.events();
        ensure!(
            events.iter().any(|event| event.name() == "result"),
            "{name} ended without a result: {}",
            process.log()
        );
        if let Some(mut node) = running {
            node.terminate()?;
            node.exit(PATIENCE).await?;
        }
        Ok(read(program, &peer, &events, began))
    }

    /// Every dial was made: if all packets of ours left from the range, the artifacts need not be kept.
    async fn over(self) -> Result<()> {
        for (host, capture) in self.contenders.iter().flat_map(|one| &one.captures) {
            let kept = capture.keeps(host, &RANGE).await;
            kept.with_context(|| self.terms.name.clone())?;
        }
        drop(self.contenders);
        self.lab.succeeded();
        Ok(())
    }

    fn ours(&self, host: &Host, ports: RangeInclusive<u16>) -> NodeArgs {
        NodeArgs::new(&self.relay, host, &[self.terms.transport]).range(ports)
    }

    fn plain(&self, host: &Host, port: u16) -> Result<PlainArgs> {
        Ok(PlainArgs {
            relay: self.relay_of(host)?,
            transport: self.terms.transport,
            port,
            families: if host.ip(true).is_ok() { ANY } else { IP4 },
        })
    }

    /// The one address of our relay that a plain peer is given: in the family that both peers have, since it is punched in no
    /// other.
    fn relay_of(&self, host: &Host) -> Result<String> {
        let addresses = self.relay.addresses(host, &[self.terms.transport]);
        let (a, b) = self.terms.nats;
        let family = match a.has_ip4() && b.has_ip4() {
            true => "/ip4/",
            false => "/ip6/",
        };
        let common = addresses.iter().find(|address| address.starts_with(family));
        common
            .or(addresses.first())
            .cloned()
            .context("the relay has no address for this host")
    }

    fn iroh(&self) -> Result<&IrohRelay> {
        self.iroh.as_ref().context("iroh does not take part")
    }
}

fn read(program: Program, peer: &str, events: &[Event], began: Instant) -> Dialed {
    let when = |wanted: &dyn Fn(&Event) -> bool| {
        let found = events.iter().find(|event| wanted(event));
        found.map(|event| (event.at - began).as_secs_f64() * 1000.0)
    };
    // Ours and plain libp2p tell of their relay, too. iroh has one connection, and names nobody.
    let is_peer = |event: &Event| program == Program::Iroh || event.text("/peer") == peer;
    let open = |event: &Event| {
        event.name() == "connected" && event.path_kind() == "direct" && is_peer(event)
    };
    let first_byte = |event: &Event| match program {
        Program::Ours => event.name() == "ping" && event.text("/kind") == "direct",
        // It says so when a ping has come back.
        Program::Plain => event.name() == "result" && event.text("/outcome") == "direct",
        Program::Iroh => event.name() == "direct",
    };
    Dialed {
        open: when(&open),
        first_byte: when(&first_byte),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(began: Instant, ms: u64, json: serde_json::Value) -> Event {
        Event {
            at: began + Duration::from_millis(ms),
            line: json.to_string(),
            json,
        }
    }

    #[test]
    fn a_connection_with_the_relay_is_no_direct_path_to_the_peer() {
        let began = Instant::now();
        let connected = |ms, peer, kind| {
            let path = json!({"kind": kind});
            at(
                began,
                ms,
                json!({"event": "connected", "peer": peer, "path": path}),
            )
        };
        let mut events = vec![
            connected(10, "relay", "direct"),
            connected(20, "b", "relayed"),
        ];
        assert_eq!(read(Program::Plain, "b", &events, began), Dialed::default());
        events.push(connected(30, "b", "direct"));
        let result = json!({"event": "result", "outcome": "direct"});
        events.push(at(began, 40, result));
        let dialed = Dialed {
            open: Some(30.0),
            first_byte: Some(40.0),
        };
        assert_eq!(read(Program::Plain, "b", &events, began), dialed);
    }

    #[test]
    fn a_ping_over_the_relay_is_no_first_byte() {
        let began = Instant::now();
        let ping = |ms, kind| at(began, ms, json!({"event": "ping", "kind": kind}));
        let mut events = vec![ping(10, "relayed")];
        let read = |events: &[Event]| read(Program::Ours, "b", events, began).first_byte;
        assert_eq!(read(&events), None);
        events.push(ping(20, "direct"));
        assert_eq!(read(&events), Some(20.0));
    }
}
