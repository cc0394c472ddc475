//! Releases the mappings at the end, and waits until the router confirms it.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};

use super::{
    DATAGRAM, Keeper,
    router::{Answer, Io, send},
};
use crate::core::mappings::{Action, Mappings};

/// How long a shutdown waits for the router to confirm that mappings have ended: after each confirmation, and in all.
const SILENCE: Duration = Duration::from_secs(1);
const RELEASE: Duration = Duration::from_secs(5);
/// After this long without its confirmation it is asked again, and then after twice as long each time: repeats fill the queue of a
/// slow router.
const AGAIN: Duration = Duration::from_millis(400);

impl Keeper {
    /// Releases every mapping, and takes back what is published.
    pub(super) async fn end(mut self, mut answered: mpsc::Receiver<Answer>) {
        self.mappings.handle_shutdown();
        self.carry_out().await;
        let Self {
            mut mappings,
            sinks,
            io,
            ..
        } = self;
        let confirmed = async {
            if let Some(io) = &io {
                confirm(&mut mappings, io).await;
            }
            // Ends the queue of calls.
            drop(io);
            while answered.recv().await.is_some() {}
        };
        // A router that confirms nothing lets the leases end.
        let (_, ()) = tokio::join!(timeout(RELEASE, confirmed), sinks.stop());
        let left = mappings.unconfirmed();
        if left > 0 {
            tracing::warn!(
                left,
                "the router has not confirmed the end of all mappings; what is left ends with its lease, within two hours"
            );
        }
    }
}

/// Waits until the router has dropped every mapping.
async fn confirm(mappings: &mut Mappings, io: &Io) {
    let mut buffer = [0; DATAGRAM];
    let mut until = tokio::time::Instant::now() + SILENCE;
    let (mut wait, mut again) = (AGAIN, tokio::time::Instant::now() + AGAIN);
    while !mappings.has_ended() {
        let left = mappings.unconfirmed();
        tokio::select! {
            received = io.socket.socket().recv_from(&mut buffer) => {
                if let Ok((length, from)) = received {
                    mappings.handle_release_answer(from, &buffer[..length]);
                }
            }
            () = sleep_until(again) => {
                wait *= 2;
                again += wait;
                mappings.handle_no_release_answer();
            }
            () = sleep_until(until) => return,
        }
        if mappings.unconfirmed() < left {
            until = tokio::time::Instant::now() + SILENCE;
        }
        while let Some(action) = mappings.poll_action() {
            if let Action::Send { to, datagram } = action {
                send(io, &datagram, to).await;
            }
        }
    }
}
