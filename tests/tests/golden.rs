//! The outside contract: every name and every constant that the two programs show, compared with the files in `golden/`.
//!
//! See [`p2pnode_tests::golden`] for what a file holds and how it is made. The network is a lab and not the loopback interface,
//! where no address is worth a punch.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN, Exposition},
    args::{NodeArgs, PATIENCE, Transport},
    bins::{Bins, bins},
    control,
    events::Event,
    golden::Golden,
    host::Host,
    lab::Lab,
    nat::NatKind,
    node::{CONTROL_SOCKET, Launch, Process, RELAY_CONTROL_SOCKET, control_socket},
    relay::{RELAY_PORT, Relay},
    schema,
};
use serde_json::Value;
use tempfile::TempDir;

p2pnode_tests::lab_tests!();

const STRANGER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
const COMMANDS: &str = include_str!("golden/exit.in");

struct Program {
    name: &'static str,
    path: PathBuf,
    home: TempDir,
    token: String,
    golden: Golden,
}

impl Program {
    fn fact(&mut self, what: &str, fact: &str) {
        self.golden.fact(&format!("{what}-{}", self.name), fact);
    }

    /// Runs a command without the environment of this process. The defaults of these keys are others for root.
    fn run(&mut self, command: &str) -> Result<String> {
        let args = command.replace("PEER", STRANGER);
        let args = args.replace("TOKEN", &self.token);
        let mut program = Command::new(&self.path);
        program.args(args.split_whitespace()).env_clear();
        for prefix in ["P2PNODE", "RELAY_NODE"] {
            program.env(format!("{prefix}_IDENTITY_KEY_FILE"), "identity.key");
            program.env(format!("{prefix}_CONTROL_SOCKET"), "control.sock");
        }
        let output = program.current_dir(self.home.path()).output()?;
        let code = output.status.code();
        let prints = [&output.stdout, &output.stderr].map(|text| !text.is_empty());
        let fact = format!("{command}: {code:?}, prints on stdout, stderr: {prints:?}");
        self.fact("exit", &fact);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Adds what the help of a command names, and that of the commands below it. Texts may change.
    fn help(&mut self, command: &str) -> Result<()> {
        self.run(&format!("{command} --help"))?;
        // A text that is wrapped goes on far to the right.
        let help = self.run(&format!("{command} -h"))?;
        let help = help.replace(&format!("\n{}", " ".repeat(10)), " ");
        let (mut section, mut below) = ("", Vec::new());
        for line in help.lines() {
            let entry = line.trim_start();
            let name = entry.split("  ").next().unwrap_or(entry);
            if line.starts_with("Usage: ") {
                self.fact("help", line);
            } else if !line.starts_with(' ') {
                section = line.strip_suffix(':').unwrap_or_default();
            } else if section == "Commands" {
                below.push(name);
            } else if !section.is_empty() {
                // Where it was wrapped depends on the words before.
                let words: Vec<_> = entry.split_whitespace().collect();
                let words = words.join(" ");
                let bracket = |start| Some(words.split_once(start)?.1.split_once(']')?.0);
                let default = bracket("[default: ").filter(|text| !text.contains(' '));
                let values = bracket("[possible values: ");
                let fact = format!("{command}, {section}: {name}, {default:?}, {values:?}");
                self.fact("help", &fact);
            }
        }
        self.fact("help", &format!("{command}, Commands: {below:?}"));
        for name in below.iter().filter(|name| **name != "help") {
            self.help(&format!("{command} {name}"))?;
        }
        Ok(())
    }

    fn config(&mut self) -> Result<()> {
        for form in ["config show", "config show --json"] {
            let text = self.run(form)?;
            for line in text.lines() {
                // The default follows from the host's cgroup.
                let host =
                    |part: &'_ str| match part.starts_with(|first: char| first.is_ascii_digit()) {
                        true => "HOST".to_owned(),
                        false => part.to_owned(),
                    };
                let line = match line.contains("memory") {
                    true => line.split('"').map(host).collect::<Vec<_>>().join("\""),
                    false => line.to_owned(),
                };
                self.fact("config", &format!("{form}: {line}"));
            }
            let keys = text
                .lines()
                .map(|line| line.trim_start().split([' ', ',']).next());
            let keys: Vec<_> = keys.flatten().collect();
            self.fact(
                "config",
                &format!("{form}, in this order: {}", keys.join(" ")),
            );
        }
        let schema = self.run("config schema")?;
        self.schema("schema", &serde_json::from_str(&schema)?, false);
        Ok(())
    }

    /// Adds a schema without what is for people. Inside of `properties` the names are keys of the configuration.
    fn schema(&mut self, at: &str, schema: &Value, are_keys: bool) {
        let Some(fields) = schema.as_object() else {
            return self.fact("config", &format!("{at} = {schema}"));
        };
        let is_text = |name: &str| !are_keys && ["title", "description"].contains(&name);
        let names = fields.keys().map(String::as_str);
        let names: Vec<_> = names.filter(|name| !is_text(name)).collect();
        self.fact("config", &format!("{at} {{{}}}", names.join(", ")));
        for name in names {
            let are_keys = !are_keys && name == "properties";
            self.schema(&format!("{at}/{name}"), &fields[name], are_keys);
        }
    }

    fn exits(&mut self) -> Result<()> {
        for line in COMMANDS.lines() {
            let of_both = line.strip_prefix("both");
            let Some(command) = of_both.or(line.strip_prefix(self.name)) else {
                continue;
            };
            let text = self.run(command)?;
            if text.starts_with("p2pjoin1_") {
                text.trim().clone_into(&mut self.token);
            } else if command.starts_with(" token") && text.starts_with('{') {
                let (file, json) = (format!("exit-{}", self.name), serde_json::from_str(&text)?);
                self.golden.json(&file, command, &json);
            }
        }
        Ok(())
    }
}

#[test]
fn what_commands_show_without_a_network_is_as_it_was() -> Result<()> {
    let bins = bins()?;
    for (name, path) in [("p2pnode", bins.p2pnode), ("relay-node", bins.relay_node)] {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("bad.yaml"), "bogus: 1\n")?;
        let (token, golden) = Default::default();
        let mut program = Program {
            name,
            path,
            home,
            token,
            golden,
        };
        program.help("")?;
        program.config()?;
        program.exits()?;
        program.golden.check()?;
    }
    Ok(())
}

struct Stage {
    golden: Golden,
    relay: Relay,
    strict: Process,
    strict_host: Host,
    bins: Bins,
    lab: Lab,
}

impl Stage {
    async fn new() -> Result<Self> {
        let (bins, lab) = (bins()?, Lab::new("golden").await?);
        let admin = ("RELAY_NODE_ADMIN_LISTEN", ADMIN);
        let env = [("RELAY_NODE_DRAIN_TIMEOUT", "3s"), admin];
        let relay = Relay::start_with(&lab, "relay", &env).await?;
        let host = lab.public_host("strict").await?;
        let external = format!("/ip4/{}/udp/443/quic-v1", host.ip(false)?);
        let strict = Launch::new("strict", &bins.relay_node)
            .args(["run", "--json", "--listen", "/ip4/0.0.0.0/udp/443/quic-v1"])
            .args(["--external", &external, "--key"])
            .arg(lab.artifacts().file("strict.key"))
            .env("RELAY_NODE_ACCESS_TOKENS", "true")
            .env(admin.0, admin.1)
            .on(&host)?;
        Ok(Self {
            golden: Golden::default(),
            relay,
            strict,
            strict_host: host,
            bins,
            lab,
        })
    }

    async fn host(&self, name: &str, kind: NatKind) -> Result<Host> {
        let site = self.lab.site(name, kind).await?;
        self.lab.host(&format!("host-{name}"), &site).await
    }

    async fn show(&mut self, file: &str, host: &Host, command: Launch) -> Result<()> {
        let mut process = command.on(host)?;
        let code = process.exit(PATIENCE * 2).await?.code();
        let events = process.events();
        self.events(file, &events)?;
        let (first, last) = events.first().zip(events.last()).context("no line")?;
        let (first, last, outcome) = (first.name(), last.name(), last.text("/outcome"));
        let name = process.name();
        let ends = format!("{name}: {first:?} to {last:?} {outcome:?}, exit code {code:?}");
        self.golden.fact(file, ends);
        Ok(())
    }

    fn events(&mut self, file: &str, events: &[Event]) -> Result<()> {
        for Event { json, .. } in events {
            let name = json["event"].as_str().unwrap_or(file);
            let schema = match file {
                "status" | "why" | "relay-status" => file,
                "relay-run" => "relay-events",
                _ => "events",
            };
            schema::validate(schema, json)?;
            self.golden.json(file, name, json);
        }
        Ok(())
    }

    async fn ask(&mut self, file: &str, name: &str, args: &[&str]) -> Result<()> {
        let program = match file {
            "relay-status" => &self.bins.relay_node,
            _ => &self.bins.p2pnode,
        };
        let socket = control_socket(self.lab.artifacts(), name);
        let command = Launch::new(format!("{name}-{file}"), program)
            .args(args.iter().copied())
            .arg("--json")
            .env(CONTROL_SOCKET, &socket)
            .env(RELAY_CONTROL_SOCKET, &socket);
        let host = self.relay.host.clone();
        self.show(file, &host, command).await
    }

    async fn admin(&mut self, program: &str, host: &Host, status: u16) -> Result<()> {
        let body = admin::readiness(host, status).await?;
        let names = body.lines().filter_map(|line| line.split(": ").next());
        let names: Vec<_> = names.collect();
        let fact = format!("{program}, {status}: {}", names.join(", "));
        self.golden.fact("readyz", fact);
        // What probes run that cannot ask over HTTP.
        let binary = match program {
            "node" => ("P2PNODE_ADMIN_LISTEN", &self.bins.p2pnode),
            _ => ("RELAY_NODE_ADMIN_LISTEN", &self.bins.relay_node),
        };
        for probe in ["--live", "--ready"] {
            let command = Launch::new(format!("{program}-{status}{probe}"), binary.1)
                .args(["healthcheck", probe])
                .env(binary.0, ADMIN);
            let code = command.on(host)?.exit(PATIENCE).await?.code();
            let fact = format!("{program}, {status}, healthcheck {probe}: exit code {code:?}");
            self.golden.fact("readyz", fact);
        }
        let read = admin::metrics(host).await?;
        self.golden.metrics(&format!("metrics-{program}"), &read);
        Ok(())
    }
}

#[tokio::test]
async fn what_running_programs_show_is_as_it_was() -> Result<()> {
    let mut stage = Stage::new().await?;
    let strict = stage.strict.event("external", PATIENCE).await?;
    let dead = stage.relay.addresses(&stage.relay.host, &[Transport::Quic]);
    let dead = dead[0].replace(&stage.relay.id, STRANGER);
    let relays = ["--relay", strict.text("/address"), "--relay", &dead];
    let listen = ["--listen", "/ip4/0.0.0.0/tcp/443"];
    let mut nodes = Vec::new();
    // Which of two transports is first depends on timing, so each node has one.
    for (name, kind, transport, punch, more) in [
        ("a", NatKind::EimApdf, Transport::Quic, "true", &relays[..]),
        ("b", NatKind::EimApdfRewrite, Transport::Quic, "true", &[]),
        ("c", NatKind::EimApdf, Transport::Tcp, "false", &[]),
        ("d", NatKind::Symmetric, Transport::Quic, "true", &[]),
        ("open", NatKind::None, Transport::Tcp, "true", &listen),
    ] {
        let host = stage.host(name, kind).await?;
        let launch = NodeArgs::new(&stage.relay, &host, &[transport])
            .run_on(&host, name)?
            .args(more.iter().copied())
            .env("P2PNODE_PUNCH_ENABLED", punch)
            .env(ADMIN_LISTEN, ADMIN);
        nodes.push(launch.reserves(&host).await?);
    }
    let [a, b, c, d, open] = &nodes[..] else {
        anyhow::bail!("not five nodes");
    };
    for event in ["relay_refused", "relay_unreachable"] {
        a.process.event(event, PATIENCE).await?;
    }
    stage.ask("status", "a", &["status"]).await?;

    let away = stage.host("away", NatKind::EimApdf).await?;
    let args = NodeArgs::new(&stage.relay, &away, &[Transport::Quic]);
    let by_tcp = NodeArgs::new(&stage.relay, &away, &[Transport::Tcp]);
    let mut lonely = args.clone();
    lonely.relays = vec![dead];
    let addr = format!("/ip4/{}/tcp/443", open.host.ip(false)?);
    for (name, args, peer, more) in [
        ("direct", &args, b.id.as_str(), &[][..]),
        ("relayed", &args, &c.id, &[]),
        ("connected", &args, &c.id, &["--until", "connected"]),
        ("unknown", &args, STRANGER, &[]),
        ("no-relay", &lonely, &b.id, &[]),
        ("address", &by_tcp, &open.id, &["--addr", &addr]),
    ] {
        let dial = args.dial(name, peer)?.args(["--count", "2"]);
        let dial = dial.args(more.iter().copied());
        stage.show("dial-standalone", &away, dial).await?;
    }
    b.process.event("disconnected", PATIENCE).await?;
    for (name, node, peer) in [
        ("direct-by-a", a, b.id.as_str()),
        ("again-by-a", a, &b.id),
        ("relayed-by-a", a, &c.id),
        ("unknown-by-a", a, STRANGER),
        ("symmetric-by-d", d, &b.id),
    ] {
        let dial = node.control.dial(name, peer).args(["--count", "2"]);
        stage.show("dial-running", &node.host, dial).await?;
    }

    // Once all is there that is measured: a round trip of each leg, the far one as the relay sees it.
    for (node, peer) in [(a, b), (b, a), (a, c), (c, a), (d, b)] {
        let is_measured = |status: &Value| {
            let paths = control::peer(status, &peer.id)["paths"].as_array()?;
            let hops = paths.first()?["hops"].as_array()?;
            let mut measured = hops.iter().chain(paths);
            let all = measured.all(|part| part["rtt_ms"].is_number());
            (all && paths.len() == 1).then_some(())
        };
        let path = "one measured path";
        node.until(path, PATIENCE, is_measured).await?;
        let name = node.process.name();
        stage.ask("status", name, &["status"]).await?;
        stage.ask("why", name, &["why", &peer.id]).await?;
    }
    for node in &nodes {
        stage.admin("node", &node.host, 200).await?;
    }
    let relay = stage.relay.host.clone();
    // These are counted, and shown, only once they happen.
    let address = SocketAddr::new(relay.ip(false)?, RELAY_PORT);
    let garbage = move || Ok(TcpStream::connect(address)?.write_all(b"GET / HTTP/1.0\r\n\r\n")?);
    relay.device.run_sync(garbage)?;
    kill(Pid::from_raw(stage.relay.process.pid()), Signal::SIGHUP)?;
    for metric in ["relay_handshake_failures_total", "relay_reloads_total"] {
        let counted = |read: &Exposition| (read.sum(metric, &[]) > 0.0).then_some(());
        admin::until(&relay, metric, counted).await?;
    }
    for (name, host) in [("relay", &relay), ("strict", &stage.strict_host.clone())] {
        stage.admin("relay", host, 200).await?;
        stage.ask("relay-status", name, &["status"]).await?;
    }

    // The circuits keep the relay from its end for a while.
    stage.relay.process.terminate()?;
    stage.admin("relay", &relay, 503).await?;
    stage.ask("relay-status", "relay", &["status"]).await?;
    let code = stage.relay.process.exit(PATIENCE).await?.code();
    let mut ended = vec![("relay-run", code)];
    for node in [a, b, c, d] {
        node.process.event("reservation_lost", PATIENCE).await?;
    }
    stage.admin("node", &a.host, 503).await?;
    for mut node in nodes {
        node.process.terminate()?;
        ended.push(("node-run", node.process.exit(PATIENCE).await?.code()));
        stage.events("node-run", &node.process.events())?;
    }
    stage.strict.terminate()?;
    ended.push(("relay-run", stage.strict.exit(PATIENCE).await?.code()));
    let events = stage.strict.events();
    stage.events("relay-run", &events)?;
    for (file, code) in ended {
        let fact = format!("exit code {code:?} after SIGTERM");
        stage.golden.fact(file, fact);
    }
    stage.golden.check()?;
    stage.lab.succeeded();
    Ok(())
}
