//! `iroh-peer relay`.

use std::net::SocketAddr;

use iroh_relay::{
    defaults::DEFAULT_RELAY_QUIC_PORT,
    server::{RelayConfig, Server, ServerConfig, testing},
};
use serde_json::json;

use crate::{endpoint::whole, tell};

pub(crate) async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let mut quic = testing::quic_config();
    quic.bind_addr = SocketAddr::new(listen.ip(), DEFAULT_RELAY_QUIC_PORT);
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(listen));
    config.quic = Some(quic);
    let mut server = Server::spawn(config).await.map_err(whole)?;
    tell(&json!({
        "event": "listening",
        "http": server.http_addr().map(|address| address.to_string()),
        "quic": server.quic_addr().map(|address| address.to_string()),
    }));
    server.join().await?.map_err(whole)
}
