//! A connection through a forward that carries bytes both ways all the time, and the target that returns them.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::host::Host;

pub const LISTEN: &str = "tcp://127.0.0.1:7000";
pub const TARGET: &str = "tcp://127.0.0.1:7001";

/// The way back over a relay, and a punch, on a busy machine.
pub const AGAIN: Duration = Duration::from_secs(60);

const CHUNK: usize = 64 << 10;

/// It leaves the machine to others.
const PACE: Duration = Duration::from_millis(8);

fn at(address: &str) -> SocketAddr {
    let socket = address.strip_prefix("tcp://").unwrap_or(address);
    socket.parse().expect("an address")
}

/// The target: it returns what it gets, on every connection.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    /// How many of its connections were reset.
    resets: watch::Sender<usize>,
    clean: Arc<AtomicU64>,
}

impl Echo {
    pub fn on(host: &Host) -> Result<Self> {
        let bind = || Ok(TcpListener::bind(at(TARGET))?);
        let listener = host.device.run_sync(bind)?;
        let echo = Self::default();
        let of_threads = echo.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let echo = of_threads.clone();
                thread::spawn(move || match back(stream) {
                    Ok(()) => {
                        echo.clean.fetch_add(1, SeqCst);
                    }
                    Err(_) => echo.resets.send_modify(|resets| *resets += 1),
                });
            }
        });
        Ok(echo)
    }

    /// Waits until so many connections were reset.
    pub async fn resets(&self, wanted: usize, within: Duration) -> Result<()> {
        let mut resets = self.resets.subscribe();
        let reached = timeout(within, resets.wait_for(|resets| *resets >= wanted)).await;
        reached.with_context(|| {
            let (resets, clean) = (*self.resets.borrow(), self.clean.load(SeqCst));
            format!("{resets} connections of the target were reset and {clean} ended, not {wanted} resets")
        })??;
        Ok(())
    }
}

fn back(mut stream: TcpStream) -> io::Result<()> {
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back)?;
    back.shutdown(Shutdown::Write)
}

fn byte(offset: u64) -> u8 {
    (offset ^ (offset >> 8).wrapping_mul(7) ^ (offset >> 16).wrapping_mul(13)) as u8
}

/// A connection that carries bytes both ways all the time.
pub struct Traffic {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    sent: JoinHandle<Result<u64>>,
    got: JoinHandle<Result<u64>>,
}

#[derive(Debug, Default)]
struct Seen {
    returned: AtomicU64,
    pauses: Mutex<Vec<Pause>>,
}

/// A time without a byte.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub lasted: Duration,
    /// When the next byte came.
    pub end: Instant,
}

impl Seen {
    fn pauses(&self) -> MutexGuard<'_, Vec<Pause>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is no pause: the pace of the traffic, and a turn of the machine.
const NO_PAUSE: Duration = Duration::from_millis(20);

impl Traffic {
    /// Some 8 MiB/s.
    pub fn start(host: &Host) -> Result<Self> {
        Self::paced(host, PACE)
    }

    /// A chunk of 64 KiB after each `pace`.
    pub fn paced(host: &Host, pace: Duration) -> Result<Self> {
        let connect = || Ok(TcpStream::connect(at(LISTEN))?);
        let stream = host.device.run_sync(connect)?;
        let (to, from) = (stream.try_clone()?, stream);
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (sees, ends) = (Arc::clone(&seen), Arc::clone(&stop));
        Ok(Self {
            seen,
            stop,
            sent: thread::spawn(move || send(to, &ends, pace)),
            got: thread::spawn(move || receive(from, &sees)),
        })
    }

    pub fn returned(&self) -> u64 {
        self.seen.returned.load(SeqCst)
    }

    /// Whether the client has seen an end or a reset.
    pub fn is_over(&self) -> bool {
        self.got.is_finished()
    }

    /// The longest time without a byte since the last call.
    pub fn longest_pause(&self) -> Duration {
        let pauses = self.pauses().into_iter();
        pauses.map(|pause| pause.lasted).max().unwrap_or_default()
    }

    /// The times without a byte since the last call.
    pub fn pauses(&self) -> Vec<Pause> {
        std::mem::take(&mut self.seen.pauses())
    }

    /// Waits until so many further bytes have come back.
    pub async fn carries(&self, bytes: u64) -> Result<()> {
        let wanted = self.returned() + bytes;
        let (mut last, mut until) = (self.returned(), Instant::now() + AGAIN);
        while self.returned() < wanted {
            ensure!(!self.is_over(), "the connection has ended");
            if self.returned() > last {
                (last, until) = (self.returned(), Instant::now() + AGAIN);
            }
            ensure!(Instant::now() < until, "stuck at {last}");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until the client sees a reset.
    pub async fn is_reset(self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while !self.is_over() {
            ensure!(Instant::now() < until, "the client saw no reset");
            sleep(Duration::from_millis(20)).await;
        }
        ensure!(self.end().is_err(), "the client saw a clean end");
        Ok(())
    }

    /// Ends it, and returns how many bytes went each way.
    pub fn end(self) -> Result<u64> {
        self.stop.store(true, SeqCst);
        let joined = |thread: JoinHandle<Result<u64>>| {
            let joined = thread.join();
            joined.map_err(|_| anyhow::anyhow!("a thread panicked"))?
        };
        let (sent, got) = (joined(self.sent), joined(self.got)?);
        let sent = sent?;
        ensure!(sent == got, "{sent} bytes were sent and {got} came back");
        Ok(got)
    }
}

fn send(mut to: TcpStream, stop: &AtomicBool, pace: Duration) -> Result<u64> {
    let mut sent = 0;
    while !stop.load(SeqCst) {
        let chunk: Vec<u8> = (sent..sent + CHUNK as u64).map(byte).collect();
        to.write_all(&chunk)?;
        sent += CHUNK as u64;
        thread::sleep(pace);
    }
    to.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Every byte has to be that of its offset, so what comes back whole needs no further sum.
fn receive(mut from: TcpStream, seen: &Seen) -> Result<u64> {
    let (mut bytes, mut got, mut last) = (vec![0; CHUNK], 0, Instant::now());
    loop {
        let read = from.read(&mut bytes)?;
        if read == 0 {
            return Ok(got);
        }
        let end = Instant::now();
        let lasted = end - last;
        if lasted > NO_PAUSE {
            seen.pauses().push(Pause { lasted, end });
        }
        last = end;
        let mut expected = (got..).map(byte);
        let same = bytes[..read]
            .iter()
            .all(|byte| Some(*byte) == expected.next());
        ensure!(same, "other bytes behind {got}");
        got += read as u64;
        seen.returned.store(got, SeqCst);
    }
}
