//! `iroh-peer listen` and `dial`: two endpoints that meet at a relay and become direct.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, Watcher as _,
    endpoint::{Connection, RecvStream, SendStream},
};
use n0_future::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    AtRelay,
    endpoint::{ALPN, at_relay, whole},
    tell,
};

pub(crate) async fn listen(at: AtRelay) -> anyhow::Result<()> {
    let endpoint = at_relay(&at.relay, at.port).await?;
    is_there(&endpoint).await;
    tell(&json!({"event": "listening", "id": endpoint.id().to_string()}));
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await.map_err(whole)?;
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(echo(send, receive));
            }
            anyhow::Ok(())
        });
    }
    Ok(())
}

async fn echo(mut send: SendStream, mut receive: RecvStream) -> anyhow::Result<()> {
    let mut byte = [0; 1];
    while receive.read(&mut byte).await?.is_some() {
        send.write_all(&byte).await?;
    }
    Ok(())
}

/// Waits until the endpoint has its relay and has been told its public address: only then has it all that a punch takes.
async fn is_there(endpoint: &Endpoint) {
    endpoint.net_report().initialized().await;
    endpoint.online().await;
}

/// Connects over the relay and waits for the first byte over a direct path, which ends the program. Times are from the start
/// of the program or, if it was to be at the relay first, from the line that names the endpoint.
pub(crate) async fn dial(
    at: AtRelay,
    target: Option<EndpointId>,
    timeout_s: u64,
    mut started: Instant,
) -> anyhow::Result<()> {
    let endpoint = at_relay(&at.relay, at.port).await?;
    let target = match target {
        Some(target) => target,
        None => {
            is_there(&endpoint).await;
            tell(&json!({"event": "ready"}));
            let line = BufReader::new(tokio::io::stdin())
                .lines()
                .next_line()
                .await?;
            started = Instant::now();
            let line = line.context("no endpoint was named on stdin")?;
            let id = line.trim().parse();
            id.map_err(|error| anyhow!("{line:?} on stdin is no endpoint: {error}"))?
        }
    };
    let address = EndpointAddr::new(target).with_relay_url(at.relay);
    let within = Duration::from_secs(timeout_s);
    let reached = tokio::time::timeout(within, direct(&endpoint, address, started)).await;
    let outcome = match &reached {
        Ok(Ok(_)) => "direct",
        Ok(Err(_)) | Err(_) => "relayed",
    };
    tell(&json!({"event": "result", "outcome": outcome, "t_ms": t_ms(started)}));
    let connection = match reached {
        Ok(reached) => Some(reached?),
        Err(_) => None,
    };
    if let Some(connection) = connection {
        connection.close(0_u32.into(), b"done");
    }
    endpoint.close().await;
    Ok(())
}

async fn direct(
    endpoint: &Endpoint,
    address: EndpointAddr,
    started: Instant,
) -> anyhow::Result<Connection> {
    let connection = endpoint.connect(address, ALPN).await.map_err(whole)?;
    let tell_path = |kind: &str| {
        tell(&json!({"event": "connected", "t_ms": t_ms(started), "path": {"kind": kind}}));
    };
    tell_path("relayed");
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut paths = connection.paths_stream();
    loop {
        let paths = paths.next().await.context("the connection was closed")?;
        if paths.iter().any(|path| path.is_selected() && path.is_ip()) {
            break;
        }
    }
    drop(paths);
    tell_path("direct");
    // What is sent now takes the selected path; so does the answer, once the other side has seen it.
    send.write_all(&[1]).await?;
    receive.read_exact(&mut [0; 1]).await?;
    tell(&json!({"event": "direct", "t_ms": t_ms(started)}));
    Ok(connection)
}

fn t_ms(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e4).round() / 10.0
}
