//! Source NAT that keeps the ports of a range, ahead of the masquerade of a cluster's network.
//!
//! A CNI that masquerades with random ports makes a symmetric NAT of the cluster's node. A chain with a lower priority decides first,
//! and a packet that it has translated reaches no later chain. So the order of loading does not matter. See
//! `docs/decisions/0900-the-range-survives-masquerade.md`.
//!
//! [`KeptPorts::install`] writes nftables through netlink: an image with one static program has no `nft`.

mod ask;
mod flows;
mod kept;
mod message;

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use p2pnode_protocol::Family;

use self::ask::ask;
use super::interfaces::netlink;

pub use self::kept::KeptPorts;

/// A rule that is in force. It ends with this value.
///
/// The kernel removes the rule if the process dies, and lets nobody else remove it (`NFT_TABLE_F_OWNER`, Linux 5.12). An older kernel
/// knows no owner: there the rule is deleted when this value is dropped.
#[derive(Debug)]
pub struct KeptRule {
    socket: Socket,
    table: String,
    family: Family,
    is_owned: bool,
    rules: usize,
}

impl KeptPorts {
    /// Writes the rule, in place of an older one. It needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    ///
    /// What the kernel answers: `PermissionDenied` without the capability, `ResourceBusy` while another process owns the rule.
    pub fn install(&self, family: Family) -> io::Result<KeptRule> {
        match self.write(family, true) {
            // EINVAL and EOPNOTSUPP.
            Err(error) if knows_no_owner(&error) => self.write(family, false),
            // EPERM has two reasons, and only one of them forbids to list.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(list(&self.table(), family)
                    .map_or(error, |_| io::ErrorKind::ResourceBusy.into()))
            }
            written => written,
        }
    }

    fn write(&self, family: Family, is_owned: bool) -> io::Result<KeptRule> {
        let socket = netlink::connected(NETLINK_NETFILTER)?;
        let rules = message::rules(self, family);
        let table = self.table();
        ask(&socket, &message::replace(&table, family, is_owned, &rules))?;
        Ok(KeptRule {
            socket,
            table,
            family,
            is_owned,
            rules: rules.len(),
        })
    }

    /// Ends the flows of the pods whose port was translated before the rule was there: a flow keeps its mapping as long as it lives.
    /// Returns how many there were.
    ///
    /// # Errors
    ///
    /// If the kernel does not list its flows.
    pub fn end_translated_flows(&self, family: Family) -> io::Result<usize> {
        flows::end(self, family)
    }
}

impl KeptRule {
    /// Whether the rule is as it was written.
    ///
    /// # Errors
    ///
    /// If the kernel does not list its rules.
    pub fn is_intact(&self) -> io::Result<bool> {
        match list(&self.table, self.family) {
            Ok(rules) => Ok(rules == self.rules),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for KeptRule {
    fn drop(&mut self) {
        if !self.is_owned
            && let Err(error) = ask(&self.socket, &message::delete(&self.table, self.family))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, table = self.table, "cannot delete the source NAT rule");
        }
    }
}

fn knows_no_owner(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

/// How many rules the table has.
fn list(table: &str, family: Family) -> io::Result<usize> {
    let mut list = Vec::new();
    let (request, content) = message::list(table, family);
    netlink::read(NETLINK_NETFILTER, request, &content, &mut list)?;
    Ok(list
        .iter()
        .filter(|rule| message::is_of(table, rule))
        .count())
}
