//! What routers map to this node.

use p2pnode_protocol::mapping::Protocol;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::core::mappings::{Claim, Method};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    protocol: &'static str,
    method: &'static str,
    state: &'static str,
}

/// The mappings at this moment, by whether a check from outside has proved them.
#[derive(Debug, Clone, Default)]
pub(super) struct Mappings(Family<Labels, Gauge>);

impl Mappings {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "p2pnode_mappings",
            "Ports of this node that a router maps, by how it was asked and whether a check from outside has proved them",
            self.0.clone(),
        );
    }

    pub(super) fn set(&self, claims: &[Claim]) {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            for method in Method::ALL {
                for is_verified in [false, true] {
                    let alike = claims.iter().filter(|claim| {
                        (claim.inside.protocol, claim.method) == (protocol, method)
                            && claim.verified.is_some() == is_verified
                    });
                    let labels = Labels {
                        protocol: match protocol {
                            Protocol::Udp => "udp",
                            Protocol::Tcp => "tcp",
                        },
                        method: method.as_str(),
                        state: if is_verified { "verified" } else { "claimed" },
                    };
                    let count = i64::try_from(alike.count()).unwrap_or(i64::MAX);
                    // A series appears with its first mapping, and stays.
                    if count > 0 || self.0.get(&labels).is_some() {
                        self.0.get_or_create(&labels).set(count);
                    }
                }
            }
        }
    }
}
