//! Two nodes on the internet, with real servers at the one and real clients at the other.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    admin::{ADMIN, ADMIN_LISTEN},
    args::{PATIENCE, Transport, range},
    bins::bins,
    host::Host,
    lab::Lab,
    nat::RANGE,
    node::{Launch, Process, output, printed},
    running::Node,
    sandbox,
};

/// The servers and clients that the tests of services use, each with its Debian package.
const TOOLS: [(&str, &str); 9] = [
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
    ("nginx", "nginx-light"),
    ("psql", "postgresql"),
    ("redis-server", "redis-server"),
    ("rsync", "rsync"),
    ("sshd", "openssh-server"),
];

/// Debian's Python, for which Debian has a library of WebSockets.
pub const PYTHON: &str = "/usr/bin/python3";

/// Where that library is.
const WEBSOCKETS: &str = "/usr/lib/python3/dist-packages/websockets";

/// Those that this machine lacks.
pub fn missing_tools() -> Vec<(&'static str, &'static str)> {
    let mut missing = TOOLS.to_vec();
    missing.retain(|(tool, _)| !sandbox::has_tool(tool));
    if !Path::new(WEBSOCKETS).is_dir() {
        missing.push(("WebSockets for Python", "python3-websockets"));
    }
    missing
}

/// A caller, a server, and a second caller that the server treats differently.
pub struct Servers {
    pub caller: Node,
    pub server: Node,
    pub stranger: Node,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
}

/// The parts of configurations that differ from test to test. `SERVER_IP` stands for the server's own IPv4 address.
#[derive(Clone, Debug, Default)]
pub struct Configs {
    pub caller: String,
    pub server: String,
    pub stranger: String,
}

impl Servers {
    /// Starts the nodes, which reach each other at the server's public address over `transport`, with or without IPv6.
    pub async fn start(transport: Transport, ip6: bool, configs: Configs) -> Result<Self> {
        let missing = missing_tools();
        if let Some((tool, package)) = missing.first() {
            bail!(
                "the tests of services need {tool}: install it, on Debian with `apt-get install {package}`"
            );
        }
        let lab = Lab::of_test().await?;
        let mut hosts = Vec::new();
        for name in ["caller", "server", "stranger"] {
            hosts.push((name, lab.public_host(name).await?));
        }
        let mut ids = Vec::new();
        for (name, host) in &hosts {
            let key = host.artifacts.file(&format!("{name}.key"));
            let key = key.to_string_lossy().into_owned();
            ids.push(printed(host, &bins()?.p2pnode, &["id", "--key", &key]).await?);
        }
        let of_server = hosts[1].1.ip(ip6)?;
        let server_ip = hosts[1].1.ip(false)?.to_string();
        let family = if ip6 { "ip6" } else { "ip4" };
        let at = match transport {
            Transport::Quic => format!("/{family}/{of_server}/udp/4001/quic-v1"),
            Transport::Tcp => format!("/{family}/{of_server}/tcp/4001"),
        };
        let mut nodes = Vec::new();
        let texts = [configs.caller, configs.server, configs.stranger];
        for ((name, host), text) in hosts.iter().zip(texts) {
            let listen = match *name {
                "server" => format!("listen: [{at}]\n"),
                _ => String::new(),
            };
            let peers = format!(
                "peers: {{ caller: {{ id: {} }}, server: {{ id: {}, addrs: [{at}] }}, stranger: {{ id: {} }} }}\n",
                ids[0], ids[1], ids[2]
            );
            // Nobody names itself.
            let peers = peers.replace(&format!("{name}: {{"), &format!("own-{name}: {{"));
            let dial = format!(
                "dial: {{ port_range: {} }}\nreservations: 0\n",
                range(&RANGE)
            );
            let config = host.artifacts.file(&format!("{name}.yaml"));
            let text = text.replace("SERVER_IP", &server_ip);
            std::fs::write(&config, [listen, dial, peers, text].concat())?;
            let key = host.artifacts.file(&format!("{name}.key"));
            let launch = Launch::new(*name, &bins()?.p2pnode).args(["run", "--json", "--config"]);
            let launch = launch.arg(config).arg("--key").arg(key);
            nodes.push(launch.env(ADMIN_LISTEN, ADMIN).runs(host).await?);
        }
        let [caller, server, stranger] = nodes.try_into().ok().context("three nodes")?;
        Ok(Self {
            caller,
            server,
            stranger,
            lab,
        })
    }

    /// A directory of its own for a server.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.lab.artifacts().file(name);
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

/// Lets a program find a user in /etc/passwd, as whom the lab runs: in a namespace of its own.
pub fn with_user(launch_name: &str, program: impl AsRef<Path>, directory: &Path) -> Result<Launch> {
    let (uid, gid) = (nix::unistd::Uid::current(), nix::unistd::Gid::current());
    let passwd = directory.join("passwd");
    let lines = format!(
        "root:x:0:0:root:/root:/bin/sh\nlab:x:{uid}:{gid}:lab:{}:/bin/sh\nsshd:x:65533:65533::/run:/bin/false\n",
        directory.display()
    );
    std::fs::write(&passwd, lines)?;
    let script = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    Ok(Launch::new(launch_name, sandbox::tool("unshare"))
        .args(["--mount", "sh", "-c", script])
        .arg(passwd)
        .arg(program.as_ref()))
}

/// What a client prints, once it succeeds: its server may still be starting.
pub async fn until_ok(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let ended = output(&host.device, &sandbox::tool(program), args, PATIENCE).await?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        let error = String::from_utf8_lossy(&ended.stderr);
        ensure!(Instant::now() < end, "{program} {args:?}: {error}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// What a client prints when it fails.
pub async fn fails(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let ended = output(&host.device, &sandbox::tool(program), args, PATIENCE).await?;
    ensure!(
        !ended.status.success(),
        "{program} {args:?} succeeded: {ended:?}"
    );
    Ok(String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// Waits until a program has ended well.
pub async fn succeeds(mut process: Process) -> Result<()> {
    let status = process.exit(PATIENCE * 3).await?;
    ensure!(
        status.success(),
        "{}: {status}: {}",
        process.name(),
        process.log()
    );
    Ok(())
}

/// Where Debian has PostgreSQL's server, which is not in `PATH`.
pub fn postgresql_bin() -> Result<PathBuf> {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let found = versions.flatten().map(|version| version.path().join("bin"));
    let mut found = found.filter(|bin| bin.join("initdb").is_file());
    found.next().context("PostgreSQL has no initdb")
}
