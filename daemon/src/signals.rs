//! SIGTERM and SIGINT: the first requests a graceful shutdown, a second ends the process at once. SIGHUP does the same in a command that
//! has no configuration to reload.
//!
//! A thread of its own waits for them. So a signal counts also while the program waits for a file, or for the reader of its output.

use std::{
    fmt, fs,
    future::Future,
    io, process,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    signal::unix::{self, SignalKind},
    sync::watch,
};

/// A signal that requests shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: of a service manager or an orchestrator.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

impl Signal {
    /// The exit code of a process that it has ended, as in a shell.
    #[must_use]
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Hangup => 129,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        })
    }
}

/// Whether shutdown was requested. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Option<Signal>>);

/// Requests the shutdown that a [`Shutdown`] awaits. Dropping a trigger is no request.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Option<Signal>>);

/// What the first signal does, if it does not end the process.
#[derive(Debug)]
struct Graceful {
    trigger: Trigger,
    /// How long the shutdown may take; `None`: until a second signal. Then SIGHUP is for the program, which reads its configuration again.
    grace: Option<Duration>,
}

static GRACEFUL: OnceLock<Graceful> = OnceLock::new();

impl Trigger {
    /// Requests shutdown, as SIGTERM does. That cannot be undone.
    pub fn trigger(&self) {
        self.request(Signal::Terminate);
    }

    fn request(&self, signal: Signal) {
        self.0.send_replace(Some(signal));
    }
}

impl Shutdown {
    /// A shutdown that its trigger requests, for programs that embed a node.
    #[must_use]
    pub fn pair() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(None);
        (Trigger(sender), Self(receiver))
    }

    /// Listens for SIGTERM and SIGINT, and for SIGHUP if there is a `grace`.
    ///
    /// The first of them requests shutdown. The second ends the process at once, and so does the end of `grace`. The exit code is
    /// then 128 plus the number of the signal, as in a shell: 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn on_signals(grace: Option<Duration>) -> io::Result<Self> {
        let graceful = GRACEFUL.get_or_init(|| Graceful {
            trigger: Self::pair().0,
            grace,
        });
        end_at_first()?;
        Ok(Self(graceful.trigger.0.subscribe()))
    }

    /// Completes once shutdown is requested; at once if it already was.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Unpin + 'static {
        let shutdown = self.clone();
        Box::pin(async move {
            shutdown.signalled().await;
        })
    }

    /// The same, and by which signal.
    pub async fn signalled(&self) -> Signal {
        let mut receiver = self.0.clone();
        let requested = receiver.wait_for(Option::is_some).await;
        match requested.ok().and_then(|signal| *signal) {
            Some(signal) => signal,
            // No trigger is left that could request it.
            None => std::future::pending().await,
        }
    }
}

/// From now on the first signal ends the process with 129, 130 or 143, unless a [`Shutdown::on_signals`] is there.
///
/// # Errors
/// If the system refuses the handlers.
pub fn end_at_first() -> io::Result<()> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if *started {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let guard = runtime.enter();
    let interrupt = unix::signal(SignalKind::interrupt())?;
    let terminate = unix::signal(SignalKind::terminate())?;
    // Under `nohup` it stays ignored.
    let hangup = match is_ignored(1) {
        true => None,
        false => Some(unix::signal(SignalKind::hangup())?),
    };
    // A log that reaches RLIMIT_FSIZE loses lines. The signal that comes with it would end the process.
    drop(unix::signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    drop(guard);
    let signals = Signals {
        interrupt,
        terminate,
        hangup,
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || process::exit(runtime.block_on(wait(signals)).exit_code()))?;
    *started = true;
    Ok(())
}

/// Whether this process was started with the signal of this number ignored. See `proc_pid_status(5)`.
fn is_ignored(signal: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: Option<unix::Signal>,
}

impl Signals {
    async fn next(&mut self) -> Signal {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.interrupt.recv() => return Signal::Interrupt,
                _ = self.terminate.recv() => return Signal::Terminate,
                _ = hangup => {}
            }
            match GRACEFUL.get() {
                Some(Graceful { grace: None, .. }) => {}
                Some(Graceful { grace: Some(_), .. }) | None => return Signal::Hangup,
            }
        }
    }
}

/// Returns when the process is to end at once, and by which signal.
async fn wait(mut signals: Signals) -> Signal {
    let first = signals.next().await;
    let Some(Graceful { trigger, grace }) = GRACEFUL.get() else {
        return first;
    };
    trigger.request(first);
    tracing::info!(
        own = tracing::field::Empty,
        signal = %first,
        "shutting down; a second signal exits at once"
    );
    let end = async {
        match grace {
            Some(grace) => tokio::time::sleep(*grace).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        second = signals.next() => second,
        () = end => first,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_request_reaches_those_who_wait_and_those_who_wait_later() {
        let (trigger, shutdown) = Shutdown::pair();
        let mut early = shutdown.requested();
        assert!((&mut early).now_or_never().is_none());
        trigger.trigger();
        early.await;
        shutdown.clone().requested().await;
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_no_request() {
        let (trigger, shutdown) = Shutdown::pair();
        drop(trigger);
        let mut requested = pin!(shutdown.requested());
        assert!(requested.as_mut().now_or_never().is_none());
    }
}
