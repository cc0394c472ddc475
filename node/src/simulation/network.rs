//! Virtual time and the network: delay, jitter, loss, cuts. Nothing sleeps: time jumps to the next event.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use p2pnode_transports::Family;

use super::World;

/// What the trace of a run keeps: enough to see what led to a failure.
const TRACE: usize = 160;

/// After a loss the transports send again what a stream carries.
const RETRANSMISSION: Duration = Duration::from_millis(300);

/// Something that is to happen.
pub(super) type Happening = Box<dyn FnOnce(&mut World)>;

/// The clocks, what is to happen, and how packets travel.
pub(super) struct Network {
    seed: u64,
    start: Instant,
    pub(super) now: Instant,
    pub(super) rng: fastrand::Rng,
    queue: BTreeMap<(Instant, u64), Happening>,
    serial: u64,
    /// Added to each packet, from none to this: packets overtake each other.
    pub(super) jitter: Duration,
    /// The share of packets that is lost.
    pub(super) loss: f64,
    /// Added to each packet of a family.
    pub(super) slow: BTreeMap<Family, Duration>,
    /// Until then the packets of dials of a family are lost.
    pub(super) dark: BTreeMap<Family, Instant>,
    /// Pairs of hosts between which no packet gets through.
    cuts: BTreeSet<(usize, usize)>,
    trace: VecDeque<String>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            seed,
            start,
            now: start,
            rng: fastrand::Rng::with_seed(seed),
            queue: BTreeMap::new(),
            serial: 0,
            jitter: Duration::ZERO,
            loss: 0.0,
            slow: BTreeMap::new(),
            dark: BTreeMap::new(),
            cuts: BTreeSet::new(),
            trace: VecDeque::new(),
        }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The wall clock, which starts at a fixed date.
    pub(super) fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.elapsed()
    }

    /// When the next thing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// The next thing, if it is due.
    pub(super) fn pop(&mut self) -> Option<Happening> {
        let next = self.queue.first_entry()?;
        (next.key().0 <= self.now).then(|| next.remove())
    }

    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        self.serial += 1;
        self.queue
            .insert((self.now + delay, self.serial), happening);
    }

    /// Lets no packet through between two hosts, or again.
    pub(super) fn cut(&mut self, a: usize, b: usize, is_cut: bool) {
        let pair = (a.min(b), a.max(b));
        if is_cut {
            self.cuts.insert(pair);
        } else {
            self.cuts.remove(&pair);
        }
    }

    /// Lets every packet through.
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.loss = 0.0;
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn is_dark(&self, family: Family) -> bool {
        self.dark
            .get(&family)
            .is_some_and(|until| self.now < *until)
    }

    /// `base` with its jitter.
    pub(super) fn spread(&mut self, base: Duration) -> Duration {
        base + self.jitter.mul_f64(self.rng.f64())
    }

    pub(super) fn loses(&mut self) -> bool {
        self.loss > 0.0 && self.rng.f64() < self.loss
    }

    /// How long a message takes on a stream: what is lost is sent again.
    pub(super) fn stream(&mut self, base: Duration) -> Duration {
        let mut delay = self.spread(base);
        while self.loses() {
            delay += RETRANSMISSION;
        }
        delay
    }

    pub(super) fn note(&mut self, line: &str) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let at = self.elapsed().as_secs_f64();
        self.trace.push_back(format!("{at:9.3} {line}"));
    }
}

impl Drop for Network {
    /// A test that fails prints its seed and what happened last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, at {:?}", self.seed, self.elapsed());
            for line in &self.trace {
                eprintln!("{line}");
            }
        }
    }
}
