#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use libp2p::{
    core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _},
    tcp::tokio::TcpStream,
    tls,
};
use rustls::CipherSuite;

use super::*;

#[test]
fn both_orders_hold_every_cipher_and_only_aes_instructions_put_aes_first() {
    let suites = |aes| ciphers(aes).map(|cipher| cipher.suite());
    assert_eq!(suites(true)[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(
        suites(false)[0],
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    );
    let sorted = |aes| {
        let mut suites = suites(aes).map(u16::from);
        suites.sort_unstable();
        suites
    };
    assert_eq!(sorted(true), sorted(false));
}

#[test]
fn a_certificate_that_is_none_and_one_too_many_are_refused() {
    let (certificate, _) = certificate::generate(&Keypair::generate_ed25519()).unwrap();
    assert!(verify(&certificate, &[]).is_ok());
    assert!(verify(&certificate, std::slice::from_ref(&certificate)).is_err());
    let mut broken = certificate.to_vec();
    // The last byte is of the signature.
    *broken.last_mut().unwrap() ^= 1;
    assert!(verify(&CertificateDer::from(broken), &[]).is_err());
    assert!(verify(&CertificateDer::from(vec![0; 100]), &[]).is_err());
    assert!(peer(None).is_err());
    assert!(peer(Some(&[])).is_err());
}

/// The two ends of a TCP connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (dialed, accepted) = tokio::join!(tokio::net::TcpStream::connect(addr), listener.accept());
    (TcpStream(dialed.unwrap()), TcpStream(accepted.unwrap().0))
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is_and_agree_on_our_first_cipher() {
    let keys = [(); 2].map(|()| Keypair::generate_ed25519());
    let [client, server] = keys
        .clone()
        .map(|key| Tls::new(&key, Kin::default()).unwrap());
    let (dialed, accepted) = connection().await;
    let (from, to) = tokio::join!(client.connect(dialed, |_| ()), server.accept(accepted));
    let ((found, stream), (accepted, _)) = (from.unwrap(), to.unwrap());
    assert_eq!(found, keys[1].public().to_peer_id());
    assert_eq!(accepted, keys[0].public().to_peer_id());
    let cipher = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    assert_eq!(cipher.suite(), ciphers(has_aes())[0].suite());
    assert!(client.kin.contains(&found) && server.kin.contains(&accepted));
}

#[tokio::test]
async fn libp2ps_own_is_understood_whoever_dials() {
    let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let ours = Tls::new(&key, Kin::default()).unwrap();
    let theirs = tls::Config::new(&other).unwrap();

    let (dialed, accepted) = connection().await;
    let accepting = theirs.clone().upgrade_inbound(accepted, "/tls/1.0.0");
    let (from, to) = tokio::join!(ours.connect(dialed, |_| ()), accepting);
    assert_eq!(from.unwrap().0, other.public().to_peer_id());
    assert_eq!(to.unwrap().0, key.public().to_peer_id());

    let (dialed, accepted) = connection().await;
    let dialing = theirs.upgrade_outbound(dialed, "/tls/1.0.0");
    let (from, to) = tokio::join!(dialing, ours.accept(accepted));
    assert_eq!(from.unwrap().0, key.public().to_peer_id());
    assert_eq!(to.unwrap().0, other.public().to_peer_id());
    assert!(!ours.kin.contains(&other.public().to_peer_id()));
}
