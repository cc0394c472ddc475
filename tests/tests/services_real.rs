//! Real servers behind services, and real clients in front of forwards.

use std::fs;

use p2pnode_tests::{
    admin,
    prelude::*,
    sandbox,
    services::{Configs, PYTHON, Servers, fails, postgresql_bin, succeeds, until_ok, with_user},
};

p2pnode_tests::lab_tests! {
    postgresql_admits_the_address_of_one_peer_and_refuses_anothers: postgresql();
    dig_asks_a_dns_server_over_quic_datagrams: dig(Transport::Quic);
    dig_asks_a_dns_server_over_framed_datagrams: dig(Transport::Tcp);
    nginx_logs_the_clients_address_and_curl_reaches_it_over_socks_and_raw_streams: web();
    iperf3_measures_tcp_and_udp: iperf3();
    rsync_copies_a_directory: rsync();
    redis_sees_the_address_of_the_peer_and_a_unix_socket_leads_to_one: redis();
    a_websocket_carries_messages_both_ways: websocket();
    ssh_goes_through_connect: ssh();
}

async fn postgresql() -> Result<()> {
    let service = "services: { db: { target: tcp://127.0.0.1:5432, allow: [caller, stranger], identity: address } }\n";
    let forward = "forwards: [{ listen: tcp://127.0.0.1:5432, to: db@server }]\n";
    let lab = Servers::start(
        Transport::Quic,
        false,
        Configs {
            caller: forward.to_owned(),
            server: service.to_owned(),
            stranger: forward.to_owned(),
        },
    )
    .await?;
    let server = &lab.server.host;
    let directory = lab.directory("postgresql")?;
    let data = directory.join("data");
    let bin = postgresql_bin()?;
    let initdb = with_user("initdb", bin.join("initdb"), &directory)?;
    let initdb = initdb.args(["-U", "postgres", "-A", "reject", "--no-sync", "-D"]);
    succeeds(initdb.arg(&data).on(server)?).await?;
    // The addresses are fixed before anyone has called.
    let status = lab.server.control.status().await?;
    let of = |peer: &str| {
        let addresses = status["addresses"].as_array();
        let mut found = addresses
            .into_iter()
            .flatten()
            .filter(|at| at["peer"] == peer);
        let address = found.next().and_then(|found| found["address"].as_str());
        address
            .map(str::to_owned)
            .with_context(|| format!("the address of {peer}: {status}"))
    };
    let (caller, stranger) = (of(&lab.caller.id)?, of(&lab.stranger.id)?);
    ensure!(
        caller.starts_with("127.") && caller != stranger,
        "{caller} {stranger}"
    );
    let hosts = lab.server.control.text(&["services", "--hosts"]).await?;
    for (address, name) in [(&caller, "caller.p2p"), (&stranger, "stranger.p2p")] {
        let is_it = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(address) && words.any(|word| word == name)
        };
        ensure!(hosts.lines().any(is_it), "no {address} {name}: {hosts}");
    }
    fs::write(
        data.join("pg_hba.conf"),
        format!("host all all {caller}/32 trust\n"),
    )?;
    let settings = [
        "listen_addresses=127.0.0.1",
        "fsync=off",
        "unix_socket_directories=",
    ];
    let settings = settings.into_iter().flat_map(|setting| ["-c", setting]);
    let postgres = with_user("postgres", bin.join("postgres"), &directory)?;
    let _postgres = postgres.arg("-D").arg(&data).args(settings).on(server)?;
    let query = [
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-Atc",
        "select inet_client_addr()",
    ];
    let seen = until_ok(&lab.caller.host, "psql", &query).await?;
    ensure!(
        seen.trim() == caller,
        "the server sees {seen}, not {caller}"
    );
    let refused = fails(&lab.stranger.host, "psql", &query).await?;
    let named = format!("no pg_hba.conf entry for host \"{stranger}\"");
    ensure!(refused.contains(&named), "{refused}");
    Ok(())
}

async fn dig(transport: Transport) -> Result<()> {
    let lab = Servers::start(
        transport,
        false,
        Configs {
            caller: "forwards:\n\
                - { listen: udp://127.0.0.1:5353, to: dns@server }\n\
                - { listen: \"udp://[::1]:5353\", to: dns@server }\n"
                .to_owned(),
            server: "services: { dns: { target: udp://127.0.0.1:53, allow: [caller], identity: address } }\n".to_owned(),
            ..Configs::default()
        },
    )
    .await?;
    let args = [
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--port=53",
        "--user=",
        "--pid-file=",
        "--log-queries=extra",
        "--log-facility=-",
        "--address=/db.example/192.0.2.7",
        "--txt-record=long.example,0123456789abcdefghijklmnopqrstuvwxyz",
    ];
    let dns = Launch::new("dnsmasq", sandbox::tool("dnsmasq")).args(args);
    let dns = dns.on(&lab.server.host)?;
    let ask = |at, name| [at, "-p", "5353", "+tries=10", "+timeout=1", "+short", name];
    for at in ["@127.0.0.1", "@::1"] {
        let ask = ask(at, "db.example");
        let answer = until_ok(&lab.caller.host, "dig", &ask).await?;
        ensure!(answer.trim() == "192.0.2.7", "{answer}");
        for _ in 0..10 {
            until_ok(&lab.caller.host, "dig", &ask).await?;
        }
    }
    // It logs who asks: the peer, by its address.
    dns.logged("127.", PATIENCE).await?;
    ensure!(!dns.log().contains(" 127.0.0.1/"), "{}", dns.log());
    let read = admin::metrics(&lab.server.host).await?;
    let answers = read.sum("p2pnode_session_quic_datagrams_total", &[]);
    let are_datagrams = answers >= 22.0;
    ensure!(
        are_datagrams == (transport == Transport::Quic) && (are_datagrams || answers == 0.0),
        "{answers} answers of 22 were QUIC datagrams over {transport}"
    );
    Ok(())
}

async fn web() -> Result<()> {
    let lab = Servers::start(
        Transport::Tcp,
        true,
        Configs {
            caller: "forwards:\n\
                - { listen: tcp://127.0.0.1:8080, to: web@server }\n\
                - { listen: \"tcp://[::1]:8080\", to: web@server }\n\
                - { listen: tcp://127.0.0.1:8081, to: /x/web@server }\n\
                - { listen: tcp://127.0.0.1:8082, to: plain@server }\n\
                socks: { listen: 127.0.0.1:1080 }\n"
                .to_owned(),
            server: "services:\n  \
                web: { target: tcp://127.0.0.1:80, allow: [caller], identity: proxy-v2, protocol: /x/web }\n  \
                plain: { target: tcp://SERVER_IP:81, allow: [caller], identity: proxy-v2 }\n"
                .to_owned(),
            ..Configs::default()
        },
    )
    .await?;
    let directory = lab.directory("nginx")?;
    let (shown, ip) = (directory.display(), lab.server.host.ip(false)?);
    fs::write(directory.join("page.txt"), "a page\n")?;
    fs::write(
        directory.join("nginx.conf"),
        format!(
            "daemon off; master_process off; pid {shown}/pid; error_log stderr;\n\
             events {{}}\n\
             http {{\n\
             log_format client '$proxy_protocol_addr $server_protocol';\n\
             access_log {shown}/access.log client;\n\
             client_body_temp_path {shown}/1; proxy_temp_path {shown}/2; fastcgi_temp_path {shown}/3;\n\
             uwsgi_temp_path {shown}/4; scgi_temp_path {shown}/5;\n\
             server {{ listen 127.0.0.1:80 proxy_protocol http2; root {shown}; }}\n\
             server {{ listen {ip}:81 proxy_protocol; root {shown}; }}\n\
             }}\n"
        ),
    )?;
    let nginx = Launch::new("nginx", sandbox::tool("nginx")).args(["-e", "stderr", "-c"]);
    let _nginx = nginx
        .arg(directory.join("nginx.conf"))
        .on(&lab.server.host)?;
    let host = &lab.caller.host;
    // A wrong header would show another address than that of the client.
    let old = ["-fsS", "--interface", "127.0.0.9", "--max-time", "10"];
    let two = [&old[..], &["--http2-prior-knowledge"]].concat();
    let ip6 = ["-fsS", "--http2-prior-knowledge", "--max-time", "10"];
    let socks = ["--proxy", "socks5h://127.0.0.1:1080"];
    let (old_socks, two_socks) = ([&old[..], &socks].concat(), [&two[..], &socks].concat());
    for (args, url) in [
        (&two[..], "http://127.0.0.1:8080/page.txt"),
        (&ip6, "http://[::1]:8080/page.txt"),
        (&two, "http://127.0.0.1:8081/page.txt"),
        (&old, "http://127.0.0.1:8082/page.txt"),
        (&two_socks, "http://web.server.p2p/page.txt"),
        (&two_socks, "http://WEB.Server.p2p:99/page.txt"),
        (&old_socks, "http://plain.server.p2p/page.txt"),
    ] {
        let page = until_ok(host, "curl", &[args, &[url]].concat()).await?;
        ensure!(page == "a page\n", "{url}: {page}");
    }
    for (name, reason) in [
        ("http://db.server.p2p/", "(5)"),
        ("http://web.nobody.p2p/", "(4)"),
        ("http://example.com/", "(2)"),
    ] {
        let args = [&two_socks[..], &[name]].concat();
        let error = fails(host, "curl", &args).await?;
        ensure!(error.contains(reason), "{name}: {error}");
    }
    let log = fs::read_to_string(directory.join("access.log"))?;
    for (line, least) in [
        ("127.0.0.9 HTTP/2.0", 3),
        ("::1 HTTP/2.0", 1),
        ("127.0.0.9 HTTP/1.1", 2),
    ] {
        let count = log.lines().filter(|logged| *logged == line).count();
        ensure!(count >= least, "{count} of {line}: {log}");
    }
    Ok(())
}

async fn iperf3() -> Result<()> {
    let lab = Servers::start(
        Transport::Quic,
        false,
        Configs {
            caller: "forwards:\n\
                - { listen: tcp://127.0.0.1:5201, to: iperf@server }\n\
                - { listen: tcp://127.0.0.1:5202, to: iperf-control@server }\n\
                - { listen: udp://127.0.0.1:5202, to: iperf-udp@server }\n"
                .to_owned(),
            server: "services:\n  \
                iperf: { target: tcp://127.0.0.1:5201, allow: [caller] }\n  \
                iperf-control: { target: tcp://127.0.0.1:5202, allow: [caller] }\n  \
                iperf-udp: { target: udp://127.0.0.1:5202, allow: any }\n"
                .to_owned(),
            ..Configs::default()
        },
    )
    .await?;
    // One for each test: a server is busy for a moment after the results of a client.
    let server = |port| {
        let server = Launch::new(format!("iperf3-{port}"), sandbox::tool("iperf3"));
        server.args(["-s", "-p", port]).on(&lab.server.host)
    };
    let _servers = (server("5201")?, server("5202")?);
    let host = &lab.caller.host;
    let tcp = ["-c", "127.0.0.1", "-t", "1", "-J"];
    until_ok(host, "iperf3", &tcp).await?;
    let udp = [
        "-c",
        "127.0.0.1",
        "-p",
        "5202",
        "-u",
        "-b",
        "10M",
        "-l",
        "1100",
        "-t",
        "1",
        "-J",
    ];
    let report: Value = serde_json::from_str(&until_ok(host, "iperf3", &udp).await?)?;
    // The server resets the control connection behind its results.
    let sum = &report["end"]["sum"];
    let lost = sum["lost_percent"]
        .as_f64()
        .with_context(|| format!("no share of lost datagrams: {report}"))?;
    ensure!(lost < 50.0 && sum["packets"].as_u64() > Some(100), "{sum}");
    Ok(())
}

async fn redis() -> Result<()> {
    let lab = Servers::start(Transport::Quic, false, Configs::default()).await?;
    let directory = lab.lab.artifacts().sockets();
    let [at_server, at_caller] = ["redis.sock", "forward.sock"].map(|name| directory.join(name));
    let (at_server, at_caller) = (at_server.to_string_lossy(), at_caller.to_string_lossy());
    let args = [
        "--port",
        "6379",
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        // It admits 127.0.0.1 alone, and the peer has an address of its own.
        "--protected-mode",
        "no",
        "--unixsocket",
        &*at_server,
    ];
    let redis = Launch::new("redis-server", sandbox::tool("redis-server")).args(args);
    let _redis = redis.on(&lab.server.host)?;
    let unix = (format!("unix://{at_server}"), format!("unix://{at_caller}"));
    let tcp = "tcp://127.0.0.1:6379".to_owned();
    let mut commands = Vec::new();
    for (name, (target, listen), identity) in [
        ("redis", (tcp.clone(), tcp), "address"),
        ("redis-unix", unix, "none"),
    ] {
        let serve = [
            "serve",
            name,
            &target,
            "--identity",
            identity,
            "--allow",
            &lab.caller.id,
            "--json",
        ];
        let serve = lab
            .server
            .control
            .command(&format!("serve-{name}"), &serve)
            .on(&lab.server.host)?;
        serve.event("serving", PATIENCE).await?;
        let to = format!("{name}@{}", lab.server.id);
        let forward = ["forward", &to, "--listen", &listen, "--json"];
        let forward = lab
            .caller
            .control
            .command(&format!("forward-{name}"), &forward)
            .on(&lab.caller.host)?;
        forward.event("listening", PATIENCE).await?;
        commands.push((serve, forward));
    }
    let host = &lab.caller.host;
    let client = ["-h", "127.0.0.1", "client", "info"];
    let info = until_ok(host, "redis-cli", &client).await?;
    let status = lab.server.control.status().await?;
    let address = status["addresses"][0]["address"]
        .as_str()
        .context("no address")?;
    ensure!(
        info.contains(&format!(" addr={address}:")),
        "{info} {status}"
    );
    let set = ["-s", &*at_caller, "set", "key", "a value"];
    until_ok(host, "redis-cli", &set).await?;
    let got = until_ok(host, "redis-cli", &["-h", "127.0.0.1", "get", "key"]).await?;
    ensure!(got.trim() == "a value", "{got}");
    Ok(())
}

/// The server returns each message.
const WEBSOCKET_SERVER: &str = "
import asyncio, websockets
async def answer(socket):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(answer, '127.0.0.1', 8765):
        await asyncio.Future()
asyncio.run(main())
";

const WEBSOCKET_CLIENT: &str = "
import asyncio, os, websockets
async def main():
    async with websockets.connect('ws://127.0.0.1:8765') as socket:
        for message in ['text', os.urandom(300000), '']:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    print(socket.close_code)
asyncio.run(main())
";

async fn websocket() -> Result<()> {
    let lab = Servers::start(
        Transport::Quic,
        false,
        Configs {
            caller: "forwards: [{ listen: tcp://127.0.0.1:8765, to: socket@server }]\n".to_owned(),
            server: "services: { socket: { target: tcp://127.0.0.1:8765, allow: [caller] } }\n"
                .to_owned(),
            ..Configs::default()
        },
    )
    .await?;
    let server = Launch::new("websockets", PYTHON).args(["-c", WEBSOCKET_SERVER]);
    let _server = server.on(&lab.server.host)?;
    let code = until_ok(&lab.caller.host, PYTHON, &["-c", WEBSOCKET_CLIENT]).await?;
    ensure!(code.trim() == "1000", "the connection ended with {code}");
    Ok(())
}

async fn rsync() -> Result<()> {
    let lab = Servers::start(
        Transport::Quic,
        true,
        Configs {
            caller: "forwards: [{ listen: \"tcp://[::1]:8873\", to: rsync@server }]\n".to_owned(),
            server: "services: { rsync: { target: \"tcp://[::1]:8873\", allow: [caller] } }\n"
                .to_owned(),
            ..Configs::default()
        },
    )
    .await?;
    let directory = lab.directory("rsync")?;
    let (from, to) = (directory.join("from"), directory.join("to"));
    fs::create_dir_all(&from)?;
    for number in 0..20u8 {
        let bytes: Vec<u8> = (0..100_000u32)
            .map(|n| (n as u8).wrapping_mul(number))
            .collect();
        fs::write(from.join(number.to_string()), bytes)?;
    }
    let config = directory.join("rsyncd.conf");
    fs::write(
        &config,
        format!("use chroot = no\n[files]\npath = {}\n", from.display()),
    )?;
    let daemon = with_user("rsyncd", sandbox::tool("rsync"), &directory)?;
    let daemon = daemon.args(["--daemon", "--no-detach", "--port=8873", "--config"]);
    let _daemon = daemon.arg(&config).on(&lab.server.host)?;
    let to_text = to.to_string_lossy().into_owned();
    let args = ["-a", "rsync://[::1]:8873/files/", &to_text];
    until_ok(&lab.caller.host, "rsync", &args).await?;
    for number in 0..20 {
        let name = number.to_string();
        ensure!(
            fs::read(from.join(&name))? == fs::read(to.join(&name))?,
            "{name}"
        );
    }
    Ok(())
}

async fn ssh() -> Result<()> {
    let lab = Servers::start(
        Transport::Quic,
        false,
        Configs {
            server: "services: { ssh: { target: tcp://127.0.0.1:22, allow: [caller] } }\n"
                .to_owned(),
            ..Configs::default()
        },
    )
    .await?;
    let directory = lab.directory("ssh")?;
    let shown = directory.display();
    for key in ["host_key", "user_key"] {
        let path = directory.join(key).to_string_lossy().into_owned();
        let args = ["-q", "-t", "ed25519", "-N", "", "-f", &path];
        until_ok(&lab.server.host, "ssh-keygen", &args).await?;
    }
    fs::copy(directory.join("user_key.pub"), directory.join("authorized"))?;
    fs::write(
        directory.join("sshd_config"),
        format!(
            "ListenAddress 127.0.0.1:22\nHostKey {shown}/host_key\nAuthorizedKeysFile {shown}/authorized\n\
             StrictModes no\nUsePAM no\nPidFile none\n"
        ),
    )?;
    let sshd = with_user("sshd", sandbox::tool("sshd"), &directory)?;
    let sshd = sshd
        .args(["-D", "-e", "-f"])
        .arg(directory.join("sshd_config"));
    let _sshd = sshd.on(&lab.server.host)?;
    let program = bins()?.p2pnode;
    let proxy = format!("ProxyCommand={} connect ssh@%h", program.display());
    let key = directory.join("user_key").to_string_lossy().into_owned();
    let ssh = with_user("ssh", sandbox::tool("ssh"), &directory)?
        .env(node::CONTROL_SOCKET, lab.caller.control_socket())
        .args(["-F", "none", "-i", &key, "-o", &proxy])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "BatchMode=yes", "lab@server", "echo", "hello"]);
    let mut ssh = ssh.on(&lab.caller.host)?;
    let status = ssh.exit(PATIENCE * 2).await?;
    let printed: Vec<_> = ssh.events().into_iter().map(|event| event.line).collect();
    ensure!(
        status.success() && printed == ["hello"],
        "{status}: {printed:?} {}",
        ssh.log()
    );
    Ok(())
}
