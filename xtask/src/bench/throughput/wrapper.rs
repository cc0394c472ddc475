//! `wrapper-overhead`: our transports and libp2p's own, with nothing between the routers.

use anyhow::Result;
use p2pnode_tests::{args::Transport, transfer::Engine};
use serde::{Deserialize, Serialize};

use super::{Common, Contest, Peer, figures, measure};
use crate::bench::{
    path::{Between, Path},
    report::Report,
};

/// Small differences want many runs.
const RUNS: u16 = 9;

/// How long each transfer should take, in seconds.
const SECONDS: u16 = 2;

/// What ours carries as a part of what libp2p's does.
const GOAL: f64 = 0.99;

/// How to measure.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(in crate::bench) common: Common,
}

/// Measures, inside the lab's sandbox.
pub(in crate::bench) fn measure_in_lab(args: &Args) -> Result<Report> {
    let args = super::Args {
        rtt: Vec::new(),
        loss: Vec::new(),
        streams: Vec::new(),
        peers: vec![Peer::Libp2p],
        seconds: SECONDS,
        common: Common {
            runs: args.common.runs.or(Some(RUNS)),
            ..args.common
        },
    };
    let cells = crate::bench::runtime()?.block_on(async {
        let between = Between { rtt: 0, loss: 0.0 };
        let path = Path::new("wrapper-overhead", between).await?;
        let mut cells = Vec::new();
        for (transport, peers) in [
            (Transport::Quic, &[(Engine::Libp2p, Some(GOAL))]),
            (Transport::Tcp, &[(Engine::Libp2pTls, Some(GOAL))]),
        ] {
            let contest = Contest {
                name: "wrapper-overhead",
                transport,
                peers,
            };
            path.hold_range(transport).await?;
            let label = transport.name().to_uppercase();
            eprintln!("wrapper-overhead: {label}");
            cells.push(measure(contest, &args, &path, label, 1).await?);
        }
        path.succeeded();
        anyhow::Ok(cells)
    })?;
    let mut report = Report::new(
        "wrapper-overhead",
        format!(
            "Our transports with their range of ports and libp2p's own, with the same encryption (TCP: TLS), in one stream over a path of two \
             routers without delay or loss: as many bytes as each moves in about {SECONDS} s; the processor time is that of both \
             processes.",
        ),
    );
    report.figures = figures(&cells);
    Ok(report)
}
