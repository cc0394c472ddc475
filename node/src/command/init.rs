//! `init`: writes a first configuration of a node, makes its key, and looks whether the range suits this host.

use std::{fmt::Write as _, path::Path};

use libp2p::PeerId;
use p2pnode_daemon::{
    command::{self, Global},
    config::{self, Document, Flags, Reader},
    exit::Exit,
    identity::{self, Named},
    init::{self, yaml},
};

use super::cli::InitArgs;
use crate::{
    config::{Config, Key, PROGRAM, Purpose},
    core::finding::Remedy,
    swarm::netcheck,
};

/// The file that is written if none is named.
const FILE: &str = "p2pnode.yaml";

/// What is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    relays: Vec<String>,
    range: String,
    key: Option<String>,
    tokens: Option<String>,
}

pub(super) fn execute(global: &Global, args: &InitArgs) -> anyhow::Result<Exit> {
    let answers = Answers::of(args)?.absolute()?;
    let text = answers.to_yaml();
    let config = read(&text, global)?;
    let path = args.output.write(&text, FILE)?;
    let id = match &config.key {
        Key::File(key) => identity::load_or_create(key, Named::by(answers.key.as_ref()))?
            .public()
            .to_peer_id(),
        // Unreachable: only a dial has one.
        Key::Throwaway { .. } => return Ok(Exit::Usage),
    };
    if let Some(path) = path {
        let reserve = netcheck::unreserved(config.dial.port_range);
        let host = host(&config, reserve);
        command::print(&next(&path, id, &answers, &host))?;
    }
    Ok(Exit::Success)
}

impl Answers {
    /// What the flags have, and on a terminal what they lack.
    fn of(args: &InitArgs) -> anyhow::Result<Self> {
        let mut answers = Self {
            relays: args.relay.clone(),
            range: args.port_range.clone().unwrap_or_default(),
            key: args.key.clone(),
            tokens: args.token_file.clone(),
        };
        let is_asked =
            args.relay.is_empty() && args.output.output.as_deref() != Some(Path::new("-"));
        if let (true, Some(mut ask)) = (is_asked, init::on_terminal()) {
            let is_valid = |key: &'static str| {
                move |text: &str| {
                    let value = if key == "relays" {
                        format!("[{}]", yaml(text))
                    } else {
                        yaml(text)
                    };
                    let yaml = match key.split_once('.') {
                        Some((section, key)) => format!("{section}: {{ {key}: {value} }}\n"),
                        None => format!("{key}: {value}\n"),
                    };
                    Config::from_yaml(&yaml)
                        .map(drop)
                        .map_err(|faults| faults.to_string())
                }
            };
            let relay = "Relay, with its peer id (empty: no more)";
            answers.relays = ask.many(relay, is_valid("relays"))?;
            if answers.range.is_empty() {
                let range = "Source ports that the firewall lets out";
                answers.range = ask.one(range, "40000-40050", is_valid("dial.port_range"))?;
            }
            if answers.tokens.is_none() {
                let file = ask.one("File of join tokens (empty: none)", "", |_| Ok(()))?;
                answers.tokens = Some(file).filter(|file| !file.is_empty());
            }
        }
        if answers.range.is_empty() {
            "40000-40050".clone_into(&mut answers.range);
        }
        Ok(answers)
    }

    /// Files at their absolute paths: the program may run in another directory.
    fn absolute(mut self) -> anyhow::Result<Self> {
        self.key = self.key.map(init::absolute).transpose()?;
        self.tokens = self.tokens.map(init::absolute).transpose()?;
        Ok(self)
    }

    fn to_yaml(&self) -> String {
        let mut text = "# Configuration of p2pnode. `p2pnode config schema` describes every key; `p2pnode config check` checks this file.\n".to_owned();
        if let Some(key) = &self.key {
            let _ = write!(
                text,
                "\n# The node's private key; its id is what others dial.\nidentity:\n  key_file: {}\n",
                yaml(key)
            );
        }
        text += "\n# Relays over which peers reach this node: one address of each transport and family.\n";
        text += if self.relays.is_empty() {
            "# relays:\n#   - /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...\n"
        } else {
            "relays:\n"
        };
        for relay in &self.relays {
            let _ = writeln!(text, "  - {}", yaml(relay));
        }
        let _ = write!(
            text,
            "\n# The source ports that every packet leaves from; the firewall has to let them out.\ndial:\n  port_range: {}\n",
            self.range
        );
        if let Some(tokens) = &self.tokens {
            let _ = write!(
                text,
                "\n# Join tokens, one a line, for relays that require one.\njoin:\n  token_file: {}\n",
                yaml(tokens)
            );
        }
        text += "\n# Probes and metrics over HTTP.\n# admin:\n#   listen: 127.0.0.1:9464\n";
        text += "\n# Services for other nodes: who may use them has to be named.\n# services:\n#   db: { target: \"tcp://127.0.0.1:5432\", allow: [12D3KooW...] }\n";
        text
    }
}

/// The configuration that the text is, with the environment of this process.
fn read(text: &str, global: &Global) -> anyhow::Result<Config> {
    let mut sources = global.sources(&PROGRAM, Flags::default())?;
    sources.file = Some(Document::parse(
        Path::new("the new configuration"),
        text.to_owned(),
    )?);
    let read = |reader: &mut Reader<'_>| Config::read(reader, Purpose::Check);
    Ok(config::load(&PROGRAM, &sources, read)?.config)
}

/// Whether the range suits this host, in lines.
fn host(config: &Config, reserve: Option<Remedy>) -> String {
    let range = config.dial.port_range;
    let taken = init::taken(range.iter());
    let mut text = match taken.as_slice() {
        [] => format!("range    {range} is free\n"),
        [one] => format!(
            "range    port {one} of {range} is taken by another program: stop it, or choose another range\n"
        ),
        [first, ..] => format!(
            "range    {} ports of {range} are taken by other programs, such as {first}: stop them, or choose another range\n",
            taken.len()
        ),
    };
    if let Some(remedy) = reserve {
        let _ = writeln!(text, "reserve  {}", remedy.text);
        if let Some(command) = remedy.command {
            let _ = writeln!(text, "         {command}");
        }
    }
    text
}

/// What was made, and what to run next.
fn next(path: &Path, id: PeerId, answers: &Answers, host: &str) -> String {
    let file = path.display();
    let mut text = format!("wrote    {file}\nid       {id}\n{host}\nnext:\n");
    if answers.relays.is_empty() {
        let _ = writeln!(
            text,
            "  add a relay to {file}: `relay-node run` prints its addresses"
        );
    }
    if answers.tokens.is_none() {
        let _ = writeln!(
            text,
            "  relay-node token create --peer {id} --expires 30d    # on a relay that requires tokens"
        );
    }
    let _ = writeln!(text, "  p2pnode config check --config {file}");
    let _ = writeln!(text, "  p2pnode run --config {file}");
    let _ = writeln!(text, "  p2pnode netcheck --config {file}");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const RELAY: &str = "/ip4/203.0.113.10/udp/443/quic-v1/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    #[test]
    fn what_is_written_is_a_configuration_with_what_was_answered() {
        let range = "41000-41009".to_owned();
        let none = Answers {
            range: range.clone(),
            ..Answers::default()
        };
        let config = Config::from_yaml(&none.to_yaml()).unwrap();
        assert!(config.relays.is_empty());
        let all = Answers {
            relays: vec![RELAY.to_owned()],
            range,
            key: Some("a \"key\"".to_owned()),
            tokens: Some("/etc/tokens".to_owned()),
        };
        let config = Config::from_yaml(&all.to_yaml()).unwrap();
        assert_eq!(config.relays[0].to_string(), RELAY);
        assert_eq!(config.dial.port_range.to_string(), "41000-41009");
        assert_eq!(config.key, Key::File("a \"key\"".into()));
        assert_eq!(config.token_file, Some("/etc/tokens".into()));
    }

    #[test]
    fn it_ends_with_what_to_run_next() {
        let text = next(
            Path::new("n.yaml"),
            PeerId::random(),
            &Answers::default(),
            "",
        );
        for part in ["add a relay", "token create --peer ", "run --config n.yaml"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
