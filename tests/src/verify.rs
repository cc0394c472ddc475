//! What a dial must have shown: in its JSON, in its exit code and on the wire.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use crate::{
    args::range,
    events::Event,
    nat::RANGE,
    pair::{Dial, Peers},
};

impl Peers {
    /// Asserts what a direct path is: one over which pings go, and the same on the wire as in the JSON; and relayed before, unless
    /// the relay has introduced the two to each other.
    pub async fn verify_direct(&self, dial: &Dial) -> Result<()> {
        let result = dial.result()?;
        ensure!(
            result.text("/outcome") == "direct" && dial.code == 0,
            "outcome {:?}, exit code {}, reason {}",
            result.text("/outcome"),
            dial.code,
            result.json["reason"],
        );
        let kinds: Vec<_> = dial
            .events
            .iter()
            .filter(|event| event.name() == "connected")
            .map(Event::path_kind)
            .collect();
        let is_introduction = |event: &Event| event.text("/by") == "introduction";
        // Where a NAT lets anybody in, the peer may be there before the relay's word is here.
        let first = dial.events.iter().find(|event| event.name() == "connected");
        let was_let_in = first.is_some_and(|event| event.text("/path/how") == "accepted");
        let introduced = dial.events.iter().any(is_introduction)
            || was_let_in && self.b_process.events().iter().any(is_introduction);
        ensure!(
            introduced || kinds.first() == Some(&"relayed"),
            "the first connection is not relayed, and there was no introduction: {kinds:?}"
        );
        ensure!(
            kinds.contains(&"direct"),
            "no direct connection was announced: {kinds:?}"
        );
        ensure!(
            result.path_kind() == "direct",
            "the result's path is {}",
            result.json["path"]
        );
        let transport = result.text("/path/hops/0/transport");
        ensure!(
            self.transports
                .iter()
                .any(|allowed| allowed.name() == transport),
            "the direct path uses {transport:?}"
        );
        let pings: Vec<_> = dial
            .events
            .iter()
            .filter(|event| event.name() == "ping")
            .map(|event| event.text("/kind"))
            .collect();
        ensure!(
            pings.len() == dial.pings && pings.iter().all(|kind| *kind == "direct"),
            "pings went over {pings:?}"
        );
        self.verify_range().await?;
        self.verify_wire(result).await
    }

    /// Asserts that the peers ended on the relay, and said why.
    pub async fn verify_relayed(&self, dial: &Dial) -> Result<()> {
        let result = dial.result()?;
        ensure!(
            result.text("/outcome") == "relayed" && dial.code == 3,
            "outcome {:?}, exit code {}, path {}",
            result.text("/outcome"),
            dial.code,
            result.json["path"],
        );
        ensure!(!result.text("/reason").is_empty(), "no reason is given");
        ensure!(
            result.path_kind() == "relayed",
            "the result's path is {}",
            result.json["path"]
        );
        self.verify_range().await
    }

    /// Asserts that neither peer sent a packet from outside its range.
    pub async fn verify_range(&self) -> Result<()> {
        for (name, peer) in [("a", &self.a), ("b", &self.b)] {
            peer.settle().await?;
            let strays = peer.strays();
            ensure!(
                strays.is_empty(),
                "{name} sent from outside {}: {}",
                range(&RANGE),
                strays.join(", ")
            );
            ensure!(
                !peer.home().sent_by(&peer.host.addresses).is_empty(),
                "the capture of {name} holds no packet"
            );
        }
        Ok(())
    }

    /// Asserts that the sockets of the reported path are those on the wire, on both sides, after translation too.
    async fn verify_wire(&self, result: &Event) -> Result<()> {
        let hop = |field: &str| -> Result<SocketAddr> {
            let text = result.text(&format!("/path/hops/0/{field}"));
            text.parse()
                .with_context(|| format!("{field} socket of the direct path: {text:?}"))
        };
        let (local, remote) = (hop("local")?, hop("remote")?);
        let protocol = if result.text("/path/hops/0/transport") == "tcp" {
            "tcp"
        } else {
            "udp"
        };
        let sent = self.a.home().sent_by(&self.a.host.addresses);
        ensure!(
            sent.iter().any(|packet| packet.protocol.name() == protocol
                && packet.source == local
                && packet.destination == remote),
            "no {protocol} packet went from {local} to {remote}, as the result says"
        );
        let a_outside = self.a.edge().left_as(protocol, remote);
        let b_outside: Vec<_> = a_outside
            .iter()
            .flat_map(|a| self.b.edge().left_as(protocol, *a))
            .collect();
        ensure!(
            b_outside.contains(&remote),
            "B's packets to A ({a_outside:?} outside) left as {b_outside:?}, but A says it talks to {remote}"
        );
        let b_sockets: Vec<_> = self
            .b_process
            .events()
            .iter()
            .filter(|event| event.name() == "connected" && event.path_kind() == "direct")
            .map(|event| {
                (
                    event.text("/path/hops/0/local").to_owned(),
                    event.text("/path/hops/0/remote").to_owned(),
                )
            })
            .collect();
        let sent = self.b.home().sent_by(&self.b.host.addresses);
        let seen = |(local, remote): &(String, String)| {
            a_outside.iter().any(|a| a.to_string() == *remote)
                && sent.iter().any(|packet| {
                    packet.source.to_string() == *local && packet.destination.to_string() == *remote
                })
        };
        ensure!(
            b_sockets.iter().any(seen),
            "B reports the direct connections {b_sockets:?}; on the wire A is {a_outside:?}"
        );
        Ok(())
    }
}
