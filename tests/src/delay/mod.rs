//! Latency and loss on the internet of a lab.
//!
//! The delay sits where all sites meet, not on their routers: a NAT that queues is another NAT. A packet passes there once
//! on its way from site to site and once on its way back, so half of the round trip is added each time, between peers and
//! relays and between peers alike. Hosts of one site are not slowed, and neither is address resolution: nobody asked for
//! that, and a first packet would wait for it.
//!
//! The kernel does it with netem where it has netem. Where it has not, packets are led through NFQUEUE to a thread of this
//! process, which lets them go when their time has come. A kernel that has neither cannot have a lab with latency, and that
//! is an error: a test must not pass because nothing was slow.

mod link;
mod netem;
mod nfqueue;
mod queue;

use anyhow::{Result, anyhow, ensure};
use patchbay::Ix;

pub use link::{Family, Link, Uplink};

const REMEDY: &str = "latency in the lab needs the qdisc netem or NFQUEUE, and this kernel has neither: load one as root with \
     `modprobe sch_netem` or `modprobe -a nfnetlink_queue xt_NFQUEUE br_netfilter`, or use a kernel that has CONFIG_NET_SCH_NETEM \
     or CONFIG_NETFILTER_NETLINK_QUEUE";

/// Lets nothing pass any more once it is dropped.
pub(crate) use queue::Worker;

/// Without a worker it is netem that does it, for as long as the lab lives.
pub(crate) fn impose(ix: &Ix, link: Link) -> Result<Option<Worker>> {
    ensure!(
        (0.0..=100.0).contains(&link.loss_percent),
        "a loss of {} %: give 0 to 100",
        link.loss_percent
    );
    let netem = match link.uplink {
        Some(_) => Err("it has no queue for one address".to_owned()),
        None => ix.run_sync(move || netem::impose(link))?,
    };
    let Err(netem) = netem else {
        return Ok(None);
    };
    let worker = queue::impose(ix, link);
    worker
        .map(Some)
        .map_err(|error| anyhow!("{REMEDY} (netem: {netem}; NFQUEUE: {error:#})"))
}
