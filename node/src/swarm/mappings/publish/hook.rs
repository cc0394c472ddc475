//! A program that is run for each change, one at a time.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::core::mappings::{Change, Publication};

/// How long the program may run. Then it is killed.
const LONGEST: Duration = Duration::from_secs(30);

pub(super) struct Hook {
    program: String,
    args: Vec<String>,
}

impl Hook {
    pub(super) fn new(words: &[String]) -> Self {
        let (program, args) = words
            .split_first()
            .map_or((String::new(), Vec::new()), |words| {
                (words.0.clone(), words.1.to_vec())
            });
        Self { program, args }
    }

    /// Runs the program for each change. Returns for how many it has succeeded, and what failed.
    pub(super) async fn publish(&self, publication: &Publication) -> (usize, Result<(), String>) {
        for (made, change) in publication.changes.iter().enumerate() {
            if let Err(error) = self.run(change).await {
                return (made, Err(error));
            }
        }
        (publication.changes.len(), Ok(()))
    }

    async fn run(&self, change: &Change) -> Result<(), String> {
        let before = change.before.as_ref().or(change.doubt.as_ref());
        let (state, entry) = match (&change.before, &change.now) {
            (None, Some(now)) => ("up", now),
            (Some(_), Some(now)) => ("changed", now),
            (_, None) => match before {
                Some(before) => ("down", before),
                None => return Ok(()),
            },
        };
        let public = change.now.as_ref().map(|entry| entry.public);
        let old = before.map(|entry| entry.public);
        let ip = |at: Option<SocketAddr>| at.map(|at| at.ip().to_string()).unwrap_or_default();
        let port = |at: Option<SocketAddr>| at.map(|at| at.port().to_string()).unwrap_or_default();
        let private = Some(entry.private);
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("MAPPING_NAME", &entry.name)
            .env("MAPPING_STATE", state)
            .env("MAPPING_PROTOCOL", entry.protocol.name().to_lowercase())
            .env("MAPPING_PUBLIC_IP", ip(public))
            .env("MAPPING_PUBLIC_PORT", port(public))
            .env("MAPPING_OLD_PUBLIC_IP", ip(old))
            .env("MAPPING_OLD_PUBLIC_PORT", port(old))
            .env("MAPPING_PRIVATE_IP", ip(private))
            .env("MAPPING_PRIVATE_PORT", port(private))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let ended = timeout(LONGEST, command.status()).await;
        let program = &self.program;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
            Ok(Err(error)) => Err(format!("cannot run {program}: {error}")),
            Err(_) => Err(format!("{program} ran for 30 s and was killed")),
        }
    }
}
