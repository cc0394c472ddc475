//! `p2pnode firewall`: the rules that let a node through a firewall that drops everything else, from the node's configuration.
//!
//! The rules let UDP and TCP out from the range, to any address and port. The addresses of relays and peers are not known in
//! advance. Inbound packets belong to a connection that the firewall saw leave. So the rules open no port for a punch. They let
//! in packets to public listeners. DNS queries leave from the system's ports; the rules do not cover them.
//!
//! Only host firewalls and routers know source ports. Cloud firewalls and Kubernetes' NetworkPolicy know destinations only. The
//! rules for them let out more than the range, and a comment in them says so.

mod cloud;
mod kubernetes;
mod linux;
mod rules;

pub(crate) use rules::Rules;

/// The format of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// nftables, for `nft -f`
    Nft,
    /// iptables, for `iptables-restore --noflush` and `ip6tables-restore --noflush`
    Iptables,
    /// An AWS security group, as JSON
    AwsSg,
    /// Google Cloud VPC firewall rules, as commands of gcloud
    Gcp,
    /// A Kubernetes NetworkPolicy
    Networkpolicy,
}

impl Rules {
    /// The rules as text, with a newline at the end.
    #[must_use]
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Nft => linux::nft(self),
            Format::Iptables => linux::iptables(self),
            Format::AwsSg => cloud::aws_security_group(self),
            Format::Gcp => cloud::gcp(self),
            Format::Networkpolicy => kubernetes::network_policy(self),
        }
    }
}

#[cfg(test)]
mod tests;
