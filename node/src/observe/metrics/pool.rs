//! The ports of the range by state, counted at each scrape: a port leaves the cooling state without an event.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use p2pnode_transports::{Handle, PoolCounts};
use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, metrics::MetricType, registry::Registry,
};

/// The pool of a node, once it has one.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<OnceLock<Handle>>);

impl Pool {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    pub(super) fn watch(&self, sockets: &Handle) {
        // A node has one transport for as long as it runs.
        self.0.get_or_init(|| sockets.clone());
    }
}

impl Collector for Pool {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self.0.get() {
            Some(sockets) => encode(sockets.pool_counts(), encoder),
            None => Ok(()),
        }
    }
}

fn encode(pool: PoolCounts, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let mut gauge = encoder.encode_descriptor(
        "p2pnode_port_pool",
        "Ports of the configured range by state",
        None,
        MetricType::Gauge,
    )?;
    for (state, count) in [
        ("free", pool.free),
        ("in_use", pool.in_use),
        ("cooling", pool.cooling),
    ] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        gauge
            .encode_family(&[("state", state)])?
            .encode_gauge(&count)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[derive(Debug)]
    pub(in crate::observe::metrics) struct Counts;

    impl Collector for Counts {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let pool = PoolCounts {
                free: 48,
                in_use: 2,
                cooling: 1,
            };
            encode(pool, encoder)
        }
    }

    #[test]
    fn each_state_has_a_series_also_if_no_port_is_in_it() -> fmt::Result {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Counts));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        assert_eq!(
            text,
            "# HELP p2pnode_port_pool Ports of the configured range by state\n\
             # TYPE p2pnode_port_pool gauge\n\
             p2pnode_port_pool{state=\"free\"} 48\n\
             p2pnode_port_pool{state=\"in_use\"} 2\n\
             p2pnode_port_pool{state=\"cooling\"} 1\n\
             # EOF\n"
        );
        Ok(())
    }
}
