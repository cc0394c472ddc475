//! Relays that are none.

use std::sync::Arc;

use anyhow::Result;
use futures::StreamExt as _;
use libp2p::{identity::Keypair, relay, swarm::SwarmEvent};
use libp2p_peers::{Role, peer, tell};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::{Args, Tally, What, forever, raw::socket};

/// A relay of libp2p's that grants nothing, or that closes each connection once it is there.
pub(super) async fn polite(args: Arc<Args>, tally: Tally) -> Result<()> {
    let config = relay::Config {
        max_reservations: 0,
        ..relay::Config::default()
    };
    let mut swarm = peer(Keypair::generate_ed25519(), Role::Relay(config))?;
    for address in &args.at {
        swarm.listen_on(address.clone())?;
        swarm.add_external_address(address.clone());
    }
    tell(&json!({"event": "started", "peer_id": swarm.local_peer_id().to_string()}));
    loop {
        let event = swarm.select_next_some().await;
        if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
            tally.add("accepted", 1);
            if args.what == What::CloseRelay {
                swarm.close_connection(connection_id);
            }
        }
    }
}

/// Sockets that are silent, or whose answers mean nothing.
pub(super) async fn rude(args: Arc<Args>, tally: Tally) -> Result<()> {
    let key = Keypair::generate_ed25519();
    tell(&json!({"event": "started", "peer_id": key.public().to_peer_id().to_string()}));
    let garbage = args.what == What::GarbageRelay;
    for address in &args.at {
        let (local, tally) = (socket(address)?, tally.clone());
        if address.to_string().contains("/udp/") {
            let bound = UdpSocket::bind(local).await?;
            tokio::spawn(async move {
                let mut packet = [0; 2048];
                while let Ok((_, from)) = bound.recv_from(&mut packet).await {
                    tally.add("packets", 1);
                    if garbage {
                        let answer: Vec<u8> = (0..64).map(|_| fastrand::u8(..)).collect();
                        let _lost = bound.send_to(&answer, from).await;
                    }
                }
            });
        } else {
            let listener = TcpListener::bind(local).await?;
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tally.add("accepted", 1);
                    tokio::spawn(async move {
                        if garbage {
                            let answer: Vec<u8> = (0..512).map(|_| fastrand::u8(..)).collect();
                            let _gone = stream.write_all(&answer).await;
                        }
                        let mut buffer = [0; 256];
                        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                    });
                }
            });
        }
    }
    forever().await
}
