//! Addresses that programs take for public ones: go-libp2p punches none of 198.18.0.0/15, which the lab's internet is of
//! (go-multiaddr, `net/private.go`).
//!
//! Each public IPv4 address is replaced by one of a network that has one purpose on the real internet, to answer nobody
//! (RFC 7534, RFC 7535).

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use patchbay::{Device, Ix, Router};

use crate::{command::run, nat::WAN};

/// The address in the place of one of patchbay's: of its exchange, or of its first public network.
pub(crate) fn of(ip: Ipv4Addr) -> Ipv4Addr {
    match ip.octets() {
        [198, 18, 0, host] => [192, 31, 196, host].into(),
        [198, 18, 1, host] => [192, 175, 48, host].into(),
        _ => ip,
    }
}

/// The exchange, and the network of its public hosts behind `datacenter`.
pub(crate) fn exchange(ix: &Ix, datacenter: &Router) -> Result<()> {
    ix.run_sync(|| renumber("198.18.0.0/24"))?;
    uplink(datacenter)?;
    datacenter.run_sync(|| renumber("198.18.1.0/24"))?;
    let gateway = datacenter.uplink_ip().context("no uplink")?;
    let gateway = of(gateway).to_string();
    ix.run_sync(move || run("ip", &["route", "add", "192.175.48.0/24", "via", &gateway]).map(drop))
}

/// The outside of a router at the exchange.
pub(crate) fn uplink(router: &Router) -> Result<()> {
    router.run_sync(|| {
        renumber("198.18.0.0/24")?;
        leads_to(WAN, [192, 31, 196, 1])
    })
}

pub(crate) fn public_host(device: &Device) -> Result<()> {
    device.run_sync(|| {
        renumber("198.18.1.0/24")?;
        leads_to("eth0", [192, 175, 48, 1])
    })
}

/// Replaces the address of `network` in the namespace of the calling thread.
fn renumber(network: &str) -> Result<()> {
    let shown = run("ip", &["-o", "-4", "addr", "show", "to", network])?;
    // 2: eth0    inet 198.18.1.2/24 ...
    let words: Vec<_> = shown.split_whitespace().collect();
    let [_, device, _, address, ..] = words[..] else {
        anyhow::bail!("no address of {network}: {shown:?}");
    };
    let (ip, _) = address.split_once('/').context("no length")?;
    let new = format!("{}/24", of(ip.parse()?));
    run("ip", &["addr", "add", &new, "dev", device])?;
    run("ip", &["addr", "del", address, "dev", device]).map(drop)
}

fn leads_to(device: &str, gateway: [u8; 4]) -> Result<()> {
    let gateway = Ipv4Addr::from(gateway).to_string();
    let route = [
        "route", "replace", "default", "via", &gateway, "dev", device,
    ];
    run("ip", &route).map(drop)
}
