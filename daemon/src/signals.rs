//! SIGTERM and SIGINT: the first requests a graceful shutdown, a second ends the process at once.

use std::{future::Future, io};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Whether shutdown was requested. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Requests the shutdown that a [`Shutdown`] awaits. Dropping a trigger is no request.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Requests shutdown. That cannot be undone.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown that its trigger requests, for programs that embed a node.
    #[must_use]
    pub fn pair() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
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
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (trigger, shutdown) = Self::pair();
        tokio::spawn(async move {
            let first = either(&mut interrupt, &mut terminate).await;
            tracing::info!(
                own = tracing::field::Empty,
                signal = first.as_raw_value(),
                "shutting down; a second signal exits at once"
            );
            trigger.trigger();
            let second = either(&mut interrupt, &mut terminate).await;
            std::process::exit(128 + second.as_raw_value());
        });
        Ok(shutdown)
    }

    /// Completes once shutdown is requested; at once if it already was.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Unpin + 'static {
        let mut receiver = self.0.clone();
        Box::pin(async move {
            if receiver.wait_for(|requested| *requested).await.is_err() {
                // No trigger is left that could request it.
                std::future::pending().await
            }
        })
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
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
