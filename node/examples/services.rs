//! Two nodes on one host: one serves a greeting, the other asks for it.

#![allow(clippy::print_stdout, reason = "its output is for whoever runs it")]

use anyhow::Context as _;
use libp2p::identity::Keypair;
use p2pnode::{Callers, Config, Node, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    println!("{}", greeted("world").await?);
    Ok(())
}

async fn greeted(name: &str) -> anyhow::Result<String> {
    let key = Keypair::generate_ed25519();
    let (id, config) = (
        key.public().to_peer_id(),
        "dial: { port_range: 45340-45349 }",
    );
    let host = Node::start(&key, &Config::from_yaml(config)?)?;
    let mut incoming = host.handle().serve("greet", Callers::Any)?;
    let serving = tokio::spawn(async move {
        while let Some(session) = incoming.next().await {
            tokio::spawn(greet(session));
        }
    });

    // Without a relay the guest has to know where the host is.
    let ports = host.handle().status().await?.punch_ports;
    let port = ports.values().next().context("no port is open")?;
    let config = format!(
        "dial: {{ port_range: 45350-45359 }}\npeers: {{ host: {{ id: {id}, addrs: [/ip4/127.0.0.1/udp/{port}/quic-v1] }} }}"
    );
    let guest = Node::start(&Keypair::generate_ed25519(), &Config::from_yaml(&config)?)?;
    let mut session = guest.handle().open(id, "greet").await?;
    session.write_all(name.as_bytes()).await?;
    session.shutdown().await?;
    let mut greeting = String::new();
    session.read_to_string(&mut greeting).await?;

    guest.stop().await?;
    host.stop().await?;
    serving.abort();
    Ok(greeting)
}

async fn greet(mut session: Session) -> anyhow::Result<()> {
    let mut name = String::new();
    session.read_to_string(&mut name).await?;
    session
        .write_all(format!("hello, {name}").as_bytes())
        .await?;
    session.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_guest_is_greeted() -> anyhow::Result<()> {
        assert_eq!(greeted("world").await?, "hello, world");
        Ok(())
    }
}
