//! What dials have learned about the paths in use.

use std::time::Instant;

use p2pnode_transports::{Learned, Transport, Trouble};

use super::NodeState;
use crate::core::{
    finding::{Finding, FindingId, Remedy},
    peers::Path,
};

impl NodeState {
    /// Dials have learned this.
    pub(crate) fn handle_learned(&mut self, learned: Vec<Learned>, now: Instant) {
        let new = learned.iter().filter(|new| !self.learned.contains(new));
        for Learned { remote, trouble } in new {
            if let Trouble::Conntrack { port } = trouble {
                let remote = *remote;
                self.report(crate::core::event::Event::PortRests {
                    t: self.t(now),
                    port: *port,
                    remote,
                });
            }
        }
        self.learned = learned;
    }

    /// What is wrong with the TCP connections of this path.
    pub(crate) fn finding(&self, path: &Path) -> Option<Finding> {
        let mut tcp = path
            .hops
            .iter()
            .filter(|hop| hop.transport == Some(Transport::Tcp));
        let of = |learned: &&Learned| tcp.any(|hop| hop.remote == Some(learned.remote));
        self.learned.iter().find(of).map(describe)
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
