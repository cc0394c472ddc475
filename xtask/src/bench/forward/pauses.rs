//! Pauses of a session whose path changes, as a client sees them that sends a little each millisecond.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use p2pnode_tests::{
    args::Transport,
    carry::{Carry, LISTEN},
    delay::Link,
    host::Host,
    lab::Lab,
    nat::NatKind,
};

use super::clients;
use crate::bench::report::{Better, Figure, Goal, Row};

/// Round trip between the sites, in milliseconds.
const RTT: u64 = 20;
const LINGER: Duration = Duration::from_secs(60);
const EACH: Duration = Duration::from_millis(1);
/// What a change of the path may still delay when it has been reported.
const AFTER: Duration = Duration::from_secs(1);

pub(super) async fn measure(runs: u16) -> Result<[Figure; 2]> {
    let lab = Lab::new("forward-pauses").await?;
    let nats = [NatKind::EimApdf, NatKind::EimApdfRewrite];
    let mut carry = Carry::start(lab, nats, Transport::Quic, LINGER).await?;
    let link = Link::rtt(Duration::from_millis(RTT));
    carry.lab.lab.impair(link)?;
    let gaps = Gaps::start(&carry.a.host)?;
    let (mut better, mut lost, mut none) = (Vec::new(), Vec::new(), Vec::new());
    carry.is_on("relayed").await?;
    for run in 1..=runs {
        eprintln!("forward: pauses, {run} of {runs}");
        gaps.longest(AFTER).await;
        none.push(gaps.longest(AFTER).await);
        carry.direct().await?;
        carry.is_on("direct").await?;
        better.push(gaps.longest(AFTER).await);
        carry.cut()?;
        carry.is_on("relayed").await?;
        lost.push(gaps.longest(AFTER).await);
    }
    carry.lab.lab.succeeded();
    let figure = |name, goal, samples| {
        let mut figure = Figure::new(name, "ms", Better::Less);
        let rows = vec![
            Row::new("ours", samples).goal(Some(Goal::AtMost(goal))),
            Row::new("no change of path", none.clone()),
        ];
        figure.push(format!("{RTT} ms"), rows);
        figure
    };
    Ok([
        figure("pause, relayed to direct", RTT as f64 + 5.0, better),
        figure("pause, direct path cut, relay there", 5_000.0, lost),
    ])
}

/// A client that sends a byte each millisecond and sees when its echo comes.
struct Gaps {
    longest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Gaps {
    fn start(host: &Host) -> Result<Self> {
        let at = LISTEN.trim_start_matches("tcp://").parse()?;
        let mut to = clients::connect(host, at)?;
        let from = to.try_clone()?;
        let (longest, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (sees, ends) = (Arc::clone(&longest), Arc::clone(&stop));
        thread::spawn(move || receive(from, &sees));
        thread::spawn(move || {
            while !ends.load(SeqCst) && to.write_all(&[7]).is_ok() {
                thread::sleep(EACH);
            }
        });
        Ok(Self { longest, stop })
    }

    /// The longest time without a byte, in milliseconds, from the last call until `after` from now.
    async fn longest(&self, after: Duration) -> f64 {
        tokio::time::sleep(after).await;
        self.longest.swap(0, SeqCst) as f64 / 1e6
    }
}

impl Drop for Gaps {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

fn receive(mut from: TcpStream, longest: &AtomicU64) {
    let (mut last, mut bytes) = (Instant::now(), [0; 256]);
    while from.read(&mut bytes).is_ok_and(|read| read > 0) {
        let gap = u64::try_from(last.elapsed().as_nanos()).unwrap_or(u64::MAX);
        longest.fetch_max(gap, SeqCst);
        last = Instant::now();
    }
}
