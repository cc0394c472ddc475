//! The NATs and firewalls of the lab, in the words of RFC 4787, as nftables rules.
//!
//! Each router drops what it was not asked for, silently. [`NatKind::Accepts`] takes it to itself: an early punch then holds the
//! connection-tracking tuple that the punch of its own host needs a moment later.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

use serde::Serialize;

/// The source ports that `range-firewall` lets out, and that the nodes of the lab are configured with.
pub const RANGE: RangeInclusive<u16> = 40000..=40050;

/// The interface of a router towards the internet: patchbay's name.
pub(crate) const WAN: &str = "ix";

/// How many ports a sequential NAT gives before it begins again: what fits in one message of netlink.
const SEQUENCE: u16 = 1_024;

/// How long a mapping or a filter entry lives without traffic. Longer than any test.
const LIFETIME: &str = "600s";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// A public host, IPv4 and IPv6.
    None,
    /// Endpoint-independent mapping that keeps the port, address-and-port-dependent filtering: most home routers.
    EimApdf,
    /// The same, but every port is rewritten.
    EimApdfRewrite,
    /// Endpoint-independent mapping and filtering: anybody can send to a mapped port.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// No NAT; a stateful firewall that lets nobody in.
    Firewall,
    /// A home router behind a carrier's NAT that rewrites ports.
    Cgnat,
    /// A port-preserving NAT whose firewall lets out only the source ports [`RANGE`].
    RangeFirewall,
    /// IPv6 only, with a stateful firewall.
    Ip6Firewall,
    /// IPv4 behind a port-preserving NAT, IPv6 behind a stateful firewall.
    DualStack,
    /// Address-and-port-dependent mapping with random ports.
    Symmetric,
    /// Address-and-port-dependent mapping with random ports of one block of 1,024.
    SymmetricBlock,
    /// Address-and-port-dependent mapping with one port after another.
    SymmetricSequential,
    /// As [`Self::EimApdf`], but its own stack takes what it was not asked for, and answers that nobody is there. A router of its
    /// provider is in front of it, as on the internet: a packet can pass the one and not reach the other.
    Accepts,
    /// As [`Self::EimApdf`], but it rejects what it was not asked for.
    Rejects,
}

impl NatKind {
    pub const ALL: [Self; 15] = [
        Self::None,
        Self::FullCone,
        Self::AddressRestricted,
        Self::EimApdf,
        Self::EimApdfRewrite,
        Self::Firewall,
        Self::RangeFirewall,
        Self::Cgnat,
        Self::Ip6Firewall,
        Self::DualStack,
        Self::Symmetric,
        Self::SymmetricBlock,
        Self::SymmetricSequential,
        Self::Accepts,
        Self::Rejects,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EimApdf => "eim-apdf",
            Self::EimApdfRewrite => "eim-apdf-rewrite",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::Firewall => "firewall",
            Self::Cgnat => "cgnat",
            Self::RangeFirewall => "range-firewall",
            Self::Ip6Firewall => "ip6-firewall",
            Self::DualStack => "dual-stack",
            Self::Symmetric => "symmetric",
            Self::SymmetricBlock => "symmetric-block",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::Accepts => "accepts",
            Self::Rejects => "rejects",
        }
    }

    pub const fn has_ip4(self) -> bool {
        !matches!(self, Self::Ip6Firewall)
    }

    pub const fn translates(self) -> bool {
        !matches!(self, Self::None | Self::Firewall | Self::Ip6Firewall)
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for NatKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        let names = Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| format!("{text:?} is no NAT of the lab: use one of {names}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Endpoint-independent, same port.
    Preserving,
    /// Endpoint-independent, another port. The number picks one of several permutations.
    Rewriting(u16),
    /// A random port for every destination.
    Symmetric,
    /// One of these, as random.
    Block(u16, u16),
    /// The next one for every destination, from here on.
    Sequential(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filtering {
    EndpointIndependent,
    /// Every port of an address that the inside endpoint has sent to.
    AddressDependent,
    /// Only endpoints that the inside endpoint has sent to.
    AddressAndPortDependent,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// `None` does not translate.
    pub(crate) mapping: Option<Mapping>,
    pub(crate) filtering: Filtering,
    pub(crate) only_range: bool,
    /// What becomes of a packet to the router itself that belongs to no flow.
    pub(crate) unasked: &'static str,
}

impl Policy {
    /// The policy of the router that a host of this kind is connected to; `None` for a public host's router.
    pub(crate) const fn of(kind: NatKind) -> Option<Self> {
        let (mapping, filtering) = match kind {
            NatKind::None => return None,
            NatKind::EimApdf
            | NatKind::RangeFirewall
            | NatKind::Cgnat
            | NatKind::DualStack
            | NatKind::Accepts
            | NatKind::Rejects => (
                Some(Mapping::Preserving),
                Filtering::AddressAndPortDependent,
            ),
            NatKind::EimApdfRewrite => (
                Some(Mapping::Rewriting(7)),
                Filtering::AddressAndPortDependent,
            ),
            NatKind::FullCone => (Some(Mapping::Preserving), Filtering::EndpointIndependent),
            NatKind::AddressRestricted => (Some(Mapping::Preserving), Filtering::AddressDependent),
            NatKind::Firewall | NatKind::Ip6Firewall => (None, Filtering::AddressAndPortDependent),
            NatKind::Symmetric => (Some(Mapping::Symmetric), Filtering::AddressAndPortDependent),
            NatKind::SymmetricBlock => (
                Some(Mapping::Block(20_100, 21_123)),
                Filtering::AddressAndPortDependent,
            ),
            NatKind::SymmetricSequential => (
                Some(Mapping::Sequential(30_000)),
                Filtering::AddressAndPortDependent,
            ),
        };
        Some(Self {
            mapping,
            filtering,
            only_range: matches!(kind, NatKind::RangeFirewall),
            unasked: if matches!(kind, NatKind::Accepts) {
                "accept"
            } else if matches!(kind, NatKind::Rejects) {
                "reject"
            } else {
                "drop"
            },
        })
    }

    /// The policy after so many restarts: a NAT that maps to other ports each time, if its filter does not depend on the ports.
    pub(crate) fn rebooted(self, times: u16) -> Self {
        /// Steps that are prime to the size of [`RANGE`], so that each port has a mapping of its own.
        const STEPS: [u16; 5] = [8, 10, 13, 14, 16];
        let keeps = self.filtering != Filtering::AddressAndPortDependent
            || !matches!(
                self.mapping,
                Some(Mapping::Preserving | Mapping::Rewriting(_))
            );
        let Some(number) = times.checked_sub(1).filter(|_| !keeps) else {
            return self;
        };
        let step = STEPS[usize::from(number) % STEPS.len()];
        Self {
            mapping: Some(Mapping::Rewriting(step)),
            ..self
        }
    }

    pub(crate) const CARRIER: Self = Self {
        mapping: Some(Mapping::Rewriting(11)),
        filtering: Filtering::AddressAndPortDependent,
        only_range: false,
        unasked: "drop",
    };

    pub(crate) fn rules(self, wan: &str, address: Option<Ipv4Addr>) -> String {
        let mut rules = String::from("flush ruleset\n");
        if let (Some(mapping), Some(address)) = (self.mapping, address) {
            rules.push_str(&translation(mapping, self.filtering, wan, address));
        }
        rules.push_str(&self.filter(wan));
        rules
    }

    fn filter(self, wan: &str) -> String {
        let (contacted, note, admit) = match self.filtering {
            Filtering::AddressAndPortDependent => ("", "", ""),
            // Only what the prerouting map translated may pass: the LAN's own addresses are not routed from outside.
            Filtering::EndpointIndependent => ("", "", "ct status dnat accept"),
            Filtering::AddressDependent => (
                "set contacted { type inet_proto . ipv4_addr . inet_service . ipv4_addr; flags dynamic,timeout; size 65536; }",
                "meta l4proto { tcp, udp } update @contacted { meta l4proto . ip saddr . th sport . ip daddr timeout LIFETIME }",
                "ct status dnat meta l4proto . ip daddr . th dport . ip saddr @contacted accept",
            ),
        };
        let unasked = self.unasked;
        let note = note.replace("LIFETIME", LIFETIME);
        let range = if self.only_range {
            format!(
                "iifname != \"{wan}\" meta l4proto {{ tcp, udp }} th sport != {}-{} reject with icmpx type admin-prohibited",
                RANGE.start(),
                RANGE.end(),
            )
        } else {
            String::new()
        };
        // The rule that notes contacts stands before the one that accepts established flows: answers count as contacts.
        let note = if note.is_empty() {
            note
        } else {
            format!("oifname \"{wan}\" {note}")
        };
        let admit = if admit.is_empty() {
            String::new()
        } else {
            format!("iifname \"{wan}\" {admit}")
        };
        format!(
            r#"table inet lab {{
    {contacted}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{wan}" ct state established,related accept
        iifname "{wan}" meta l4proto {{ tcp, udp }} {unasked}
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        {note}
        ct state established,related accept
        {range}
        {admit}
        iifname "{wan}" drop
    }}
}}
"#
        )
    }
}

fn translation(mapping: Mapping, filtering: Filtering, wan: &str, address: Ipv4Addr) -> String {
    let (mut maps, mut inbound, mut outbound) = (Vec::new(), Vec::new(), Vec::new());
    for protocol in ["udp", "tcp"] {
        if filtering != Filtering::AddressAndPortDependent {
            let map = format!("{protocol}_mapping");
            maps.push(format!(
                "map {map} {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; size 65536; }}"
            ));
            inbound.push(format!(
                "iifname \"{wan}\" ip daddr {address} meta l4proto {protocol} dnat ip to {protocol} dport map @{map}"
            ));
            outbound.push(format!(
                "oifname \"{wan}\" meta l4proto {protocol} \
                 update @{map} {{ {protocol} sport timeout {LIFETIME} : ip saddr . {protocol} sport }}"
            ));
        }
        if let Mapping::Rewriting(step) = mapping {
            outbound.extend(RANGE.map(|port| {
                let mapped = rewritten(port, step);
                format!("oifname \"{wan}\" {protocol} sport {port} snat ip to {address}:{mapped}")
            }));
        }
    }
    let rest = match mapping {
        Mapping::Preserving | Mapping::Rewriting(_) => format!("snat ip to {address}"),
        Mapping::Symmetric => "masquerade fully-random".to_owned(),
        Mapping::Block(from, to) => {
            format!("meta l4proto {{ tcp, udp }} masquerade to :{from}-{to} fully-random")
        }
        Mapping::Sequential(from) => {
            let ports = (0..SEQUENCE).map(|nth| format!("{nth} : {}", from + nth));
            let ports = ports.collect::<Vec<_>>().join(", ");
            format!(
                "meta l4proto {{ tcp, udp }} snat ip to {address} : numgen inc mod {SEQUENCE} map {{ {ports} }}"
            )
        }
    };
    outbound.push(format!("oifname \"{wan}\" {rest}"));
    let lines = |lines: Vec<String>, indent: &str| lines.join(&format!("\n{indent}"));
    format!(
        r#"table ip lab_nat {{
    {maps}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {inbound}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {outbound}
    }}
}}
"#,
        maps = lines(maps, "    "),
        inbound = lines(inbound, "        "),
        outbound = lines(outbound, "        "),
    )
}

/// Where a rewriting NAT maps a port of [`RANGE`]: one to one, and without a constant offset that could be guessed.
fn rewritten(port: u16, step: u16) -> u16 {
    let size = RANGE.end() - RANGE.start() + 1;
    let index = port - RANGE.start();
    51200 + step + (index * step) % size
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_a_rewriting_nat_gives_every_port_its_own() {
        for kind in NatKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for step in [7, 11, 8, 10, 13, 14, 16] {
            let mapped: BTreeSet<u16> = RANGE.map(|port| rewritten(port, step)).collect();
            assert_eq!(mapped.len(), RANGE.count());
            assert!(mapped.iter().all(|port| !RANGE.contains(port)));
        }
    }
}
