//! `relay-node` as a process on loopback, with a home of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use crate::harness::free_port;

/// What no step takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a key, a configuration and a control socket.
pub struct Home {
    directory: TempDir,
    pub port: u16,
    pub admin: SocketAddr,
    pub key: Keypair,
}

/// A relay that runs there.
pub struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    log: Lines<BufReader<ChildStderr>>,
    /// What it has logged so far, for the message of a failure.
    logged: Vec<String>,
}

impl Home {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = Keypair::generate_ed25519();
        let home = Self {
            directory,
            port: free_port(),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            key,
        };
        let bytes = home.key.to_protobuf_encoding().expect("a key");
        home.write("identity.key", bytes);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(home.path("identity.key"), mode).expect("its mode");
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces a file at once, as editors and clusters do.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let aside = self.path(&format!("{name}.new"));
        fs::write(&aside, content).expect("written");
        fs::rename(aside, self.path(name)).expect("moved");
    }

    /// Writes the configuration: what all of these tests need, and `more`.
    pub fn configure(&self, more: &str) {
        let Self { port, admin, .. } = self;
        let common = format!(
            "identity: {{ key_file: identity.key }}\n\
             listen: [/ip4/127.0.0.1/udp/{port}/quic-v1, /ip4/127.0.0.1/tcp/{port}]\n\
             admin: {{ listen: \"{admin}\" }}\n\
             log: {{ level: \"info,libp2p_swarm=warn\" }}\n"
        );
        self.write("relay.yaml", common + more);
    }

    pub fn peer(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    pub fn addr(&self, transport: &str) -> Multiaddr {
        let port = self.port;
        let addr = match transport {
            "quic" => format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
            _ => format!("/ip4/127.0.0.1/tcp/{port}"),
        };
        let addr: Multiaddr = addr.parse().expect("a multiaddr");
        addr.with(Protocol::P2p(self.peer()))
    }

    /// A command of the program that finds the relay of this home.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay-node"));
        command
            .env_clear()
            .env("HOME", self.directory.path())
            // A status needs only this key, so the rest of the configuration may be invalid.
            .env("RELAY_NODE_CONTROL_SOCKET", "control.sock")
            .args(args)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What a command prints that succeeds.
    pub async fn output(&self, args: &[&str]) -> String {
        let output = timeout(PATIENCE, self.command(args).output());
        let output = output.await.expect("in time").expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {error}");
        assert_eq!(error, "");
        String::from_utf8(output.stdout).expect("a text")
    }

    pub async fn status(&self) -> Json {
        let text = self.output(&["status", "--json"]).await;
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).expect("an object")
    }

    /// Starts the relay; returns when it listens.
    pub async fn start(&self) -> Process {
        let mut child = self
            .command(&["run", "--config", "relay.yaml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        let mut process = Process {
            child,
            stdout: BufReader::new(stdout).lines(),
            log: BufReader::new(stderr).lines(),
            logged: Vec::new(),
        };
        for _ in 0..2 {
            let line = timeout(PATIENCE, process.stdout.next_line()).await;
            let line = line.expect("in time").expect("stdout");
            assert!(
                line.as_deref()
                    .is_some_and(|line| line.starts_with("listening ")),
                "{line:?}"
            );
        }
        process
    }
}

impl Process {
    /// Waits for a line of the log that has all these parts.
    pub async fn logs(&mut self, parts: &[&str]) -> String {
        loop {
            let line = timeout(PATIENCE, self.log.next_line()).await;
            let Ok(Ok(Some(line))) = line else {
                panic!("{parts:?} is not in the log:\n{}", self.logged.join("\n"));
            };
            // Without the colours of a terminal, which it is not.
            self.logged.push(line.clone());
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }

    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([name, &id]).status().await;
        assert!(sent.expect("kill").success());
    }

    /// Asks it to end; returns when it has, with success.
    pub async fn stop(mut self) {
        self.signal("-TERM").await;
        // Its log is read to the end, so that it never waits for a reader.
        let ended = async {
            while let Ok(Some(_)) = self.log.next_line().await {}
            self.child.wait().await
        };
        let status = timeout(PATIENCE, ended).await.expect("in time");
        assert!(status.expect("it ran").success());
    }
}
