//! The topology: an internet, public hosts on it, and sites, each behind a NAT of its own.
//!
//! ```text
//!                   internet (198.18.0.0/15, 2001:db8::/32)
//!        |                |                         |
//!     public           site "a"                  site "b"
//!   (relay, ...)   router, NatKind            carrier's router
//!                   |          |                    |
//!                 host       host               home router
//!                                                   |
//!                                                 host
//! ```
//!
//! Every site that translates has the same LAN, 192.168.1.0/24, as homes do: an address of one means another host in the
//! other.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use patchbay::{IpSupport, Ipv4Net, Nat, Router, RouterPreset};

use crate::{
    artifacts::Artifacts,
    capture::Capture,
    command::{load_rules, run},
    delay::{self, Link, Worker},
    host::Host,
    nat::{NatKind, Policy, WAN},
    routable, sandbox,
};

const HOME_LAN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24);
/// What a carrier gives to its customers (RFC 6598).
const CARRIER_LAN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 24);
/// The interface of a router behind a carrier's router: patchbay's name.
const WAN_BEHIND_CARRIER: &str = "wan";

/// A lab. Its namespaces vanish when it is dropped; so do the processes in them.
pub struct Lab {
    // Dropped first: the processes that write artifacts end with it.
    pub(crate) net: patchbay::Lab,
    impairment: Option<Option<Worker>>,
    artifacts: Arc<Artifacts>,
    datacenter: Router,
    is_routable: bool,
}

pub struct Site {
    pub kind: NatKind,
    name: String,
    /// The router between its hosts and the next network.
    pub(crate) router: Router,
    carrier: Option<Router>,
    pub(crate) outside: Option<IpAddr>,
    pub(crate) reboots: u16,
}

impl Site {
    /// One without a translation of IPv4, behind this router.
    pub(crate) fn of_router(name: &str, kind: NatKind, router: Router) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            router,
            carrier: None,
            outside: None,
            reboots: 0,
        }
    }

    /// The address that its IPv4 is translated to; `None` where it is not translated.
    pub fn outside_ip4(&self) -> Option<IpAddr> {
        self.outside
    }

    /// Runs a script of `sh` in the router.
    pub fn shell(&self, script: &str) -> Result<String> {
        let script = script.to_owned();
        self.router.run_sync(move || run("sh", &["-c", &script]))
    }
}

impl Lab {
    pub async fn new(name: &str) -> Result<Self> {
        Self::build(Artifacts::new(name)?).await
    }

    pub async fn of_test() -> Result<Self> {
        Self::build(Artifacts::of_test()?).await
    }

    async fn build(artifacts: Artifacts) -> Result<Self> {
        sandbox::check()?;
        let net = patchbay::Lab::builder()
            .allow_real_root()
            .build()
            .await
            .context("lab")?;
        let datacenter = net
            .add_router("dc")
            .preset(RouterPreset::Public)
            .build()
            .await
            .context("router dc")?;
        net.ix().run_sync(pin_bridges)?;
        datacenter.run_sync(pin_bridges)?;
        Ok(Self {
            net,
            impairment: None,
            artifacts: Arc::new(artifacts),
            datacenter,
            is_routable: false,
        })
    }

    /// Before the first host: gives public hosts and NATs IPv4 addresses that every program takes for public ones.
    pub fn routable(mut self) -> Result<Self> {
        routable::exchange(&self.net.ix(), &self.datacenter)?;
        self.is_routable = true;
        Ok(self)
    }

    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    pub fn succeeded(self) {
        self.artifacts.succeeded();
    }

    pub async fn public_host(&self, name: &str) -> Result<Host> {
        let mut host = self.add_host(name, &self.datacenter).await?;
        if self.is_routable {
            routable::public_host(&host.device)?;
            for ip in &mut host.addresses {
                if let IpAddr::V4(ip4) = ip {
                    *ip4 = routable::of(*ip4);
                }
            }
        }
        Ok(host)
    }

    pub async fn site(&self, name: &str, kind: NatKind) -> Result<Site> {
        let net = &self.net;
        let carrier = if kind == NatKind::Cgnat {
            let carrier = net
                .add_router(&format!("{name}-carrier"))
                .nat(Nat::Moderate)
                .ip_support(IpSupport::V4Only)
                .downstream_cidr(CARRIER_LAN)
                .build()
                .await
                .with_context(|| format!("carrier of {name}"))?;
            carrier.run_sync(pin_bridges)?;
            apply(&carrier, WAN, Policy::CARRIER, carrier.uplink_ip())?;
            Some(carrier)
        } else if kind == NatKind::Accepts {
            let provider = net
                .add_router(&format!("{name}-provider"))
                .preset(RouterPreset::Public)
                .build()
                .await
                .with_context(|| format!("provider of {name}"))?;
            provider.run_sync(pin_bridges)?;
            Some(provider)
        } else {
            None
        };
        let router = net.add_router(&format!("{name}-router"));
        // patchbay's own NAT picks the private pool; its rules are replaced below.
        let router = match kind {
            NatKind::None => router.preset(RouterPreset::Public),
            NatKind::Firewall => router.preset(RouterPreset::PublicV4),
            NatKind::Ip6Firewall => router
                .preset(RouterPreset::Public)
                .ip_support(IpSupport::V6Only),
            NatKind::DualStack => router
                .preset(RouterPreset::Public)
                .downstream_cidr(HOME_LAN),
            NatKind::EimApdf
            | NatKind::EimApdfRewrite
            | NatKind::FullCone
            | NatKind::AddressRestricted
            | NatKind::Cgnat
            | NatKind::RangeFirewall
            | NatKind::Accepts
            | NatKind::Rejects
            | NatKind::Symmetric
            | NatKind::SymmetricBlock
            | NatKind::SymmetricSequential => router
                .nat(Nat::Moderate)
                .ip_support(IpSupport::V4Only)
                .downstream_cidr(HOME_LAN),
        };
        let router = match &carrier {
            Some(carrier) => router.upstream(carrier.id()),
            None => router,
        };
        let router = router
            .build()
            .await
            .with_context(|| format!("router of {name}"))?;
        router.run_sync(pin_bridges)?;
        if kind == NatKind::DualStack {
            // The public pool is for its IPv6; a home's IPv4 is not routed.
            let lan = HOME_LAN.to_string();
            net.ix()
                .run_sync(move || run("ip", &["route", "del", &lan]).map(drop))?;
        }
        let translates_last = carrier.as_ref().filter(|_| kind == NatKind::Cgnat);
        let mut outside = translates_last.unwrap_or(&router).uplink_ip();
        if self.is_routable {
            ensure!(carrier.is_none(), "a routable lab has no carriers");
            routable::uplink(&router)?;
            outside = outside.map(routable::of);
        }
        if let Some(policy) = Policy::of(kind) {
            let address = carrier.as_ref().map_or(outside, |_| router.uplink_ip());
            apply(&router, wan(&carrier), policy, address)?;
        }
        let outside = outside.filter(|_| kind.translates());
        Ok(Site {
            kind,
            name: name.to_owned(),
            router,
            carrier,
            outside: outside.map(IpAddr::from),
            reboots: 0,
        })
    }

    pub async fn home(&self, name: &str, kind: NatKind) -> Result<(Site, Host)> {
        let site = self.site(name, kind).await?;
        let host = self.host(&format!("host-{name}"), &site).await?;
        Ok((site, host))
    }

    pub async fn host(&self, name: &str, site: &Site) -> Result<Host> {
        self.add_host(name, &site.router).await
    }

    /// Adds a public host that is in the LAN of a site as well, as a relay that serves a cluster from inside. [`Host::addresses`]
    /// are the public ones; the inside address is returned alongside it. Its routes lead out by the public side.
    pub async fn public_host_in(&self, name: &str, site: &Site) -> Result<(Host, IpAddr)> {
        let device = self
            .net
            .add_device(name)
            .iface("eth0", self.datacenter.id())
            .iface("eth1", site.router.id())
            .build()
            .await
            .with_context(|| format!("host {name}"))?;
        let inside = device.iface("eth1").and_then(|iface| iface.ip());
        let inside = inside.with_context(|| format!("host {name} has no IPv4 address inside"))?;
        Ok((Host::new(device, &self.artifacts), inside.into()))
    }

    /// Gives a public host these IPv6 addresses as well, each with its /64 routed to it.
    pub fn more_addresses(&self, host: &Host, addresses: &[Ipv6Addr]) -> Result<()> {
        let gateway = host.ip(true)?.to_string();
        for address in addresses {
            let prefix = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            let (address, prefix) = (format!("{address}/128"), format!("{prefix}/64"));
            let gateway = gateway.clone();
            host.device.run_sync(move || {
                run("ip", &["-6", "addr", "replace", &address, "dev", "lo"]).map(drop)
            })?;
            self.datacenter.run_sync(move || {
                run("ip", &["-6", "route", "replace", &prefix, "via", &gateway]).map(drop)
            })?;
        }
        Ok(())
    }

    /// Gives a public host this name, in a name server on the internet that every host asks.
    pub fn name(&self, name: &str, host: &Host) -> Result<()> {
        let server = self.net.dns_server()?;
        let mut ips = host.addresses.iter();
        ips.try_for_each(|ip| server.set_host(name, *ip))
    }

    /// Hides from a public host where others are: its router translates the source of what comes to the host.
    pub fn masquerade_towards(&self, host: &Host) -> Result<()> {
        self.translate_towards(host, "masquerade")
    }

    /// The same with the address that this statement of nftables gives.
    pub fn translate_towards(&self, host: &Host, statement: &str) -> Result<()> {
        let ip = host.ip(false)?;
        let rules = format!(
            "table ip front {{\n    chain post {{\n        type nat hook postrouting priority srcnat; policy accept;\n        ip daddr {ip} {statement}\n    }}\n}}\n"
        );
        load_rules(&self.datacenter, rules)
    }

    /// Slows what passes between the sites that there are, public hosts being one; replaces an earlier link.
    pub fn impair(&mut self, link: Link) -> Result<()> {
        // First the old one, which may hold what the new one needs.
        self.impairment = None;
        self.impairment = Some(delay::impose(&self.net.ix(), link)?);
        Ok(())
    }

    /// What does the link: `netem`, `NFQUEUE`, or nothing where there is none. NFQUEUE bounds how fast a transfer can be.
    pub fn impaired_by(&self) -> Option<&'static str> {
        let worker = self.impairment.as_ref()?;
        Some(worker.as_ref().map_or("netem", |_| "NFQUEUE"))
    }

    /// Starts a capture in the site's router: its inside is the LAN.
    pub async fn capture(&self, site: &Site) -> Result<Capture> {
        let file = self.artifacts.file(&format!("{}.pcap", site.name));
        Capture::start(&site.router, wan(&site.carrier), &file).await
    }

    /// Starts a capture in the router whose outside is the internet: the carrier's, or else the site's.
    pub async fn capture_carrier(&self, site: &Site) -> Result<Option<Capture>> {
        let Some(carrier) = &site.carrier else {
            return Ok(None);
        };
        let file = self.artifacts.file(&format!("{}-carrier.pcap", site.name));
        Capture::start(carrier, WAN, &file).await.map(Some)
    }

    /// Routes IPv6 networks to a public host.
    pub(crate) fn route(&self, networks: &[String], gateway: Ipv6Addr) -> Result<()> {
        let (networks, gateway) = (networks.to_vec(), gateway.to_string());
        self.datacenter.run_sync(move || {
            for network in &networks {
                run("ip", &["-6", "route", "add", network, "via", &gateway])?;
            }
            Ok(())
        })
    }

    async fn add_host(&self, name: &str, router: &Router) -> Result<Host> {
        let device = self
            .net
            .add_device(name)
            .iface("eth0", router.id())
            .build()
            .await;
        let device = device.with_context(|| format!("host {name}"))?;
        Ok(Host::new(device, &self.artifacts))
    }
}

fn wan(carrier: &Option<Router>) -> &'static str {
    carrier.as_ref().map_or(WAN, |_| WAN_BEHIND_CARRIER)
}

fn apply(router: &Router, wan: &str, policy: Policy, address: Option<Ipv4Addr>) -> Result<()> {
    // Frames between two hosts of one LAN are none of the NAT's business.
    router.run_sync(|| {
        for table in ["iptables", "ip6tables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{table}");
            if std::path::Path::new(&path).exists() {
                std::fs::write(&path, "0").with_context(|| path)?;
            }
        }
        Ok(())
    })?;
    load_rules(router, policy.rules(wan, address))
}

/// Gives each bridge of this namespace the address that it has. A bridge that was given none takes the lowest of its ports', and so
/// another one whenever a site or a host is added: those that are there go on sending to the old one, and what they send is
/// dropped until they ask again.
pub(crate) fn pin_bridges() -> Result<()> {
    let links = run("ip", &["-o", "link", "show", "type", "bridge"])?;
    for link in links.lines() {
        let words: Vec<_> = link.split_whitespace().collect();
        let name = words.get(1).map(|name| name.trim_end_matches(':'));
        let address = words.iter().position(|word| *word == "link/ether");
        let address = address.and_then(|at| words.get(at + 1));
        let (Some(name), Some(address)) = (name, address) else {
            bail!("ip: no name and address in {link:?}");
        };
        run("ip", &["link", "set", "dev", name, "address", address])?;
    }
    Ok(())
}
