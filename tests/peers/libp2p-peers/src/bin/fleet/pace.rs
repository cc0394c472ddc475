//! How fast peers are started: so many a second, and so many at once that are not where they want to be.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval},
};

/// How fast.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Pace {
    /// Peers that are started in a second, at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
    /// Peers that have not got yet what they want, at most.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    at_once: u32,
}

impl Pace {
    pub(crate) fn start(&self) -> Starter {
        let mut interval = interval(Duration::from_secs(1) / self.per_second);
        // What could not be started in time is not made up for in a burst.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Starter {
            interval,
            places: Arc::new(Semaphore::new(self.at_once as usize)),
        }
    }
}

pub(crate) struct Starter {
    interval: Interval,
    places: Arc<Semaphore>,
}

impl Starter {
    /// The place is free again once it is dropped.
    pub(crate) async fn next(&mut self) -> Option<OwnedSemaphorePermit> {
        self.interval.tick().await;
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}
