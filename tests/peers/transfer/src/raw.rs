//! QUIC without libp2p: quinn, tuned as for bulk transfers.
//!
//! The receiver has a certificate of its own, and its address carries it, so the sender knows whom to believe.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::{
    Opened, STREAMS,
    data::{Wire, announce, serve},
    from_hex, no_connection, tell,
};

const NAME: &str = "transfer";

/// What may be on its way: 2.5 Gbit/s at 100 ms.
const WINDOW: u32 = 32 << 20;

/// Of a socket, each way; the kernel may allow less.
const SOCKET_BUFFER: usize = 8 << 20;

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .keep_alive_interval(Some(Duration::from_secs(4)));
    Arc::new(config)
}

fn endpoint(at: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&at.into()).with_context(|| at.to_string())?;
    let config = EndpointConfig::default();
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(
        config,
        server,
        UdpSocket::from(socket),
        runtime,
    )?)
}

pub async fn receive(listen: SocketAddr, unread: bool) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.key_pair.serialize_der());
    let certificate = made.cert.der().clone();
    let hex: String = certificate
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut server = ServerConfig::with_single_cert(vec![certificate], key.into())?;
    server.transport_config(transport());
    let endpoint = endpoint(listen, Some(server))?;
    let address = format!("{}/{hex}", endpoint.local_addr()?);
    tell(&json!({"event": "listening", "address": address}));
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Err(error) = accept(incoming, unread).await {
                eprintln!("a connection: {error:#}");
            }
        });
    }
    bail!("the endpoint has ended")
}

fn both(send: SendStream, receive: RecvStream) -> Wire {
    Box::new(tokio::io::join(receive, send).compat())
}

async fn accept(incoming: quinn::Incoming, unread: bool) -> Result<()> {
    let connection = incoming.await?;
    while let Ok((send, receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            if let Err(error) = serve(both(send, receive), unread).await {
                eprintln!("a stream: {error:#}");
            }
        });
    }
    Ok(())
}

pub async fn open(address: &str, parts: &[u64]) -> Result<Opened> {
    let client = Client::new(address)?;
    let connection = client.connect().await?;
    let mut opened = Vec::new();
    for bytes in parts {
        let (send, receive) = connection.open_bi().await?;
        let mut stream: Wire = both(send, receive);
        announce(&mut stream, *bytes).await?;
        opened.push((stream, *bytes));
    }
    Ok(Opened {
        streams: opened,
        _connection: Box::new((client, connection)),
    })
}

struct Client {
    endpoint: Endpoint,
    remote: SocketAddr,
}

impl Client {
    fn new(address: &str) -> Result<Self> {
        let (remote, certificate) = address
            .split_once('/')
            .with_context(|| format!("{address}: no certificate; give what the receiver prints"))?;
        let remote: SocketAddr = remote.parse().with_context(|| remote.to_owned())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(from_hex(certificate)?))?;
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        client.transport_config(transport());
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut endpoint = endpoint(SocketAddr::new(any, 0), None)?;
        endpoint.set_default_client_config(client);
        Ok(Self { endpoint, remote })
    }

    async fn connect(&self) -> Result<Connection> {
        let connecting = self.endpoint.connect(self.remote, NAME)?;
        connecting
            .await
            .with_context(|| no_connection(&self.remote.to_string()))
    }
}
