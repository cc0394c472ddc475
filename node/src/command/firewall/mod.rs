//! `p2pnode firewall`: the rules that let a node through a firewall that drops everything else, from the node's configuration.
//!
//! The rules let UDP and TCP out from the range, to any address and port. The addresses of relays and peers are not known in
//! advance. Inbound packets belong to a connection that the firewall saw leave. So the rules open no port for a punch. They let
//! in packets to public listeners. DNS queries leave from the system's ports; the rules do not cover them.
//!
//! Only host firewalls and routers know source ports. Cloud firewalls and Kubernetes' NetworkPolicy know destinations only. The
//! rules for them let out more than the range, and a comment in them says so.
//!
//! Source NAT is another matter: its rules keep the range in a cluster whose network masquerades with random ports. They let nothing out.

mod cloud;
pub(crate) mod keep;
mod kubernetes;
mod linux;
mod rules;
pub(crate) mod snat;

use p2pnode_transports::KeptPorts;

pub(crate) use rules::Rules;

/// The format of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// nftables, for `nft -f`
    Nft,
    /// iptables, for `iptables-restore --noflush` and `ip6tables-restore --noflush`
    Iptables,
    /// Source NAT that keeps the range in a cluster whose network masquerades with random ports, for `nft -f`
    NftSnat,
    /// The same for iptables and ip6tables, as a script for `sh`
    IptablesSnat,
    /// An AWS security group, as JSON
    AwsSg,
    /// Google Cloud VPC firewall rules, as commands of gcloud
    Gcp,
    /// A Kubernetes NetworkPolicy
    Networkpolicy,
}

impl Format {
    /// Whether the rules are those of source NAT.
    pub(crate) const fn is_snat(self) -> bool {
        matches!(self, Self::NftSnat | Self::IptablesSnat)
    }
}

impl Rules {
    /// The rules as text, with a newline at the end. `kept` is for source NAT.
    #[must_use]
    pub(crate) fn render(&self, format: Format, kept: &KeptPorts) -> String {
        match format {
            Format::Nft => linux::nft(self),
            Format::Iptables => linux::iptables(self),
            Format::NftSnat => snat::nft(kept),
            Format::IptablesSnat => snat::iptables(kept),
            Format::AwsSg => cloud::aws_security_group(self),
            Format::Gcp => cloud::gcp(self),
            Format::Networkpolicy => kubernetes::network_policy(self),
        }
    }
}

#[cfg(test)]
mod tests;
