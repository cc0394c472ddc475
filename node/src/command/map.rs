//! `map`: exposes a target at a port that the router maps, until a signal.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use p2pnode_daemon::{exit::Exit, signals::Shutdown};
use tokio::sync::mpsc;

use super::services::{By, GRACE, unless_signalled};
use crate::{
    config::Expose,
    control::MapRequest,
    core::mappings::{Exposure, ExposureState, Method},
};

/// Reports as they come.
enum Reports {
    Running(p2pnode_daemon::control::Lines<Exposure>),
    Own(mpsc::Receiver<Exposure>),
}

impl Reports {
    async fn next(&mut self) -> anyhow::Result<Option<Exposure>> {
        match self {
            Self::Running(lines) => Ok(lines.next().await?),
            Self::Own(reports) => Ok(reports.recv().await),
        }
    }
}

/// Exposes a target until a signal.
pub(crate) async fn map(by: By, expose: Expose, json: bool) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let mut reports = match &by {
        By::Running(client) => {
            let request = MapRequest::from(&expose);
            match unless_signalled(&shutdown, client.map(&request)).await {
                Ok(reports) => Reports::Running(reports?),
                Err(exit) => return Ok(exit),
            }
        }
        By::Own(own) => {
            let reports = own.handle().expose(expose.clone()).await;
            Reports::Own(reports.context("the node has stopped")?)
        }
    };
    let failure = loop {
        tokio::select! {
            report = reports.next() => {
                let Some(report) = report? else {
                    bail!("the node ended it: it is stopping");
                };
                print(&report, &expose, json)?;
                if report.state == ExposureState::Failed {
                    break report.reason;
                }
            }
            _ = shutdown.signalled() => break None,
        }
    };
    drop(reports);
    if let By::Own(own) = by {
        own.end().await?;
    }
    match failure {
        Some(reason) => bail!("no port for {}: {reason}", expose.target),
        None => Ok(Exit::Success),
    }
}

fn print(report: &Exposure, expose: &Expose, json: bool) -> anyhow::Result<()> {
    let line = match json {
        true => {
            let mut line = serde_json::to_value(report)?;
            line["event"] = "mapping".into();
            line["name"] = expose.name.as_str().into();
            line["target"] = expose.target.to_string().into();
            p2pnode_protocol::to_json(&line)?
        }
        false => text(report, expose),
    };
    writeln!(io::stdout(), "{line}").context("cannot write to stdout")
}

fn text(report: &Exposure, expose: &Expose) -> String {
    let address = report.address.map(|at| at.to_string()).unwrap_or_default();
    let reason = report.reason.as_deref().unwrap_or_default();
    let port = report.port.unwrap_or_default();
    match report.state {
        ExposureState::Open => format!("port {port} leads to {}; asking the router", expose.target),
        ExposureState::Claimed if report.method == Some(Method::Hold) => {
            format!("a relay sees the port at {address}; a relay checks whether it is open")
        }
        ExposureState::Claimed => {
            format!("the router says that it maps {address}; a relay checks it")
        }
        ExposureState::Verified => format!(
            "{address} leads to {}, verified from outside",
            expose.target
        ),
        ExposureState::Withdrawn => format!("{address} is reached no longer"),
        ExposureState::Lost if report.method == Some(Method::Hold) => {
            format!("{address} is held no longer")
        }
        ExposureState::Lost => format!("{address} is mapped no longer"),
        ExposureState::Waiting => format!("waiting: {reason}"),
        ExposureState::Refused => format!("the router maps no port: {reason}; asked again"),
        ExposureState::Failed => format!("no port: {reason}"),
    }
}
