//! Two nodes and two relays in the lab, and the faults of a schedule.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    growth::Measure,
    oracle::{Facts, Seen},
    schedule::{Fault, NAMED, Side},
};
use crate::{
    admin::{ADMIN, ADMIN_LISTEN},
    args::{NodeArgs, PATIENCE, Transport},
    clock::Clock,
    control,
    delay::Link,
    events::Event,
    faults::{Traffic, Unplugged},
    host::Host,
    lab::{Lab, Site},
    nat::NatKind,
    node::{Launch, Process},
    relay::{RELAY_PORT, Relay},
    running::Node,
};

const NAME: &str = "relay.soak.test";
/// The round trip of a healthy network.
const RTT: Duration = Duration::from_millis(20);
/// More pings than any soak lasts.
const PINGS: &str = "1000000";
/// Between the end of a dial and the next one.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct World {
    pub(super) nodes: [Node; 2],
    pub(super) relays: Vec<Relay>,
    dial: Process,
    /// Dials that have ended, and runs of relays: what they were called, printed and logged.
    pub(super) ended: Vec<Ended>,
    sites: [Site; 2],
    clocks: [Clock; 4],
    /// What is dropped at each site.
    cuts: [Vec<(Fault, Traffic)>; 2],
    unplugged: [Option<Unplugged>; 2],
    outside: [Vec<(Instant, IpAddr)>; 2],
    /// The lab; last, so that it outlives what runs in it.
    pub(super) lab: Lab,
}

pub(super) struct Ended {
    pub(super) name: String,
    pub(super) is_dial: bool,
    pub(super) events: Vec<Event>,
    pub(super) log: Vec<Event>,
}

impl Ended {
    fn of(process: &Process, is_dial: bool) -> Self {
        Self {
            name: process.name().to_owned(),
            is_dial,
            events: process.events(),
            log: process.log_lines(),
        }
    }
}

impl World {
    /// Returns when both nodes hold reservations on both relays, and a dial pings over a direct path.
    pub(super) async fn start(mut lab: Lab, kinds: [NatKind; 2]) -> Result<Self> {
        let mut clocks = Vec::new();
        for name in ["clock-a", "clock-b", "clock-relay-0", "clock-relay-1"] {
            clocks.push(Clock::named(lab.artifacts(), name).await?);
        }
        let mut relays = Vec::new();
        for (name, clock) in ["relay-0", "relay-1"].into_iter().zip(&clocks[2..]) {
            let [library, offset] = clock.env()?;
            let env = [
                library,
                offset,
                ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
                ("RELAY_NODE_DRAIN_TIMEOUT", "1s"),
            ];
            relays.push(Relay::start_with(&lab, name, &env).await?);
        }
        lab.name(NAME, &relays[NAMED].host)?;
        let (a_site, a) = lab.home("a", kinds[0]).await?;
        let (b_site, b) = lab.home("b", kinds[1]).await?;
        lab.impair(Link::rtt(RTT))?;
        let nodes = [
            node("a", &a, &relays, &clocks[0]).await?,
            node("b", &b, &relays, &clocks[1]).await?,
        ];
        let start = Instant::now();
        let outside = |site: &Site| anyhow::Ok(vec![(start, site.outside.context("no NAT")?)]);
        let world = Self {
            dial: dial(&nodes, 1)?,
            outside: [outside(&a_site)?, outside(&b_site)?],
            sites: [a_site, b_site],
            clocks: clocks.try_into().map_err(|_| anyhow::anyhow!("clocks"))?,
            nodes,
            relays,
            ended: Vec::new(),
            cuts: [Vec::new(), Vec::new()],
            unplugged: [None, None],
            lab,
        };
        world.heals(PATIENCE * 2).await?;
        Ok(world)
    }

    /// Waits until each node holds both reservations and has one direct path to the other, and no circuit.
    pub(super) async fn heals(&self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        let [a, b] = &self.nodes;
        for (node, peer) in [(a, b), (b, a)] {
            let healed = |status: &Value| {
                let relays = status["relays"].as_array().into_iter().flatten();
                let reserved = relays.filter(|relay| relay["reserved"] == true).count();
                let paths = |kind| control::paths(status, &peer.id, kind).len();
                let is_healed = reserved == 2 && paths("direct") == 1 && paths("relayed") == 0;
                is_healed.then_some(())
            };
            let left = until.saturating_duration_since(Instant::now());
            node.until("reservations and one direct path", left, healed)
                .await?;
        }
        Ok(())
    }

    /// Goes on until that time, while a dial pings: when one ends, the next begins.
    pub(super) async fn until(&mut self, at: Instant) -> Result<()> {
        let wake = tokio::time::sleep_until(at.into());
        tokio::pin!(wake);
        loop {
            tokio::select! {
                () = &mut wake => return Ok(()),
                ended = self.dial.exit(Duration::from_secs(86_400)) => drop(ended?),
            }
            tokio::time::sleep(PAUSE).await;
            let dials = self.ended.iter().filter(|ended| ended.is_dial).count();
            let next = dial(&self.nodes, dials + 2)?;
            let ended = std::mem::replace(&mut self.dial, next);
            self.ended.push(Ended::of(&ended, true));
        }
    }

    pub(super) async fn begin(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::LinkSilent(_) | Fault::PathCut | Fault::DnsSilent | Fault::DnsRefused => {
                for (side, traffic) in self.dropped(fault) {
                    self.cuts[side.index()].push((fault, traffic));
                }
                self.cut()
            }
            Fault::LinkUnplugged(side) => {
                let unplugged = self.sites[side.index()].unplug()?;
                self.unplugged[side.index()] = Some(unplugged);
                Ok(())
            }
            Fault::CableUnplugged(side) => self.host(side).plug(false).await,
            Fault::NatReboot(side) => self.sites[side.index()].reboot(),
            Fault::Renumbered(side) => {
                // The NAT has the address before the lab is done with the change.
                let from = Instant::now();
                let address = self.sites[side.index()].renumber()?;
                self.outside[side.index()].push((from, address));
                Ok(())
            }
            Fault::RelayKilled(relay) => self.relays[relay].process.kill().await,
            Fault::RelayEnded(relay) => {
                let process = &mut self.relays[relay].process;
                process.terminate()?;
                let status = process.exit(PATIENCE).await?;
                ensure!(status.success(), "{}: {status}", process.name());
                Ok(())
            }
            Fault::RelaySuspended(relay) => self.relays[relay].process.suspend(),
            Fault::Suspended(side) => self.nodes[side.index()].process.suspend(),
            Fault::ClockOfNode(side, seconds) => self.clocks[side.index()].set(seconds),
            Fault::ClockOfRelay(relay, seconds) => self.clocks[2 + relay].set(seconds),
            Fault::Slow {
                rtt_ms,
                loss_percent,
            } => {
                let link = Link::rtt(Duration::from_millis(rtt_ms)).loss(loss_percent.into());
                self.lab.impair(link)
            }
        }
    }

    pub(super) async fn end(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::LinkSilent(_) | Fault::PathCut | Fault::DnsSilent | Fault::DnsRefused => {
                for cuts in &mut self.cuts {
                    cuts.retain(|(of, _)| *of != fault);
                }
                self.cut()
            }
            Fault::LinkUnplugged(side) => {
                let unplugged = self.unplugged[side.index()].take();
                self.sites[side.index()].plug(unplugged.context("not unplugged")?)
            }
            Fault::CableUnplugged(side) => self.host(side).plug(true).await,
            Fault::NatReboot(_) | Fault::Renumbered(_) => bail!("{fault:?} has no end"),
            Fault::RelayKilled(relay) | Fault::RelayEnded(relay) => {
                let relay = &mut self.relays[relay];
                self.ended.push(Ended::of(&relay.process, false));
                relay.restart().await
            }
            Fault::RelaySuspended(relay) => self.relays[relay].process.resume(),
            Fault::Suspended(side) => self.nodes[side.index()].process.resume(),
            Fault::ClockOfNode(side, _) => self.clocks[side.index()].set(0),
            Fault::ClockOfRelay(relay, _) => self.clocks[2 + relay].set(0),
            Fault::Slow { .. } => self.lab.impair(Link::rtt(RTT)),
        }
    }

    fn host(&self, side: Side) -> &Host {
        &self.nodes[side.index()].host
    }

    /// What a fault drops, and at which site.
    fn dropped(&self, fault: Fault) -> Vec<(Side, Traffic)> {
        let everywhere = |traffic| Side::BOTH.map(|side| (side, traffic)).to_vec();
        if let Fault::LinkSilent(side) = fault {
            return vec![(side, Traffic::Outside)];
        }
        if fault == Fault::DnsSilent {
            return everywhere(Traffic::Dns);
        }
        if fault == Fault::DnsRefused {
            return everywhere(Traffic::DnsRefused);
        }
        // At A, with the address that B has and the one that it gets next.
        let b = &self.sites[1];
        let ips = b.outside.into_iter().chain(b.next_outside());
        ips.map(|ip| (Side::A, Traffic::With(ip))).collect()
    }

    fn cut(&self) -> Result<()> {
        for (site, cuts) in self.sites.iter().zip(&self.cuts) {
            let traffic: Vec<_> = cuts.iter().map(|(_, traffic)| *traffic).collect();
            site.cut(&traffic)?;
        }
        Ok(())
    }

    /// The nodes and relays, each with what it has.
    pub(super) async fn measure(&self) -> Result<Vec<(String, Measure)>> {
        let nodes = self.nodes.iter().map(|node| (&node.process, &node.host));
        let relays = self
            .relays
            .iter()
            .map(|relay| (&relay.process, &relay.host));
        let mut measures = Vec::new();
        for (process, host) in nodes.chain(relays) {
            // A relay's name has the number of its run.
            let name = host.device.name().to_owned();
            measures.push((name, Measure::of(process, host).await?));
        }
        Ok(measures)
    }

    pub(super) async fn stop_dial(&mut self) -> Result<()> {
        self.dial.kill().await?;
        self.ended.push(Ended::of(&self.dial, true));
        Ok(())
    }

    pub(super) fn facts(&self, start: Instant) -> Facts {
        let history = |of: &Vec<(Instant, IpAddr)>| {
            let since = |(at, ip): &(Instant, IpAddr)| (since(start, *at), *ip);
            of.iter().map(since).collect()
        };
        Facts {
            nodes: [self.nodes[0].id.clone(), self.nodes[1].id.clone()],
            relays: [self.relays[0].id.clone(), self.relays[1].id.clone()],
            outside: [history(&self.outside[0]), history(&self.outside[1])],
            ..Facts::default()
        }
    }

    /// All processes that there were, for their logs.
    pub(super) fn logs(&self) -> Vec<(String, Vec<Event>)> {
        let nodes = self.nodes.iter().map(|node| &node.process);
        let now = nodes.chain(self.relays.iter().map(|relay| &relay.process));
        let now = now.map(|process| (process.name().to_owned(), process.log_lines()));
        let ended = self.ended.iter();
        now.chain(ended.map(|ended| (ended.name.clone(), ended.log.clone())))
            .collect()
    }
}

pub(super) fn since(start: Instant, at: Instant) -> Duration {
    at.saturating_duration_since(start)
}

/// What was printed before the start, and from then on.
pub(super) fn seen(events: &[Event], start: Instant) -> [Vec<Seen>; 2] {
    let of = |event: &Event| Seen {
        at: since(start, event.at),
        json: event.json.clone(),
    };
    let (before, after): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.at < start);
    [before, after].map(|events| events.into_iter().map(of).collect())
}

async fn node(name: &str, host: &Host, relays: &[Relay], clock: &Clock) -> Result<Node> {
    let mut addresses = relays[0].addresses(host, &Transport::ALL);
    let named = |transport: &Transport| {
        let address = transport.addr(host.ip(false)?, RELAY_PORT);
        let (_, rest) = address.split_once("/ip4/").context("an IPv4 address")?;
        let (_, rest) = rest.split_once('/').context("a port")?;
        anyhow::Ok(format!("/dns/{NAME}/{rest}/p2p/{}", relays[NAMED].id))
    };
    for transport in &Transport::ALL {
        addresses.push(named(transport)?);
    }
    let launch = NodeArgs::with_relays(addresses, &Transport::ALL).run_on(host, name)?;
    let set = |launch: Launch, (name, value)| launch.env(name, value);
    let launch = clock.env()?.into_iter().fold(launch, set);
    launch.env(ADMIN_LISTEN, ADMIN).reserves(host).await
}

fn dial(nodes: &[Node; 2], number: usize) -> Result<Process> {
    let [a, b] = nodes;
    let dial = a.control.dial(&format!("a-dial-{number}"), &b.id);
    dial.args(["--count", PINGS]).on(&a.host)
}
