//! What an idle connection takes of the memory of who accepted it: ours and plain libp2p's, in turn.

use std::time::Duration;

use anyhow::Result;
use p2pnode_tests::{args::Transport, transfer::Engine, usage};

use super::{
    path::{Between, Path},
    programs::{Common, provide_descriptors},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::tools;

const RUNS: u16 = 5;

/// What a connection may take, in kB of 1000 bytes.
const GOAL: f64 = 60.0;

/// How long a process is left alone before its memory counts: handshakes and what follows them are over by then.
const SETTLE: Duration = Duration::from_secs(2);
const SPARE: u64 = 256;

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    connections: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn measure_in_lab(args: &Args) -> Result<Report> {
    provide_descriptors(u64::from(args.connections) + SPARE)?;
    let runs = args.common.runs.unwrap_or(RUNS);
    let mut figure = Figure::new("RSS per connection", "kB", Better::Less);
    tools::runtime()?.block_on(async {
        let path = Path::new("memory", Between { rtt: 0, loss: 0.0 }).await?;
        for transport in Transport::ALL {
            let (mut ours, mut plain) = (Vec::new(), Vec::new());
            for run in 1..=runs {
                eprintln!("memory: {} {run} of {runs}", transport.name());
                ours.push(per_connection(&path, Engine::Ours, transport, args).await?);
                plain.push(per_connection(&path, Engine::Libp2p, transport, args).await?);
            }
            figure.push(
                transport.name().to_uppercase(),
                vec![
                    Row::new("ours", ours).goal(Goal::AtMost(GOAL)),
                    Row::new("plain libp2p", plain),
                ],
            );
        }
        path.lab.succeeded();
        anyhow::Ok(())
    })?;
    let mut report = Report::new(
        "memory",
        format!(
            "Resident memory of a process that has accepted {} connections and does nothing with them, less what it had before, for each of \
             them. It is a swarm with one small behaviour; a plain libp2p process has made the connections. kB are 1000 bytes.",
            args.connections
        ),
    );
    report.figures.push(figure);
    Ok(report)
}

async fn per_connection(
    path: &Path,
    engine: Engine,
    transport: Transport,
    args: &Args,
) -> Result<f64> {
    let accepts = path.route(engine, transport);
    let (process, address) = accepts.receive("accepts", &[]).await?;
    let settled = async || {
        tokio::time::sleep(SETTLE).await;
        usage::memory(process.pid())
    };
    let before = settled().await?;
    let dials = path.route(Engine::Libp2p, transport);
    let connections = usize::from(args.connections);
    // A handshake takes milliseconds.
    let within = Duration::from_secs(60 + u64::from(args.connections) / 10);
    let _held = dials.hold("dials", &address, connections, within).await?;
    let after = settled().await?;
    Ok(after.saturating_sub(before) as f64 * 1.024 / f64::from(args.connections))
}
