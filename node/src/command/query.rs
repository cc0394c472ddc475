//! The commands that ask a running node: `status`, `why`, and `dial` if a node is running.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, bail};
use libp2p::PeerId;
use p2pnode_daemon::{
    control::{self, ClientError},
    exit::{Exit, Usage},
    signals::Shutdown,
};
use p2pnode_protocol::quote;

use crate::{
    command::exit_code::exit_of,
    config::Names,
    control::{Client, DialRequest, Report},
    core::event::Event,
    observe::{
        output::{self, Printer},
        status::Status,
    },
};

/// The peer that a question is about: the id that it means for the command, or a name that the node may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked(pub(crate) String);

impl Asked {
    /// What `text` means for a command with these names.
    ///
    /// # Errors
    /// [`Usage`] if it can be neither an id nor a name.
    pub(crate) fn new(text: &str, names: &Names) -> Result<Self, Usage> {
        match names.peer(text) {
            Ok(peer) => Ok(Self(peer.to_string())),
            Err(error) if !is_name(text) => Err(error),
            Err(_) => Ok(Self(text.to_owned())),
        }
    }

    /// The id, by the names that the node knows.
    fn peer(&self, status: &Status) -> Result<PeerId, Usage> {
        let known = status.names.get(&self.0).unwrap_or(&self.0);
        let names = status.names.keys().map(String::as_str);
        let names: Vec<&str> = names.take(8).collect();
        known.parse().map_err(|_| {
            let known = match names.is_empty() {
                true => "the running node knows no name".to_owned(),
                false => format!("the running node knows {}", names.join(", ")),
            };
            Usage(format!(
                "PEER: {} is neither a peer id nor a name under `peers:`; {known}",
                quote(&self.0)
            ))
        })
    }
}

/// Whether a peer may have this name.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

/// What the node refuses as wrong usage is that.
fn refused(error: ClientError) -> anyhow::Error {
    if let ClientError::Refused { status, reason } = &error
        && status.as_u16() == 400
    {
        return Usage(reason.clone()).into();
    }
    error.into()
}

/// Prints the status of the node at `socket`, or of one of its peers; with `watch`, repeatedly.
pub(crate) async fn status(
    socket: &Path,
    asked: Option<&Asked>,
    watch: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let client = Client::new(socket);
    control::show(watch, json, async |colour| {
        let mut status = client.status().await?;
        if let Some(asked) = asked {
            only(&mut status, asked, watch)?;
        }
        Ok(if json {
            serde_json::to_string(&status)? + "\n"
        } else {
            output::status(&status, colour)
        })
    })
    .await
}

/// Leaves what a status says of one peer or relay.
fn only(status: &mut Status, asked: &Asked, watch: bool) -> anyhow::Result<()> {
    let peer = asked.peer(status)?;
    if peer == status.peer_id {
        return Err(Usage(format!(
            "PEER: {peer} is the running node itself; `p2pnode status` shows it"
        ))
        .into());
    }
    status.peers.retain(|known| known.peer == peer);
    if status.relays.iter().any(|known| known.relay == peer) {
        status.relays.retain(|known| known.relay == peer);
    } else if status.peers.is_empty() && !watch {
        bail!("{peer} is not connected to this node; `p2pnode dial {peer}` connects it");
    }
    Ok(())
}

/// Prints why the node at `socket` uses its path to the peer.
pub(crate) async fn why(socket: &Path, asked: &Asked, json: bool) -> anyhow::Result<Exit> {
    let why = Client::new(socket).why(&asked.0).await.map_err(refused)?;
    let text = if json {
        serde_json::to_string(&why)? + "\n"
    } else {
        output::why(&why, io::stdout().is_terminal())
    };
    write!(io::stdout(), "{text}").context("cannot write to stdout")?;
    Ok(Exit::Success)
}

/// Dials through the running node and prints the events.
pub(crate) async fn dial(
    client: &Client,
    request: &DialRequest,
    mut printer: Printer,
) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals()?;
    let started = Instant::now();
    let mut redraw = tokio::time::interval(output::PROGRESS_INTERVAL);
    let mut reports = client.dial(request).await.map_err(refused)?;
    loop {
        tokio::select! {
            report = reports.next() => {
                let Report { event, name } = report?.context("the node ended the dial without a result: it is stopping")?;
                if let (Some(peer), Some(name)) = (event.peer(), name) {
                    printer.name(peer, name);
                }
                printer.print(&event).context("cannot write to stdout")?;
                if let Event::Result(outcome) = event {
                    return Ok(exit_of(outcome.outcome, request.any_connection));
                }
            }
            _ = redraw.tick() => printer.progress(started.elapsed()).context("cannot write to stdout")?,
            () = shutdown.requested() => bail!("interrupted before the dial was over"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::observe::status::RelayStatus;

    fn id() -> PeerId {
        PeerId::random()
    }

    fn status(relay: PeerId) -> Status {
        let relay = RelayStatus {
            relay,
            name: None,
            found: false,
            connected: false,
            reserved: false,
            reserved_families: Vec::new(),
            refused: None,
            reason: Some("no answer in time".to_owned()),
            expires: None,
            paths: Vec::new(),
        };
        Status {
            peer_id: id(),
            listen: Vec::new(),
            port_range: "40000-40050".parse().unwrap(),
            punch_ports: BTreeMap::new(),
            relays: vec![relay],
            peers: Vec::new(),
            names: BTreeMap::from([("db".to_owned(), id().to_string())]),
        }
    }

    fn ask(status: &mut Status, text: &str) -> anyhow::Result<()> {
        only(status, &Asked::new(text, &Names::default())?, false)
    }

    #[test]
    fn a_status_is_asked_for_a_relay_a_name_and_nothing_that_is_no_peer() {
        let relay = id();
        let mut known = status(relay);
        // A relay has a line, connected or not, and no advice to dial it.
        ask(&mut known, &relay.to_string()).unwrap();
        assert_eq!(known.relays.len(), 1);
        let own = known.peer_id.to_string();
        let error = ask(&mut known, &own).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("itself"));
        let error = ask(&mut known, "db").unwrap_err().to_string();
        assert!(error.contains(&known.names["db"]), "{error}");
        assert!(error.contains("p2pnode dial"), "{error}");
        for text in ["cache", "not a name", ""] {
            let error = ask(&mut known, text).unwrap_err();
            assert!(error.is::<Usage>(), "{text}: {error}");
        }
        let error = ask(&mut known, "cache").unwrap_err().to_string();
        assert!(error.contains("knows db"), "{error}");
    }
}
