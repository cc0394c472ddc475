//! Programs of other make that bring a port to another host: dumbpipe, and WireGuard in user space.

use std::{
    env,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use p2pnode_tests::{
    bins::target_dir,
    events::Event,
    host::Host,
    node::{Launch, Process},
};

use super::{
    clients::{ECHO, SINK},
    rig::Forwards,
};
use crate::{bench::programs::Named, cargo};

pub(super) const DUMBPIPE: &str = "dumbpipe";
const BORINGTUN: &str = "boringtun";

const DUMBPIPE_BIN: &str = "DUMBPIPE_BIN";
const BORINGTUN_BIN: &str = "BORINGTUN_BIN";

/// What a tunnel needs.
const TUN: &str = "/dev/net/tun";

/// What a forward of dumbpipe has besides the port of its target.
const OFFSET: u16 = 300;

const PATIENCE: Duration = Duration::from_secs(30);

/// Those that are named or can be installed. One that cannot be had must not cost the others.
pub(super) fn installed() -> Result<Vec<Named>> {
    let mut programs = vec![(DUMBPIPE_BIN, "dumbpipe", "0.40.1")];
    if Path::new(TUN).exists() {
        programs.push((BORINGTUN_BIN, "boringtun-cli", "0.6.0"));
    }
    let mut found = Vec::new();
    for (variable, name, version) in programs {
        match install(variable, name, version) {
            Ok(program) => found.push((variable, program)),
            Err(error) => eprintln!("{name} is not measured: {error:#}"),
        }
    }
    Ok(found)
}

fn install(variable: &str, name: &str, version: &str) -> Result<PathBuf> {
    if let Some(program) = env::var_os(variable) {
        return Ok(program.into());
    }
    let tools = target_dir()?.join("tools");
    let program = tools.join("bin").join(name);
    if !program.is_file() {
        eprintln!(
            "building {name} {version} into {}: some minutes, once ({variable} would name one)",
            tools.display()
        );
        let mut install = cargo::cargo();
        install
            .args(["install", "--locked", "--quiet", "--root"])
            .arg(&tools)
            .arg(format!("{name}@{version}"));
        cargo::run(&mut install)?;
    }
    Ok(program)
}

/// Starts those that are here, and returns why others are not.
pub(super) async fn start(from: &Host, to: &Host, programs: &mut Vec<Forwards>) -> Vec<String> {
    let mut notes = Vec::new();
    let pipe = match env::var_os(DUMBPIPE_BIN) {
        Some(program) => dumbpipe(from, to, Path::new(&program)).await,
        None => Err(anyhow!("it could not be installed")),
    };
    let tunnel = match env::var_os(BORINGTUN_BIN) {
        _ if !Path::new(TUN).exists() => Err(anyhow!("there is no {TUN}")),
        Some(program) => boringtun(from, to, Path::new(&program)).await,
        None => Err(anyhow!("it could not be installed")),
    };
    for (name, started) in [(DUMBPIPE, pipe), (BORINGTUN, tunnel)] {
        match started {
            Ok(started) => programs.push(started),
            Err(error) => notes.push(format!("{name} is not measured: {error:#}.")),
        }
    }
    notes
}

/// It has no option for relays. Without internet it waits 5 s for one, and its ticket has the addresses of the host.
async fn dumbpipe(from: &Host, to: &Host, program: &Path) -> Result<Forwards> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for target in [SINK, ECHO] {
        let at = format!("{}:{}", to.ip(false)?, target + OFFSET);
        let host = format!("127.0.0.1:{target}");
        let listen = Launch::new(format!("dumbpipe-{target}-to"), program)
            .args(["listen-tcp", "--host", &host, "--ipv4-addr", &at])
            .on(to)?;
        let ticket = |log: &[Event]| {
            let mut lines = log.iter().map(|line| line.line.trim());
            let ticket = lines.find_map(|line| line.strip_prefix("dumbpipe connect-tcp "));
            ticket.map(str::to_owned)
        };
        let ticket = listen.log_until("a ticket", PATIENCE, ticket).await?;
        let addr = format!("127.0.0.1:{}", target + OFFSET);
        let connect = Launch::new(format!("dumbpipe-{target}-from"), program)
            .args(["connect-tcp", "--addr", &addr, &ticket])
            .on(from)?;
        there.push(listen);
        here.push(connect);
    }
    for target in [SINK, ECHO] {
        listens(from, ([127, 0, 0, 1], target + OFFSET).into()).await?;
    }
    here.extend(there);
    Ok(Forwards::new(DUMBPIPE, here, OFFSET))
}

async fn listens(host: &Host, at: std::net::SocketAddr) -> Result<()> {
    let begin = Instant::now();
    let connect = move || Ok(std::net::TcpStream::connect(at).is_ok());
    while !host.device.run_sync(connect)? {
        ensure!(begin.elapsed() < PATIENCE, "nobody listens on {at}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// One end of the tunnel: its interface, its address in it, its key, and the key that others know it by.
struct End {
    interface: &'static str,
    ip: &'static str,
    private: &'static str,
    public: &'static str,
}

/// Keys that protect nothing.
const ENDS: [End; 2] = [
    End {
        interface: "wgfrom",
        ip: "10.77.0.1",
        private: "0101010101010101010101010101010101010101010101010101010101010101",
        public: "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209",
    },
    End {
        interface: "wgto",
        ip: "10.77.0.2",
        private: "0202020202020202020202020202020202020202020202020202020202020202",
        public: "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59",
    },
];
const WIREGUARD: u16 = 51820;

/// Clients reach the targets at the other end's address in the tunnel: nothing is forwarded.
async fn boringtun(from: &Host, to: &Host, program: &Path) -> Result<Forwards> {
    let mut processes = Vec::new();
    let [here, there] = &ENDS;
    for (host, own, other, at) in [(from, here, there, to), (to, there, here, from)] {
        let process = Launch::new(format!("boringtun-{}", own.interface), program)
            .args(["--foreground", "--disable-drop-privileges", own.interface])
            .on(host)?;
        let settings = format!(
            "set=1\nprivate_key={}\nlisten_port={WIREGUARD}\npublic_key={}\nendpoint={}:{WIREGUARD}\nallowed_ip={}/32\n\n",
            own.private,
            other.public,
            at.ip(false)?,
            other.ip
        );
        configure(&process, own.interface, &settings).await?;
        host.ip_commands(format!(
            "addr add {ip}/24 dev {dev}\nlink set {dev} mtu 1420 up\n",
            ip = own.ip,
            dev = own.interface
        ))?;
        processes.push(process);
    }
    Ok(Forwards {
        name: BORINGTUN,
        processes,
        host: there.ip.parse().context("an address")?,
        offset: 0,
    })
}

/// Writes to the socket of a WireGuard in user space, once it is there.
async fn configure(process: &Process, interface: &str, settings: &str) -> Result<()> {
    let path = format!("/var/run/wireguard/{interface}.sock");
    let begin = Instant::now();
    let mut socket = loop {
        match UnixStream::connect(&path) {
            Ok(socket) => break socket,
            Err(error) => {
                let log = process.log();
                ensure!(begin.elapsed() < PATIENCE, "{path}: {error}: {log}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    socket.write_all(settings.as_bytes())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 64];
    let read = socket.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..read]);
    ensure!(answer.starts_with("errno=0"), "{interface}: {answer}");
    Ok(())
}
