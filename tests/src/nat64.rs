//! A site that has IPv6 alone, and reaches IPv4 through a NAT64 and a DNS64.
//!
//! patchbay translates the headers, in userspace and over a TUN device. The kernel of the router translates to its IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use patchbay::{IpSupport, NatV6Mode, RouterPreset};

use crate::{
    command::load_rules,
    host::Host,
    lab::{Lab, Site, pin_bridges},
    nat::{NatKind, Policy, WAN},
    peer::Peer,
};

/// The well-known prefix ([RFC 6052](https://www.rfc-editor.org/rfc/rfc6052)).
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// The addresses of the name by which a host finds a DNS64 ([RFC 7050](https://www.rfc-editor.org/rfc/rfc7050)).
const WELL_KNOWN: (&str, Ipv4Addr) = ("ipv4only.arpa", Ipv4Addr::new(192, 0, 0, 170));

/// What patchbay's translator gives IPv6 as its IPv4 address.
const POOL: &str = "192.0.2.64";

/// The address of IPv6 that leads to one of IPv4.
pub fn translated(ip4: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX.to_bits() | u128::from(ip4.to_bits()))
}

impl Lab {
    /// A peer that has IPv6 alone, and a NAT64. Its firewall lets in what it has asked for.
    pub async fn behind_nat64(&self, name: &str) -> Result<Peer> {
        let router = self
            .net
            .add_router(&format!("{name}-router"))
            .preset(RouterPreset::Public)
            .ip_support(IpSupport::V6Only)
            .nat_v6(NatV6Mode::Nat64);
        let router = router.build().await;
        let router = router.with_context(|| format!("router of {name}"))?;
        router.run_sync(pin_bridges)?;
        let policy = Policy::of(NatKind::Ip6Firewall).context("a policy")?;
        let rules = policy.rules(WAN, None);
        let masquerade = format!(
            "table ip nat64 {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"{WAN}\" ip saddr {POOL} masquerade
    }}
}}
"
        );
        load_rules(&router, rules + &masquerade)?;
        let site = Site::of_router(name, NatKind::Ip6Firewall, router);
        let host = self.host(&format!("host-{name}"), &site).await?;
        Peer::of(self, site, host).await
    }

    /// From now on every host asks a DNS64. It knows a public host of IPv4 under this name.
    pub fn dns64(&self, name: &str, host: &Host) -> Result<()> {
        let IpAddr::V4(ip4) = host.ip(false)? else {
            unreachable!("an address of IPv4 was asked for");
        };
        let server = self.net.dns_server()?;
        for (name, ip4) in [WELL_KNOWN, (name, ip4)] {
            server.set_host(name, translated(ip4).into())?;
        }
        Ok(())
    }
}
