//! `serve`, `forward`, `connect` and `services`: through the running node, or with a node of their own.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown as Half,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, fchown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use libp2p::{PeerId, identity::Keypair};
use p2pnode_daemon::{exit::Exit, signals::Shutdown};
use p2pnode_services::config::{Forward, Listen, Service, What};
use rustix::fs::{Mode, OFlags};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Handle,
    command::{
        query::refused as wrong_usage,
        service_output::{Output, listed},
    },
    config::{Config, Key},
    control::{Client, ForwardRequest, Found, ServeRequest},
    observe::{metrics::Metrics, readiness, status::SessionStatus},
    services::{Ended, Goal, Line, ListError, Listed, Report, Socket, reports},
    swarm::{node, token_file::TokenFile},
};

/// How long a command may take to end after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// How long a command waits for the last report after its socket has ended: both sides confirm the end.
const LAST_REPORT: Duration = Duration::from_secs(5);

/// Who does it.
pub(crate) enum By {
    /// The running node.
    Running(Client),
    /// A node of this command.
    Own(Own),
}

impl By {
    /// The sessions of the node, unless it is stopping.
    async fn sessions(&self) -> Option<Vec<SessionStatus>> {
        let status = match self {
            Self::Running(client) => client.status_with_sessions().await.ok(),
            Self::Own(own) => own.handle.status_with(true).await.ok(),
        };
        status?.sessions
    }

    /// Names the identity that a service refused, if it is that of a node of this command's own.
    fn note_identity(&self) {
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
        let local = keypair.public().to_peer_id();
        let tokens = config.token_file.as_deref();
        let tokens = tokens
            .map(|path| TokenFile::open(path, local))
            .transpose()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let node = node::start(
            keypair,
            config,
            reservations,
            Metrics::default(),
            readiness::new(),
            tokens,
            async {
                // An error means that the command has ended.
                let _ = stopped.await;
            },
        )?;
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
enum Lines {
    Running(p2pnode_daemon::control::Lines<Line>),
    Own(
        mpsc::Receiver<Line>,
        #[expect(dead_code, reason = "its drop ends it")] Box<dyn Send>,
    ),
}

impl Lines {
    async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        match self {
            Self::Running(lines) => Ok(lines.next().await?),
            Self::Own(lines, _) => Ok(lines.recv().await),
        }
    }
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
                Ok(lines) => Lines::Running(lines?),
                Err(exit) => return Ok(exit),
            }
        }
        By::Own(own) => {
            let (sink, lines) = reports();
            let serving = Report::serving(&service, own.handle.peer_id());
            let offering = own.handle.hub().offer(service, Goal::Target, Some(sink))?;
            output.print(&serving)?;
            Lines::Own(lines, Box::new(offering))
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
            Lines::Own(lines, Box::new(forwarding))
        }
    };
    until_signal(by, lines, output, &shutdown, (&to, is_udp)).await
}

/// Returns if all peers are there and refuse, or offer something that is not for this listener. The listener decides which kind.
async fn refused(by: &By, to: &[(What, PeerId)], is_udp: bool) -> anyhow::Result<String> {
    let mut problems = Vec::new();
    for (what, peer) in to {
        let found = match by {
            By::Running(client) => client.services(*peer).await?,
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
        false => Ok(problems.join("\np2pnode: ")),
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
    let mut refused = Box::pin(refused(&by, to, is_udp));
    let exit = loop {
        tokio::select! {
            line = lines.next() => match line? {
                Some(line) => output.print(&line.report)?,
                None => bail!("the node ended it: it is stopping"),
            },
            _ = redraw.tick() => {
                if output.wants_bytes() && let Some(sessions) = by.sessions().await {
                    output.moved(&sessions);
                }
                output.progress()?;
            }
            refused = &mut refused => {
                // If stderr is closed, there is nowhere to report it.
                let _ = writeln!(io::stderr(), "p2pnode: {}", refused?);
                by.note_identity();
                break Exit::Refused;
            }
            _ = shutdown.signalled() => break Exit::Success,
        }
    };
    output.end()?;
    drop(refused);
    drop(lines);
    if let By::Own(own) = by {
        own.end().await?;
    }
    Ok(exit)
}

/// Connects stdin and stdout with a service, until both have ended.
pub(crate) async fn connect(
    by: By,
    (what, peer): (What, PeerId),
    directory: &Path,
    mut output: Output,
) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals(Some(GRACE))?;
    let What::Service(service) = what else {
        return Err(p2pnode_daemon::exit::Usage(format!(
            "{what} is a raw protocol, and `connect` reaches services by name; bring it here with `p2pnode forward {what}@{peer} --listen unix:///PATH`"
        ))
        .into());
    };
    let (mut lines, socket) = match &by {
        By::Running(client) => {
            let door = Door::new(directory)?;
            let forward = Forward {
                listen: Listen::Unix(door.path.clone()),
                to: vec![(What::Service(service), peer)],
            };
            let request = ForwardRequest::new(&forward, true);
            let lines = unless_signalled(&shutdown, client.forward(&request)).await;
            let mut lines = match lines {
                Ok(lines) => lines.map_err(wrong_usage)?,
                Err(exit) => return Ok(exit),
            };
            lines.next().await?.context("the node is stopping")?;
            let socket = UnixStream::connect(&door.path).context("cannot connect to the node")?;
            (Lines::Running(lines), socket)
        }
        By::Own(own) => {
            let (ours, theirs) = UnixStream::pair()?;
            theirs.set_nonblocking(true)?;
            let socket = Socket::Unix(tokio::net::UnixStream::from_std(theirs)?);
            let (sink, lines) = reports();
            let hub = own.handle.hub().clone();
            let session =
                tokio::spawn(async move { hub.connect(service, peer, socket, sink).await });
            (Lines::Own(lines, Box::new(session)), ours)
        }
    };
    let ended = tokio::select! {
        ended = until_ended(&mut lines, pump(socket)?, &mut output) => ended?,
        signal = shutdown.signalled() => return Ok(Exit::of_signal(signal)),
    };
    drop(lines);
    if ended == Ended::Refused {
        by.note_identity();
    }
    if let By::Own(own) = by {
        own.end().await?;
    }
    Ok(exit_of(ended))
}

fn exit_of(ended: Ended) -> Exit {
    match ended {
        Ended::Completed => Exit::Success,
        Ended::Unreachable => Exit::Unreachable,
        Ended::Refused => Exit::Refused,
        Ended::Failed => Exit::Failure,
    }
}

/// Waits until the session has ended, and what it brought is written.
async fn until_ended(
    lines: &mut Lines,
    mut written: oneshot::Receiver<io::Result<()>>,
    output: &mut Output,
) -> anyhow::Result<Ended> {
    // An error of the channel means that the thread is gone.
    let check = |written: Result<io::Result<()>, _>| {
        let written = written.unwrap_or(Ok(()));
        written.context("cannot write to stdout")
    };
    let mut is_written = false;
    let mut late = std::pin::pin!(tokio::time::sleep(Duration::MAX / 4));
    loop {
        tokio::select! {
            line = lines.next() => {
                let Some(line) = line? else {
                    bail!("the node ended the session: it is stopping");
                };
                if line.ended.is_some() && !is_written && let Ok(written) = written.try_recv() {
                    // What was not written is why the session was reset.
                    is_written = true;
                    check(Ok(written))?;
                }
                output.print(&line.report)?;
                if let Some(ended) = line.ended {
                    if ended == Ended::Completed && !is_written {
                        check((&mut written).await)?;
                    }
                    return Ok(ended);
                }
            }
            written = &mut written, if !is_written => {
                is_written = true;
                check(written)?;
                late.as_mut().reset(tokio::time::Instant::now() + LAST_REPORT);
            }
            () = &mut late, if is_written => return Ok(Ended::Completed),
        }
    }
}

/// Moves bytes between the socket and stdin and stdout, in threads: neither can be waited for otherwise. Completes when both ways
/// have ended, or stdout takes nothing further. A service that has ended its side ends stdout, whatever stdin does.
fn pump(socket: UnixStream) -> anyhow::Result<oneshot::Receiver<io::Result<()>>> {
    let (mut from, mut to) = (socket.try_clone()?, socket);
    let (done, written) = oneshot::channel();
    let (sent, received) = std::sync::mpsc::channel::<()>();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            // An error of either means that the session is over.
            let _ = copy(&mut io::stdin().lock(), &mut to);
            let _ = to.shutdown(Half::Write);
            drop(sent);
        })?;
    std::thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(move || {
            match copy(&mut from, &mut io::stdout().lock()) {
                Ok(()) => {
                    // An error means that it stays open until stdin ends.
                    let _ = end_stdout();
                    let _ = received.recv();
                    let _ = done.send(Ok(()));
                }
                Err(Failed::Read) => drop(done.send(Ok(()))),
                Err(Failed::Write(error)) => {
                    let _ = done.send(Err(error));
                    // Nobody reads what the session brings.
                    let _ = from.shutdown(Half::Both);
                }
            }
        })?;
    Ok(written)
}

/// Whoever reads stdout sees its end.
fn end_stdout() -> io::Result<()> {
    let nowhere = fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(nowhere)?)
}

/// What a copy has failed at.
enum Failed {
    Read,
    Write(io::Error),
}

/// Each piece goes on at once.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> Result<(), Failed> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => to
                .write_all(&bytes[..read])
                .and_then(|()| to.flush())
                .map_err(Failed::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Failed::Read),
        }
    }
}

/// A directory that only the node's user may enter, for a socket between this command and the node.
struct Door {
    directory: PathBuf,
    path: PathBuf,
}

impl Door {
    fn new(directory: &Path) -> anyhow::Result<Self> {
        let mut random = [0; 6];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut random))
            .context("cannot read /dev/urandom")?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let owner = fs::metadata(directory).ok();
        let directory = directory.join(format!(".c{name}"));
        let failed = || format!("cannot make {}", directory.display());
        let mut private = fs::DirBuilder::new();
        private
            .mode(0o700)
            .create(&directory)
            .with_context(failed)?;
        let path = directory.join("s");
        let door = Self { directory, path };
        // The node makes the socket, and root asks one of another user. That user may have put a link there since.
        if let Some(owner) = owner.filter(|_| rustix::process::geteuid().is_root()) {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&door.directory, flags, Mode::empty());
            let given = opened
                .map_err(io::Error::from)
                .and_then(|opened| fchown(opened, Some(owner.uid()), Some(owner.gid())));
            given.with_context(|| format!("cannot make {}", door.directory.display()))?;
        }
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // An error means that it is gone.
        let _ = fs::remove_dir_all(&self.directory);
    }
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
    if let By::Own(own) = by {
        own.end().await?;
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

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

    #[test]
    fn a_node_of_another_user_may_make_its_socket_where_root_waits_and_nobody_else_enters() {
        let home = tempfile::tempdir().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(home.path(), Some(12345), Some(54321)).unwrap();
        }
        let door = Door::new(home.path()).unwrap();
        let made = fs::metadata(&door.directory).unwrap();
        let of_home = fs::metadata(home.path()).unwrap();
        assert_eq!(made.mode() & 0o777, 0o700);
        assert_eq!((made.uid(), made.gid()), (of_home.uid(), of_home.gid()));
        drop(door);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
