//! SIGTERM and SIGINT: the first requests a graceful shutdown, a second ends the process at once.
//!
//! A thread of its own waits for them. So a signal counts also while the program waits for a file, or for the reader of its output.

use std::{
    fmt,
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
}

impl Signal {
    /// The exit code of a process that it has ended, as in a shell.
    #[must_use]
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
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
    /// How long the shutdown may take; `None`: until a second signal.
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

    /// Listens for SIGTERM and SIGINT.
    ///
    /// The first of either requests shutdown. The second ends the process at once, and so does the end of `grace`. The exit code is
    /// then 128 plus the number of the signal, as in a shell: 130 for SIGINT, 143 for SIGTERM.
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

/// From now on the first signal ends the process with 130 or 143, unless a [`Shutdown::on_signals`] is there.
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
    drop(guard);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || process::exit(runtime.block_on(wait(interrupt, terminate)).exit_code()))?;
    *started = true;
    Ok(())
}

/// Returns when the process is to end at once, and by which signal.
async fn wait(mut interrupt: unix::Signal, mut terminate: unix::Signal) -> Signal {
    let first = either(&mut interrupt, &mut terminate).await;
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
        second = either(&mut interrupt, &mut terminate) => second,
        () = end => first,
    }
}

async fn either(interrupt: &mut unix::Signal, terminate: &mut unix::Signal) -> Signal {
    tokio::select! {
        _ = interrupt.recv() => Signal::Interrupt,
        _ = terminate.recv() => Signal::Terminate,
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
