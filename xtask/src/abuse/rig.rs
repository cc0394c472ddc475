//! The lab of one attack: who is there, and what is counted while they work.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Result, ensure};
use p2pnode_tests::{
    admin::ADMIN,
    args::{PATIENCE, Transport},
    bins::{self, bins},
    host::Host,
    lab::Lab,
    nat::NatKind,
    node::{Process, control_socket, printed},
    packet::{Packet, Protocol},
    relay::{RELAY_PORT, Relay},
    running::Node,
    terminal::obeyed,
    usage,
};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    attacks::{Attack, Target},
    honest::{Dials, Honest, Kind, at_least, carried},
    measured::Row,
    scene::{HomeOf, SOURCES, TEXT_PORT, evil, stranger, target, text},
    seen::{is_inner, sent_bytes},
};

/// Plain peers that the node dials of its own.
const HOSTS: u8 = 12;
const ROUNDS_BEFORE: usize = 3;
/// How long a node dials a relay often.
const LIKELY: Duration = Duration::from_secs(60);
const SAMPLE: Duration = Duration::from_millis(200);
/// For what was counted to arrive.
const SETTLE: Duration = Duration::from_secs(1);
const CLOSED: &str = "RELAY_NODE_ACCESS_ALLOW";

struct Rig {
    relay: Relay,
    other_relay: Option<Relay>,
    target: Node,
    called: Node,
    hosts: Vec<String>,
    steady: Process,
    honest: Host,
    key: String,
    stranger: Host,
    victim: Host,
    evil: Option<(Host, Process)>,
    home: Option<HomeOf>,
    /// A node that prints for people, with its id.
    text: Option<(Process, String)>,
    _plain: Process,
    /// The lab; last, so that it outlives what runs in it.
    lab: Lab,
}

pub(super) async fn run(attack: &Attack, seconds: u64) -> Result<Row> {
    let mut rig = Rig::new(attack).await?;
    let row = rig.attack(attack, attack.seconds(seconds)).await;
    rig.lab.succeeded();
    row
}

impl Rig {
    async fn new(attack: &Attack) -> Result<Self> {
        let lab = Lab::new(&format!("abuse-{}", attack.name)).await?;
        let honest = lab.public_host("honest").await?;
        let key = |name: &str| {
            lab.artifacts()
                .file(&format!("{name}.key"))
                .display()
                .to_string()
        };
        let mut env = vec![("RELAY_NODE_ADMIN_LISTEN", ADMIN)];
        env.extend(&attack.relay_env);
        let mut allowed = Vec::new();
        if attack.closed {
            for name in ["called", "target", "dial"] {
                let args = ["id", "--key", &key(name)];
                allowed.push(printed(&honest, &bins()?.p2pnode, &args).await?);
            }
            let (program, count) = (bins::stranger()?, HOSTS.to_string());
            let plain = printed(&honest, &program, &["identities", &count]).await?;
            allowed.extend(plain.lines().map(str::to_owned));
            env.push(("RELAY_NODE_ACCESS_TOKENS", "true"));
        }
        let allowed = allowed.join(",");
        if attack.closed {
            env.push((CLOSED, &allowed));
        }
        let mut relay = Relay::start_with(&lab, "relay", &env).await?;
        let mut other_relay = None;
        if attack.mesh {
            let host = lab.public_host("relay2").await?;
            let other = Relay::start_on("relay2", host, &env, &[&relay]).await?;
            relay.knows(&[&other]);
            relay.process.kill().await?;
            relay.restart().await?;
            other_relay = Some(other);
        }
        let evil = match attack.evil {
            Some(words) => Some(evil(&lab, words).await?),
            None => None,
        };
        let (target, home) = target(&lab, attack, &relay, evil.as_ref()).await?;
        let (_, called_host) = lab.home("called", NatKind::EimApdf).await?;
        let called = relay.node("called", &called_host, &Transport::ALL).await?;
        let plain = lab.public_host("plain").await?;
        let relay_address = relay.address(&plain, Transport::Quic)?;
        let words = ["--relay", &relay_address, "hosts", &HOSTS.to_string()];
        let hosts = stranger("hosts")?.args(words).on(&plain)?;
        hosts.event("ready", PATIENCE).await?;
        let of = |event: &p2pnode_tests::events::Event| event.text("/peer_id").to_owned();
        let ids = hosts
            .events()
            .iter()
            .filter(|event| event.name() == "host")
            .map(of)
            .collect();
        let steady = stranger("steady")?
            .args(["--relay", &relay_address, "steady"])
            .on(&plain)?;
        steady.event("carried", PATIENCE).await?;
        let stranger = lab.public_host("stranger").await?;
        for (_, addresses) in SOURCES {
            let addresses = addresses.iter().map(|address| address.parse::<Ipv6Addr>());
            lab.more_addresses(&stranger, &addresses.collect::<Result<Vec<_>, _>>()?)?;
        }
        Ok(Self {
            victim: lab.public_host("victim").await?,
            text: match attack.name {
                "text-node" => Some(text(&relay, &target.host, &key("text")).await?),
                _ => None,
            },
            key: key("dial"),
            hosts: ids,
            _plain: hosts,
            relay,
            other_relay,
            target,
            called,
            steady,
            honest,
            stranger,
            evil,
            home,
            lab,
        })
    }

    fn pid(&self, attack: &Attack) -> i32 {
        match attack.target {
            Target::Relay => self.relay.process.pid(),
            Target::Node | Target::Home => self.target.process.pid(),
        }
    }

    fn process(&self, attack: &Attack) -> &Process {
        match attack.target {
            Target::Relay => &self.relay.process,
            Target::Node | Target::Home => &self.target.process,
        }
    }

    async fn words(&self, words: &str, seconds: u64) -> Result<Vec<String>> {
        let mut text = words.to_owned();
        let mut put = |name: &str, value: &str| text = text.replace(name, value);
        for (name, addresses) in SOURCES {
            let sources = addresses.map(|address| format!("--source {address}"));
            put(name, &sources.join(" "));
        }
        let relay = |ip6: bool, transport: Transport| -> Result<String> {
            let ip = self.relay.host.ip(ip6)?;
            Ok(self.relay.addresses_at(ip, &[transport]).concat())
        };
        let status = self.target.control.status().await?;
        for transport in Transport::ALL {
            let name = transport.name();
            put(&format!("{{relay.{name}}}"), &relay(false, transport)?);
            put(&format!("{{relay6.{name}}}"), &relay(true, transport)?);
            for (ip6, family) in [(false, ""), (true, "6")] {
                let Ok(ip) = self.target.host.ip(ip6) else {
                    continue;
                };
                let of = |port: u64| format!("{}/p2p/{}", transport.addr(ip, port), self.target.id);
                put(&format!("{{node{family}.{name}}}"), &of(RELAY_PORT.into()));
                let port = &status["punch_ports"][format!("{name}/ip{}", if ip6 { 6 } else { 4 })];
                if let Some(port) = port.as_u64() {
                    put(&format!("{{punch{family}.{name}}}"), &of(port));
                }
            }
        }
        if let Some((_, id)) = &self.text {
            let ip = self.target.host.ip(false)?;
            for transport in Transport::ALL {
                let address = format!("{}/p2p/{id}", transport.addr(ip, TEXT_PORT));
                put(&format!("{{text.{transport}}}"), &address);
            }
            put("{text}", id);
        }
        put("{node}", &self.target.id);
        put("{victim}", &self.victim.ip(false)?.to_string());
        put("{victim6}", &self.victim.ip(true)?.to_string());
        let socket = control_socket(self.lab.artifacts(), self.target.process.name());
        put("{control}", &socket.display().to_string());
        if let Some(home) = &self.home {
            let inside = home.inside.ip(false)?.to_string();
            put("{inside}", inside.rsplit('.').next().unwrap_or_default());
        }
        let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        if words.first().is_some_and(|word| word == "attack") {
            words.extend(["--seconds".to_owned(), seconds.to_string()]);
        }
        ensure!(!words.iter().any(|word| word.contains('{')), "{words:?}");
        Ok(words)
    }

    async fn attack(&mut self, attack: &Attack, seconds: u64) -> Result<Row> {
        let kinds = Kind::of(attack.target);
        let relay = |transport| Ok((transport, self.relay.address(&self.honest, transport)?));
        let ip = self.target.host.ip(false)?;
        let direct = |transport: Transport| (transport, transport.addr(ip, RELAY_PORT));
        let mut honest = Honest {
            host: &self.honest,
            key: self.key.clone(),
            target: &self.target,
            target_addrs: Transport::ALL.map(direct).into(),
            relay: Transport::ALL
                .into_iter()
                .map(relay)
                .collect::<Result<_>>()?,
            called: &self.called,
            hosts: &self.hosts,
            count: 0,
        };
        let (mut before, mut during) = (Dials::default(), Dials::default());
        let (start, bytes) = (Instant::now(), carried(&self.steady));
        let unlogged = self.process(attack).log().lines().count();
        for _ in 0..ROUNDS_BEFORE {
            honest.round(&kinds, &mut before).await?;
        }
        ensure!(
            before.failed == 0,
            "dials failed before the attack: {:?}",
            before.reasons
        );
        if attack.evil.is_some() {
            // In the first minute a node looks for a relay that may be back at once.
            sleep_until(start + LIKELY).await;
        }
        let usual = (carried(&self.steady) - bytes) / start.elapsed().as_secs_f64();

        let pid = self.pid(attack);
        let mib = |kib: u64| kib as f64 / 1024.0;
        let rss = mib(usage::memory(pid)?);
        let descriptors_before = usage::descriptors(pid)? as u64;
        let cpu = usage::cpu(pid)?;
        let waited = usage::waited(pid)?;
        let lines = self.process(attack).log().lines().count();
        let packets = self.packets().await?.len();
        let sent = sent_bytes(&self.stranger)?;
        let lost = self.lost();
        let target_host = if attack.target == Target::Relay {
            &self.relay.host
        } else {
            &self.target.host
        };
        let host = if attack.local {
            target_host
        } else {
            &self.stranger
        };
        let mut strangers = Vec::new();
        for (number, words) in attack.strangers.iter().enumerate() {
            let words = self.words(words, seconds).await?;
            let name = format!("stranger-{number}");
            strangers.push((words.join(" "), stranger(&name)?.args(words).on(host)?));
        }
        let (begun, bytes) = (Instant::now(), carried(&self.steady));
        let until = begun + Duration::from_secs(seconds);
        let sampled = async {
            let (mut peak, mut most) = (rss, 0);
            while Instant::now() < until {
                let (Ok(memory), Ok(descriptors)) = (usage::memory(pid), usage::descriptors(pid))
                else {
                    // It has ended: what is missed is reported below.
                    break;
                };
                peak = mib(memory).max(peak);
                most = descriptors.max(most);
                sleep(SAMPLE).await;
            }
            (peak, most)
        };
        let dialed = at_least(&mut during, &mut honest, &kinds, until);
        let ((peak, descriptors), dialed) = tokio::join!(sampled, dialed);
        dialed?;
        sleep_until(until + SETTLE).await;
        let elapsed = begun.elapsed().as_secs_f64();
        let forwarded = carried(&self.steady) - bytes;
        let mut row = Row {
            attack: attack.name.to_owned(),
            about: attack.about.to_owned(),
            target: attack.target.name().to_owned(),
            transport: attack.transport.to_owned(),
            seconds: elapsed,
            sent_mib: (sent_bytes(&self.stranger)? - sent) / 1024.0 / 1024.0,
            rss_before_mib: rss,
            rss_peak_mib: peak,
            cpu_seconds: usage::cpu(pid).unwrap_or(f64::NAN) - cpu,
            waited_seconds: usage::waited(pid).unwrap_or(f64::NAN) - waited,
            descriptors: descriptors as u64,
            descriptors_before,
            dials_before: before.made,
            dials_made: during.made,
            dials_failed: during.failed,
            dial_ratio: during.ratio(&before),
            failures: during.reasons.clone(),
            reservations_lost: self.lost() - lost,
            forwarded_mib: forwarded / 1024.0 / 1024.0,
            forwarded_ratio: forwarded / elapsed / usual.max(1.0),
            ..Row::default()
        };
        let process = self.process(attack);
        let log = process.log();
        row.log_lines = (log.lines().count() - lines) as f64;
        let per_dial = (lines - unlogged) as f64 / before.made as f64;
        row.honest_log_lines = per_dial * (during.made + during.failed) as f64;
        row.control_characters = obeyed(&log)
            + process
                .events()
                .iter()
                .map(|event| obeyed(&event.line))
                .sum::<u64>();
        if let Some((text, _)) = &self.text {
            let printed = text.events().into_iter().map(|event| event.line);
            row.control_characters += printed.map(|line| obeyed(&line)).sum::<u64>();
            row.control_characters += obeyed(&text.log());
        }
        if attack.target != Target::Relay {
            // A node that does not answer has its dials failed above.
            let status = self.target.control.text(&["status"]).await;
            row.control_characters += status.map_or(0, |status| obeyed(&status));
        }
        self.count_packets(&mut row, packets).await?;
        for (words, stranger) in &strangers {
            let events = stranger.events();
            row.strangers.push(counts(&events));
            if attack.name.starts_with("oracle") {
                let candidate = words
                    .split(' ')
                    .skip_while(|word| *word != "--candidate")
                    .nth(1);
                let answers: Vec<_> = events
                    .iter()
                    .filter(|event| event.name() == "answered")
                    .map(|event| event.at)
                    .collect();
                let between = answers
                    .windows(2)
                    .map(|pair| (pair[1] - pair[0]).as_secs_f64());
                row.answers
                    .insert(candidate.unwrap_or_default().to_owned(), between.collect());
            }
        }
        if let Some((_, evil)) = &self.evil {
            row.strangers.push(counts(&evil.events()));
        }
        row.judge(attack);
        let alive = match attack.target {
            Target::Relay => self.relay.process.is_alive()?,
            Target::Node | Target::Home => self.target.process.is_alive()?,
        };
        if !alive || log.contains("panicked") {
            row.faults
                .push("the target has ended or panicked".to_owned());
        }
        if let Some(other) = &mut self.other_relay {
            ensure!(other.process.is_alive()?, "the other relay has ended");
        }
        Ok(row)
    }

    /// Reservations that honest peers have lost so far.
    fn lost(&self) -> u64 {
        let lost = |process: &Process| {
            let events = process.events();
            let lost = events.iter().filter(|event| {
                event.name() == "reservation_lost" && event.line.contains(&self.relay.id)
            });
            lost.count() as u64
        };
        let plain = self._plain.events();
        let plain = plain.iter().filter(|event| event.name() == "lost").count() as u64;
        lost(&self.target.process) + lost(&self.called.process) + plain
    }

    async fn packets(&self) -> Result<Vec<Packet>> {
        let Some(home) = &self.home else {
            return Ok(Vec::new());
        };
        home.capture.settle().await?;
        Ok(home.capture.sent_by(&self.target.host.addresses))
    }

    async fn count_packets(&self, row: &mut Row, before: usize) -> Result<()> {
        let evil: &[IpAddr] = self.evil.as_ref().map_or(&[], |(host, _)| &host.addresses);
        let (mut dials, mut packets) = (0, 0);
        for packet in self.packets().await?.iter().skip(before) {
            let to = packet.destination.ip();
            if evil.contains(&to) {
                packets += 1;
                dials += u64::from(matches!(packet.protocol, Protocol::Tcp { opens: true, .. }));
            } else if is_inner(to) {
                row.inner_packets += 1;
            } else if self.victim.addresses.contains(&to) || !self.is_known(to) {
                row.third_party_packets += 1;
                row.third_party_bytes += packet.length as u64;
            }
        }
        if self.evil.is_some() {
            (row.evil_dials, row.evil_packets) = (Some(dials), Some(packets));
        }
        Ok(())
    }

    fn is_known(&self, ip: IpAddr) -> bool {
        let hosts = [&self.relay.host, &self.honest, &self.stranger];
        hosts.iter().any(|host| host.addresses.contains(&ip))
    }
}

/// The last counts that a stranger has printed.
fn counts(events: &[p2pnode_tests::events::Event]) -> Value {
    let mut counts = events.iter().rev().map(|event| &event.json["counts"]);
    counts
        .find(|counts| !counts.is_null())
        .cloned()
        .unwrap_or_default()
}
