//! What benchmarks share: how often, over which transport, with which programs.

use std::{env, fmt, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use p2pnode_tests::{
    args::Transport,
    bins::{build_iroh_peer, build_plain_libp2p},
};

pub(super) type Named = (&'static str, PathBuf);

/// What all benchmarks understand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Common {
    /// Runs of each program, in turn; the median counts. Default: as many as the benchmark needs for a stable one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) runs: Option<u16>,
    /// One JSON object per row of conditions on stdout instead of the tables.
    #[arg(long)]
    pub(super) json: bool,
}

/// A transport on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    Quic,
    Tcp,
}

impl Wire {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        }
    }

    pub(super) fn chosen(named: &[Self]) -> Vec<Transport> {
        or(named, &[Self::Quic])
            .into_iter()
            .map(Self::into)
            .collect()
    }
}

impl From<Wire> for Transport {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Quic => Self::Quic,
            Wire::Tcp => Self::Tcp,
        }
    }
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// p2pnode.
    Ours,
    /// A plain libp2p peer.
    Plain,
    /// An iroh endpoint, over QUIC.
    Iroh,
}

impl Program {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Plain => "plain libp2p",
            Self::Iroh => "iroh",
        }
    }

    /// Those named, once each and ours first: ratios are of ours. All if none is.
    pub(super) fn chosen(named: &[Self]) -> Vec<Self> {
        let mut all = Self::value_variants().to_vec();
        all.retain(|program| named.is_empty() || named.contains(program));
        all
    }

    pub(super) const fn speaks(self, transport: Transport) -> bool {
        !matches!((self, transport), (Self::Iroh, Transport::Tcp))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "ours",
            Self::Plain => "plain",
            Self::Iroh => "iroh",
        })
    }
}

pub(super) fn or<T: Clone>(chosen: &[T], usual: &[T]) -> Vec<T> {
    if chosen.is_empty() { usual } else { chosen }.to_vec()
}

pub(super) fn percent(text: &str) -> Result<f64, String> {
    let loss = text.parse().ok().filter(|loss| (0.0..=50.0).contains(loss));
    loss.ok_or_else(|| format!("{text:?} is no loss: give 0 to 50, such as 0.5"))
}

/// A program of `tests/peers`: the one that `variable` names, or else the release build.
pub(super) fn peer(variable: &'static str, name: &str) -> Result<Named> {
    let program = match env::var_os(variable) {
        Some(program) => program.into(),
        None => {
            eprintln!("building {name}, release ({variable} would name one)");
            match name {
                "iroh-peer" => build_iroh_peer(true)?,
                _ => build_plain_libp2p(true)?.with_file_name(name),
            }
        }
    };
    Ok((variable, program))
}

pub(super) fn transfer() -> Result<Named> {
    peer("TRANSFER_BIN", "transfer")
}

pub(super) fn plain() -> Result<Named> {
    peer("PLAIN_LIBP2P_BIN", "plain-libp2p")
}

pub(super) fn iroh() -> Result<Named> {
    peer("IROH_PEER_BIN", "iroh-peer")
}

/// Raises the limit of open files as far as this process may. Returns how many there may be.
pub(crate) fn all_descriptors() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("limit of open files")?;
    Ok(hard)
}

pub(super) fn provide_descriptors(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("limit of open files")?;
    ensure!(
        hard >= needed,
        "{needed} open files are needed and {hard} allowed: raise the limit (`ulimit -Hn {needed}` as root, or LimitNOFILE of the \
         service), or measure less with --reservations and --circuits"
    );
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).context("limit of open files")?;
    }
    Ok(())
}
