//! `cargo xtask test js`: raw streams between p2pnode and js-libp2p, both ways, on loopback.
//!
//! It downloads js-libp2p from npm, so it is no part of `cargo xtask test`.

use std::{fs, net::TcpListener, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::bins;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::{
    cargo::{self, Build},
    child::Child,
    tools,
};

const SOON: Duration = Duration::from_secs(30);

pub(crate) fn run() -> Result<ExitCode> {
    let bins = cargo::bins(Build::Dev)?;
    let directory = bins::target_dir()?.join("js-libp2p");
    fs::create_dir_all(&directory)?;
    let sources = cargo::workspace().join("tests/peers/js-libp2p");
    for name in ["package.json", "peer.mjs", "node20.mjs"] {
        fs::copy(sources.join(name), directory.join(name)).context(name)?;
    }
    let mut npm = std::process::Command::new("npm");
    let npm = npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock"]);
    let status = npm.current_dir(&directory).status();
    ensure!(
        status.context("npm cannot be started")?.success(),
        "npm has failed"
    );
    tools::runtime()?.block_on(both_ways(&bins.p2pnode, &directory))?;
    println!("js-libp2p reaches a service of p2pnode, and a forward of p2pnode reaches js-libp2p");
    Ok(ExitCode::SUCCESS)
}

/// A port that is free now.
fn free() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn both_ways(p2pnode: &Path, directory: &Path) -> Result<()> {
    let home = tempfile::tempdir()?;
    let target = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let (port, listen) = (free()?, free()?);
    let services = format!(
        "services: {{ web: {{ target: \"tcp://{}\", allow: any, protocol: /x/web }} }}\n\
         listen: [ /ip4/127.0.0.1/tcp/{port} ]\nreservations: 0\n",
        target.local_addr()?
    );
    tokio::spawn(async move {
        while let Ok((mut client, _)) = target.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let command = |args: &[&str], config: &str| {
        let file = home.path().join(format!("{}.yaml", args[0]));
        fs::write(&file, config)?;
        let mut command = Command::new(p2pnode);
        let key = home.path().join(format!("{}.key", args[0]));
        command
            .args(args)
            .arg("--json")
            .arg("--config")
            .arg(file)
            .arg("--key")
            .arg(key);
        command.env("P2PNODE_CONTROL_SOCKET", home.path().join(args[0]));
        anyhow::Ok(command)
    };
    let mut node = Child::start("p2pnode", command(&["run"], &services)?)?;
    let id = node.event("started", SOON).await?["peer_id"].clone();
    node.event("listening", SOON).await?;
    let at = format!(
        "/ip4/127.0.0.1/tcp/{port}/p2p/{}",
        id.as_str().context("an id")?
    );
    let mut js = Command::new("node");
    js.arg(directory.join("peer.mjs"))
        .arg(at)
        .current_dir(directory);
    let mut js = Child::start("js-libp2p", js)?;
    let started = js.event("started", SOON).await?;
    let answered = js.event("answered", SOON).await?;
    ensure!(answered["text"] == "from js", "{answered}");
    let config = format!(
        "peers: {{ js: {{ id: {}, addrs: [ {} ] }} }}\nreservations: 0\n",
        started["peer_id"], started["address"]
    );
    let listen = format!("127.0.0.1:{listen}");
    let args = [
        "forward",
        "/x/js@js",
        "--standalone",
        "--listen",
        &format!("tcp://{listen}"),
    ];
    let mut forward = Child::start("p2pnode forward", command(&args, &config)?)?;
    forward.event("listening", SOON).await?;
    let (mut from, mut to) = TcpStream::connect(listen).await?.into_split();
    let sent: Vec<u8> = (0..1_u32 << 20).map(|at| (at ^ at >> 8) as u8).collect();
    let bytes = sent.clone();
    let sends = tokio::spawn(async move {
        to.write_all(&bytes).await?;
        to.shutdown().await
    });
    let mut got = Vec::new();
    tokio::time::timeout(SOON, from.read_to_end(&mut got)).await??;
    sends.await??;
    ensure!(
        got == sent,
        "{} of {} bytes came back",
        got.len(),
        sent.len()
    );
    Ok(())
}
