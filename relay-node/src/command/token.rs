//! `relay-node token`: join tokens, made and explained with nothing but the relay's key.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use libp2p::{PeerId, identity::Keypair};
use p2pnode_daemon::{
    command,
    config::{
        Reader,
        kind::{DURATION, PEER_ID},
    },
    exit::Exit,
    identity,
};
use p2pnode_protocol::join::{Token, TokenId};
use p2pnode_protocol::quote;
use serde::Serialize;

use crate::{
    command::cli::{CreateArgs, ShowArgs},
    config::Config,
};

/// What a token is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    peer: PeerId,
    lives: Duration,
}

/// Reads the arguments of `create` and notes every fault of them.
pub(crate) fn wanted(reader: &mut Reader<'_>, args: &CreateArgs) -> Option<Wanted> {
    let peer = noted(reader, "--peer", (PEER_ID.parse)(&args.peer));
    let lives = noted(reader, "--expires", (DURATION.parse)(&args.expires));
    Some(Wanted {
        peer: peer?,
        lives: lives?,
    })
}

/// Reads the argument of `show`.
pub(crate) fn given(reader: &mut Reader<'_>, args: &ShowArgs) -> Option<Token> {
    let token = Token::read(args.token.trim());
    let token = token.map_err(|malformed| format!("{} {malformed}", quote(&args.token)));
    noted(reader, "TOKEN", token)
}

fn noted<T>(reader: &mut Reader<'_>, argument: &str, parsed: Result<T, String>) -> Option<T> {
    parsed
        .map_err(|problem| reader.argument(argument, problem))
        .ok()
}

/// What is said of a token.
#[derive(Debug, Serialize)]
struct TokenReport {
    id: String,
    relay: String,
    peer: String,
    /// As RFC 3339 writes it.
    expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The key file, if there was none and it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_key: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    judged: Option<Judged>,
}

/// What a relay with this key and configuration would make of it now.
#[derive(Debug, Serialize)]
struct Judged {
    /// `None` if this host has no key to compare with.
    this_relay: Option<bool>,
    expired: bool,
    /// `None` if no configuration was read that could revoke it.
    revoked: Option<bool>,
}

impl TokenReport {
    fn new(token: &Token) -> Self {
        Self {
            id: token.id.to_string(),
            relay: token.relay.to_string(),
            peer: token.peer.to_string(),
            expires: token.date(),
            token: None,
            new_key: None,
            judged: None,
        }
    }
}

/// Prints a new token of the relay of `config`, whose key is made if there is none.
pub(crate) fn create(config: &Config, wanted: Wanted, args: &CreateArgs) -> anyhow::Result<Exit> {
    let is_new = !config.key_file.exists();
    let named = identity::Named::by(args.key.as_ref());
    let key = identity::load_or_create(&config.key_file, named)?;
    if is_new && !args.json {
        // If stderr is closed, there is nowhere to report it.
        let _ = writeln!(
            io::stderr(),
            "note: there was no key, so {} was made, of the new relay {}: only a relay that runs with this key takes the token; for \
             another one give its key with --key, or its configuration with --config",
            config.key_file.display(),
            key.public().to_peer_id()
        );
    }
    let expires = SystemTime::now() + wanted.lives;
    let text = signed(&key, wanted.peer, expires)?;
    if args.json {
        let mut report = TokenReport::new(&Token::read(&text)?);
        report.token = Some(text);
        report.new_key = is_new.then(|| config.key_file.display().to_string());
        return print(&(p2pnode_protocol::to_json(&report)? + "\n"));
    }
    print(&(text + "\n"))
}

fn signed(key: &Keypair, peer: PeerId, expires: SystemTime) -> anyhow::Result<String> {
    let id = TokenId::new(fastrand::u64(..));
    Token::sign(key, id, &peer, expires).context("the relay's key cannot sign")
}

/// Prints what a token says, and what the relay of `config` would make of it.
/// `has_file` is whether a file of the configuration was read.
pub(crate) fn show(
    config: &Config,
    has_file: bool,
    token: &Token,
    json: bool,
) -> anyhow::Result<Exit> {
    let own = match identity::load(&config.key_file) {
        Ok(key) => Some(key.public().to_peer_id()),
        Err(identity::Error::Unreadable { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let now = SystemTime::now();
    let judged = Judged {
        this_relay: own.map(|own| own == token.relay),
        expired: token.is_expired(now),
        revoked: match config.access.revoked.contains(&token.id) {
            true => Some(true),
            false => has_file.then_some(false),
        },
    };
    let mut report = TokenReport::new(token);
    if json {
        report.judged = Some(judged);
        return print(&(p2pnode_protocol::to_json(&report)? + "\n"));
    }
    let relay = match judged.this_relay {
        Some(true) => "this relay",
        Some(false) => "another relay than that of this key",
        None => "there is no key here to compare with",
    };
    let expires = match token.expires.duration_since(now) {
        Ok(left) => format!("in {}", whole(left)),
        Err(past) => format!("expired {} ago", whole(past.duration())),
    };
    let revoked = match judged.revoked {
        Some(true) => "yes",
        Some(false) => "no",
        None => {
            "unknown (--config FILE names the relay's configuration, which lists revoked tokens)"
        }
    };
    print(&format!(
        "token    {}\npeer     {}\nrelay    {} ({relay})\nexpires  {} ({expires})\nrevoked  {revoked}\n",
        report.id, report.peer, report.relay, report.expires
    ))
}

fn whole(duration: Duration) -> String {
    // "0s" is no duration to a parser, and is one to people.
    let seconds = Duration::from_secs(duration.as_secs());
    match seconds {
        Duration::ZERO => "0s".to_owned(),
        seconds => (DURATION.print)(&seconds),
    }
}

fn print(text: &str) -> anyhow::Result<Exit> {
    command::print(text).context("cannot write to stdout")?;
    Ok(Exit::Success)
}
