//! `serve`, `forward` and `services`: through the running node, or with a node of their own.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use libp2p::{PeerId, identity::Keypair};
use p2pnode_daemon::{control::ClientError, exit::Exit, signals::Shutdown};
use p2pnode_services::config::{Forward, Service, What};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Handle,
    command::{
        query::refused as wrong_usage,
        service_output::{Output, listed},
    },
    config::{Config, Key},
    control::{Client, EndRequest, ForwardRequest, Found, ServeRequest},
    observe::status::SessionStatus,
    services::{Goal, Line, ListError, Listed, Report, reports},
    swarm::node::start_held,
};

/// How long a command may take to end after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// How long the last reports may take: less than [`GRACE`].
const LAST_REPORTS: Duration = Duration::from_millis(1500);

/// Who does it.
pub(crate) enum By {
    /// The running node.
    Running(Client),
    /// A node of this command.
    Own(Own),
}

impl By {
    /// The sessions of the node, if some of the command are open. Empty if it is stopping, or does not answer.
    pub(super) async fn sessions_of(&self, output: &Output) -> Vec<SessionStatus> {
        let status = async {
            match self {
                Self::Running(client) => client.status_with_sessions().await.ok(),
                Self::Own(own) => own.handle.status_with(true).await.ok(),
            }
        };
        if !output.has_open() {
            return Vec::new();
        }
        let status = tokio::time::timeout(LAST_REPORTS / 2, status).await;
        let sessions = status.ok().flatten().and_then(|status| status.sessions);
        sessions.unwrap_or_default()
    }

    /// A node of the command's own ends, so that its peers need not wait for it.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Running(_) => Ok(()),
            Self::Own(own) => own.end().await,
        }
    }

    /// Names the identity that a service refused, if it is that of a node of this command's own.
    pub(super) fn note_identity(&self) {
        let Self::Own(own) = self else { return };
        let id = own.handle.peer_id();
        let remedy = match own.is_throwaway {
            true => {
                ", a throwaway identity: add that id to `allow` of the service, or give --key FILE of an identity that `allow` names"
            }
            false => ": add that id to `allow` of the service",
        };
        // If stderr is closed, there is nowhere to report it.
        let _ = writeln!(io::stderr(), "note: this command calls as {id}{remedy}");
    }
}

/// A node that lives as long as its command.
pub(crate) struct Own {
    handle: Handle,
    is_throwaway: bool,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Own {
    /// Starts it. It holds `reservations`, if peers are to reach it.
    pub(crate) fn start(
        keypair: &Keypair,
        config: &Config,
        reservations: usize,
    ) -> anyhow::Result<Self> {
        let (node, stop) = start_held(keypair, config, reservations)?;
        node.know_peers(config);
        Ok(Self {
            handle: node.handle,
            is_throwaway: matches!(config.key, Key::Throwaway { .. }),
            stop,
            task: node.task,
        })
    }

    /// To command it.
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.task
            .await
            .context("the event loop panicked; please report this with the log")
    }
}

/// Reports as they come, and what ends with them.
pub(super) enum Lines {
    Running(p2pnode_daemon::control::Lines<Line>),
    /// The drop of the second ends what the command has asked for.
    Own(mpsc::Receiver<Line>, Option<Box<dyn Send>>),
}

impl Lines {
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        match self {
            Self::Running(lines) => Ok(lines.next().await?),
            Self::Own(lines, _) => Ok(lines.recv().await),
        }
    }

    /// Ends what the command has asked for, of which `listening` was the first report. Those of its sessions still come.
    async fn end(&mut self, by: &By, listening: Option<&Report>) -> anyhow::Result<()> {
        if let Self::Own(_, ends) = self {
            drop(ends.take());
        }
        let request = match listening {
            Some(Report::Listening { listen, .. }) => EndRequest::Forward(listen.clone()),
            Some(Report::Serving { service, .. }) => EndRequest::Service(service.clone()),
            Some(Report::Session(_)) | None => return Ok(()),
        };
        match by {
            By::Running(client) => Ok(client.end(&request).await?),
            By::Own(_) => Ok(()),
        }
    }
}

/// Ends what the command has asked for, and reports how its sessions ended.
async fn finish(
    by: &By,
    lines: &mut Lines,
    output: &mut Output,
    listening: Option<&Report>,
) -> anyhow::Result<()> {
    // A node that is of an earlier version, stopped or gone reports nothing further.
    let _ = tokio::time::timeout(LAST_REPORTS, async {
        output.moved(&by.sessions_of(output).await);
        if output.has_open() {
            lines.end(by, listening).await?;
        }
        while output.has_open()
            && let Some(line) = lines.next().await?
        {
            output.print(&line.report)?;
        }
        anyhow::Ok(())
    })
    .await;
    output.close("the command has ended")
}

/// What a node answers, unless a signal comes first.
pub(super) async fn unless_signalled<T>(
    shutdown: &Shutdown,
    asked: impl Future<Output = T>,
) -> Result<T, Exit> {
    tokio::select! {
        answer = asked => Ok(answer),
        signal = shutdown.signalled() => Err(Exit::of_signal(signal)),
    }
}

/// Offers a service until a signal.
pub(crate) async fn serve(by: By, service: Service, mut output: Output) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let lines = match &by {
        By::Running(client) => {
            let request = ServeRequest::from(&service);
            match unless_signalled(&shutdown, client.serve(&request)).await {
                Ok(lines) => Lines::Running(lines.map_err(wrong_usage)?),
                Err(exit) => return Ok(exit),
            }
        }
        By::Own(own) => {
            let (sink, lines) = reports();
            let serving = Report::serving(&service, own.handle.peer_id());
            let offering = own.handle.hub().offer(service, Goal::Target, Some(sink))?;
            output.print(&serving)?;
            Lines::Own(lines, Some(Box::new(offering)))
        }
    };
    until_signal(by, lines, output, &shutdown, (&[], false)).await
}

/// Brings a service here until a signal, or until it is known that no peer offers it to this node.
pub(crate) async fn forward(by: By, forward: Forward, output: Output) -> anyhow::Result<Exit> {
    let (to, is_udp) = (forward.to.clone(), forward.listen.is_udp());
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let lines = match &by {
        By::Running(client) => {
            let request = ForwardRequest::new(&forward, false);
            match unless_signalled(&shutdown, client.forward(&request)).await {
                Ok(lines) => Lines::Running(lines.map_err(wrong_usage)?),
                Err(exit) => return Ok(exit),
            }
        }
        By::Own(own) => {
            let (sink, lines) = reports();
            let forwarding = own.handle.hub().forward(forward, false, Some(sink))?;
            Lines::Own(lines, Some(Box::new(forwarding)))
        }
    };
    until_signal(by, lines, output, &shutdown, (&to, is_udp)).await
}

/// Returns if all peers are there and refuse, or offer something that is not for this listener. The listener decides which kind.
async fn refused(by: &By, to: &[(What, PeerId)], is_udp: bool) -> String {
    let mut problems = Vec::new();
    for (what, peer) in to {
        let found = match by {
            By::Running(client) => match client.services(*peer).await {
                Ok(found) => found,
                // Whether the node is gone, the reports say.
                Err(_) => return std::future::pending().await,
            },
            By::Own(own) => Found::from(own.handle.hub().list(*peer).await),
        };
        if let Found::Unreachable(reason) = &found {
            // If stderr is closed, there is nowhere to report it.
            let _ = writeln!(
                io::stderr(),
                "note: {peer} cannot be reached now: {reason}; each client tries again"
            );
        }
        let problem = match &found {
            Found::Services(services) => in_the_way(services, what, is_udp),
            // One that cannot be reached now may be there later.
            Found::Unreachable(_) | Found::NoAnswer(_) => None,
        };
        match problem {
            Some(problem) => problems.push(format!("{what}@{peer}: {problem}")),
            None => return std::future::pending().await,
        }
    }
    match problems.is_empty() {
        true => std::future::pending().await,
        false => problems.join("\np2pnode: "),
    }
}

/// Why a peer with these services brings nothing to the listener.
fn in_the_way(services: &[Listed], what: &What, is_udp: bool) -> Option<String> {
    let takes_datagrams = |name: &str| {
        let mut named = services.iter().filter(|listed| listed.name == name);
        named.next().map(|listed| listed.kind == "udp")
    };
    match what {
        What::Service(name) => Some(match (takes_datagrams(name.as_str()), is_udp) {
            (None, _) => "the peer has no such service for this node".to_owned(),
            (Some(true), false) => "it takes datagrams; listen on udp://".to_owned(),
            (Some(false), true) => "it takes no datagrams; listen on tcp:// or unix://".to_owned(),
            (Some(true), true) | (Some(false), false) => return None,
        }),
        // Other implementations list nothing.
        What::Raw(_) if services.is_empty() => None,
        What::Raw(raw) => {
            let raw = raw.as_str();
            let mut protocols = services.iter().map(|listed| listed.protocol.as_deref());
            if protocols.any(|protocol| protocol == Some(raw)) {
                return None;
            }
            let name = raw.trim_start_matches("/x/");
            Some(match takes_datagrams(name) {
                None => "the peer has no such protocol for this node".to_owned(),
                Some(true) => format!(
                    "{name} takes datagrams, and {raw} is a stream; forward {name}@PEER and listen on udp://"
                ),
                Some(false) => format!("{name} is no raw protocol there; forward {name}@PEER"),
            })
        }
    }
}

async fn until_signal(
    by: By,
    mut lines: Lines,
    mut output: Output,
    shutdown: &Shutdown,
    (to, is_udp): (&[(What, PeerId)], bool),
) -> anyhow::Result<Exit> {
    let mut redraw = tokio::time::interval(output.interval());
    let mut first = None;
    let reports = async {
        let mut refused = std::pin::pin!(refused(&by, to, is_udp));
        loop {
            tokio::select! {
                line = lines.next() => match line? {
                    Some(line) => {
                        output.print(&line.report)?;
                        first.get_or_insert(line.report);
                    }
                    None => bail!("the node ended it: it is stopping"),
                },
                _ = redraw.tick() => {
                    if output.is_live() {
                        output.moved(&by.sessions_of(&output).await);
                    }
                    output.progress()?;
                }
                refused = &mut refused => {
                    // If stderr is closed, there is nowhere to report it.
                    let _ = writeln!(io::stderr(), "p2pnode: {refused}");
                    by.note_identity();
                    return Ok(Exit::Refused);
                }
                _ = shutdown.signalled() => return Ok(Exit::Success),
            }
        }
    };
    let exit = match reports.await {
        Ok(exit) => {
            let finished = finish(&by, &mut lines, &mut output, first.as_ref()).await;
            finished.and_then(|()| output.end()).map(|()| exit)
        }
        Err(error) => {
            let is_gone = error.downcast_ref::<ClientError>().is_none_or(|error| {
                matches!(
                    error,
                    ClientError::Broken { .. } | ClientError::NotRunning { .. }
                )
            });
            let reason = match is_gone {
                true => "the node is gone".to_owned(),
                false => error.to_string(),
            };
            // The error may be that nothing can be written.
            let _ = output.close(&reason);
            Err(error)
        }
    };
    drop(lines);
    by.end().await?;
    exit
}

/// Prints what a peer offers to this node.
pub(crate) async fn services(by: By, peer: PeerId, json: bool) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let found = async {
        match &by {
            By::Running(client) => client.services(peer).await.map_err(wrong_usage),
            By::Own(own) => Ok(Found::from(own.handle.hub().list(peer).await)),
        }
    };
    let found = tokio::select! {
        found = found => found?,
        signal = shutdown.signalled() => return Ok(Exit::of_signal(signal)),
    };
    let exit = match Result::from(found) {
        Ok(services) => {
            p2pnode_daemon::command::print(&listed(peer, &services, json)?)
                .context("cannot write to stdout")?;
            if services.is_empty() {
                by.note_identity();
            }
            Exit::Success
        }
        Err(error @ (ListError::Unreachable(_) | ListError::NoAnswer(_))) => {
            // If stderr is closed, there is nowhere to report it.
            let _ = writeln!(io::stderr(), "p2pnode: {error}");
            Exit::Unreachable
        }
    };
    by.end().await?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use p2pnode_services::config::Destination;

    use super::*;

    #[test]
    fn a_forward_that_a_peer_does_not_serve_is_refused_with_what_to_do() {
        let listed = |name: &str, kind: &str, protocol: Option<&str>| Listed {
            name: name.to_owned(),
            kind: kind.to_owned(),
            protocol: protocol.map(str::to_owned),
        };
        let services = [
            listed("db", "tcp", None),
            listed("dns", "udp", None),
            listed("web", "tcp", Some("/x/web")),
        ];
        for (what, is_udp, says) in [
            ("db", false, None),
            ("db", true, Some("tcp:// or unix://")),
            ("dns", true, None),
            ("dns", false, Some("listen on udp://")),
            ("ssh", false, Some("no such service")),
            ("/x/web", false, None),
            ("/x/db", false, Some("forward db@PEER")),
            ("/x/dns", false, Some("dns@PEER and listen on udp://")),
            ("/x/ssh", false, Some("no such protocol")),
        ] {
            let to: Destination = format!("{what}@west").parse().expect("a destination");
            let problem = in_the_way(&services, &to.what, is_udp);
            let found = problem.as_deref().unwrap_or_default();
            assert_eq!(problem.is_some(), says.is_some(), "{what}: {found}");
            assert!(found.contains(says.unwrap_or_default()), "{what}: {found}");
        }
        let raw: Destination = "/x/web@west".parse().expect("a destination");
        assert_eq!(
            in_the_way(&[], &raw.what, false),
            None,
            "Kubo lists nothing"
        );
    }
}
