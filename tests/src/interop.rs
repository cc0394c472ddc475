//! Our node with unmodified libp2p at the far side: who gets direct, and who cannot.

use std::{fmt, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins, plain_libp2p},
    events::Event,
    lab::Lab,
    matrix::Expected,
    nat::NatKind,
    node::Process,
    pair::Peer,
    plain::{IP4, PlainArgs},
    relay::Relay,
    remains::became_direct,
};

/// The port of the plain peer. One of our range: the lab's rewriting NATs rewrite those.
const PLAIN_PORT: u16 = 40025;

/// How long the plain peer waits for a direct connection: its three attempts, of 5 s each, and some.
const PLAIN_TIMEOUT_S: u64 = 20;

/// Which of the two dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialer {
    /// `p2pnode dial` to the plain peer.
    Ours,
    /// The plain peer to `p2pnode run`.
    Plain,
}

/// A pair, a transport and a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Before our node.
    pub ours: NatKind,
    /// Before the plain peer.
    pub plain: NatKind,
    /// The only transport.
    pub transport: Transport,
    /// Who dials.
    pub dialer: Dialer,
}

impl Cell {
    /// What it must end as.
    ///
    /// A punch needs one of the two dials to get through. Plain libp2p advertises the port that it listens on in the place of
    /// the one that was observed (libp2p-identify 0.48, `emit_new_external_addr_candidate_event`), so behind a NAT that
    /// rewrites ports its address is wrong, and what we send there reaches nobody. Its own dial to our address still gets in
    /// where our NAT lets in whoever comes from an IP that we have sent to. Nothing on our side can do more: the right port
    /// is known only to the relay, and to the plain peer, which does not tell.
    pub fn expected(self) -> Expected {
        let ours_known = self.ours != NatKind::Symmetric;
        let plain_known = !matches!(self.plain, NatKind::Symmetric | NatKind::EimApdfRewrite);
        let plain_gets_in = ours_known && (is_open(self.ours) || plain_known);
        let we_get_in = plain_known && (is_open(self.plain) || ours_known);
        if plain_gets_in || we_get_in {
            Expected::Direct
        } else {
            Expected::Relayed
        }
    }
}

/// Whether it lets in whoever comes from an IP that was sent to, from whatever port.
const fn is_open(kind: NatKind) -> bool {
    matches!(
        kind,
        NatKind::None | NatKind::FullCone | NatKind::AddressRestricted
    )
}

/// The pairs that matter, over each transport, whichever side dials.
pub fn cells() -> Vec<Cell> {
    use NatKind::{
        AddressRestricted, EimApdf, EimApdfRewrite, FullCone, None as Public, Symmetric,
    };
    let pairs = [
        // Ports are preserved at the plain peer: it gets direct as our own would.
        (EimApdf, EimApdf),
        (EimApdfRewrite, EimApdf),
        (EimApdf, FullCone),
        (EimApdfRewrite, Public),
        (Symmetric, FullCone),
        (Symmetric, AddressRestricted),
        (Symmetric, Public),
        // They are not, but our NAT is open enough for its dial.
        (FullCone, EimApdfRewrite),
        (AddressRestricted, EimApdfRewrite),
        (FullCone, Symmetric),
        // Its address is wrong, and our NAT admits only what we have sent to.
        (EimApdf, EimApdfRewrite),
        // As between our own.
        (Symmetric, EimApdf),
    ];
    let mut cells = Vec::new();
    for (ours, plain) in pairs {
        for transport in Transport::ALL {
            for dialer in [Dialer::Ours, Dialer::Plain] {
                cells.push(Cell {
                    ours,
                    plain,
                    transport,
                    dialer,
                });
            }
        }
    }
    cells
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, plain, transport) = (self.ours, self.plain, self.transport);
        match self.dialer {
            Dialer::Ours => write!(f, "interop-{ours}--plain-{plain}--{transport}"),
            Dialer::Plain => write!(f, "interop-plain-{plain}--{ours}--{transport}"),
        }
    }
}

/// Runs a cell in a lab of its own and asserts that it ends as it must, that both sides say so, and that our node keeps to
/// its range.
pub async fn run(cell: Cell) -> Result<()> {
    let bins = bins()?;
    let program = plain_libp2p()?;
    let lab = Lab::new(&cell.to_string()).await?;
    let relay = Relay::start(&lab, &bins, "relay").await?;
    let ours = Peer::new(&lab, "ours", cell.ours).await?;
    let plain = Peer::new(&lab, "plain", cell.plain).await?;
    let course = Course {
        cell,
        bins: &bins,
        program: &program,
        lab: &lab,
        relay: &relay,
        ours: &ours,
        plain: &plain,
    };
    let outcome = match cell.dialer {
        Dialer::Ours => course.ours_dials().await?,
        Dialer::Plain => course.plain_dials().await?,
    };
    let expected = match cell.expected() {
        Expected::Direct => "direct",
        Expected::Relayed => "relayed",
    };
    ensure!(outcome == expected, "it ended {outcome}, not {expected}");
    ours.settle().await?;
    let strays = ours.strays();
    ensure!(strays.is_empty(), "our node left its range: {strays:?}");
    lab.succeeded();
    Ok(())
}

struct Course<'a> {
    cell: Cell,
    bins: &'a Bins,
    program: &'a Path,
    lab: &'a Lab,
    relay: &'a Relay,
    ours: &'a Peer,
    plain: &'a Peer,
}

impl Course<'_> {
    async fn ours_dials(&self) -> Result<String> {
        let relay = self.plain_relay()?;
        let listener = self
            .plain_args(&relay)
            .listen("plain")
            .start(&self.plain.host.device, self.lab.artifacts())?;
        let peer = reserved(&listener).await?;
        let mut dial = self
            .our_args()
            .dial(self.bins, "ours", &peer)
            .args(["--count", "2"])
            .start(&self.ours.host.device, self.lab.artifacts())?;
        dial.exit(PATIENCE * 2).await?;
        let outcome = outcome(&dial, &peer)?;
        if outcome == "direct" {
            // The pings of a result are on its final path.
            let kinds: Vec<_> = dial
                .events()
                .iter()
                .filter(|event| event.name() == "ping")
                .map(|event| event.text("/kind").to_owned())
                .collect();
            ensure!(kinds == ["direct"; 2], "pings went over {kinds:?}");
        }
        Ok(outcome)
    }

    async fn plain_dials(&self) -> Result<String> {
        let listener = self
            .our_args()
            .run(self.lab, self.bins, "ours")
            .start(&self.ours.host.device, self.lab.artifacts())?;
        let peer = reserved(&listener).await?;
        let relay = self.plain_relay()?;
        let mut dial = self
            .plain_args(&relay)
            .dial("plain", &peer, PLAIN_TIMEOUT_S)
            .start(&self.plain.host.device, self.lab.artifacts())?;
        dial.exit(PATIENCE * 2).await?;
        let outcome = outcome(&dial, &peer)?;
        let plain = dial
            .events()
            .first()
            .map(|started| started.text("/peer_id").to_owned())
            .context("the plain peer tells no id")?;
        if outcome == "direct" {
            // Both say so, each in its own time.
            became_direct(&listener, &plain).await?;
        } else {
            let direct = |event: &Event| {
                event.name() == "connected"
                    && event.path_kind() == "direct"
                    && event.text("/peer") == plain
            };
            let events = listener.events();
            ensure!(
                !events.iter().any(direct),
                "the plain peer says {outcome}, and our node that it is direct"
            );
        }
        Ok(outcome)
    }

    fn our_args(&self) -> NodeArgs {
        NodeArgs::new(self.relay, &self.ours.host, &[self.cell.transport])
    }

    /// The plain peer takes one address.
    fn plain_relay(&self) -> Result<String> {
        self.relay
            .addresses(&self.plain.host, &[self.cell.transport])
            .into_iter()
            .find(|address| address.starts_with("/ip4/"))
            .context("no IPv4 address of the relay for the plain peer")
    }

    fn plain_args<'a>(&'a self, relay: &'a str) -> PlainArgs<'a> {
        PlainArgs {
            program: self.program,
            relay,
            transport: self.cell.transport,
            port: PLAIN_PORT,
            families: IP4,
        }
    }
}

/// What the dialer says of the peer. It was relayed first: only then it is a punch that is tested.
fn outcome(dial: &Process, peer: &str) -> Result<String> {
    let events = dial.events();
    let result = events.iter().find(|event| event.name() == "result");
    let result = result.with_context(|| format!("{} tells no result", dial.name()))?;
    let first = events
        .iter()
        .find(|event| event.name() == "connected" && event.text("/peer") == peer);
    ensure!(
        first.is_some_and(|event| event.path_kind() == "relayed"),
        "the first connection is not relayed: {first:?}"
    );
    Ok(result.text("/outcome").to_owned())
}
