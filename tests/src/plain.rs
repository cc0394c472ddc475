//! The plain libp2p peer (`plain-libp2p` of `tests/peers`): libp2p's own transports and its own DCUtR, nothing of ours.

use std::path::Path;

use crate::{args::Transport, node::Launch};

#[derive(Clone, Debug)]
pub struct PlainArgs<'a> {
    pub program: &'a Path,
    pub relay: &'a str,
    pub transport: Transport,
    /// The port that it listens on. libp2p dials from there too.
    pub port: u16,
    pub families: &'static [&'static str],
}

pub const IP4: &[&str] = &["0.0.0.0"];
pub const ANY: &[&str] = &["0.0.0.0", "::"];

impl PlainArgs<'_> {
    pub fn listen(&self, name: &str) -> Launch {
        self.launch(name).arg("listen")
    }

    pub fn dial(&self, name: &str, peer: &str, timeout_s: u64) -> Launch {
        self.launch(name)
            .args(["dial", peer, "--timeout", &timeout_s.to_string()])
    }

    /// Gets to the relay and then reaches the peer that it is told, as [`PlainArgs::dial`].
    pub fn told_dial(&self, name: &str, timeout_s: u64) -> Launch {
        let dial = ["dial", "--timeout", &timeout_s.to_string()];
        self.launch(name).args(dial).told()
    }

    fn launch(&self, name: &str) -> Launch {
        let mut launch = Launch::new(name, self.program).args(["--relay", self.relay]);
        for any in self.families {
            launch = launch.args(["--listen", &self.transport.addr(any, self.port)]);
        }
        launch
    }
}
