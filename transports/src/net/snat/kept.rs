//! Which ports source NAT keeps.

use ipnet::IpNet;
use p2pnode_protocol::Family;

use crate::net::range::PortRange;

/// The ports that source NAT keeps, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPorts {
    /// The source ports.
    pub range: PortRange,
    /// Whether UDP keeps them.
    pub udp: bool,
    /// Whether TCP keeps them.
    pub tcp: bool,
    /// The networks of the pods. What goes from one pod to another is not translated here.
    pub pods: Vec<IpNet>,
    /// The interface out of which the pods' packets leave; `None` is any.
    pub out: Option<String>,
}

impl KeptPorts {
    /// The chain in the table.
    pub const CHAIN: &str = "postrouting";
    /// Before 100, where iptables and others translate sources (`srcnat`).
    pub const PRIORITY: i32 = 90;

    /// The table, in either family. Nodes with different ranges on one host have a table each.
    pub fn table(&self) -> String {
        format!("p2pnode-snat-{}", self.range)
    }

    /// Whether there are pods of this family.
    pub fn is_for(&self, family: Family) -> bool {
        self.pods_of(family).next().is_some()
    }

    /// The pods' networks of this family.
    pub fn pods_of(&self, family: Family) -> impl Iterator<Item = IpNet> {
        let pods = self.pods.iter().map(IpNet::trunc);
        pods.filter(move |pods| Family::from(pods.addr()) == family)
    }
}
