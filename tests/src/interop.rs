//! Our node with unmodified libp2p at the far side: who gets direct, and who cannot.

use anyhow::{Context as _, Result, ensure};

use crate::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    events::{Event, result},
    lab::Lab,
    matrix::SLOTS,
    nat::NatKind,
    node::Process,
    peer::Peer,
    plain::{IP4, PlainArgs},
    relay::Relay,
    verify::became_direct,
};

/// The port of the plain peer. One of our range: the lab's rewriting NATs rewrite those.
const PLAIN_PORT: u16 = 40025;

/// How long the plain peer waits for a direct connection: its three attempts, of 5 s each, and some.
const PLAIN_TIMEOUT_S: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialer {
    Ours,
    Plain,
}

/// Runs a pair in a lab of its own and asserts that it ends `direct` or `relayed`, that both sides say so, and that our node keeps to
/// its range.
pub async fn run(
    ours: NatKind,
    plain: NatKind,
    transport: Transport,
    dialer: Dialer,
    expected: &str,
) -> Result<()> {
    let _slot = SLOTS.acquire().await?;
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let ours = Peer::new(&lab, "ours", ours).await?;
    let plain = Peer::new(&lab, "plain", plain).await?;
    let our_args = NodeArgs::new(&relay, &ours.host, &[transport]);
    let plain_args = PlainArgs {
        relay: relay.address(&plain.host, transport)?,
        transport,
        port: PLAIN_PORT,
        families: IP4,
    };
    let outcome = match dialer {
        Dialer::Ours => {
            let listener = plain_args.listen("plain")?.on(&plain.host)?;
            let peer = reserved(&listener).await?;
            let dial = our_args.dial("ours", &peer)?.args(["--count", "2"]);
            let mut dial = dial.on(&ours.host)?;
            let outcome = outcome(&mut dial, &peer).await?;
            // The pings of a result are on its final path.
            let events = dial.events();
            let mut pings = events.iter().filter(|event| event.name() == "ping");
            ensure!(
                pings.all(|ping| ping.text("/kind") == outcome),
                "{events:?}"
            );
            outcome
        }
        Dialer::Plain => {
            let listener = our_args
                .run_on(&ours.host, "ours")?
                .reserves(&ours.host)
                .await?;
            let dial = plain_args.dial("plain", Some(&listener.id), PLAIN_TIMEOUT_S)?;
            let mut dial = dial.on(&plain.host)?;
            let outcome = outcome(&mut dial, &listener.id).await?;
            let started = dial.event("started", PATIENCE).await?;
            let plain = started.text("/peer_id");
            if outcome == "direct" {
                // Both say so, each in its own time.
                became_direct(&listener.process, plain).await?;
            } else {
                let events = listener.process.events();
                let direct = events.iter().any(|event| event.connects(plain, "direct"));
                ensure!(
                    !direct,
                    "the plain peer says {outcome}, and our node direct"
                );
            }
            outcome
        }
    };
    ensure!(outcome == expected, "it ended {outcome}, not {expected}");
    ours.keeps_range().await
}

/// What the dialer says of the peer. It was relayed first: only then it is a punch that is tested.
async fn outcome(dial: &mut Process, peer: &str) -> Result<String> {
    dial.exit(PATIENCE * 2).await?;
    let events = dial.events();
    let to_peer = |event: &&Event| event.name() == "connected" && event.text("/peer") == peer;
    let first = events
        .iter()
        .find(to_peer)
        .context("nothing was connected")?;
    ensure!(first.path_kind() == "relayed", "first: {}", first.line);
    Ok(result(&events)?.text("/outcome").to_owned())
}
