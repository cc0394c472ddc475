//! A host of the lab.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use patchbay::Device;

use crate::{artifacts::Artifacts, command::feed};

#[derive(Clone)]
pub struct Host {
    pub device: Device,
    /// Its own addresses, untranslated, IPv4 first.
    pub addresses: Vec<IpAddr>,
    pub(crate) artifacts: Arc<Artifacts>,
}

impl Host {
    pub(crate) fn new(device: Device, artifacts: &Arc<Artifacts>) -> Self {
        let ip4 = device.ip().map(IpAddr::from);
        let ip6 = device.ip6().map(IpAddr::from);
        Self {
            addresses: ip4.into_iter().chain(ip6).collect(),
            device,
            artifacts: Arc::clone(artifacts),
        }
    }

    /// A path for a file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.artifacts.file(name)
    }

    pub fn ip(&self, ip6: bool) -> Result<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        let found = addresses.find(|ip| ip.is_ipv6() == ip6);
        let family = if ip6 { "IPv6" } else { "IPv4" };
        found.with_context(|| format!("host {} has no {family} address", self.device.name()))
    }

    /// Takes the cable out, and puts it in again.
    pub async fn plug(&self, is_in: bool) -> Result<()> {
        let cable = self.device.default_iface().context("no interface")?;
        match is_in {
            true => cable.link_up().await,
            false => cable.link_down().await,
        }
    }

    /// Runs these commands of `ip`, one a line, in the host.
    pub fn ip_commands(&self, commands: impl Into<String>) -> Result<()> {
        let commands = commands.into();
        let done = self
            .device
            .run_sync(move || feed("ip", &["-batch", "-"], &commands));
        done.map(drop)
    }

    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        let value = value.to_owned();
        self.device.run_sync(move || {
            std::fs::write(&path, &value).with_context(|| format!("{path}={value}"))
        })
    }
}
