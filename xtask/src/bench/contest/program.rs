//! Who takes part, and how they are named.

use std::{fmt, path::PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use p2pnode_tests::args::Transport;
use serde::{Deserialize, Serialize};

use crate::{
    bench::{iroh, peer},
    cargo::{self, Build},
};

/// The variable that names a program.
const PLAIN_BIN: &str = "PLAIN_LIBP2P_BIN";

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Program {
    /// p2pnode.
    Ours,
    /// A plain libp2p peer.
    Plain,
    /// An iroh endpoint, over QUIC.
    Iroh,
}

impl Program {
    /// All, ours first.
    const ALL: [Self; 3] = [Self::Ours, Self::Plain, Self::Iroh];

    /// As on the command line.
    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Plain => "plain",
            Self::Iroh => "iroh",
        }
    }

    /// As in a report.
    pub(in crate::bench) const fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Plain => "plain libp2p",
            Self::Iroh => "iroh",
        }
    }

    /// Those named, once each and in order: ratios are of ours. All if none is.
    pub(in crate::bench) fn chosen(named: &[Self]) -> Vec<Self> {
        let is_chosen = |program: &Self| named.is_empty() || named.contains(program);
        Self::ALL.into_iter().filter(is_chosen).collect()
    }

    /// Whether it can do what is to be done.
    pub(in crate::bench) const fn speaks(self, transport: Transport) -> bool {
        !matches!((self, transport), (Self::Iroh, Transport::Tcp))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// From where a dial starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Start {
    /// From nothing: a fresh process.
    Cold,
    /// From a peer that is at its relay. Ours is asked as a user would, by a `p2pnode dial` that finds the running node's socket;
    /// the time of that process counts. The others are told on stdin.
    Warm,
}

impl Start {
    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A transport on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wire {
    Quic,
    Tcp,
}

impl From<Wire> for Transport {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Quic => Self::Quic,
            Wire::Tcp => Self::Tcp,
        }
    }
}

/// Builds the programs that take part, but for those that are named, and says where they are: for the process in the lab.
pub(in crate::bench) fn programs(taking_part: &[Program]) -> Result<Vec<(&'static str, PathBuf)>> {
    let bins = cargo::bins(Build::Release)?;
    let mut programs = vec![
        ("P2PNODE_BIN", bins.p2pnode),
        ("RELAY_NODE_BIN", bins.relay_node),
    ];
    // Who does not take part need not be there: to build all of `tests/peers` takes minutes.
    if taking_part.contains(&Program::Plain) {
        programs.push((PLAIN_BIN, peer(PLAIN_BIN, "plain-libp2p")?));
    }
    if taking_part.contains(&Program::Iroh) {
        programs.push(iroh()?);
    }
    Ok(programs)
}
