//! The plain libp2p peer (`plain-libp2p` of `tests/peers`): libp2p's own transports and its own DCUtR, nothing of ours.

use anyhow::Result;

use crate::{args::Transport, bins::plain_libp2p, node::Launch};

#[derive(Clone, Debug)]
pub struct PlainArgs {
    pub relay: String,
    pub transport: Transport,
    /// The port that it listens on. libp2p dials from there too.
    pub port: u16,
    pub families: &'static [&'static str],
}

pub const IP4: &[&str] = &["0.0.0.0"];
pub const ANY: &[&str] = &["0.0.0.0", "::"];

impl PlainArgs {
    pub fn listen(&self, name: &str) -> Result<Launch> {
        Ok(self.launch(name)?.arg("listen"))
    }

    /// Reaches the peer, or else gets to the relay first and then reaches the peer that it is told.
    pub fn dial(&self, name: &str, peer: Option<&str>, timeout_s: u64) -> Result<Launch> {
        let dial = ["dial", "--timeout", &timeout_s.to_string()];
        let dial = self.launch(name)?.args(dial);
        Ok(match peer {
            Some(peer) => dial.arg(peer),
            None => dial.told(),
        })
    }

    fn launch(&self, name: &str) -> Result<Launch> {
        let mut launch = Launch::new(name, plain_libp2p()?).args(["--relay", &self.relay]);
        for any in self.families {
            launch = launch.args(["--listen", &self.transport.addr(any, self.port)]);
        }
        Ok(launch)
    }
}
