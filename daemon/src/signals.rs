//! SIGTERM and SIGINT: the first requests a graceful shutdown, a second ends the process at once.

use std::{fmt, future::Future, io};

use tokio::{
    signal::unix::{self, SignalKind},
    sync::watch,
};

use crate::exit::Exit;

/// A signal that requests shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: of a service manager or an orchestrator.
    Terminate,
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

    /// Listens for SIGTERM and SIGINT on the current runtime.
    ///
    /// The first of either requests shutdown. The second ends the process at once. Its exit code is 128 plus the number of the
    /// signal, as in a shell: 130 for SIGINT, 143 for SIGTERM.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn on_signals() -> io::Result<Self> {
        let mut interrupt = unix::signal(SignalKind::interrupt())?;
        let mut terminate = unix::signal(SignalKind::terminate())?;
        let (trigger, shutdown) = Self::pair();
        tokio::spawn(async move {
            let first = either(&mut interrupt, &mut terminate).await;
            tracing::info!(
                own = tracing::field::Empty,
                signal = %first,
                "shutting down; a second signal exits at once"
            );
            trigger.request(first);
            let second = either(&mut interrupt, &mut terminate).await;
            std::process::exit(Exit::of_signal(second) as i32);
        });
        Ok(shutdown)
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

/// Keeps SIGHUP from ending the process, and logs `what` the process does about it.
///
/// # Errors
/// If the system refuses the handler.
pub fn on_hangup(what: &'static str) -> io::Result<()> {
    let mut hangup = unix::signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: {what}");
        }
    });
    Ok(())
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
