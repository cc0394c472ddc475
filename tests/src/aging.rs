//! A NAT that drops each mapping at an age, whether it is used or not, and maps the port to another one afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use crate::{
    lab::Site,
    nat::{RANGE, WAN},
};

/// How often the router looks at the age of its mappings.
const LOOK: Duration = Duration::from_millis(100);

impl Site {
    /// Drops mappings of this age, until the future is dropped. With an address, only the flows to it are dropped.
    pub async fn drops_at(&self, lifetime: Duration, only: Option<IpAddr>) -> Result<Infallible> {
        let outside = self.outside_ip4().context("it maps nothing")?;
        self.shell(&format!(
            "nft -f - <<END
table ip aging {{
    map ports {{ type inet_service : inet_service; }}
    chain postrouting {{
        type nat hook postrouting priority 90; policy accept;
        oifname \"{WAN}\" meta l4proto udp snat ip to {outside} : udp sport map @ports
    }}
}}
END"
        ))?;
        let mut made: BTreeMap<u16, Instant> = BTreeMap::new();
        let mut times: BTreeMap<u16, u16> = BTreeMap::new();
        loop {
            for port in self.ports(only)? {
                let since = *made.entry(port).or_insert_with(Instant::now);
                if since.elapsed() >= lifetime {
                    made.remove(&port);
                    let times = times.entry(port).or_default();
                    *times += 1;
                    self.remap(port, *times, only)?;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// The inside ports that have a mapping.
    fn ports(&self, only: Option<IpAddr>) -> Result<BTreeSet<u16>> {
        let flows = self.flows()?;
        let flows = flows.lines().filter(|flow| flow.starts_with("udp"));
        let field = |flow: &str, name: &str| {
            let mut words = flow.split_whitespace();
            words.find_map(|word| word.strip_prefix(name).map(str::to_owned))
        };
        let ports = flows.filter_map(|flow| {
            let to: IpAddr = field(flow, "dst=")?.parse().ok()?;
            let port = field(flow, "sport=")?.parse().ok()?;
            (only.is_none_or(|only| only == to) && RANGE.contains(&port)).then_some(port)
        });
        Ok(ports.collect())
    }

    fn remap(&self, port: u16, times: u16, only: Option<IpAddr>) -> Result<()> {
        let mapped = |times: u16| 50_000 + (times % 64) * 64 + (port - RANGE.start());
        let before = match times {
            1 => String::new(),
            _ => format!("nft delete element ip aging ports {{ {port} }};"),
        };
        let to = only.map_or_else(String::new, |only| format!("-d {only}"));
        let now = mapped(times);
        self.shell(&format!(
            "{before} nft add element ip aging ports {{ {port} : {now} }}; conntrack -D -p udp --orig-port-src {port} {to} || true"
        ))?;
        Ok(())
    }
}
