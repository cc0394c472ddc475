//! A libp2p node that reaches other nodes behind NAT directly, from a configured range of source ports.
//!
//! [`Node::start`] starts a node from a [`Config`]. Its [`Handle`] dials peers and reports the [`Status`]; its [`Event`]s report
//! what happens in the meantime. The program `p2pnode` is the same node with a command line, a control socket and metrics.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use p2pnode::{Config, Event, Node, Request, Until};
//!
//! # async fn example(peer: libp2p::PeerId) -> Result<(), Box<dyn std::error::Error>> {
//! let keypair = libp2p::identity::Keypair::generate_ed25519();
//! let config = Config::from_yaml("dial: { port_range: 40000-40050 }\nreservations: 0")?;
//! let node = Node::start(&keypair, &config)?;
//! let request = Request {
//!     peer,
//!     addrs: vec!["/ip4/198.51.100.7/udp/443/quic-v1".parse()?],
//!     until: Until::Direct,
//!     timeout: Duration::from_secs(30),
//!     pings: 1,
//! };
//! let mut events = node.handle().dial(request).await?;
//! while let Some(event) = events.recv().await {
//!     if let Event::Result(outcome) = event {
//!         println!("{:?} over {:?}", outcome.outcome, outcome.path);
//!     }
//! }
//! node.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Decisions are in `core` and in the machine of `punch`, which do no IO. `swarm` does the IO. `ARCHITECTURE.md` is the map.

// What the fuzz targets name.
#[cfg(test)]
extern crate self as libfuzzer_sys;
#[cfg(test)]
extern crate self as p2pnode;
#[cfg(test)]
pub(crate) use fuzz_targets::fuzz_target;

mod command;
mod config;
mod control;
mod core;
mod discovery;
#[cfg(test)]
mod fuzz_targets;
mod node;
mod observe;
#[cfg(not(fuzzing))]
mod punch;
#[cfg(fuzzing)]
pub mod punch;
mod services;
#[cfg(test)]
mod simulation;
mod swarm;

#[doc(hidden)]
pub use command::execute;
pub use config::Config;
pub use core::{
    dialer::{Request, Until},
    event::{Event, FoundBy, NotDirect, Outcome, Reached},
    finding::{Finding, FindingId, Remedy},
    peers::{Axis, DecidedBy, Hop, How, Path, PathKind, ReportedBy},
    port_search::{NoSearch, PortClass, SearchClass, SearchOutcome, SearchReport},
};
#[cfg(any(fuzzing, test))]
pub use discovery::datagram as mdns_datagram;
pub use node::{Node, Panicked};
pub use observe::status::{ForwardStatus, ServiceStatus, SessionStatus};
pub use observe::status::{PathStatus, PeerStatus, PunchStatus, RelayStatus, Scored, Status, Why};
pub use punch::{AttemptEnd, By, CandidateOutcome, CandidateRecord, Reason, Role};
pub use services::{Callers, Incoming, OpenSessionError, ServeError, Session};
pub use swarm::handle::{Handle, Stopped};
