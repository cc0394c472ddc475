//! `init`: writes a first configuration of a relay, makes its key, and looks whether its ports are free.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use p2pnode_daemon::{
    command::{self, Global},
    config::{self, Document, Flags},
    exit::{Exit, Usage},
    identity,
    init::{self, yaml},
};
use p2pnode_protocol::quote;

use super::cli::InitArgs;
use crate::config::{Config, PROGRAM};

/// The file that is written if none is named.
const FILE: &str = "relay-node.yaml";

/// What is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    /// Addresses of both transports, without a peer id.
    external: Vec<String>,
    port: u16,
    relays: Vec<String>,
    tokens: bool,
    key: Option<String>,
}

pub(super) fn execute(global: &Global, args: &InitArgs) -> anyhow::Result<Exit> {
    let answers = Answers::of(args)?.absolute()?;
    let text = answers.to_yaml();
    let mut sources = global.sources(&PROGRAM, Flags::default())?;
    sources.file = Some(Document::parse(
        Path::new("the new configuration"),
        text.clone(),
    )?);
    let config = config::load(&PROGRAM, &sources, Config::read)?.config;
    let path = args.output.write(&text, FILE)?;
    let named = identity::Named::by(answers.key.as_ref());
    let id = identity::load_or_create(&config.key_file, named)?
        .public()
        .to_peer_id();
    if let Some(path) = path {
        let taken = !init::taken([answers.port].into_iter()).is_empty();
        command::print(&next(&path, &id.to_string(), &answers, taken))?;
    }
    Ok(Exit::Success)
}

impl Answers {
    /// What the flags have, and on a terminal what they lack.
    fn of(args: &InitArgs) -> anyhow::Result<Self> {
        let mut hosts = args.external.clone();
        let mut tokens = args.tokens;
        let is_asked = hosts.is_empty() && args.output.output.as_deref() != Some(Path::new("-"));
        if let (true, Some(mut ask)) = (is_asked, init::on_terminal()) {
            let question = "Public IP address or name of this relay (empty: no more)";
            hosts = ask.many(question, |host| external(host, args.port).map(drop))?;
            if !tokens {
                let question = "Whether peers need a join token: yes or no";
                let is_one = |answer: &str| match ["yes", "no"].contains(&answer) {
                    true => Ok(()),
                    false => Err("answer yes or no".to_owned()),
                };
                tokens = ask.one(question, "no", is_one)? == "yes";
            }
        }
        let mut addresses = Vec::new();
        for host in &hosts {
            addresses.extend(external(host, args.port).map_err(Usage)?);
        }
        Ok(Self {
            external: addresses,
            port: args.port,
            relays: args.relay.clone(),
            tokens,
            key: args.key.clone(),
        })
    }

    /// The key at its absolute path: the program may run in another directory.
    fn absolute(mut self) -> anyhow::Result<Self> {
        self.key = self.key.map(init::absolute).transpose()?;
        Ok(self)
    }

    fn to_yaml(&self) -> String {
        let mut text = "# Configuration of relay-node. `relay-node config schema` describes every key; `relay-node config check` checks this file.\n".to_owned();
        if let Some(key) = &self.key {
            let _ = write!(
                text,
                "\n# The relay's private key; its id is in the addresses that peers have.\nidentity:\n  key_file: {}\n",
                yaml(key)
            );
        }
        let port = self.port;
        let _ = write!(
            text,
            "\n# Where the relay listens: both transports and both IP families.\nlisten:\n"
        );
        for address in listen(port) {
            let _ = writeln!(text, "  - {address}");
        }
        text += "\n# Addresses at which peers reach the relay, where its interfaces do not have them.\n";
        list(
            "external",
            &self.external,
            "/ip4/203.0.113.10/udp/4001/quic-v1",
            &mut text,
        );
        text += "\n# Other relays of the fleet; each names the other.\n";
        list(
            "relays",
            &self.relays,
            "/dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...",
            &mut text,
        );
        let _ = write!(
            text,
            "\n# Who may use the relay. With tokens: peers with a token of `relay-node token create`.\naccess:\n  tokens: {}\n",
            self.tokens
        );
        text += "\n# Probes and metrics over HTTP.\n# admin:\n#   listen: 127.0.0.1:9464\n";
        text
    }
}

fn list(key: &str, values: &[String], example: &str, text: &mut String) {
    if values.is_empty() {
        let _ = writeln!(text, "# {key}:\n#   - {example}");
        return;
    }
    let _ = writeln!(text, "{key}:");
    for value in values {
        let _ = writeln!(text, "  - {}", yaml(value));
    }
}

/// An IPv6 address is left out where the host has no such family only if the key is not given, so a host without it gets IPv4 alone.
fn listen(port: u16) -> Vec<String> {
    let has_ip6 = std::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok();
    let families = [("/ip4/0.0.0.0", true), ("/ip6/::", has_ip6)];
    let present = families.into_iter().filter(|(_, is_present)| *is_present);
    present
        .flat_map(|(ip, _)| {
            [
                format!("{ip}/udp/{port}/quic-v1"),
                format!("{ip}/tcp/{port}"),
            ]
        })
        .collect()
}

/// The addresses of both transports of a host: an IP address, a name, or a multiaddr as it is.
fn external(host: &str, port: u16) -> Result<Vec<String>, String> {
    if host.starts_with('/') {
        return Ok(vec![host.to_owned()]);
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let base = match host.parse() {
        Ok(IpAddr::V4(ip)) => format!("/ip4/{ip}"),
        Ok(IpAddr::V6(ip)) => format!("/ip6/{ip}"),
        Err(_) if !host.is_empty() && host.bytes().all(is_of_name) => format!("/dns/{host}"),
        Err(_) => {
            return Err(format!(
                "{} is no IP address and no name; write 203.0.113.10, relay.example.net or a multiaddr, without a port",
                quote(host)
            ));
        }
    };
    Ok(vec![
        format!("{base}/udp/{port}/quic-v1"),
        format!("{base}/tcp/{port}"),
    ])
}

/// What was made, and what to run next.
fn next(path: &Path, id: &str, answers: &Answers, taken: bool) -> String {
    let (file, port) = (path.display(), answers.port);
    let mut text = format!("wrote    {file}\nid       {id}\n");
    if taken {
        let _ = writeln!(
            text,
            "port     {port} is taken by another program: stop it, or choose another --port"
        );
    } else {
        let _ = writeln!(text, "port     {port} is free");
    }
    if port < 1024 {
        let _ = writeln!(
            text,
            "port     {port} needs CAP_NET_BIND_SERVICE, which the systemd unit of the package has"
        );
    }
    for address in &answers.external {
        let _ = writeln!(text, "address  {address}/p2p/{id}");
    }
    text += "\nnext:\n";
    if answers.external.is_empty() {
        text += "  `relay-node run` prints the addresses for the peers' --relay\n";
    }
    let _ = writeln!(text, "  open UDP and TCP port {port} on the firewall");
    if answers.tokens {
        let _ = writeln!(
            text,
            "  relay-node token create --peer ID --expires 30d --config {file}    # for each peer"
        );
    }
    let _ = writeln!(text, "  relay-node config check --config {file}");
    let _ = writeln!(text, "  relay-node run --config {file}");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use p2pnode_daemon::config::Sources;

    use super::*;

    fn read(answers: &Answers) -> Result<Config, String> {
        let text = answers.to_yaml();
        let file = Document::parse(Path::new("f.yaml"), text).map_err(|fault| fault.to_string())?;
        let sources = Sources {
            file: Some(file),
            env: BTreeMap::from([("HOME".to_owned(), "/".to_owned())]),
            flags: Flags::default(),
        };
        let loaded = config::load(&PROGRAM, &sources, Config::read);
        loaded
            .map(|loaded| loaded.config)
            .map_err(|faults| faults.to_string())
    }

    #[test]
    fn what_is_written_is_a_configuration_with_what_was_answered() {
        let none = Answers {
            port: 4001,
            ..Answers::default()
        };
        assert!(read(&none).expect("valid").external.is_empty());
        let all = Answers {
            external: external("203.0.113.10", 443).expect("an address"),
            port: 443,
            relays: vec!["/dns/two.example.net/tcp/443/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt".to_owned()],
            tokens: true,
            key: Some("relay.key".to_owned()),
        };
        let config = read(&all).expect("valid");
        assert_eq!(config.external.len(), 2);
        assert_eq!(config.relays.len(), 1);
        assert!(config.access.tokens, "{:?}", config.access);
        assert_eq!(config.key_file, Path::new("relay.key"));
    }

    #[test]
    fn a_host_becomes_addresses_of_both_transports() {
        let of = |host: &str| external(host, 443).map(|addresses| addresses.join(" "));
        assert_eq!(
            of("2001:db8::1").as_deref(),
            Ok("/ip6/2001:db8::1/udp/443/quic-v1 /ip6/2001:db8::1/tcp/443")
        );
        assert_eq!(
            of("relay.example.net").as_deref(),
            Ok("/dns/relay.example.net/udp/443/quic-v1 /dns/relay.example.net/tcp/443")
        );
        assert_eq!(
            of("/ip4/203.0.113.10/tcp/443").as_deref(),
            Ok("/ip4/203.0.113.10/tcp/443")
        );
        assert!(of("relay:443").is_err());
    }
}
