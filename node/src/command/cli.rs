//! The command line: arguments as they were given. It does no IO. The configuration checks the values of its keys.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use p2pnode_daemon::{
    command::{Common, Global},
    config::{Flags, kind},
    control::Form,
    init::OutputArgs,
};

use crate::{command::firewall, config::peer_of_address, core::dialer};

const EXIT_CODES: &str = "Exit codes: 0 success (dial: direct, or connected with --until connected), 1 failure, \
    2 bad usage or configuration, 3 connected through a relay only (netcheck: relayed with most peers), 4 unreachable, \
    5 the peer is there and refuses. `p2pnode explain NAME` prints cause and remedy of a reason.";

/// A libp2p peer that reaches other peers behind NAT directly, from a configured range of source ports
#[derive(Debug, Clone, Parser)]
#[command(name = "p2pnode", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Write a first configuration, and look whether the range suits this host; asks on a terminal for what no flag gives
    Init(InitArgs),
    /// Run the node until SIGTERM or SIGINT
    Run(RunArgs),
    /// Connect to a peer, upgrade to a direct connection, and report
    Dial(DialArgs),
    /// Print the peers of the running node and their paths
    Status(StatusArgs),
    /// Print why the running node reaches a peer over the path that it uses
    Why(WhyArgs),
    /// Look at the network: relays, range, NAT, what reaches which peers, and what mends what is wrong
    #[command(alias = "doctor")]
    Netcheck(NetcheckArgs),
    /// Let the running node dial a peer no longer when it is lost; open connections stay
    Forget(ForgetArgs),
    /// Offer a service to other nodes as long as this runs
    Serve(ServeArgs),
    /// Expose a target at a port that the router maps, as long as this runs, for clients that are not p2pnode
    Map(MapArgs),
    /// Bring a service of another node here as long as this runs
    Forward(ForwardArgs),
    /// Connect stdin and stdout with a service of another node, as for ssh's ProxyCommand
    Connect(ConnectArgs),
    /// Print what a peer offers to this node
    Services(ServicesArgs),
    /// Print firewall rules that let the configured range of source ports out
    Firewall(FirewallArgs),
    /// Commands that need nothing but the configuration.
    #[command(flatten)]
    Common(Common),
}

/// Flags of `run` and `dial` that set keys of the configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// Relay with its peer id, as in /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub relay: Vec<String>,
    /// Public address to listen on, as in /ip4/0.0.0.0/udp/443/quic-v1; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Source ports that packets may leave from [default: 40000-40050]
    #[arg(long, value_name = "FIRST-LAST")]
    pub port_range: Option<String>,
    /// Key file; created if it does not exist
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// IP families: auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6 [default: auto]
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// Transports to dial over [default: quic,tcp]
    #[arg(long, value_name = "TRANSPORTS", value_delimiter = ',')]
    pub transports: Vec<String>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// The same for a node that only calls others.
#[derive(Debug, Clone, Default, Args)]
pub struct CallerArgs {
    /// Relay with its peer id, as in /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub relay: Vec<String>,
    /// Source ports that packets may leave from [default: 40000-40050]
    #[arg(long, value_name = "FIRST-LAST")]
    pub port_range: Option<String>,
    /// Key file; created if it does not exist
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// IP families: auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6 [default: auto]
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// Transports to dial over [default: quic,tcp]
    #[arg(long, value_name = "TRANSPORTS", value_delimiter = ',')]
    pub transports: Vec<String>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

impl From<CallerArgs> for NodeArgs {
    fn from(args: CallerArgs) -> Self {
        Self {
            relay: args.relay,
            listen: Vec::new(),
            port_range: args.port_range,
            key: args.key,
            family: args.family,
            transports: args.transports,
            json: args.json,
        }
    }
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Relay with its peer id, as in /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub relay: Vec<String>,
    /// Source ports that packets may leave from [default: 40000-40050]
    #[arg(long, value_name = "FIRST-LAST")]
    pub port_range: Option<String>,
    /// Key file; created if it does not exist
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// File of join tokens, one a line
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// Where the configuration goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Flags that `dial` also has.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `dial`.
#[derive(Debug, Clone, Args)]
pub struct DialArgs {
    /// The peer: its id, an address that ends with /p2p/ID, or its name under `peers:` in the configuration
    pub peer: String,
    /// Address of the peer to try alongside relays; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub addr: Vec<String>,
    /// How long to try
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Which connection ends the dial
    #[arg(long, value_enum, default_value_t = Until::Direct)]
    pub until: Until,
    /// Pings to send over the final path
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub count: u32,
    /// Dial with a node of its own even if a node is running. Any flag that describes a node, such as --relay, implies it
    #[arg(long)]
    pub standalone: bool,
    /// Flags that `run` also has.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The name by which other nodes ask for it: lower-case letters, digits and hyphens
    pub name: String,
    /// Where its connections go: tcp://HOST:PORT, udp://HOST:PORT or unix:///PATH
    pub target: String,
    /// Who may use it: a peer id, a name under `peers:` in the configuration, or any; repeatable
    #[arg(long, value_name = "PEER|any", required = true)]
    pub allow: Vec<String>,
    /// How the target learns who calls
    #[arg(long, value_enum, default_value_t = Identity::None)]
    pub identity: Identity,
    /// Offer it with a node of its own even if a node is running. Any flag that describes a node, such as --relay, implies it
    #[arg(long)]
    pub standalone: bool,
    /// Flags that `run` also has.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `map`.
#[derive(Debug, Clone, Args)]
pub struct MapArgs {
    /// What clients speak
    #[arg(value_enum)]
    pub protocol: MapProtocol,
    /// Where connections or datagrams go: tcp://HOST:PORT, udp://HOST:PORT or unix:///PATH
    pub target: String,
    /// The name under which it is published: lower-case letters, digits and hyphens
    #[arg(long, default_value = "map")]
    pub name: String,
    /// How the target learns who calls
    #[arg(long, value_enum, default_value_t = Identity::None)]
    pub identity: Identity,
    /// Map it with a node of its own even if a node is running. Any flag that describes a node, such as --relay, implies it
    #[arg(long)]
    pub standalone: bool,
    /// Flags that `run` also has.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What clients of a mapped port speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MapProtocol {
    /// Connections
    Tcp,
    /// Datagrams
    Udp,
}

/// Arguments of `forward`.
#[derive(Debug, Clone, Args)]
pub struct ForwardArgs {
    /// The service and its peer: SERVICE@PEER, where PEER is a peer id or a name under `peers:`; of several, the first that answers
    #[arg(required = true, value_name = "SERVICE@PEER")]
    pub to: Vec<String>,
    /// Where clients connect: tcp://IP:PORT, udp://IP:PORT or unix:///PATH
    #[arg(long, value_name = "ADDR")]
    pub listen: String,
    /// Bring it with a node of its own even if a node is running. Any flag that describes a node, such as --relay, implies it
    #[arg(long)]
    pub standalone: bool,
    /// Flags that `run` also has.
    #[command(flatten)]
    pub node: CallerArgs,
}

/// Arguments of `connect`.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// The service and its peer: SERVICE@PEER, where PEER is a peer id or a name under `peers:`
    #[arg(value_name = "SERVICE@PEER")]
    pub to: String,
    /// Connect with a node of its own even if a node is running. Any flag that describes a node, such as --relay, implies it
    #[arg(long)]
    pub standalone: bool,
    /// Flags that `run` also has.
    #[command(flatten)]
    pub node: CallerArgs,
}

/// Arguments of `services`.
#[derive(Debug, Clone, Args)]
pub struct ServicesArgs {
    /// The peer: its id, or its name under `peers:` in the configuration
    #[arg(required_unless_present = "hosts")]
    pub peer: Option<String>,
    /// Print as a hosts file which source address stands for which peer at targets with `identity: address`
    #[arg(long, conflicts_with_all = ["peer", "standalone"])]
    pub hosts: bool,
    /// Ask with a node of its own even if a node is running. Any flag that describes a node, such as --relay, implies it
    #[arg(long)]
    pub standalone: bool,
    /// Flags that `run` also has.
    #[command(flatten)]
    pub node: CallerArgs,
}

/// How a target learns who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Identity {
    /// Not at all
    None,
    /// By a header of the PROXY protocol, version 2
    ProxyV2,
    /// By a source address of its own for each peer
    Address,
}

impl From<Identity> for p2pnode_services::config::Identity {
    fn from(identity: Identity) -> Self {
        match identity {
            Identity::None => Self::None,
            Identity::ProxyV2 => Self::ProxyV2,
            Identity::Address => Self::Address,
        }
    }
}

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only this peer: its id, or its name under `peers:` in the configuration
    pub peer: Option<String>,
    /// With the sessions that are open
    #[arg(long)]
    pub sessions: bool,
    /// Show again every second until interrupted: as a screen on a terminal, where q ends it; as lines elsewhere
    #[arg(long)]
    pub watch: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// The peer: its id, or its name under `peers:` in the configuration
    pub peer: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `netcheck`.
#[derive(Debug, Clone, Args)]
pub struct NetcheckArgs {
    /// Also measure how long mappings of UDP live, with traffic and without, which takes up to 5 min
    #[arg(long)]
    pub lifetime: bool,
    /// Look again every 30 s until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Flags that `run` also has. Any that describes a node looks with a node of its own
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `forget`.
#[derive(Debug, Clone, Args)]
pub struct ForgetArgs {
    /// The peer: its id, or its name under `peers:` in the configuration
    pub peer: String,
}

/// Arguments of `firewall`.
#[derive(Debug, Clone, Args)]
pub struct FirewallArgs {
    /// Format of the rules
    #[arg(long, value_enum)]
    pub format: firewall::Format,
    /// Network of the pods, for source NAT; repeatable [default: private networks]
    #[arg(long, value_name = "CIDR", value_parser = firewall::snat::pods)]
    pub pods: Vec<IpNet>,
    /// Interface out of which the pods' packets leave, for source NAT [default: any]
    #[arg(long, value_name = "INTERFACE", value_parser = firewall::snat::interface)]
    pub out: Option<String>,
    /// Write the rules of nft-snat to the kernel and keep them there until SIGTERM. Needs CAP_NET_ADMIN
    #[arg(long)]
    pub keep: bool,
}

/// Which connection ends a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// A direct connection
    Direct,
    /// Any connection
    Connected,
}

impl StatusArgs {
    /// How the status is shown.
    pub(crate) fn form(&self) -> Form {
        Form {
            watch: self.watch,
            json: self.json,
        }
    }
}

impl DialArgs {
    /// The same, with the peer's id alone where an address that ends with it was given: the address is tried like those of
    /// `--addr`.
    #[must_use]
    pub fn by_id(self) -> Self {
        let Some(peer) = peer_of_address(&self.peer) else {
            return self;
        };
        let mut addr = self.addr;
        addr.insert(0, self.peer);
        Self {
            peer: peer.to_string(),
            addr,
            ..self
        }
    }
}

impl NodeArgs {
    /// Whether a flag describes a node. Then the dial cannot go through a running node, which has its own configuration.
    #[must_use]
    pub fn describes_node(&self) -> bool {
        let Self {
            relay,
            listen,
            port_range,
            key,
            family,
            transports,
            json: _,
        } = self;
        let lists = [relay, listen, transports];
        lists.iter().any(|list| !list.is_empty())
            || [port_range, key, family]
                .iter()
                .any(|value| value.is_some())
    }

    /// Adds the flags that were given to `flags`.
    #[must_use]
    pub fn flags(&self, flags: Flags) -> Flags {
        flags
            .many("relays", "--relay", &self.relay)
            .many("listen", "--listen", &self.listen)
            .one("dial.port_range", "--port-range", self.port_range.as_ref())
            .one("identity.key_file", "--key", self.key.as_ref())
            .one("dial.family", "--family", self.family.as_ref())
            .many("dial.transports", "--transports", &self.transports)
    }
}

impl From<Until> for dialer::Until {
    fn from(until: Until) -> Self {
        match until {
            Until::Direct => Self::Direct,
            Until::Connected => Self::Connected,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    (kind::DURATION.parse)(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn no_two_arguments_of_a_command_have_one_name() {
        Cli::command().debug_assert();
    }
}
