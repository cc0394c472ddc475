//! Forwards with several peers: whatever silences the first one, the next one gets the client, and all that it has sent.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use p2pnode_tests::{faults::Traffic, prelude::*};
use tokio::task::spawn_blocking;

lab_tests! {
    a_client_of_a_stopped_a_black_holed_or_a_killed_peer_gets_the_next_one_over_quic: next_peer(Transport::Quic);
    a_client_of_a_stopped_a_black_holed_or_a_killed_peer_gets_the_next_one_over_tcp: next_peer(Transport::Tcp);
}

const TARGET: &str = "127.0.0.1:7001";
const SOCKS: &str = "127.0.0.1:1080";

/// Far longer than a client waits: none may depend on the end of a session that lingers.
const LINGER: &str = "10m";

/// The peers that fall silent. Each is the first one of its forwards, and `last` is the second.
const SILENT: [&str; 3] = ["stopped", "cut", "killed"];

/// What a client sends: more than one window.
const SENT: usize = 300_000;

/// A node that offers `it`, and what its target has got.
struct Server {
    node: Node,
    site: Site,
    got: Arc<AtomicU64>,
}

impl Server {
    async fn start(lab: &Lab, relay: &Relay, name: &str, over: Transport) -> Result<Self> {
        let (site, host) = lab.home(name, NatKind::EimApdf).await?;
        let services = format!(
            "services: {{ it: {{ target: \"tcp://{TARGET}\", allow: any, protocol: /x/it }} }}\nsessions: {{ linger: {LINGER} }}\n"
        );
        let file = host.file(&format!("{name}.yaml"));
        std::fs::write(&file, services)?;
        let got = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&got);
        let listener = host.device.run_sync(|| Ok(TcpListener::bind(TARGET)?))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counts = Arc::clone(&counts);
                std::thread::spawn(move || echo(stream, &counts));
            }
        });
        let launch = relay.run(name, &host, &[over])?;
        let node = launch.arg("--config").arg(file).reserves(&host).await?;
        Ok(Self { node, site, got })
    }

    fn got(&self) -> u64 {
        self.got.load(SeqCst)
    }
}

fn echo(mut stream: TcpStream, counts: &AtomicU64) -> std::io::Result<()> {
    let mut piece = [0; 16 << 10];
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        counts.fetch_add(read as u64, SeqCst);
        stream.write_all(&piece[..read])?;
    }
}

/// A way to the service: the name of the first peer, and where a client connects.
#[derive(Clone, Debug)]
enum Way {
    Tcp(u16),
    Unix(PathBuf),
}

impl Way {
    /// Sends, ends its direction, and reads all that comes back.
    fn client(&self, host: &Host) -> Result<JoinHandle<Result<()>>> {
        Ok(match self {
            Self::Tcp(port) => {
                let at = ("127.0.0.1", *port);
                let stream = host.device.run_sync(move || Ok(TcpStream::connect(at)?))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let to = stream.try_clone()?;
                std::thread::spawn(move || asks(stream, to, |to| to.shutdown(Shutdown::Write)))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let to = stream.try_clone()?;
                std::thread::spawn(move || asks(stream, to, |to| to.shutdown(Shutdown::Write)))
            }
        })
    }
}

fn asks<S: Read + Write + Send + 'static>(
    mut from: S,
    mut to: S,
    end: impl FnOnce(&S) -> std::io::Result<()> + Send + 'static,
) -> Result<()> {
    let sent: Vec<u8> = (0..SENT).map(|n| (n % 251) as u8).collect();
    let sends = sent.clone();
    let sending = std::thread::spawn(move || {
        to.write_all(&sends)?;
        end(&to)
    });
    let mut got = Vec::new();
    from.read_to_end(&mut got).context("the answer")?;
    ensure!(got == sent, "{} of {SENT} bytes came back", got.len());
    sending.join().ok().context("a thread panicked")??;
    Ok(())
}

/// All ways of `ways` at once.
async fn all(ways: &[(&'static str, Way)], host: &Host) -> Result<()> {
    let clients = ways.iter().map(|(name, way)| {
        let client = way
            .client(host)
            .with_context(|| format!("{name}: {way:?}"))?;
        Ok((*name, way.clone(), client))
    });
    let clients: Vec<_> = clients.collect::<Result<_>>()?;
    spawn_blocking(move || {
        for (name, way, client) in clients {
            let ended = client.join().ok().context("a thread panicked")?;
            ended.with_context(|| format!("{name}: {way:?}"))?;
        }
        Ok(())
    })
    .await?
}

/// The reply to a request for `it` at a peer, by its number.
fn socks(host: &Host, peer: &str) -> Result<JoinHandle<Result<u8>>> {
    let mut stream = host.device.run_sync(|| Ok(TcpStream::connect(SOCKS)?))?;
    // A dial that fails takes its time.
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    let name = format!("it.{peer}.p2p");
    Ok(std::thread::spawn(move || {
        stream.write_all(&[5, 1, 0])?;
        stream.read_exact(&mut [0; 2])?;
        let request = [&[5, 1, 0, 3, name.len() as u8], name.as_bytes(), &[0, 80]].concat();
        stream.write_all(&request)?;
        let mut reply = [0; 10];
        stream.read_exact(&mut reply)?;
        Ok(reply[1])
    }))
}

/// The caller's configuration, and its ways by TCP, as a raw stream, and by a Unix socket.
fn forwards(servers: &[Server], sockets: &Path) -> (String, Vec<(&'static str, Way)>) {
    let id = |name: &str| {
        let mut servers = servers.iter();
        let server = servers.find(|it| it.node.process.name() == name);
        server.map_or("", |it| &it.node.id)
    };
    let names = SILENT.iter().chain(&["last"]);
    let peers: Vec<_> = names
        .map(|name| format!("{name}: {{ id: {} }}", id(name)))
        .collect();
    let (mut lines, mut ways) = (String::new(), Vec::new());
    for (number, name) in SILENT.into_iter().enumerate() {
        let path = sockets.join(name);
        let port = 7100 + 10 * number as u16;
        for (listen, what, way) in [
            (format!("tcp://127.0.0.1:{port}"), "it", Way::Tcp(port)),
            (
                format!("tcp://127.0.0.1:{}", port + 1),
                "/x/it",
                Way::Tcp(port + 1),
            ),
            (format!("unix://{}", path.display()), "it", Way::Unix(path)),
        ] {
            lines += &format!("- {{ listen: '{listen}', to: ['{what}@{name}', '{what}@last'] }}\n");
            ways.push((name, way));
        }
    }
    let config = format!(
        "peers: {{ {} }}\nsocks: {{ listen: '{SOCKS}' }}\nsessions: {{ linger: {LINGER} }}\nforwards:\n{lines}",
        peers.join(", ")
    );
    (config, ways)
}

async fn next_peer(over: Transport) -> Result<()> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let mut servers = Vec::new();
    for name in SILENT.into_iter().chain(["last"]) {
        servers.push(Server::start(&lab, &relay, name, over).await?);
    }
    let (_site, host) = lab.home("a", NatKind::EimApdf).await?;
    let sockets = tempfile::tempdir()?;
    let (config, ways) = forwards(&servers, sockets.path());
    let file = host.file("a.yaml");
    std::fs::write(&file, config)?;
    let a = relay.run("a", &host, &[over])?;
    let a = a.arg("--config").arg(file).reserves(&host).await?;
    for server in &servers {
        a.direct(&server.node.id, PATIENCE * 2).await?;
    }
    let each = 3 * SENT as u64;
    all(&ways, &host).await.context("all peers live")?;
    let counts = |servers: &[Server]| servers.iter().map(Server::got).collect::<Vec<_>>();
    ensure!(
        counts(&servers) == [each, each, each, 0],
        "{:?}",
        counts(&servers)
    );

    servers[0].node.process.suspend()?;
    servers[1].site.cut(&[Traffic::Outside])?;
    servers[2].node.process.kill().await?;
    let replies = SILENT.map(|name| socks(&host, name));
    all(&ways, &host)
        .await
        .context("the first peers are silent")?;
    ensure!(
        counts(&servers) == [each, each, each, 3 * each],
        "{:?}",
        counts(&servers)
    );
    for (name, reply) in SILENT.into_iter().zip(replies) {
        let reply = reply?;
        let reply = spawn_blocking(move || reply.join()).await?;
        let reply = reply.ok().context("a thread panicked")??;
        ensure!(
            reply == 4,
            "{name}: SOCKS replies {reply}, and not that the host is unreachable"
        );
    }

    // What the silent ones have missed never comes: they have what the next clients send, and nothing else.
    servers[0].node.process.resume()?;
    servers[1].site.mend()?;
    // Over TCP, a leg from another port than the punch port may keep one of them relayed for minutes.
    for server in &servers[..2] {
        let has_path = |status: &Value| {
            let path = &control::peer(status, &server.node.id)["path"];
            path["kind"].is_string().then_some(())
        };
        a.until("a path", Duration::from_secs(90), has_path).await?;
    }
    let back = ways.iter().filter(|(name, _)| *name != "killed");
    all(&back.cloned().collect::<Vec<_>>(), &host)
        .await
        .context("two are back")?;
    ensure!(
        counts(&servers) == [2 * each, 2 * each, each, 3 * each],
        "{:?}",
        counts(&servers)
    );
    Ok(())
}
