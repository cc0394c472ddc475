//! `connect`: stdin and stdout are the client of a session.

use std::{
    fs,
    io::{self, Read as _},
    net::Shutdown as Half,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, fchown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use libp2p::PeerId;
use p2pnode_daemon::{exit::Exit, signals::Shutdown, stdout};
use p2pnode_services::{
    config::{Forward, Listen, What},
    core::sockets::Place,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
};
use tokio::sync::oneshot;

use crate::{
    command::{
        query::refused as wrong_usage,
        service_output::Output,
        services::{By, GRACE, Lines, unless_signalled},
    },
    control::ForwardRequest,
    services::{Ended, Report, Socket, State, reports},
};

/// What fails if nobody can have what the session brings.
const STDOUT: &str = "cannot write to stdout";

/// How long a command waits for the last report after its socket has ended: both sides confirm the end.
const LAST_REPORT: Duration = Duration::from_secs(5);

/// Connects stdin and stdout with a service, until both have ended.
pub(crate) async fn connect(
    by: By,
    (what, peer): (What, PeerId),
    directory: &Path,
    mut output: Output,
) -> anyhow::Result<Exit> {
    stdout::check().context(STDOUT)?;
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
            let socket = tokio::net::UnixStream::from_std(theirs)?;
            let socket = Socket::Unix(socket, Place::default());
            let (sink, lines) = reports();
            let hub = own.handle().hub().clone();
            let session =
                tokio::spawn(async move { hub.connect(service, peer, socket, sink).await });
            (Lines::Own(lines, Some(Box::new(session))), ours)
        }
    };
    let ended = tokio::select! {
        ended = until_ended(&mut lines, pump(socket)?, &mut output) => ended.map(exit_of),
        signal = shutdown.signalled() => Ok(Exit::of_signal(signal)),
    };
    output.moved(&by.sessions_of(&output).await);
    drop(lines);
    output.close("the command has ended")?;
    if matches!(ended, Ok(Exit::Refused)) {
        by.note_identity();
    }
    by.end().await?;
    ended
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
    Pump {
        mut written,
        broken,
    }: Pump,
    output: &mut Output,
) -> anyhow::Result<Ended> {
    let mut broken = std::pin::pin!(async {
        match broken.await {
            Ok(error) => error,
            // stdin has ended.
            Err(_) => std::future::pending().await,
        }
    });
    // An error of the channel means that the thread is gone.
    let check = |written: Result<io::Result<()>, _>| {
        let written = written.unwrap_or(Ok(()));
        written.context(STDOUT)
    };
    let (mut is_written, mut is_opened) = (false, false);
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
                is_opened |= matches!(&line.report, Report::Session(session) if session.state == State::Opened);
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
            // What was sent is not all: the service sees no end of it, but a reset.
            error = &mut broken => return Err(error).context("cannot read stdin"),
            () = &mut late, if is_written => match is_opened {
                true => return Ok(Ended::Completed),
                false => bail!("the session ended before it was open, and the node reports no reason"),
            },
        }
    }
}

/// What the threads between a session and stdin and stdout report.
struct Pump {
    /// Both ways have ended, or stdout takes nothing further.
    written: oneshot::Receiver<io::Result<()>>,
    /// stdin broke before its end.
    broken: oneshot::Receiver<io::Error>,
}

/// Moves bytes between the socket and stdin and stdout, in threads: neither can be waited for otherwise. A service that has ended
/// its side ends stdout, whatever stdin does.
fn pump(socket: UnixStream) -> anyhow::Result<Pump> {
    let (mut from, mut to) = (socket.try_clone()?, socket);
    let (done, written) = oneshot::channel();
    let (breaks, broken) = oneshot::channel();
    let (sent, received) = std::sync::mpsc::channel::<()>();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            match copy(&mut io::stdin().lock(), &mut to, |_| Ok(())) {
                Err(Failed::Read(error)) => drop(breaks.send(error)),
                // The session is over if it takes nothing further.
                Ok(()) | Err(Failed::Write(_)) => drop(to.shutdown(Half::Write)),
            }
            drop(sent);
        })?;
    std::thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(move || {
            match copy(&mut from, &mut io::stdout().lock(), is_read) {
                Ok(()) => {
                    // An error means that it stays open until stdin ends.
                    let _ = end_stdout();
                    let _ = received.recv();
                    let _ = done.send(Ok(()));
                }
                Err(Failed::Read(_)) => drop(done.send(Ok(()))),
                Err(Failed::Write(error)) => {
                    let _ = done.send(Err(error));
                    // Nobody reads what the session brings.
                    let _ = from.shutdown(Half::Both);
                }
            }
        })?;
    Ok(Pump { written, broken })
}

/// The reader of stdout sees its end.
fn end_stdout() -> io::Result<()> {
    let nowhere = fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(nowhere)?)
}

/// Waits for the session. Fails if nobody reads stdout for [`LAST_REPORT`]: a pipe whose reader is gone.
fn is_read(from: &UnixStream) -> Result<(), Failed> {
    let stdout = io::stdout();
    let session = || PollFd::new(from, PollFlags::IN);
    let mut both = [session(), PollFd::new(&stdout, PollFlags::empty())];
    // An error shows when it is read.
    if poll(&mut both, None).is_err() || !both[0].revents().is_empty() {
        return Ok(());
    }
    let last = Timespec::try_from(LAST_REPORT).expect("a few seconds");
    match poll(&mut [session()], Some(&last)) {
        Ok(0) => Err(Failed::Write(io::ErrorKind::BrokenPipe.into())),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What a copy has failed at.
enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// Each piece goes on at once. `waits` for what is read next.
fn copy<R: io::Read>(
    from: &mut R,
    to: &mut impl io::Write,
    waits: impl Fn(&R) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        waits(from)?;
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => to
                .write_all(&bytes[..read])
                .and_then(|()| to.flush())
                .map_err(Failed::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::Read(error)),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

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
