//! `expose`, `p2pnode map` and `mappings.publish`: what is published leads strangers to a target, and only while it is published.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use p2pnode_tests::{
    prelude::*,
    probe,
    router::{granted, liar, mapping, router, until_granted},
    sandbox, schema,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    time::{sleep, timeout},
};

lab_tests! {
    a_stranger_reaches_what_is_published_and_nothing_once_it_is_not: published();
    a_target_learns_the_strangers_address_over_tcp_and_udp: identity();
    a_lie_of_the_router_is_never_published: lie();
    a_command_maps_a_port_as_long_as_it_runs: command();
    names_are_in_the_dns_as_long_as_they_hold_and_a_wrong_key_is_a_clear_line: dns();
}

/// What is published has to follow within this time.
const FOLLOWS: Duration = Duration::from_secs(30);
const TARGET: u16 = 8000;
const SECRET: &str = "cDJwbm9kZXAycG5vZGVwMnBub2Rl";

struct World {
    relay: Relay,
    stranger: Host,
    peer: Peer,
    lab: Lab,
}

impl World {
    async fn new() -> Result<Self> {
        let lab = Lab::of_test().await?;
        let relay = Relay::start(&lab, "relay").await?;
        let stranger = lab.public_host("stranger").await?;
        let peer = Peer::new(&lab, "a", NatKind::EimApdf).await?;
        Ok(Self {
            relay,
            stranger,
            peer,
            lab,
        })
    }

    async fn start(&self, config: &str) -> Result<Node> {
        let file = self.lab.artifacts().file("a.yaml");
        fs::write(&file, config)?;
        let launch = self.relay.run("a", &self.peer.host, &Transport::ALL)?;
        let launch = launch.env("P2PNODE_MAPPINGS_MODE", "pcp");
        let launch = launch.arg("--config").arg(file);
        launch.reserves(&self.peer.host).await
    }

    /// What a stranger's curl gets.
    async fn curl(&self, at: &str) -> Result<String> {
        let url = format!("http://{at}/");
        let curl = sandbox::tool("curl");
        node::printed(&self.stranger, &curl, &["-s", "-m", "3", &url]).await
    }
}

/// Serves as a target over HTTP, and returns what clients send first.
async fn serve(host: &Host) -> Result<tokio::sync::mpsc::Receiver<Vec<u8>>> {
    let listener = probe::listen(host, TARGET).await?;
    let (sent, received) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 1024];
            let read = stream.read(&mut asked).await.unwrap_or_default();
            asked.truncate(read);
            let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
            let _ = stream.write_all(answer).await;
            let _ = sent.try_send(asked);
        }
    });
    Ok(received)
}

/// The entry of this name in the published file, once it is there, or once it is not.
async fn entry(file: &Path, name: &str, is_there: bool) -> Result<Option<Value>> {
    let looks = async {
        loop {
            let text = fs::read_to_string(file).unwrap_or_default();
            // A reader sees one whole document or the other.
            let document: Value = match text.is_empty() {
                true => Value::Null,
                false => serde_json::from_str(&text)?,
            };
            let entries = document["mappings"].as_array().into_iter().flatten();
            let found = entries
                .into_iter()
                .find(|entry| entry["name"] == name)
                .cloned();
            if found.is_some() == is_there && !text.is_empty() {
                return anyhow::Ok(found);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(FOLLOWS, looks).await;
    found.with_context(|| format!("{name} in {}: {is_there}", file.display()))?
}

/// A program that writes down its environment.
fn hook(world: &World) -> Result<(PathBuf, PathBuf)> {
    let (program, log) = (
        world.lab.artifacts().file("hook"),
        world.lab.artifacts().file("hook.log"),
    );
    let script = format!(
        "#!/bin/sh\nenv | grep ^MAPPING_ | sort | tr '\\n' ' ' >> {0}\necho >> {0}\n",
        log.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok((program, log))
}

async fn published() -> Result<()> {
    let world = World::new().await?;
    let _daemon = router(&world.lab, &world.peer).await?;
    let _served = serve(&world.peer.host).await?;
    let (program, log) = hook(&world)?;
    let file = world.lab.artifacts().file("mappings.json");
    let mut node = world
        .start(&format!(
            "mappings:\n  publish:\n    hook: [{}]\n    file: {}\nexpose:\n  web: {{ protocol: tcp, target: \"tcp://127.0.0.1:{TARGET}\" }}\n",
            program.display(),
            file.display()
        ))
        .await?;
    let web = entry(&file, "web", true).await?.context("web")?;
    let public = web["public"].as_str().context("an address")?.to_owned();
    ensure!(world.curl(&public).await? == "hello", "{public}");
    // A way that is closed without a word of the router.
    let close = "nft insert rule inet lab forward iifname ix ct state new drop";
    world.peer.site.shell(close)?;
    entry(&file, "web", false).await?;
    node.process.terminate()?;
    ensure!(node.process.exit(PATIENCE).await?.success());
    ensure!(granted(&world.peer)? == 0, "mappings are left behind");
    entry(&file, "web", false).await?;
    let log = fs::read_to_string(log)?;
    let of_web = log.lines().filter(|line| line.contains("MAPPING_NAME=web"));
    let states: Vec<&str> = of_web
        .filter_map(|line| line.split("MAPPING_STATE=").nth(1)?.split(' ').next())
        .collect();
    ensure!(states == ["up", "down"], "{log}");
    let port = public.rsplit_once(':').context("a port")?.1;
    ensure!(
        log.contains(&format!("MAPPING_PUBLIC_PORT={port} ")),
        "{log}"
    );
    world.peer.settle().await
}

async fn identity() -> Result<()> {
    let world = World::new().await?;
    let _daemon = router(&world.lab, &world.peer).await?;
    let mut served = serve(&world.peer.host).await?;
    let echo = probe::udp(&world.peer.host, TARGET).await?;
    let file = world.lab.artifacts().file("mappings.json");
    let target = format!("127.0.0.1:{TARGET}");
    let _node = world
        .start(&format!(
            "mappings: {{ publish: {{ file: {} }} }}\nexpose:\n  web: {{ protocol: tcp, target: \"tcp://{target}\", identity: proxy-v2 }}\n  wg: {{ protocol: udp, target: \"udp://{target}\", identity: proxy-v2 }}\n",
            file.display()
        ))
        .await?;
    let stranger: std::net::IpAddr = world.stranger.ip(false)?;
    let std::net::IpAddr::V4(stranger) = stranger else {
        anyhow::bail!("{stranger} is not IPv4");
    };
    let web = entry(&file, "web", true).await?.context("web")?;
    world
        .curl(web["public"].as_str().context("an address")?)
        .await?;
    let header = loop {
        let asked = served.recv().await.context("the target is gone")?;
        if asked.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            break asked;
        }
    };
    ensure!(header[16..20] == stranger.octets(), "{header:?}");
    let wg = entry(&file, "wg", true).await?.context("wg")?;
    let public: std::net::SocketAddr = wg["public"].as_str().context("an address")?.parse()?;
    let client = probe::udp(&world.stranger, 7001).await?;
    client.send_to(b"ping", public).await?;
    let mut buffer = [0; 512];
    let (length, from) = timeout(PATIENCE, echo.recv_from(&mut buffer)).await??;
    ensure!(buffer[16..20] == stranger.octets() && buffer[..length].ends_with(b"ping"));
    answers(&echo, from, &client, public).await
}

/// What the target answers comes from where the client has sent to.
async fn answers(
    echo: &UdpSocket,
    from: std::net::SocketAddr,
    client: &UdpSocket,
    public: std::net::SocketAddr,
) -> Result<()> {
    echo.send_to(b"pong", from).await?;
    let mut buffer = [0; 512];
    let (length, from) = timeout(PATIENCE, client.recv_from(&mut buffer)).await??;
    ensure!(&buffer[..length] == b"pong" && from == public);
    Ok(())
}

async fn lie() -> Result<()> {
    let world = World::new().await?;
    let _daemon = liar(&world.lab, &world.peer).await?;
    let file = world.lab.artifacts().file("mappings.json");
    let node = world
        .start(&format!(
            "mappings: {{ publish: {{ file: {} }} }}\nexpose: {{ web: {{ protocol: tcp, target: \"tcp://127.0.0.1:{TARGET}\" }} }}\n",
            file.display()
        ))
        .await?;
    mapping(&node, 0, "tcp", "claimed", PATIENCE).await?;
    mapping(&node, 0, "tcp", "lost", FOLLOWS).await?;
    let text = fs::read_to_string(&file)?;
    ensure!(text == "{\"mappings\":[]}\n", "{text}");
    Ok(())
}

async fn command() -> Result<()> {
    let world = World::new().await?;
    let _daemon = router(&world.lab, &world.peer).await?;
    let _served = serve(&world.peer.host).await?;
    let node = world.start("log: { level: info }\n").await?;
    mapping(&node, 0, "tcp", "verified", FOLLOWS).await?;
    mapping(&node, 0, "udp", "verified", FOLLOWS).await?;
    let before = granted(&world.peer)?;
    let target = format!("tcp://127.0.0.1:{TARGET}");
    let map = node
        .control
        .command("map", &["map", "tcp", &target, "--json"]);
    let mut map = map.on(&world.peer.host)?;
    let verified = map
        .first("verified", 0, |event| event.text("/state") == "verified")
        .await?;
    verified
        .has(&json!({"event": "mapping", "protocol": "tcp", "target": target, "method": "pcp"}))?;
    let public = verified.text("/address").to_owned();
    ensure!(world.curl(&public).await? == "hello", "{public}");
    until_granted(&world.peer, before + 1).await?;
    map.terminate()?;
    map.exit(PATIENCE).await?;
    for event in map.events() {
        schema::validate("map", &event.json)?;
    }
    until_granted(&world.peer, before).await?;
    ensure!(!probe::connects(&world.stranger, 7001, public.parse()?).await?);
    world.peer.settle().await?;
    world.peer.keeps_range().await
}

async fn dns() -> Result<()> {
    let world = World::new().await?;
    let _daemon = router(&world.lab, &world.peer).await?;
    let server = world.lab.public_host("dns").await?;
    let _knot = knot(&server).await?;
    let secret = world.lab.artifacts().file("tsig");
    fs::write(&secret, "d3JvbmcK\n")?;
    let at = server.ip(false)?;
    let mut node = world
        .start(&format!(
            "mappings:\n  publish:\n    dns:\n      server: \"{at}:53\"\n      zone: p2p.example.net\n      tsig: {{ name: k, file: {} }}\nexpose:\n  web: {{ protocol: tcp, target: \"tcp://127.0.0.1:{TARGET}\" }}\n",
            secret.display()
        ))
        .await?;
    node.process.logged("TSIG key k", FOLLOWS).await?;
    fs::write(&secret, SECRET)?;
    let service = "_web._tcp.p2p.example.net";
    let srv = until(&world, &server, "SRV", service, |text| !text.is_empty()).await?;
    let words: Vec<&str> = srv.split_whitespace().collect();
    let [_, _, port, host] = words[..] else {
        anyhow::bail!("{srv}");
    };
    let address = dig(&world, &server, "A", host).await?;
    let outside = world.peer.site.outside_ip4().context("an address")?;
    ensure!(address.trim() == outside.to_string(), "{address}");
    let _served = serve(&world.peer.host).await?;
    ensure!(world.curl(&format!("{outside}:{port}")).await? == "hello");
    let pointer = dig(&world, &server, "PTR", service).await?;
    let instance = pointer.trim();
    ensure!(
        instance.ends_with(service.trim_end_matches('.')) || instance.contains(service),
        "{pointer}"
    );
    let text = dig(&world, &server, "TXT", instance).await?;
    ensure!(text.contains("name=web"), "{text}");
    let same = dig(&world, &server, "SRV", instance).await?;
    ensure!(same.contains(port), "{same}");
    node.process.terminate()?;
    ensure!(node.process.exit(PATIENCE).await?.success());
    for (of, name) in [
        ("SRV", service),
        ("PTR", service),
        ("SRV", instance),
        ("TXT", instance),
        ("A", host),
    ] {
        let left = dig(&world, &server, of, name).await?;
        ensure!(left.is_empty(), "{of} {name}: {left}");
    }
    world.peer.settle().await?;
    world.peer.keeps_range().await
}

async fn dig(world: &World, server: &Host, of: &str, name: &str) -> Result<String> {
    let at = format!("@{}", server.ip(false)?);
    let args = [at.as_str(), "+short", "+time=2", of, name];
    node::printed(&world.stranger, &sandbox::tool("dig"), &args).await
}

async fn until(
    world: &World,
    server: &Host,
    of: &str,
    name: &str,
    is_it: impl Fn(&str) -> bool,
) -> Result<String> {
    let looks = async {
        loop {
            let text = dig(world, server, of, name).await?;
            if is_it(&text) {
                return anyhow::Ok(text);
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let found = timeout(FOLLOWS, looks).await;
    found.with_context(|| format!("{of} {name}"))?
}

/// The path of its socket has to be short.
async fn knot(server: &Host) -> Result<(Process, tempfile::TempDir)> {
    let (directory, ip) = (tempfile::tempdir()?, server.ip(false)?);
    let at = directory.path().display();
    let zone = format!(
        "p2p.example.net. 30 SOA ns.p2p.example.net. a.p2p.example.net. 1 60 60 60 1\np2p.example.net. 30 NS ns.p2p.example.net.\nns.p2p.example.net. 30 A {ip}\n"
    );
    fs::write(directory.path().join("zone"), zone)?;
    let config = format!(
        "server:
    rundir: {at}
    listen: {ip}@53
log:
  - target: stderr
    any: info
database:
    storage: {at}
    journal-db-max-size: 16M
    kasp-db-max-size: 16M
    timer-db-max-size: 16M
key:
  - id: k
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: up
    key: k
    action: update
zone:
  - domain: p2p.example.net
    acl: up
    file: {at}/zone
"
    );
    let file = directory.path().join("knot.conf");
    fs::write(&file, config)?;
    let launch = Launch::new("knotd", sandbox::tool("knotd"))
        .arg("-c")
        .arg(file);
    let knot = launch.on(server)?;
    knot.logged("control, binding", PATIENCE).await?;
    Ok((knot, directory))
}
