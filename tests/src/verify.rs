//! What a dial must have shown: in its JSON, in its exit code and on the wire.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    args::PATIENCE,
    control,
    events::Event,
    node::{Dial, Process},
    pair::Peers,
    peer::same_connection,
};

/// How long after a punch there may be a second direct connection.
const SURPLUS: Duration = Duration::from_secs(3);

pub async fn became_direct(node: &Process, peer: &str) -> Result<Instant> {
    let direct = |event: &Event| event.connects(peer, "direct");
    Ok(node.first("a direct connection", 0, direct).await?.at)
}

/// How many connections of a kind to `peer` are open by these events, and how many were opened.
fn open(events: &[Event], peer: &str, kind: &str) -> (usize, usize) {
    let opened = events.iter().filter(|event| event.connects(peer, kind));
    let closed = events.iter().filter(|event| event.disconnects(peer, kind));
    let (opened, closed) = (opened.count(), closed.count());
    (opened.saturating_sub(closed), opened)
}

impl Peers {
    /// Asserts what a direct path is: one over which all pings went, and the same on the wire as in the JSON; and relayed before,
    /// unless the relay has introduced the two to each other.
    pub async fn verify_direct(&self, dial: &Dial, pings: usize) -> Result<()> {
        let result = dial.is("direct")?;
        let connected: Vec<_> = dial.all("connected").collect();
        let is_introduction = |event: &Event| event.text("/by") == "introduction";
        // Where a NAT lets anybody in, the peer may be there before the relay's word is here.
        let first = connected.first().context("nothing was connected")?;
        let was_let_in = first.text("/path/how") == "accepted";
        let introduced = dial.events.iter().any(is_introduction)
            || was_let_in && self.b_node.process.events().iter().any(is_introduction);
        ensure!(
            introduced || first.path_kind() == "relayed",
            "the first connection is not relayed, and there was no introduction: {}",
            first.line
        );
        ensure!(
            connected.iter().any(|event| event.path_kind() == "direct"),
            "no direct connection was announced"
        );
        let path = &result.json["path"];
        ensure!(path["kind"] == "direct", "the result's path is {path}");
        let transport = result.text("/path/hops/0/transport");
        let mut allowed = self.transports.iter().map(|allowed| allowed.name());
        ensure!(allowed.any(|name| name == transport), "over {transport:?}");
        let kinds: Vec<_> = dial.all("ping").map(|ping| ping.text("/kind")).collect();
        ensure!(
            kinds.len() == pings && kinds.iter().all(|kind| *kind == "direct"),
            "pings went over {kinds:?}"
        );
        self.verify_range().await?;
        // B's path is not open any more: one of those that it has reported.
        let events = self.b_node.process.events();
        let mut last = Err(anyhow::anyhow!("B has reported no direct connection"));
        for event in events.iter().filter(|event| event.path_kind() == "direct") {
            last = same_connection((&self.a, path), (&self.b, &event.json["path"])).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    pub async fn verify_relayed(&self, dial: &Dial, reason: &str) -> Result<()> {
        let result = dial.is("relayed")?;
        let reported = result.text("/reason");
        ensure!(
            reported == reason,
            "relayed because of {reported:?}, not of {reason:?}"
        );
        ensure!(result.path_kind() == "relayed", "{}", result.line);
        self.verify_range().await
    }

    pub async fn verify_range(&self) -> Result<()> {
        self.a.keeps_range().await?;
        self.b.keeps_range().await
    }

    /// When the later of the two says that they became direct; `dial` is A's, still under way.
    pub async fn became_direct(&self, dial: &Process) -> Result<Instant> {
        let at_a = became_direct(dial, &self.b_id).await?;
        let at_b = became_direct(&self.b_node.process, &self.a_id().await?).await?;
        Ok(at_a.max(at_b))
    }

    /// Asserts that within 3 s after `direct` there is one direct connection, and that it is all that is left after the grace
    /// period of the relayed one. `dial` is A's, and goes on for longer than that.
    pub async fn verify_one_is_left(&self, dial: &Process, direct: Instant) -> Result<()> {
        let a_id = self.a_id().await?;
        let sides = [(dial, &self.b_id), (&self.b_node.process, &a_id)];
        for (side, peer) in sides {
            let gone = |events: &[Event]| {
                let (open, opened) = open(events, peer, "relayed");
                (opened > 0 && open == 0).then_some(())
            };
            side.until("the end of the relayed connection", PATIENCE, gone)
                .await?;
        }
        for (side, peer) in sides {
            let events = side.events();
            let late = |until: &usize| events[*until].at > direct + SURPLUS;
            let open_at = |until: usize| open(&events[..=until], peer, "direct").0;
            let mut others = (0..events.len()).filter(late).map(open_at);
            ensure!(
                others.all(|open| open == 1),
                "3 s after a punch: {events:?}"
            );
            let left = ["direct", "relayed"].map(|kind| open(&events, peer, kind).0);
            ensure!(
                left == [1, 0],
                "{}: {left:?} connections are left",
                side.name()
            );
        }
        let status = self.b_node.control.status().await?;
        let left = ["direct", "relayed"].map(|kind| control::paths(&status, &a_id, kind).len());
        ensure!(left == [1, 0], "{status}");
        Ok(())
    }

    /// A's peer id, which B learns from a connection, direct or not: A's dial has a throwaway identity, and B connects to nobody
    /// else but the relay.
    async fn a_id(&self) -> Result<String> {
        let of_a =
            |event: &Event| event.name() == "connected" && event.text("/peer") != self.relay.id;
        let b = &self.b_node.process;
        let connected = b.first("a connection to A", 0, of_a).await?;
        Ok(connected.text("/peer").to_owned())
    }
}
