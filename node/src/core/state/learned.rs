//! What dials have learned about the paths in use.

use std::time::Instant;

use p2pnode_transports::{Learned, Transport, Trouble};

use super::NodeState;
use crate::{
    core::{
        event::{Event, RestReason},
        finding::{Finding, FindingId, Remedy},
        peers::Path,
    },
    punch::Reason,
};

impl NodeState {
    /// Dials have learned this.
    pub(crate) fn handle_learned(&mut self, learned: Vec<Learned>, now: Instant) {
        let known = std::mem::take(&mut self.learned);
        for Learned { remote, trouble } in learned.iter().filter(|new| !known.contains(new)) {
            if let Trouble::Conntrack { port } = trouble {
                self.report(Event::PortRests {
                    t: self.t(now),
                    port: *port,
                    remote: *remote,
                    reason: RestReason::Conntrack,
                });
            }
        }
        self.learned = learned;
    }

    /// What stands in the way of a direct path, where the peer stays on `path` for this reason. Of two things the one that no look
    /// at the network here shows comes first.
    pub(crate) fn finding(&self, path: &Path, reason: Option<Reason>) -> Option<Finding> {
        let hidden = reason.filter(|reason| reason.is_of_network());
        let hidden = hidden.and_then(|_| self.hidden_by(path));
        hidden.or_else(|| self.trouble(path))
    }

    /// The relay of a path sees the address of a NAT in place of this node's.
    fn hidden_by(&self, path: &Path) -> Option<Finding> {
        let relay = path.relay?;
        let at = self.hidden_at(&relay)?;
        Some(Finding {
            id: FindingId::RelayNat,
            text: Finding::hidden(relay, at),
            remedy: Some(Remedy::keep_source()),
        })
    }

    /// What is wrong with the TCP connections of this path. A path that is narrow mostly begins with a narrow link of this host, which
    /// is that of the others as well.
    fn trouble(&self, path: &Path) -> Option<Finding> {
        let hops = path.hops.iter();
        let tcp: Vec<_> = hops
            .filter(|hop| hop.transport == Some(Transport::Tcp))
            .collect();
        let of = |learned: &&Learned| tcp.iter().any(|hop| hop.remote == Some(learned.remote));
        let is_narrow = |learned: &&Learned| learned.trouble == Trouble::Mtu && !tcp.is_empty();
        let mut learned = self.learned.iter();
        let found = learned.clone().find(of).or_else(|| learned.find(is_narrow));
        found.map(describe)
    }
}

fn describe(Learned { remote, trouble }: &Learned) -> Finding {
    let (id, text, remedy) = match trouble {
        Trouble::Mtu => (
            FindingId::Mtu,
            format!(
                "mtu: only small TCP segments get through to {remote}, and no router reports that"
            ),
            "allow ICMP on the routers of the path, or lower the MTU of this host",
        ),
        Trouble::Conntrack { port } => (
            FindingId::Conntrack,
            format!(
                "conntrack: packets from port {port} to {remote} are lost, and those from another port are not: a NAT or a firewall remembers an earlier connection"
            ),
            "nothing is to be done: the port rests for 5 minutes; on a router of your own, delete the entry with `conntrack -D`",
        ),
    };
    Finding {
        id,
        text,
        remedy: Some(Remedy {
            id: match trouble {
                Trouble::Mtu => "allow_icmp",
                Trouble::Conntrack { .. } => "conntrack",
            }
            .to_owned(),
            text: remedy.to_owned(),
            command: None,
        }),
    }
}
