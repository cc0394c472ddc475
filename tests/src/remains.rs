//! What is left open between two peers after a punch: soon one direct connection, later no relayed one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{args::PATIENCE, control, events::Event, node::Process, pair::Peers};

/// How long after a punch there may be a second direct connection.
pub const SURPLUS: Duration = Duration::from_secs(3);

/// When the node says that `peer` became direct first.
pub async fn became_direct(node: &Process, peer: &str) -> Result<Instant> {
    let look = |events: &[Event]| {
        let direct = |event: &&Event| {
            event.name() == "connected"
                && event.path_kind() == "direct"
                && event.text("/peer") == peer
        };
        events.iter().find(direct).map(|event| event.at)
    };
    node.until("a direct connection", PATIENCE, look).await
}

/// Waits until as many relayed connections to `peer` were closed as were opened.
pub async fn relayed_gone(node: &Process, peer: &str) -> Result<()> {
    let look = |events: &[Event]| {
        let (opened, closed) = counts(events, peer, "relayed");
        (opened > 0 && opened == closed).then_some(())
    };
    node.until("the end of the relayed connection", PATIENCE, look)
        .await
}

/// How many connections of a kind to `peer` were opened, and how many closed.
fn counts(events: &[Event], peer: &str, kind: &str) -> (usize, usize) {
    let count = |name: &str, pointer: &str| {
        let of_peer = events.iter().filter(|event| event.text("/peer") == peer);
        of_peer
            .filter(|event| event.name() == name && event.text(pointer) == kind)
            .count()
    };
    (
        count("connected", "/path/kind"),
        count("disconnected", "/kind"),
    )
}

impl Peers {
    /// When the later of the two says that they became direct; `dial` is A's, still under way.
    pub async fn became_direct(&self, dial: &Process) -> Result<Instant> {
        let at_a = became_direct(dial, &self.b_id).await?;
        let at_b = became_direct(&self.b_process, &self.a_id().await?).await?;
        Ok(at_a.max(at_b))
    }

    /// Asserts that 3 s after `direct` there is one direct connection, and that it is all that is left after the grace period
    /// of the relayed one. `dial` is A's, and goes on for longer than that.
    pub async fn verify_one_is_left(&self, dial: &Process, direct: Instant) -> Result<()> {
        tokio::time::sleep_until((direct + SURPLUS).into()).await;
        let (at_a, at_b) = (self.open_at_a(dial), self.open_at_b().await?);
        ensure!(
            at_a.0 == 1 && at_b.0 == 1,
            "3 s after the punch A has {} direct connections and B {}",
            at_a.0,
            at_b.0
        );
        relayed_gone(dial, &self.b_id).await?;
        relayed_gone(&self.b_process, &self.a_id().await?).await?;
        let (at_a, at_b) = (self.open_at_a(dial), self.open_at_b().await?);
        ensure!(
            at_a == (1, 0) && at_b == (1, 0),
            "after the grace period A has {} direct and {} relayed connections, and B {} and {}",
            at_a.0,
            at_a.1,
            at_b.0,
            at_b.1
        );
        Ok(())
    }

    /// A's peer id, which B learns from a connection, direct or not: A's dial has a throwaway identity, and B connects to nobody
    /// else but the relay.
    async fn a_id(&self) -> Result<String> {
        let look = |events: &[Event]| {
            let of_a = |event: &&Event| {
                event.name() == "connected" && event.text("/peer") != self.relay.id
            };
            Some(events.iter().find(of_a)?.text("/peer").to_owned())
        };
        self.b_process
            .until("a connection to A", PATIENCE, look)
            .await
    }

    /// How many direct and how many relayed connections to B are open at A, by its events: a dial has no control socket.
    fn open_at_a(&self, dial: &Process) -> (usize, usize) {
        let events = dial.events();
        let open = |kind: &str| {
            let (opened, closed) = counts(&events, &self.b_id, kind);
            opened.saturating_sub(closed)
        };
        (open("direct"), open("relayed"))
    }

    /// How many direct and how many relayed connections to A are open at B, by its status.
    async fn open_at_b(&self) -> Result<(usize, usize)> {
        let (status, a_id) = (self.b_control.status().await?, self.a_id().await?);
        let open = |kind: &str| control::paths(&status, &a_id, kind).len();
        Ok((open("direct"), open("relayed")))
    }
}
