//! What happens to a network while nodes run in it: paths are cut, NATs forget their flows, get another address.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        socket,
    },
};
use std::os::fd::AsRawFd as _;

use crate::{
    lab::{Site, WAN},
    nat::Policy,
    nft,
    sandbox::tool,
};

/// Where the addresses that [`Site::renumber`] hands out begin, in the last octet: far above those that the lab assigns.
const RENUMBERED: u8 = 200;

/// What [`Site::cut`] stops.
#[derive(Clone, Copy, Debug)]
pub enum Traffic {
    /// Everything to and from this address.
    With(IpAddr),
    /// UDP to and from this address.
    Udp(IpAddr),
    /// The first SYNs of TCP connections to this address, before the NAT sees them; all else passes.
    SynTo(IpAddr),
}

impl Traffic {
    /// The rule of the chain that comes before conntrack.
    fn drop_unseen(&self) -> String {
        match self {
            Self::With(ip) => drop_rule("", "saddr", *ip),
            Self::Udp(ip) => drop_rule(UDP, "saddr", *ip),
            Self::SynTo(ip) => drop_rule(SYN, "daddr", *ip),
        }
    }

    /// The rule of the chain that comes after it.
    fn drop_seen(&self) -> String {
        match self {
            Self::With(ip) => drop_rule("", "daddr", *ip),
            Self::Udp(ip) => drop_rule(UDP, "daddr", *ip),
            Self::SynTo(_) => String::new(),
        }
    }
}

const UDP: &str = "meta l4proto udp ";
const SYN: &str = "tcp flags & (syn | ack) == syn ";

/// Drops what has this address as its `saddr` or `daddr`.
fn drop_rule(protocol: &str, end: &str, ip: IpAddr) -> String {
    let family = if ip.is_ipv4() { "ip" } else { "ip6" };
    format!("        {protocol}{family} {end} {ip} drop\n")
}

impl Site {
    /// Drops traffic in the site's router silently, both ways unless [`Traffic`] says otherwise, until [`Site::mend`]. As where the path is cut on the internet, the
    /// NAT does not see what comes from there, and sees what goes there; new flows leave no trace in it.
    pub async fn cut(&self, traffic: &[Traffic]) -> Result<()> {
        let unseen: String = traffic.iter().map(Traffic::drop_unseen).collect();
        let seen: String = traffic.iter().map(Traffic::drop_seen).collect();
        // -300 is before conntrack.
        let rules = format!(
            "create table inet cut\ntable inet cut {{\n    chain prerouting {{\n        type filter hook prerouting priority -300; policy accept;\n{unseen}    }}\n    chain forward {{\n        type filter hook forward priority -200; policy accept;\n{seen}    }}\n}}\n"
        );
        nft::load(self.router(), &rules).await
    }

    /// Lets everything pass again.
    pub async fn mend(&self) -> Result<()> {
        nft::load(self.router(), "delete table inet cut\n").await
    }

    /// Makes the NAT forget all its flows, as one does that restarts: each gets a new mapping with its next packet from inside,
    /// and nothing comes in before.
    pub fn forget_flows(&self) -> Result<()> {
        self.router().run_sync(delete_conntrack)
    }

    /// Gives the NAT another public address, as a provider does over night. Flows from the old one are gone.
    pub async fn renumber(&mut self) -> Result<IpAddr> {
        let (Some(IpAddr::V4(old)), Some(policy)) = (self.outside_ip4(), Policy::of(self.kind))
        else {
            bail!("{} has no address that could change", self.router().name());
        };
        ensure!(
            self.router().uplink_ip() == Some(old) || old.octets()[3] >= RENUMBERED,
            "{}: the address {old} is its carrier's",
            self.router().name()
        );
        let [a, b, c, d] = old.octets();
        let new = Ipv4Addr::new(
            a,
            b,
            c,
            if d < RENUMBERED {
                RENUMBERED + d % 50
            } else {
                d + 1
            },
        );
        self.router().run_sync(move || replace_address(old, new))?;
        nft::load(self.router(), &policy.rules(WAN, Some(new))).await?;
        self.forget_flows()?;
        self.set_outside(new.into());
        Ok(new.into())
    }
}

/// Replaces an address of the router's outside and keeps its routes.
fn replace_address(old: Ipv4Addr, new: Ipv4Addr) -> Result<()> {
    let routes = ip(&["-4", "route", "show", "default"])?;
    let shown = ip(&["-4", "-o", "addr", "show", "dev", WAN])?;
    let length = shown
        .split_whitespace()
        .find_map(|word| word.strip_prefix(&format!("{old}/")))
        .with_context(|| format!("{old} is not on {WAN}: {shown}"))?;
    ip(&["addr", "del", &format!("{old}/{length}"), "dev", WAN])?;
    ip(&["addr", "add", &format!("{new}/{length}"), "dev", WAN])?;
    for route in routes.lines() {
        let mut args = vec!["-4", "route", "replace"];
        args.extend(route.split_whitespace());
        ip(&args)?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new(tool("ip"))
        .args(args)
        .output()
        .context("ip: cannot be started")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Deletes every entry of this namespace's connection tracking, by the one netlink message that does it.
fn delete_conntrack() -> Result<()> {
    /// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
    const DELETE: u16 = 1 << 8 | 2;
    /// `NLM_F_REQUEST | NLM_F_ACK`.
    const FLAGS: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;
    /// Header, and an `nfgenmsg` of zeros: any family, version 0.
    const LENGTH: u8 = 20;

    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .context("netlink")?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("netlink")?;
    let mut message = [0; LENGTH as usize];
    message[..4].copy_from_slice(&u32::from(LENGTH).to_ne_bytes());
    message[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    message[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    sendto(
        netlink.as_raw_fd(),
        &message,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )
    .context("netlink")?;
    let mut answer = [0; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).context("netlink")?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    ensure!(
        length >= 20 && kind == NLMSG_ERROR,
        "netlink answers a message of type {kind}"
    );
    ensure!(
        error == 0,
        "the kernel does not forget its flows: {}",
        Errno::from_raw(-error)
    );
    Ok(())
}
