//! quinn's settings, and why they are what they are.

use std::{io, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use libp2p::identity::Keypair;
use quinn::{
    ClientConfig, EndpointConfig, MtuDiscoveryConfig, NoneTokenStore, Runtime, ServerConfig,
    TokioRuntime, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::{
        CryptoError, HmacKey,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
};
use quinn_proto::HashedConnectionIdGenerator;

use super::{
    congestion::Congestion,
    datagrams::{RECEIVE_BUFFER, SEND_BUFFER},
    failure::HANDSHAKE_TIMEOUT,
    tolerance::WatchedConfig,
};
use crate::{
    net::{
        budget::{Budgets, Class},
        datagrams::Datagrams,
        error::{Error, chain},
        kin::Kin,
    },
    tls::Tls,
};

/// The round trip time that is assumed until one was measured. A first packet without an answer is repeated after three times that.
/// RFC 9002 recommends 333 ms, with which one lost packet costs a second. Most paths are shorter than 100 ms; on longer ones this
/// costs a packet or two.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The same in a punch, whose first packet may be a moment too early for the remote's NAT. It is repeated after 30, 90, 210 and
/// 450 ms. On a long path that costs some packets, once for each punch.
const PUNCH_RTT: Duration = Duration::from_millis(10);

/// Only for peers without ping. Ping judges a path sooner, and knows whether this process ran in the meantime. quinn looks at its
/// timers before it reads, so a process that got no CPU for the idle timeout loses every connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the mappings of NATs for peers without ping. Many drop an idle mapping after 30 s; RFC 4787 requires 2 min.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// How many bytes a remote may send on one stream before they are read. All streams of a connection together have the bytes of a
/// [`Class`], at most 32 MiB: room for more than one stream, so a stream that nobody reads does not stop the others. A window is what
/// a stream carries in a round trip: 24 MiB are 2 Gbit/s at 100 ms.
const STREAM_WINDOW: u32 = 24 << 20;

/// How many bytes of a stranger's connection may be unread, less than the [`Class`] allows: what was granted cannot be taken back
/// when memory runs short. The first flights of a peer that gets another class fit.
pub(super) const FIRST_WINDOW: u32 = 64 << 10;

/// How many bytes of one connection are kept until the remote acknowledges them.
const SEND_WINDOW: u64 = 24 << 20;

/// The same for a stream to a relay and a connection from it. A circuit whose receiver does not read holds that much there, twice
/// each way. 4 MiB carry 335 Mbit/s at 100 ms.
const RELAY_STREAM_WINDOW: u32 = 4 << 20;
const RELAY_SEND_WINDOW: u64 = 4 << 20;

/// How long quinn waits before it looks for the path's packet size again, once it believes that the path has lost large packets. It
/// believes so after four losses without a large packet that arrives, which random loss brings about as well (`docs/notes.md`). A
/// probe shows within a round trip what the path takes, and costs no data. quinn's own pause is 60 s.
const SMALL_PACKETS: Duration = Duration::ZERO;

/// What every socket of a node has in common.
pub(crate) struct Settings {
    pub(super) client: ClientConfig,
    pub(super) punching: ClientConfig,
    /// For an address of which nobody vouches that the peer is there.
    pub(super) first_flight: ClientConfig,
    pub(super) server: ServerConfig,
    pub(super) endpoint: EndpointConfig,
    pub(super) runtime: QuicRuntime,
    pub(super) budgets: Budgets,
    pub(super) kin: Kin,
    /// Where the datagrams of connections go. `None`: there are none.
    pub(super) datagrams: Option<Datagrams>,
    /// How many bytes of a connection are kept until the remote acknowledges them, if the remote is no stranger.
    pub(super) send_window: u64,
    /// How many handshakes may be under way at a socket with remotes whose address is not validated. Beyond that a remote has to
    /// prove that it receives what is sent to its address. Such a Retry (RFC 9000, 8.1.2) costs no state here.
    pub(super) unproven: usize,
}

/// Makes the [`quinn::Runtime`] of each UDP socket that listens. See [`server`](crate::server).
pub type QuicRuntime = Arc<dyn Fn() -> io::Result<Arc<dyn Runtime>> + Send + Sync>;

/// quinn's own runtime for tokio: the best for a socket with few connections, and right for any.
#[must_use]
pub fn tokio_runtime() -> QuicRuntime {
    Arc::new(|| Ok(Arc::new(TokioRuntime)))
}

/// A node takes 128 handshakes at once, of which QUIC may have 96, over a socket of each family. Forged addresses must not take
/// these places.
const UNPROVEN: usize = 32;

/// A relay takes 1,024 by default, of which QUIC may have 768.
const RELAY_UNPROVEN: usize = 256;

/// How many first packets wait at a socket to be looked at. quinn refuses what comes beyond. The event loop looks at thousands a
/// second, so an honest dial behind more of them would time out.
const WAITING: usize = 4096;

/// What quinn keeps of the packets that follow a first one which waits: the rest of a first flight, of one remote and of all. quinn's
/// own limits are 10 and 100 MiB.
const WAITING_BYTES: u64 = 16 << 10;
const ALL_WAITING_BYTES: u64 = 4 << 20;

/// Whose sockets these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A node's: few connections, each with large windows.
    Node,
    /// A relay's: many connections, whose windows bound what a circuit holds there.
    Relay,
}

impl Settings {
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub(crate) fn new(
        keypair: &Keypair,
        tls: &Tls,
        congestion: Congestion,
        role: Role,
        runtime: QuicRuntime,
        budgets: Budgets,
        datagrams: Option<Datagrams>,
    ) -> Result<Arc<Self>, Error> {
        let unfit =
            |error: quinn::crypto::rustls::NoInitialCipherSuite| Error::Certificate(chain(&error));
        let client = |tls: &Arc<_>, rtt| {
            let crypto = QuicClientConfig::try_from(Arc::clone(tls)).map_err(unfit)?;
            let mut client = ClientConfig::new(Arc::new(crypto));
            client.transport_config(transport(congestion, rtt, role));
            client.token_store(Arc::new(NoneTokenStore));
            Ok::<_, Error>(client)
        };
        let crypto = Arc::new(QuicServerConfig::try_from(tls.server.clone()).map_err(unfit)?);
        let mut server = ServerConfig::with_crypto(crypto);
        server.transport_config(transport(congestion, INITIAL_RTT, role));
        server
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(ALL_WAITING_BYTES);
        // A swarm identifies a connection by the addresses that it began with.
        server.migration(false);
        server.retry_token_lifetime(HANDSHAKE_TIMEOUT);
        // Tokens for the next connection are kept by server name, as sessions are (`tls`).
        server.validation_token_config(ValidationTokenConfig::default().sent(0).clone());
        let mut endpoint = endpoint(keypair);
        endpoint.supported_versions(vec![VERSION_1]);
        Ok(Arc::new(Self {
            client: client(&tls.client, INITIAL_RTT)?,
            punching: client(&tls.client, PUNCH_RTT)?,
            first_flight: client(&tls.short_client, PUNCH_RTT)?,
            server,
            endpoint,
            runtime,
            budgets,
            kin: tls.kin.clone(),
            datagrams,
            send_window: match role {
                Role::Node => SEND_WINDOW,
                Role::Relay => RELAY_SEND_WINDOW,
            },
            unproven: match role {
                Role::Node => UNPROVEN,
                Role::Relay => RELAY_UNPROVEN,
            },
        }))
    }
}

const VERSION_1: u32 = 1;

/// Makes stateless resets work across restarts (RFC 9000, 10.3). A process that was killed and runs again resets the connections of
/// peers that still write to it, so they need not wait for a timeout. For that it derives from its identity alone which connection
/// IDs are its own, and the secret of its resets.
fn endpoint(keypair: &Keypair) -> EndpointConfig {
    let resets = keypair.derive_secret(b"p2pnode quic stateless resets");
    let ids = keypair.derive_secret(b"p2pnode quic connection ids");
    // A key that cannot derive, such as RSA: a new secret each time.
    let (Some(resets), Some([a, b, c, d, e, f, g, h, ..])) = (resets, ids) else {
        return EndpointConfig::default();
    };
    let mut endpoint = EndpointConfig::new(Arc::new(ResetKey(hmac::Key::new(
        hmac::HMAC_SHA256,
        &resets,
    ))));
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    endpoint
}

/// quinn has this for aws-lc or for ring, depending on the features that other crates of the build enable.
struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        hmac::HMAC_SHA256.digest_algorithm().output_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

fn transport(congestion: Congestion, initial_rtt: Duration, role: Role) -> Arc<TransportConfig> {
    let stream_window = match role {
        Role::Node => STREAM_WINDOW,
        Role::Relay => RELAY_STREAM_WINDOW,
    };
    // `connection` widens what the peer of the connection may have, once the peer is known.
    let stranger = Class::Stranger;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.black_hole_cooldown(SMALL_PACKETS);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(initial_rtt)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(stranger.streams()))
        .stream_receive_window(VarInt::from_u32(stream_window))
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .send_window(stranger.bytes().into())
        // In the handshake this is one parameter, which go-libp2p sends as well. A node sends datagrams only to a peer that has
        // accepted a flow, and no peer can make a relay keep any.
        .datagram_receive_buffer_size((role == Role::Node).then_some(RECEIVE_BUFFER))
        .datagram_send_buffer_size(SEND_BUFFER)
        // The spin bit shows observers on the path the round trip time.
        .allow_spin(false)
        .congestion_controller_factory(Arc::new(WatchedConfig(congestion)));
    Arc::new(transport)
}
