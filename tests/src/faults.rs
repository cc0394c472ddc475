//! What happens to a network while nodes run in it: paths are cut, NATs forget their flows, get another address.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{load_rules, run},
    lab::Site,
    nat::{Mapping, Policy, WAN},
};

/// Where the addresses that [`Site::renumber`] hands out begin, in the last octet: far above those that the lab assigns.
const RENUMBERED: u8 = 200;

#[derive(Clone, Copy, Debug)]
pub enum Traffic {
    With(IpAddr),
    Udp(IpAddr),
    /// What leaves to this address; what comes from it passes.
    To(IpAddr),
    /// The first SYNs of TCP connections to this address, before the NAT sees them; all else passes.
    SynTo(IpAddr),
    /// What leaves the site from these ports, first and last, before the NAT sees it. What comes from outside from them passes.
    From(u16, u16),
    /// All that passes the router's outside.
    Outside,
    /// Questions to name servers.
    Dns,
    /// The same; here the router answers that nobody listens.
    DnsRefused,
}

/// The routes of a router without a carrier.
pub struct Unplugged(String);

impl Traffic {
    fn rules(self) -> [String; 2] {
        let rule = |what: String| format!("        {what}\n");
        let (ip, protocol) = match self {
            Self::Outside => {
                return ["iifname", "oifname"].map(|end| rule(format!("{end} \"{WAN}\" drop")));
            }
            Self::Dns => return [String::new(), rule("udp dport 53 drop".to_owned())],
            Self::DnsRefused => return [String::new(), rule("udp dport 53 reject".to_owned())],
            Self::From(first, last) => {
                let ports = format!("meta l4proto {{ tcp, udp }} th sport {first}-{last}");
                return [
                    rule(format!("iifname != \"{WAN}\" {ports} drop")),
                    String::new(),
                ];
            }
            Self::With(ip) | Self::To(ip) => (ip, ""),
            Self::Udp(ip) => (ip, "meta l4proto udp "),
            Self::SynTo(ip) => (ip, "tcp flags & (syn | ack) == syn "),
        };
        let family = if ip.is_ipv4() { "ip" } else { "ip6" };
        let [from, to] =
            ["saddr", "daddr"].map(|end| rule(format!("{protocol}{family} {end} {ip} drop")));
        match self {
            Self::SynTo(_) => [to, String::new()],
            Self::To(_) => [String::new(), to],
            Self::With(_)
            | Self::Udp(_)
            | Self::From(..)
            | Self::Outside
            | Self::Dns
            | Self::DnsRefused => [from, to],
        }
    }
}

impl Site {
    /// Drops traffic in the site's router silently, both ways unless [`Traffic`] says otherwise, until [`Site::mend`] or the next cut. As where the path is cut on the internet, the
    /// NAT does not see what comes from there, and sees what goes there; new flows leave no trace in it.
    pub fn cut(&self, traffic: &[Traffic]) -> Result<()> {
        let rules: Vec<_> = traffic.iter().map(|traffic| traffic.rules()).collect();
        let [unseen, seen] = [0, 1]
            .map(|chain| -> String { rules.iter().map(|rules| rules[chain].as_str()).collect() });
        // -300 is before conntrack.
        let rules = format!(
            "table inet cut\ndelete table inet cut\ntable inet cut {{\n    chain prerouting {{\n        type filter hook prerouting priority -300; policy accept;\n{unseen}    }}\n    chain forward {{\n        type filter hook forward priority -200; policy accept;\n{seen}    }}\n}}\n"
        );
        load_rules(&self.router, rules)
    }

    pub fn mend(&self) -> Result<()> {
        load_rules(&self.router, "delete table inet cut\n".to_owned())
    }

    /// Makes the link outside of the router narrow: it drops larger packets, both ways, and sends no ICMP messages about that.
    pub fn narrow(&self, mtu: u16) -> Result<()> {
        self.router
            .run_sync(move || run("ip", &["link", "set", WAN, "mtu", &mtu.to_string()]))?;
        let rules = "table inet narrow {
    chain output {
        type filter hook output priority 0; policy accept;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}
";
        load_rules(&self.router, rules.to_owned())
    }

    /// Drops larger packets that come from outside, and sends no ICMP messages about that. What goes out passes.
    pub fn narrow_inwards(&self, mtu: u16) -> Result<()> {
        let rules = format!(
            "table inet narrow_in {{
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iifname \"{WAN}\" meta length > {mtu} drop
    }}
}}
"
        );
        load_rules(&self.router, rules)
    }

    /// Makes the NAT forget all its flows, as one does that restarts: each gets a new mapping with its next packet from inside,
    /// and nothing comes in before.
    pub fn forget_flows(&self) -> Result<()> {
        self.router.run_sync(|| run("conntrack", &["-F"]).map(drop))
    }

    /// The flows that the NAT knows, as `conntrack -L` prints them.
    pub fn flows(&self) -> Result<String> {
        self.router.run_sync(|| run("conntrack", &["-L"]))
    }

    /// Restarts the NAT: it forgets all its flows and maps to other ports from then on. One that admits by what it has mapped keeps
    /// the ports.
    pub fn reboot(&mut self) -> Result<()> {
        let (Some(policy), Some(IpAddr::V4(outside))) = (Policy::of(self.kind), self.outside)
        else {
            bail!("{} maps nothing", self.router.name());
        };
        self.reboots += 1;
        let rules = policy.rebooted(self.reboots).rules(WAN, Some(outside));
        self.translate(rules)
    }

    /// Makes a NAT that gives ports of a block give these.
    pub fn gives(&self, ports: RangeInclusive<u16>) -> Result<()> {
        let (Some(policy), Some(IpAddr::V4(outside))) = (Policy::of(self.kind), self.outside)
        else {
            bail!("{} maps nothing", self.router.name());
        };
        let mapping = Some(Mapping::Block(*ports.start(), *ports.end()));
        self.translate(Policy { mapping, ..policy }.rules(WAN, Some(outside)))
    }

    /// Loads the rules of a NAT. They flush all others; a cut, which is not the NAT's, stays.
    fn translate(&self, rules: String) -> Result<()> {
        let cut = self
            .router
            .run_sync(|| run("nft", &["list", "table", "inet", "cut"]));
        load_rules(&self.router, rules + &cut.unwrap_or_default())?;
        self.forget_flows()
    }

    /// Takes the carrier from the router's outside: it answers that there is no route. Returns what [`Site::plug`] needs.
    pub fn unplug(&self) -> Result<Unplugged> {
        self.router.run_sync(|| {
            let routes = run("ip", &["-4", "route", "show", "default"])?;
            run("ip", &["link", "set", WAN, "down"])?;
            Ok(Unplugged(routes))
        })
    }

    pub fn plug(&self, Unplugged(routes): Unplugged) -> Result<()> {
        self.router.run_sync(move || {
            run("ip", &["link", "set", WAN, "up"])?;
            restore(&routes)
        })
    }

    /// The address that [`Site::renumber`] gives next.
    pub(crate) fn next_outside(&self) -> Option<IpAddr> {
        match self.outside {
            Some(IpAddr::V4(now)) => Some(next(now).into()),
            _ => None,
        }
    }

    /// Gives the NAT another public address, as a provider does over night. Flows from the old one are gone.
    pub fn renumber(&mut self) -> Result<IpAddr> {
        let (Some(IpAddr::V4(old)), Some(policy)) = (self.outside_ip4(), Policy::of(self.kind))
        else {
            bail!("{} has no address that could change", self.router.name());
        };
        ensure!(
            self.router.uplink_ip() == Some(old) || old.octets()[3] >= RENUMBERED,
            "{}: the address {old} is its carrier's",
            self.router.name()
        );
        let new = next(old);
        self.router.run_sync(move || replace_address(old, new))?;
        self.translate(policy.rebooted(self.reboots).rules(WAN, Some(new)))?;
        self.outside = Some(new.into());
        Ok(new.into())
    }
}

fn next(old: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = old.octets();
    let d = match d {
        ..RENUMBERED => RENUMBERED + d % 50,
        u8::MAX => RENUMBERED,
        RENUMBERED.. => d + 1,
    };
    Ipv4Addr::new(a, b, c, d)
}

/// Replaces an address of the router's outside and keeps its routes.
fn replace_address(old: Ipv4Addr, new: Ipv4Addr) -> Result<()> {
    let routes = run("ip", &["-4", "route", "show", "default"])?;
    let shown = run("ip", &["-4", "-o", "addr", "show", "dev", WAN])?;
    let length = shown
        .split_whitespace()
        .find_map(|word| word.strip_prefix(&format!("{old}/")))
        .with_context(|| format!("{old} is not on {WAN}: {shown}"))?;
    for (change, ip) in [("del", old), ("add", new)] {
        let address = format!("{ip}/{length}");
        run("ip", &["addr", change, &address, "dev", WAN])?;
    }
    restore(&routes)
}

fn restore(routes: &str) -> Result<()> {
    for route in routes.lines() {
        let mut args = vec!["-4", "route", "replace"];
        args.extend(route.split_whitespace());
        run("ip", &args)?;
    }
    Ok(())
}
