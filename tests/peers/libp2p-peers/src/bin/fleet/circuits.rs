//! Pairs of peers with a circuit each, over all of which data moves both ways at the same time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, Stream, StreamProtocol, Swarm, identity::Keypair, swarm::dial_opts::DialOpts,
};
use libp2p_peers::{Behaviour, Role, circuit, connected, id, meet, peer, reserve, reserved, tell};
use serde_json::json;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    data::{self, Pattern, Received},
    pace::Pace,
    tally::Tally,
};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/fleet/data/1");
/// For one pair to get its circuit: reservation, circuit, a byte each way.
const OPENING: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The relay, with its peer id at the end.
    #[arg(long)]
    relay: Multiaddr,
    /// How many circuits, each between two peers of its own.
    #[arg(long, default_value_t = 1)]
    pairs: usize,
    /// How long data moves, in seconds, from the moment at which all circuits are open.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[command(flatten)]
    pace: Pace,
}

struct Moved {
    there: Received,
    back: Received,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    id(&args.relay)?;
    let tally = Tally::start(&["pairs", "open"], 0);
    tally.add("pairs", i64::try_from(args.pairs)?);
    // When data stops moving; `None` until all are open.
    let (begin, begun) = watch::channel(None);
    let mut starter = args.pace.start();
    let mut circuits = JoinSet::new();
    let mut opened = Vec::new();
    for number in 0..args.pairs {
        let Some(place) = starter.next().await else {
            break;
        };
        let (relay, begun) = (args.relay.clone(), begun.clone());
        let (open, is_open) = oneshot::channel();
        opened.push(is_open);
        let tally = tally.clone();
        circuits.spawn(async move {
            let circuit = tokio::time::timeout(OPENING, Circuit::open(&relay)).await;
            drop(place);
            let circuit = match circuit {
                Ok(circuit) => circuit?,
                Err(_) => anyhow::bail!("no circuit within {OPENING:?}"),
            };
            tally.add("open", 1);
            // Nobody waits for it any more only when the process ends.
            let _ended = open.send(());
            circuit.carry(number, begun).await
        });
    }
    // A circuit that failed drops its sender, which is an answer as well.
    let open = futures::future::join_all(opened).await;
    let open = open.iter().filter(|open| open.is_ok()).count();
    tell(&json!({"event": "opened", "pairs": args.pairs, "open": open}));
    begin.send(Some(Instant::now() + Duration::from_secs(args.seconds)))?;

    let mut moved = Vec::new();
    while let Some(circuit) = circuits.join_next().await {
        match circuit? {
            Ok(circuit) => {
                tell(&json!({
                    "event": "circuit",
                    "there": circuit.there.all,
                    "back": circuit.back.all,
                    "there_in_time": circuit.there.in_time,
                    "back_in_time": circuit.back.in_time,
                }));
                moved.push(circuit);
            }
            Err(error) => tally.because("errors", &format!("{error:#}")),
        }
    }
    tally.tell();
    report(&args, open, &moved, tally.sum("errors"));
    Ok(())
}

/// The direction of each circuit that got less is the one that tells of starvation.
fn report(args: &Args, open: usize, moved: &[Moved], failed: u64) {
    let mut least: Vec<u64> = moved
        .iter()
        .map(|circuit| circuit.there.in_time.min(circuit.back.in_time))
        .collect();
    least.sort_unstable();
    let all: u64 = moved
        .iter()
        .map(|circuit| circuit.there.all + circuit.back.all)
        .sum();
    tell(&json!({
        "event": "moved",
        "pairs": args.pairs,
        "open": open,
        "complete": moved.len(),
        "failed": failed,
        "seconds": args.seconds,
        "bytes": all,
        // Bytes in time of the slower direction of a circuit.
        "least": least.first(),
        "median": least.get(least.len() / 2),
        "most": least.last(),
    }));
}

struct Circuit {
    here: Stream,
    there: Stream,
    /// Both peers go on as long as this does.
    _peers: JoinSet<()>,
}

impl Circuit {
    async fn open(relay: &Multiaddr) -> Result<Self> {
        let mut peers = JoinSet::new();
        let mut called = peer(Keypair::generate_ed25519(), Role::Client)?;
        let called_id = *called.local_peer_id();
        let mut incoming = called.behaviour().stream.new_control().accept(PROTOCOL)?;
        meet(&mut called, relay, |_| ())
            .await
            .context("called peer")?;
        reserve(&mut called, relay)?;
        reserved(&mut called).await?;
        peers.spawn(drive(called));

        let mut caller = peer(Keypair::generate_ed25519(), Role::Client)?;
        let mut control = caller.behaviour().stream.new_control();
        meet(&mut caller, relay, |_| ())
            .await
            .context("calling peer")?;
        let dial = DialOpts::peer_id(called_id).addresses(vec![circuit(relay, called_id)]);
        caller.dial(dial.build())?;
        connected(&mut caller, called_id).await?;
        peers.spawn(drive(caller));

        let mut here = control.open_stream(called_id, PROTOCOL).await?;
        here.write_all(b"!").await?;
        here.flush().await?;
        let (_, mut there) = incoming.next().await.context("no stream came")?;
        let mut byte = [0];
        there.read_exact(&mut byte).await?;
        there.write_all(&byte).await?;
        there.flush().await?;
        here.read_exact(&mut byte).await?;
        Ok(Self {
            here,
            there,
            _peers: peers,
        })
    }

    async fn carry(
        self,
        number: usize,
        mut begun: watch::Receiver<Option<Instant>>,
    ) -> Result<Moved> {
        let until = *begun.wait_for(Option::is_some).await?;
        let until = until.context("an end")?;
        let (there_pattern, back_pattern) =
            (Pattern::new(2 * number), Pattern::new(2 * number + 1));
        let (mut here_read, mut here_write) = self.here.split();
        let (mut there_read, mut there_write) = self.there.split();
        let (sent_there, sent_back, there, back) = tokio::try_join!(
            data::write(&mut here_write, &there_pattern, until),
            data::write(&mut there_write, &back_pattern, until),
            data::read(&mut there_read, &there_pattern, until),
            data::read(&mut here_read, &back_pattern, until),
        )?;
        ensure!(
            sent_there == there.all && sent_back == back.all,
            "{sent_there} and {sent_back} bytes were sent, {} and {} came",
            there.all,
            back.all
        );
        Ok(Moved { there, back })
    }
}

async fn drive(mut swarm: Swarm<Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}
