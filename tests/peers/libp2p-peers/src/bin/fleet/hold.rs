//! Peers that hold a reservation each, or a connection each.

use anyhow::Result;
use clap::ValueEnum;
use futures::StreamExt as _;
use libp2p::{Multiaddr, identity::Keypair, relay, swarm::SwarmEvent};
use libp2p_peers::{BehaviourEvent, Role, chain, id, meet, peer, reserve};
use tokio::sync::OwnedSemaphorePermit;

use crate::{pace::Pace, tally::Tally};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The relay, with its peer id at the end.
    #[arg(long)]
    relay: Multiaddr,
    /// How many peers.
    #[arg(long, default_value_t = 1)]
    peers: usize,
    /// What each asks the relay for.
    #[arg(long, default_value = "reservation")]
    ask: Ask,
    /// All have one identity.
    #[arg(long)]
    one_identity: bool,
    /// Whoever gets nothing, or loses it, comes again as somebody else.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ask {
    /// A reservation.
    Reservation,
    /// Nothing but to be connected.
    Nothing,
}

const NAMES: [&str; 6] = ["peers", "connected", "held", "granted", "renewed", "lost"];

pub(crate) async fn run(args: Args) -> Result<()> {
    id(&args.relay)?;
    let tally = Tally::start(&NAMES, args.peers);
    let mut starter = args.pace.start();
    let key = args.one_identity.then(Keypair::generate_ed25519);
    let (vacant, mut vacancies) = tokio::sync::mpsc::channel(args.peers.max(1));
    for number in 0..args.peers {
        vacant.send(number).await?;
    }
    tally.add("peers", i64::try_from(args.peers)?);
    while let (Some(number), Some(place)) = (vacancies.recv().await, starter.next().await) {
        let (key, tally, args, vacant) = (
            key.clone().unwrap_or_else(Keypair::generate_ed25519),
            tally.clone(),
            args.clone(),
            vacant.clone(),
        );
        tokio::spawn(async move {
            if let Err(error) = hold(number, key, &args, &tally, place).await {
                tally.because("errors", &format!("{error:#}"));
            }
            if args.again {
                // It fails only when the process ends.
                let _ended = vacant.send(number).await;
            }
        });
    }
    Ok(())
}

/// Returns when the peer has nothing more to hope for.
async fn hold(
    number: usize,
    key: Keypair,
    args: &Args,
    tally: &Tally,
    place: OwnedSemaphorePermit,
) -> Result<()> {
    let relay = id(&args.relay)?;
    let mut swarm = peer(key, Role::Client)?;
    meet(&mut swarm, &args.relay, |_| ()).await?;
    tally.add("connected", 1);
    if args.ask == Ask::Reservation {
        reserve(&mut swarm, &args.relay)?;
    }
    let mut place = (args.ask == Ask::Reservation).then_some(place);
    let mut renewals = None;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Client(
                relay::client::Event::ReservationReqAccepted { renewal, .. },
            )) => {
                place = None;
                if renewal {
                    tally.add("renewed", 1);
                    renewals = renewals.map(|renewals| renewals + 1);
                } else {
                    tally.add("held", 1);
                    tally.add("granted", 1);
                    renewals = Some(0);
                }
                tally.renewals(number, renewals);
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                let reason = reason
                    .err()
                    .map_or_else(|| "closed".to_owned(), |error| chain(&error));
                if renewals.is_some() {
                    tally.add("held", -1);
                    tally.add("lost", 1);
                    tally.because("lost_because", &reason);
                    tally.renewals(number, None);
                } else {
                    tally.because("refused", &reason);
                }
                renewals = None;
                place = None;
                if args.again {
                    tally.add("connected", -1);
                    return Ok(());
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                cause,
                num_established: 0,
                ..
            } if peer_id == relay => {
                tally.add("connected", -1);
                let cause = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                tally.because("disconnected", &cause);
                if renewals.is_some() {
                    tally.add("held", -1);
                    tally.add("lost", 1);
                    tally.because("lost_because", "disconnected");
                    tally.renewals(number, None);
                }
                drop(place);
                return Ok(());
            }
            _ => {}
        }
    }
}
