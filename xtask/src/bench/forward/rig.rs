//! Forwards of p2pnode and of OpenSSH between two hosts of the lab.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{
    args::range,
    bins::bins,
    control::Control,
    host::Host,
    nat::RANGE,
    node::{Launch, Process, control_socket, printed},
    sandbox,
    services::with_user,
    usage,
};

use serde_json::Value;

use crate::bench::path::Path;

use super::clients::{ECHO, IDLE, PACED, SINK, UDP};

/// What a forward has besides the port of its target.
const OURS: u16 = 100;
const SSHS: u16 = 200;

pub(super) const OWN: &str = "ours";
pub(super) const SSH: &str = "ssh -L";

const SSH_PORT: u16 = 2222;
const PATIENCE: Duration = Duration::from_secs(30);

/// A program with its forwards.
pub(super) struct Forwards {
    pub(super) name: &'static str,
    /// At the clients, and at the targets.
    pub(super) processes: Vec<Process>,
    /// Where clients find the targets, and what is added to the port of each.
    pub(super) host: IpAddr,
    pub(super) offset: u16,
}

impl Forwards {
    /// A program that listens at the clients' loopback.
    pub(super) fn new(name: &'static str, processes: Vec<Process>, offset: u16) -> Self {
        Self {
            name,
            processes,
            host: Ipv4Addr::LOCALHOST.into(),
            offset,
        }
    }

    pub(super) fn at(&self, target: u16) -> SocketAddr {
        SocketAddr::new(self.host, target + self.offset)
    }

    /// Processor time of both ends, in seconds.
    pub(super) fn cpu(&self) -> Result<f64> {
        let processes = self.processes.iter();
        processes.map(|process| usage::cpu(process.pid())).sum()
    }

    pub(super) fn memory(&self) -> Result<Vec<u64>> {
        let processes = self.processes.iter();
        processes
            .map(|process| usage::memory(process.pid()))
            .collect()
    }

    /// How many sessions of a service each of our nodes has: that of the clients, that of the targets.
    pub(super) async fn sessions(&self, path: &Path, service: &str) -> Result<[u64; 2]> {
        let to = format!("{service}@");
        let mut counts = [0; 2];
        for (count, (node, list, key)) in counts
            .iter_mut()
            .zip([("from", "forwards", "to"), ("to", "services", "name")])
        {
            let socket = control_socket(path.lab.artifacts(), node);
            let status = Control::new(&bins()?.p2pnode, &socket).status().await?;
            let entries = status[list].as_array().into_iter().flatten();
            let is_it = |entry: &&Value| {
                let named = entry[key].as_str().unwrap_or_default();
                named == service || named.starts_with(&to)
            };
            let sessions = entries
                .filter(is_it)
                .map(|entry| entry["sessions"].as_u64());
            *count = sessions.sum::<Option<u64>>().context("no sessions")?;
        }
        Ok(counts)
    }

    /// `congestion` is that of QUIC.
    pub(super) async fn ours(from: &Host, to: &Host, congestion: &str) -> Result<Self> {
        let p2pnode = &bins()?.p2pnode;
        let mut ids = Vec::new();
        for (host, name) in [(from, "from"), (to, "to")] {
            let key = host.file(&format!("{name}.key"));
            let key = key.to_string_lossy().into_owned();
            ids.push(printed(host, p2pnode, &["id", "--key", &key]).await?);
        }
        let at = format!("/ip4/{}/udp/4001/quic-v1", to.ip(false)?);
        let dial = format!(
            "dial: {{ port_range: {}, congestion: {congestion} }}\nreservations: 0\n",
            range(&RANGE)
        );
        let services = [
            ("sink", "tcp", SINK),
            ("echo", "tcp", ECHO),
            ("idle", "tcp", IDLE),
            ("flows", "udp", UDP),
            ("paced", "udp", PACED),
        ];
        let offers = services.map(|(name, kind, port)| {
            format!(
                "  {name}: {{ target: \"{kind}://127.0.0.1:{port}\", allow: [{}] }}\n",
                ids[0]
            )
        });
        let there = format!("{dial}listen: [{at}]\nservices:\n{}", offers.concat());
        let brings = services.map(|(name, kind, port)| {
            format!(
                "  - {{ listen: \"{kind}://127.0.0.1:{}\", to: {name}@to }}\n",
                port + OURS
            )
        });
        let here = format!(
            "{dial}peers: {{ to: {{ id: {}, addrs: [{at}] }} }}\nforwards:\n{}",
            ids[1],
            brings.concat()
        );
        let mut processes = Vec::new();
        for (host, name, config) in [(to, "to", there), (from, "from", here)] {
            let file = host.file(&format!("{name}.yaml"));
            fs::write(&file, config).context("the configuration")?;
            let launch = Launch::new(name, p2pnode).args(["run", "--json", "--config"]);
            let key = host.file(&format!("{name}.key"));
            let launch = launch.arg(file).arg("--key").arg(key);
            let process = launch.on(host)?;
            process.event("started", PATIENCE).await?;
            processes.insert(0, process);
        }
        Ok(Self::new(OWN, processes, OURS))
    }

    /// What holds idle connections at `host`.
    pub(super) async fn holds(host: &Host) -> Result<Process> {
        let this = std::env::current_exe().context("path of this executable")?;
        let launch = Launch::new("holds", this).args(["hold-connections", &IDLE.to_string()]);
        let process = launch.on(host)?;
        process
            .first("its port", 0, |event| event.line == "listening")
            .await?;
        Ok(process)
    }

    pub(super) async fn ssh(from: &Host, to: &Host) -> Result<Self> {
        let directory = to.file("ssh");
        fs::create_dir_all(&directory)?;
        let shown = directory.display();
        for key in ["host_key", "user_key"] {
            let path = directory.join(key).to_string_lossy().into_owned();
            let args = ["-q", "-t", "ed25519", "-N", "", "-f", &path];
            printed(to, &sandbox::tool("ssh-keygen"), &args).await?;
        }
        fs::copy(directory.join("user_key.pub"), directory.join("authorized"))?;
        let ip = to.ip(false)?;
        fs::write(
            directory.join("sshd_config"),
            format!(
                "ListenAddress {ip}:{SSH_PORT}\nHostKey {shown}/host_key\nAuthorizedKeysFile {shown}/authorized\n\
                 StrictModes no\nUsePAM no\nPidFile none\n"
            ),
        )?;
        let sshd = with_user("sshd", sandbox::tool("sshd"), &directory)?;
        let sshd = sshd
            .args(["-D", "-e", "-f"])
            .arg(directory.join("sshd_config"));
        let sshd = sshd.on(to)?;
        sshd.logged("Server listening", PATIENCE).await?;
        let key = directory.join("user_key").to_string_lossy().into_owned();
        let mut ssh = with_user("ssh", sandbox::tool("ssh"), &directory)?
            .args([
                "-v",
                "-N",
                "-F",
                "none",
                "-i",
                &key,
                "-p",
                &SSH_PORT.to_string(),
            ])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "BatchMode=yes"]);
        for target in [SINK, ECHO, IDLE] {
            let forward = format!("127.0.0.1:{}:127.0.0.1:{target}", target + SSHS);
            ssh = ssh.args(["-L", &forward]);
        }
        let ssh = ssh.arg(format!("lab@{ip}")).on(from)?;
        ssh.logged("Entering interactive session", PATIENCE).await?;
        Ok(Self::new(SSH, vec![ssh, sshd], SSHS))
    }
}
