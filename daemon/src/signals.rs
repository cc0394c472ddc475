//! SIGTERM and SIGINT: the first asks for a graceful end, a second ends the process at once.

use std::{future::Future, io};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Whether the process was asked to end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Asks for the end; [`Shutdown`] hears it. Dropping it is no request.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Asks for the end, once and for all.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown that is asked for by its trigger, for programs that run a node inside themselves.
    #[must_use]
    pub fn pair() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// Listens for SIGTERM and SIGINT on the current runtime.
    ///
    /// The first of either asks for the end. The second ends the process at once, by the shell's convention with exit code
    /// 128 + its number: 130 for SIGINT, 143 for SIGTERM.
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
                signal = first.as_raw_value(),
                "shutting down; a second signal exits at once"
            );
            trigger.trigger();
            let second = either(&mut interrupt, &mut terminate).await;
            std::process::exit(128 + second.as_raw_value());
        });
        Ok(shutdown)
    }

    /// Completes once the end is asked for; at once if it was before.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Unpin + 'static {
        let mut receiver = self.0.clone();
        Box::pin(async move {
            if receiver.wait_for(|requested| *requested).await.is_err() {
                // Nobody is left who could ask.
                std::future::pending().await
            }
        })
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
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
    async fn a_request_is_heard_by_all_also_afterwards() {
        let (trigger, shutdown) = Shutdown::pair();
        let mut early = shutdown.requested();
        assert!((&mut early).now_or_never().is_none());
        trigger.trigger();
        early.await;
        assert!(shutdown.is_requested());
        shutdown.clone().requested().await;
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_no_request() {
        let (trigger, shutdown) = Shutdown::pair();
        drop(trigger);
        let mut requested = pin!(shutdown.requested());
        assert!(requested.as_mut().now_or_never().is_none());
        assert!(!shutdown.is_requested());
    }
}
