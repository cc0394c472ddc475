//! TLS 1.3 of libp2p ([spec](https://github.com/libp2p/specs/blob/master/tls/tls.md)), the same for QUIC and TCP.
//!
//! The certificates and what is checked in them are libp2p-tls's. The order of ciphers is ours. libp2p-tls puts ChaCha20 first,
//! which takes several times the CPU of AES-GCM on processors with instructions for AES (`docs/notes.md`).

use std::{error::Error as StdError, sync::Arc};

use futures::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::{
    PeerId,
    identity::Keypair,
    tls::certificate::{self, P2pCertificate},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self,
            cipher_suite::{
                TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
        },
    },
    pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::net::{
    error::{Error, chain},
    kin::{self, Kin},
};

/// The protocol that every peer names (ALPN).
const LIBP2P: &[u8] = b"libp2p";

/// Both sides of a handshake, with one certificate.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    /// The same with X25519 alone: its first flight fits into one datagram, that of a hybrid key exchange takes two.
    pub(crate) short_client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) kin: Kin,
}

impl Tls {
    /// # Errors
    ///
    /// [`Error::Certificate`].
    pub(crate) fn new(keypair: &Keypair, kin: Kin) -> Result<Self, Error> {
        let failed = |error: &(dyn StdError + 'static)| Error::Certificate(chain(error));
        let provider = Arc::new(CryptoProvider {
            cipher_suites: ciphers(has_aes()).to_vec(),
            ..aws_lc_rs::default_provider()
        });
        let (certificate, key) = certificate::generate(keypair).map_err(|e| failed(&e))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|e| failed(&e))?;
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            vec![certificate],
            key,
        )));

        let client = |provider: Arc<CryptoProvider>| {
            let mut client = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .map_err(|e| failed(&e))?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Verifier))
                .with_client_cert_resolver(certified.clone());
            // Others may look at the first alone.
            client.alpn_protocols = vec![LIBP2P.to_vec(), kin::PROTOCOL.to_vec()];
            // Sessions are kept by server name, and all peers have the same: what is kept of one would be offered to another.
            client.resumption = Resumption::disabled();
            Ok::<_, Error>(Arc::new(client))
        };
        let short = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..provider.as_ref().clone()
        };
        let (client, short_client) = (client(provider.clone())?, client(Arc::new(short))?);

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| failed(&e))?
            .with_client_cert_verifier(Arc::new(Verifier))
            .with_cert_resolver(certified.clone());
        // The listener's order counts.
        server.alpn_protocols = vec![kin::PROTOCOL.to_vec(), LIBP2P.to_vec()];
        // libp2p's own peers put ChaCha20 first whatever their processor has, so their order says nothing.
        server.ignore_client_order = has_aes();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        Ok(Self {
            client,
            short_client,
            server: Arc::new(server),
            kin,
        })
    }

    /// Who is at the other end of a stream that somebody else opened.
    ///
    /// # Errors
    ///
    /// What the handshake failed with, boxed into an [`std::io::Error`].
    pub(crate) async fn accept<S>(&self, stream: S) -> std::io::Result<(PeerId, TlsStream<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.server.clone())
            .accept(stream)
            .await?;
        self.authenticated(stream.into())
    }

    /// As [`accept`](Self::accept), of a stream that we opened. `failed` hears of an error of the handshake while the stream is
    /// still there.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        failed: impl FnOnce(&std::io::Error),
    ) -> std::io::Result<(PeerId, TlsStream<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The specification forbids a server name; rustls sends none for an IP address.
        let unnamed = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let stream = TlsConnector::from(self.client.clone())
            .connect(unnamed, stream)
            .into_fallible()
            .await
            .map_err(|(error, stream)| {
                failed(&error);
                drop(stream);
                error
            })?;
        self.authenticated(stream.into())
    }

    fn authenticated<S>(&self, stream: TlsStream<S>) -> std::io::Result<(PeerId, TlsStream<S>)> {
        let (_, tls) = stream.get_ref();
        let peer = peer(tls.peer_certificates()).map_err(std::io::Error::other)?;
        self.kin.shook_hands(peer, tls.alpn_protocol());
        Ok((peer, stream))
    }
}

/// Whom the certificates of a handshake that is over belong to.
///
/// # Errors
///
/// Never after a handshake with the configurations above, which accept one certificate that can be parsed.
pub(crate) fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Result<PeerId, rustls::Error> {
    match certificates {
        Some([certificate]) => Ok(parse(certificate)?.peer_id()),
        Some(_) | None => Err(not_one()),
    }
}

/// Best first.
const fn ciphers(aes: bool) -> [SupportedCipherSuite; 3] {
    if aes {
        [
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ]
    } else {
        [
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
        ]
    }
}

/// Whether this processor has instructions for AES-GCM.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

/// What the specification wants of a certificate: one, valid now, signed by its own key, with the extension in which the peer's
/// identity signs that key. Whether it is the wanted peer is decided by the dialer.
#[derive(Debug)]
struct Verifier;

/// The signatures that libp2p-tls can verify, preferred first.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// What both roles verify alike.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(tls12())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            SCHEMES.to_vec()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

fn verify(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), rustls::Error> {
    if !intermediates.is_empty() {
        return Err(not_one());
    }
    parse(end_entity).map(drop)
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    parse(certificate)?
        .verify_signature(signature.scheme, message, signature.signature())
        .map_err(|error| invalid(CertificateError::Other(OtherError(Arc::new(error)))))?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Also checks all that the specification wants of a certificate.
fn parse<'a>(certificate: &'a CertificateDer<'a>) -> Result<P2pCertificate<'a>, rustls::Error> {
    certificate::parse(certificate).map_err(|error| {
        // libp2p-tls keeps the type of the cause to itself.
        if format!("{error:?}").contains("InvalidCertValidity") {
            // Its alert names the clock to the peer as well. Which end of the time is passed makes no difference.
            return invalid(CertificateError::Expired);
        }
        invalid(CertificateError::Other(OtherError(Arc::new(error))))
    })
}

fn invalid(error: CertificateError) -> rustls::Error {
    rustls::Error::InvalidCertificate(error)
}

fn not_one() -> rustls::Error {
    rustls::Error::General("libp2p wants exactly one certificate".into())
}

fn tls12() -> rustls::Error {
    rustls::Error::General("libp2p has no TLS below 1.3".into())
}

#[cfg(test)]
mod tests;
