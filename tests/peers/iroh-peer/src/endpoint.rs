//! Endpoints, and the addresses that they are given by hand.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use anyhow::{Context as _, anyhow};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMap, RelayMode, RelayUrl, TransportAddr,
    endpoint::{BindOpts, Builder, QuicTransportConfig, presets},
    tls::CaTlsConfig,
};
use iroh_relay::{RelayConfig, RelayQuicConfig};

use crate::Path;

pub(crate) const ALPN: &[u8] = b"iroh-peer/1";

/// What a stream may have on its way. iroh's default of 1.25 MB is 100 Mbit/s at a round trip of 100 ms, which would be a limit
/// of the configuration and not of the program. With 32 MB it closes the connection when packets are lost in bursts ("too many
/// gaps in stream buffer": it bounds them at 1,024).
pub(crate) const WINDOW: u32 = 16 * 1024 * 1024;

pub(crate) async fn at_relay(relay: &RelayUrl, port: u16) -> anyhow::Result<Endpoint> {
    let v6 = BindOpts::default().set_is_required(false);
    let endpoint = builder()
        .relay_mode(RelayMode::Custom(map(relay)))
        .clear_ip_transports()
        .bind_addr((Ipv4Addr::UNSPECIFIED, port))?
        .bind_addr_with_opts((Ipv6Addr::UNSPECIFIED, port), v6)?;
    endpoint.bind().await.map_err(whole)
}

/// An endpoint for data: over the relay alone, or over UDP alone, there from that socket.
pub(crate) async fn for_data(path: &Path, listen: Option<SocketAddr>) -> anyhow::Result<Endpoint> {
    let windows = QuicTransportConfig::builder()
        .stream_receive_window(path.window.into())
        .send_window(2 * u64::from(path.window))
        .build();
    let builder = builder().transport_config(windows);
    let builder = match (&path.relay, listen) {
        (Some(relay), _) => builder
            .relay_mode(RelayMode::Custom(map(relay)))
            .clear_ip_transports(),
        (None, None) => builder.relay_mode(RelayMode::Disabled),
        (None, Some(socket)) => builder
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(socket)?,
    };
    builder.bind().await.map_err(whole)
}

fn builder() -> Builder {
    Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        // The relay tells public addresses over QUIC, with a certificate that it has made itself.
        .ca_tls_config(CaTlsConfig::insecure_skip_verify())
}

fn map(relay: &RelayUrl) -> RelayMap {
    let config = RelayConfig::new(relay.clone(), Some(RelayQuicConfig::default()));
    RelayMap::from(config)
}

/// iroh's errors say only their outermost part unless they are asked for more.
pub(crate) fn whole(error: impl fmt::Debug + fmt::Display) -> anyhow::Error {
    anyhow!("{error:#}")
}

/// An endpoint and where it is: `ID@IP:PORT`, repeated after commas, or `ID@URL` of its relay.
#[derive(Clone, Debug)]
pub(crate) struct Address(pub(crate) EndpointAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.0.id)?;
        let ips = self.0.ip_addrs().map(ToString::to_string);
        let relays = self.0.relay_urls().map(ToString::to_string);
        let places: Vec<_> = ips.chain(relays).collect();
        f.write_str(&places.join(","))
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, places) = text
            .split_once('@')
            .with_context(|| format!("{text:?} has no @: give ID@IP:PORT or ID@URL"))?;
        let id: EndpointId = id.parse().map_err(|error| anyhow!("{id:?}: {error}"))?;
        let place = |place: &str| -> anyhow::Result<TransportAddr> {
            if let Ok(ip) = place.parse::<SocketAddr>() {
                return Ok(TransportAddr::Ip(ip));
            }
            let relay = place.parse().map_err(|error| {
                anyhow!("{place:?} is neither IP:PORT nor a relay's URL: {error}")
            })?;
            Ok(TransportAddr::Relay(relay))
        };
        let places = places
            .split(',')
            .map(place)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self(EndpointAddr::from_parts(id, places)))
    }
}
