//! Peers with libp2p's own transports.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{AS_LISTENER, Accepted, LONG, NEW, Node, ORDINARY, config, node, noise_only, speak};
use libp2p::{
    Transport as _,
    core::{muxing::StreamMuxerBox, transport::DialOpts, upgrade::Version},
    identity::Keypair,
    multiaddr::Multiaddr,
    tcp, tls, yamux,
};
use p2pnode_transports::{Family, Remote, Transport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

fn tls_only() -> Node {
    let keypair = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::new(tcp::Config::new())
        .upgrade(Version::V1)
        .authenticate(tls::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    Node::run(&keypair, transport)
}

/// What a peer without TLS accepts first of one that hopes for TLS: nothing. And then a connection.
async fn accept_after_refusal(foreign: &mut Node) -> Accepted {
    let first = tokio::time::timeout(LONG, foreign.accepted.recv()).await;
    assert!(first.unwrap().unwrap().is_err());
    foreign.accept().await
}

/// One dial, accepted at the first try, and something said over it.
async fn connect(
    from: &Node,
    to: &mut Node,
    addr: &Multiaddr,
    opts: DialOpts,
) -> [StreamMuxerBox; 2] {
    let (peer, mut dialed) = from.dial(addr, opts).await.unwrap();
    assert_eq!(peer, to.peer);
    let mut accepted = to.accept().await.muxer;
    speak(&mut dialed, &mut accepted).await;
    [dialed, accepted]
}

/// Likewise, to where `to` listens from now on.
async fn connect_anew(from: &Node, to: &mut Node, opts: DialOpts) -> [StreamMuxerBox; 2] {
    let addr = to.listen("/ip4/127.0.0.1/tcp/0").await;
    connect(from, to, &addr, opts).await
}

#[tokio::test]
async fn a_peer_without_tls_is_dialed_and_accepted_with_noise() {
    // With one port: the connection that was refused must not keep it, nor another be taken.
    let (mut ours, handle) = node(config("24000"));
    let mut foreign = noise_only();
    let addr = foreign.listen("/ip4/127.0.0.1/tcp/0").await;
    let (peer, mut dialed) = ours.dial(&addr, ORDINARY).await.unwrap();
    assert_eq!(peer, foreign.peer);
    let mut accepted = accept_after_refusal(&mut foreign).await;
    assert_eq!(accepted.from.port(), 24000);
    let punch_port = handle.punch_ports()[&(Transport::Tcp, Family::Ip4)];
    assert_eq!(handle.sockets(&addr).unwrap().local.port(), punch_port);
    assert!(!handle.kin().contains(&peer));
    speak(&mut dialed, &mut accepted.muxer).await;

    connect_anew(&foreign, &mut ours, ORDINARY).await;
}

#[tokio::test]
async fn a_peer_that_refused_tls_once_is_asked_the_next_time() {
    let (ours, _) = node(config("24010-24019"));
    let mut foreign = noise_only();
    let addr = foreign.listen("/ip4/127.0.0.1/tcp/0").await;
    let (_, _first) = ours.dial(&addr, ORDINARY).await.unwrap();
    accept_after_refusal(&mut foreign).await;
    // Without a refusal before it.
    connect(&ours, &mut foreign, &addr, NEW).await;
}

#[tokio::test]
async fn libp2ps_own_tls_is_dialed_with_one_connection_and_accepted() {
    let (mut ours, _) = node(config("24020-24029"));
    let mut foreign = tls_only();
    let [mut dialed, mut accepted] = connect_anew(&ours, &mut foreign, ORDINARY).await;
    speak(&mut accepted, &mut dialed).await;

    connect_anew(&foreign, &mut ours, ORDINARY).await;
}

#[tokio::test]
async fn a_punch_of_a_remote_of_which_nothing_is_known_is_one_connection_whatever_it_takes() {
    for (mut foreign, range) in [(noise_only(), "24030-24034"), (tls_only(), "24035-24039")] {
        let (ours, handle) = node(config(range));
        let addr = foreign.listen("/ip4/127.0.0.1/tcp/0").await;
        let guard = handle.expect_punch(std::slice::from_ref(&addr), Remote::Unknown);
        connect(&ours, &mut foreign, &addr, ORDINARY).await;
        drop(guard);

        // Nor is there a second one where a silent remote has it take the role of the dialer.
        connect_anew(&ours, &mut foreign, AS_LISTENER).await;
    }
}

/// The words of multistream-select.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
const TLS: &[u8] = b"\x0b/tls/1.0.0\n";
const NOISE: &[u8] = b"\x07/noise\n";
const NA: &[u8] = b"\x03na\n";

async fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    let hearing = stream.read_exact(&mut heard);
    tokio::time::timeout(LONG, hearing).await.unwrap().unwrap();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn tls_begins_before_the_remote_has_said_a_word_but_not_where_that_has_failed() {
    // A reset of a reused port's handshake is tried again from another port, which is another test's matter.
    let (ours, _) = node(config("24060-24069"));
    let addr = "/ip4/127.0.0.1/tcp/24079".parse().unwrap();
    // That nobody is there says nothing about who will be.
    ours.dial(&addr, NEW).await.map(drop).unwrap_err();
    let listener = TcpListener::bind("127.0.0.1:24079").await.unwrap();
    let remote = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hears(&mut stream, &[HEADER, TLS].concat()).await;
        // A record of the handshake, of TLS 1.0 as far as the outside goes.
        hears(&mut stream, &[0x16, 3, 1]).await;
    };
    let (dialed, ()) = tokio::join!(ours.dial(&addr, NEW), remote);
    // It closes without a word, which is no refusal.
    dialed.map(drop).unwrap_err();

    let remote = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hears(&mut stream, &[HEADER, TLS].concat()).await;
        stream.write_all(&[HEADER, NA].concat()).await.unwrap();
        // The next words are another offer.
        hears(&mut stream, NOISE).await;
    };
    let (dialed, ()) = tokio::join!(ours.dial(&addr, NEW), remote);
    dialed.map(drop).unwrap_err();
}
