//! What somebody means who types a command that does not exist.

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The command that does what somebody expects of one of these words.
struct Meant {
    words: &'static [&'static str],
    /// The call of the command, which begins with its name. Without one, `what` is all.
    call: &'static str,
    what: &'static str,
}

const fn meant(words: &'static [&'static str], call: &'static str, what: &'static str) -> Meant {
    Meant { words, call, what }
}

/// The programs, to name the other one if that has the command.
const PROGRAMS: [&str; 2] = ["p2pnode", "relay-node"];

/// Commands that the relay does not have, because they are about the peers of a node.
const OF_NODE: [&str; 8] = [
    "dial", "why", "netcheck", "forget", "map", "forward", "services", "firewall",
];

/// Of several entries with a word, the first counts whose command the program has.
const MEANT: [Meant; 22] = [
    meant(
        &["connect", "ping", "reach", "trace", "traceroute", "call"],
        "dial PEER --count 5",
        "connects to a peer and pings it",
    ),
    meant(
        &[
            "peers",
            "list",
            "ls",
            "ps",
            "show",
            "info",
            "state",
            "relays",
            "connections",
            "sessions",
            "reservations",
            "circuits",
            "top",
        ],
        "status",
        "lists what is connected",
    ),
    meant(
        &["path", "paths", "route", "routes"],
        "why PEER",
        "prints the paths to a peer, and what decides between them",
    ),
    meant(
        &["metrics", "stats", "statistics", "prometheus", "monitor"],
        "status --json",
        "has the state, and `/metrics` of admin.listen the metrics",
    ),
    meant(
        &["events", "event", "log", "logs", "tail", "journal"],
        "run --json",
        "prints events as they happen, and a running process logs to stderr",
    ),
    meant(
        &["watch", "follow"],
        "status --watch",
        "shows the state again every second",
    ),
    meant(
        &["start", "serve", "daemon", "up", "server"],
        "run",
        "starts it",
    ),
    meant(
        &[
            "stop", "down", "quit", "exit", "kill", "shutdown", "restart",
        ],
        "",
        "SIGTERM ends the running process, and its service manager restarts it",
    ),
    meant(
        &["reload", "sighup"],
        "",
        "SIGHUP makes the running process read its configuration again",
    ),
    meant(
        &["check", "validate", "verify", "lint", "test"],
        "config check",
        "reports every fault of the configuration",
    ),
    meant(
        &[
            "health",
            "ready",
            "readiness",
            "readyz",
            "live",
            "livez",
            "liveness",
        ],
        "healthcheck",
        "asks whether it is ready",
    ),
    meant(
        &[
            "key", "keygen", "identity", "whoami", "peer-id", "peerid", "me",
        ],
        "id",
        "makes the key and prints its peer id",
    ),
    meant(
        &[
            "nat",
            "stun",
            "diagnose",
            "diag",
            "debug",
            "troubleshoot",
            "network",
            "doctor",
        ],
        "netcheck",
        "looks at the network",
    ),
    meant(
        &["tunnel", "proxy", "port-forward", "forwards", "socks"],
        "forward SERVICE@PEER --listen tcp://127.0.0.1:PORT",
        "brings a service of another node here",
    ),
    meant(
        &["ssh", "nc", "netcat", "cat"],
        "connect SERVICE@PEER",
        "connects stdin and stdout with a service",
    ),
    meant(
        &["expose", "publish", "upnp", "portmap", "mappings"],
        "map tcp TARGET",
        "exposes a target at a port that the router maps",
    ),
    meant(
        &["disconnect", "drop", "remove", "delete", "close", "hangup"],
        "forget PEER",
        "lets the node dial a peer no longer when it is lost",
    ),
    meant(
        &["token", "tokens", "join", "invite"],
        "token create --peer PEER --expires 30d",
        "makes a join token",
    ),
    meant(
        &["allow", "acl", "access", "ban", "kick", "deny", "block"],
        "",
        "access.allow of the configuration names the peers that may connect",
    ),
    meant(
        &["setup", "install", "configure", "new"],
        "init",
        "writes a first configuration",
    ),
    meant(&["manual", "docs", "doc"], "man", "prints the manual"),
    meant(
        &["reason", "error", "errors", "describe"],
        "explain NAME",
        "prints cause and remedy of a name that the programs print",
    ),
];

/// What to do instead, if the command line says more than its parser: a command that does not exist, or a number below zero.
pub(crate) fn hint(error: &clap::Error, command: &Command) -> Option<String> {
    let text = |kind: ContextKind| {
        let Some(ContextValue::String(text)) = error.get(kind) else {
            return None;
        };
        Some(text.as_str())
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let is_negative = |arg: &str| {
            let digits = arg.strip_prefix('-');
            digits.is_some_and(|digits| digits.starts_with(|first: char| first.is_ascii_digit()))
        };
        let negative = text(ContextKind::InvalidArg).filter(|arg| is_negative(arg));
        return negative.map(|_| "give 0 or more, without a sign".to_owned());
    }
    let given = text(ContextKind::InvalidSubcommand)?.to_lowercase();
    // Of a command within a command, the parser's own suggestion is the better one.
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let has_parent = usage.is_some_and(|usage| {
        let mut words = usage.split_whitespace();
        words.any(|word| command.find_subcommand(word).is_some())
    });
    (!has_parent).then(|| meaning(&given, command)).flatten()
}

/// The remedy for a word that is no command.
fn meaning(given: &str, command: &Command) -> Option<String> {
    if OF_NODE.contains(&given) {
        return Some(format!("`p2pnode {given}` does that, where a node runs"));
    }
    let meant: Vec<_> = MEANT
        .iter()
        .filter(|meant| meant.words.contains(&given))
        .collect();
    let name = |meant: &Meant| meant.call.split(' ').next().unwrap_or_default().to_owned();
    let is_own = |meant: &Meant| command.find_subcommand(name(meant)).is_some();
    if let Some(own) = meant.iter().find(|meant| is_own(meant)) {
        return Some(format!("`{}` {}", own.call, own.what));
    }
    let first = meant.first()?;
    if first.call.is_empty() {
        return Some(first.what.to_owned());
    }
    let other = PROGRAMS.iter().find(|name| **name != command.get_name())?;
    Some(format!("`{other} {}` {}", first.call, first.what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hinted(program: &'static str, commands: &[&'static str], args: &[&str]) -> Option<String> {
        let commands = commands.iter().map(|name| match *name {
            "config" => Command::new("config")
                .subcommand_required(true)
                .subcommand(Command::new("check")),
            "dial" => Command::new("dial").arg(clap::Arg::new("count").long("count")),
            name => Command::new(name),
        });
        let command = Command::new(program).subcommands(commands);
        let error = command
            .clone()
            .try_get_matches_from([program].into_iter().chain(args.iter().copied()));
        hint(&error.err()?, &command)
    }

    #[test]
    fn a_word_that_is_no_command_leads_to_that_which_was_meant_or_to_the_other_program() {
        let node = ["dial", "status", "run", "serve", "config", "netcheck"];
        let relay = ["status", "run", "token", "config"];
        for (program, commands, word, part) in [
            ("p2pnode", &node[..], "metrics", "/metrics` of admin.listen"),
            ("p2pnode", &node, "events", "`run --json`"),
            ("p2pnode", &node, "Ping", "`dial PEER --count 5`"),
            ("p2pnode", &node, "test", "`config check`"),
            ("p2pnode", &node, "token", "`relay-node token create"),
            ("p2pnode", &node, "restart", "SIGTERM"),
            (
                "relay-node",
                &relay,
                "ping",
                "`p2pnode dial PEER --count 5`",
            ),
            ("relay-node", &relay, "why", "`p2pnode why` does that"),
            ("relay-node", &relay, "serve", "`run` starts it"),
            ("relay-node", &relay, "nat", "`p2pnode netcheck`"),
        ] {
            let hint = hinted(program, commands, &[word]);
            assert!(
                hint.as_ref().is_some_and(|hint| hint.contains(part)),
                "{program} {word}: {hint:?}"
            );
        }
        assert_eq!(hinted("p2pnode", &node, &["bogus"]), None);
        assert_eq!(hinted("p2pnode", &node, &["config", "list"]), None);
    }

    #[test]
    fn a_number_below_zero_has_a_remedy() {
        let hint = hinted("p2pnode", &["dial"], &["dial", "--count", "-1"]);
        assert!(hint.is_some_and(|hint| hint.contains("0 or more")));
        assert_eq!(hinted("p2pnode", &["dial"], &["dial", "--other"]), None);
    }
}
