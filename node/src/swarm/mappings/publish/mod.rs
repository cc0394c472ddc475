//! Publishes what is proved: by a hook, in a file, in the DNS. Each sink has a task and a [`Publisher`], so that none waits for
//! another.

mod dns;
mod file;
mod hook;

use std::{collections::BTreeSet, time::Duration};

use p2pnode_transports::Handle;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    config::Publish,
    core::mappings::{Entry, Publication, Publisher},
};

/// How long a shutdown waits for the sinks to take everything back.
const WITHDRAW: Duration = Duration::from_secs(2);

/// Where publications go.
enum Sink {
    Hook(hook::Hook),
    File(std::path::PathBuf),
    Dns(dns::Zone),
}

impl Sink {
    /// Publishes. Returns how many of the changes are made, and what failed.
    async fn publish(&self, publication: &Publication) -> (usize, Result<(), String>) {
        let whole = |done: Result<(), String>| match &done {
            Ok(()) => (publication.changes.len(), done),
            Err(_) => (0, done),
        };
        match self {
            Self::Hook(hook) => hook.publish(publication).await,
            Self::File(path) => whole(file::write(path, publication)),
            Self::Dns(zone) => whole(zone.publish(publication).await),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Hook(_) => "hook",
            Self::File(_) => "file",
            Self::Dns(_) => "dns",
        }
    }
}

/// The tasks.
pub(super) struct Sinks {
    proved: watch::Sender<BTreeSet<Entry>>,
    tasks: JoinSet<()>,
}

impl Sinks {
    pub(super) fn start(config: &Publish, sockets: &Handle, label: &str) -> Self {
        let hook = (!config.hook.is_empty()).then(|| Sink::Hook(hook::Hook::new(&config.hook)));
        let file = config.file.clone().map(Sink::File);
        let dns = config.dns.as_ref().map(|dns| {
            let zone = dns::Zone::new(dns.clone(), sockets.clone(), label);
            Sink::Dns(zone)
        });
        let proved = watch::Sender::new(BTreeSet::new());
        let mut tasks = JoinSet::new();
        for sink in [hook, file, dns].into_iter().flatten() {
            tasks.spawn(keep(sink, proved.subscribe()));
        }
        Self { proved, tasks }
    }

    /// All that is proved.
    pub(super) fn show(&self, proved: BTreeSet<Entry>) {
        self.proved.send_if_modified(|known| {
            let is_other = *known != proved;
            *known = proved;
            is_other
        });
    }

    /// Takes everything back.
    pub(super) async fn stop(self) {
        drop(self.proved);
        let mut tasks = self.tasks;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(WITHDRAW, ended).await.is_err() {
            tracing::warn!("a publication of mappings was not taken back in time");
        }
    }
}

/// Until the sender is gone; then everything is taken back.
async fn keep(sink: Sink, mut proved: watch::Receiver<BTreeSet<Entry>>) {
    let mut publisher = Publisher::default();
    let mut is_open = true;
    // A file of an earlier run says what no longer holds.
    if let Sink::File(path) = &sink {
        let nothing = Publication {
            changes: Vec::new(),
            entries: BTreeSet::new(),
        };
        if let Err(error) = file::write(path, &nothing) {
            tracing::error!(error, "cannot write mappings.publish.file");
        }
    }
    while is_open || !publisher.is_settled() {
        let due = publisher.poll_timeout();
        tokio::select! {
            changed = proved.changed(), if is_open => match changed {
                Ok(()) => {
                    let wanted = proved.borrow_and_update().clone();
                    publisher.handle_wanted(wanted, std::time::Instant::now());
                }
                Err(_) => {
                    is_open = false;
                    publisher.handle_shutdown(std::time::Instant::now());
                }
            },
            () = at(due) => {}
        }
        let Some(publication) = publisher.handle_timeout(std::time::Instant::now()) else {
            continue;
        };
        let (made, done) = sink.publish(&publication).await;
        if let Err(error) = &done {
            tracing::error!(
                sink = sink.name(),
                error,
                "mappings are not published; tried again"
            );
        }
        publisher.handle_done(made, std::time::Instant::now());
    }
}

async fn at(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}
