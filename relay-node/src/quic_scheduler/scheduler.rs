//! The task that drives all connections of a socket, in turns by the processor time that each has had.
//!
//! tokio runs tasks in the order in which they were woken. With thousands of busy connections each step of anybody costs one
//! round of all of them: a reservation takes five steps and so five rounds. A connection with many packets has as many turns as
//! one with few. Here all connections of a socket are one task of tokio's, the scheduler. It gives the next turn to the
//! connection that has had the least time ([`FairQueue`]). So a keep-alive or a request does not wait for traffic. Few of the
//! tasks behind the connections run at a time. What arrives for a busy connection in the meantime is handled in one go.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::coop::unconstrained};

use super::{
    backpressure::Backlog,
    fair_queue::{FairQueue, VirtualTime},
};

/// The task of quinn that drives one connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long connections have turns before other tasks run, which the connections may have woken. Ten or twenty turns of a
/// connection that sends.
const SLICE: Duration = Duration::from_micros(500);

/// The most that one turn counts for, a few times the usual length. The clock runs on while the process gets no CPU. Without
/// this bound a connection whose turn is interrupted, or which sends much at once, would wait for as long afterwards.
const LONG: Duration = Duration::from_micros(100);

/// The scheduler's handle: takes the drivers of new connections.
#[derive(Debug, Clone)]
pub(super) struct Scheduler(mpsc::UnboundedSender<Driver>);

impl Scheduler {
    /// Starts the task.
    pub(super) fn start(backlog: Arc<Backlog>) -> Self {
        let (scheduler, running) = Self::new(backlog);
        // It bounds by itself how long it runs.
        tokio::spawn(unconstrained(running));
        scheduler
    }

    /// The task ends once the handle is dropped and every driver is done.
    fn new(backlog: Arc<Backlog>) -> (Self, Running) {
        let (give, given) = mpsc::unbounded_channel();
        let running = Running {
            given: Some(given),
            drivers: HashMap::new(),
            next: 0,
            ready: Arc::new(Ready {
                turns: Mutex::new(FairQueue::new()),
                backlog,
            }),
        };
        (Self(give), running)
    }

    pub(super) fn spawn(&self, driver: Driver) {
        // It fails only when the runtime is gone, and the connection with it.
        drop(self.0.send(driver));
    }
}

/// The task.
struct Running {
    /// `None` once the handle is dropped.
    given: Option<mpsc::UnboundedReceiver<Driver>>,
    drivers: HashMap<u64, Driven>,
    next: u64,
    ready: Arc<Ready>,
}

/// A driver that is not done.
struct Driven {
    driver: Driver,
    /// What wakes it.
    waker: Waker,
}

/// The drivers that were woken.
struct Ready {
    turns: Mutex<FairQueue<Arc<Job>>>,
    backlog: Arc<Backlog>,
}

impl Ready {
    fn turns(&self) -> MutexGuard<'_, FairQueue<Arc<Job>>> {
        // Nothing panics while it holds the lock.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A driver as its waker knows it.
struct Job {
    id: u64,
    state: AtomicU8,
    /// When its last turn ended.
    end: Mutex<VirtualTime>,
    ready: Arc<Ready>,
}

/// The driver has nothing to do.
const IDLE: u8 = 0;
/// The driver waits for its turn.
const WAITING: u8 = 1;
/// The driver has its turn.
const RUNNING: u8 = 2;
/// The driver was woken in its turn, and waits for the next.
const WOKEN: u8 = 3;

impl Job {
    fn end(&self) -> MutexGuard<'_, VirtualTime> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(self: &Arc<Self>) {
        let end = *self.end();
        self.ready.turns().wait(Arc::clone(self), end);
    }
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let was =
            self.state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                    IDLE => Some(WAITING),
                    RUNNING => Some(WOKEN),
                    _ => None,
                });
        if was == Ok(IDLE) {
            self.wait();
            self.ready.backlog.wake_connections();
        }
    }
}

impl Running {
    fn take_given(&mut self, cx: &mut Context<'_>) {
        while let Some(given) = &mut self.given {
            match given.poll_recv(cx) {
                Poll::Ready(Some(driver)) => self.add(driver),
                Poll::Ready(None) => self.given = None,
                Poll::Pending => break,
            }
        }
    }

    fn add(&mut self, driver: Driver) {
        let job = Arc::new(Job {
            id: self.next,
            state: AtomicU8::new(WAITING),
            end: Mutex::default(),
            ready: Arc::clone(&self.ready),
        });
        job.wait();
        let driven = Driven {
            driver,
            waker: Waker::from(job),
        };
        self.drivers.insert(self.next, driven);
        self.next += 1;
    }

    /// Gives a turn that starts now, at `start` in virtual time. Returns when the turn ends.
    fn run(&mut self, job: &Arc<Job>, start: VirtualTime, now: Instant) -> Instant {
        let Some(driven) = self.drivers.get_mut(&job.id) else {
            // The driver was woken after it was done.
            return now;
        };
        job.state.store(RUNNING, Ordering::Release);
        let mut cx = Context::from_waker(&driven.waker);
        // A panic of one connection must not end the others.
        let polled = catch_unwind(AssertUnwindSafe(|| driven.driver.as_mut().poll(&mut cx)));
        let ended = Instant::now();
        *job.end() = start.after((ended - now).min(LONG));
        match polled {
            Ok(Poll::Pending) => {
                let idle =
                    job.state
                        .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
                if idle.is_err() {
                    job.state.store(WAITING, Ordering::Release);
                    job.wait();
                }
            }
            // The panic was reported by its hook.
            Ok(Poll::Ready(())) | Err(_) => {
                self.drivers.remove(&job.id);
            }
        }
        ended
    }
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.ready.backlog.register(cx.waker());
        this.take_given(cx);
        let begun = Instant::now();
        let mut now = begun;
        while now - begun < SLICE {
            let (next, rounds) = {
                let mut turns = this.ready.turns();
                (turns.next(), turns.rounds())
            };
            this.ready.backlog.handled(rounds);
            let Some((start, job)) = next else {
                let over = this.given.is_none() && this.drivers.is_empty();
                return if over { Poll::Ready(()) } else { Poll::Pending };
            };
            now = this.run(&job, start, now);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn all_are_driven_to_their_end_and_the_task_ends_with_the_last() {
        let (scheduler, running) = Scheduler::new(Arc::default());
        let running = tokio::spawn(running);
        let (last, waits) = oneshot::channel::<()>();
        scheduler.spawn(Box::pin(async { waits.await.unwrap() }));
        let ends: Vec<_> = (0..100)
            .map(|n| {
                let (end, ended) = oneshot::channel();
                scheduler.spawn(Box::pin(async move {
                    for _ in 0..n {
                        tokio::task::yield_now().await;
                    }
                    end.send(n).unwrap();
                }));
                ended
            })
            .collect();
        drop(scheduler);
        for (n, end) in ends.into_iter().enumerate() {
            assert_eq!(end.await.unwrap(), n);
        }
        assert!(!running.is_finished());
        last.send(()).unwrap();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_never_waits_keeps_nobody_from_a_turn() {
        let scheduler = Scheduler::start(Arc::default());
        scheduler.spawn(Box::pin(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        for _ in 0..100 {
            let (end, ended) = oneshot::channel();
            scheduler.spawn(Box::pin(async {
                tokio::task::yield_now().await;
                end.send(()).unwrap();
            }));
            ended.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_wake_from_another_thread_in_a_turn_or_between_is_not_lost() {
        let scheduler = Scheduler::start(Arc::default());
        let (wake, mut woken) = mpsc::unbounded_channel();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let (end, ended) = oneshot::channel();
        scheduler.spawn(Box::pin(async move {
            while woken.recv().await.is_some() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            end.send(()).unwrap();
        }));
        let waking = std::thread::spawn(move || {
            for _ in 0..100_000 {
                wake.send(()).unwrap();
            }
        });
        ended.await.unwrap();
        waking.join().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 100_000);
    }

    #[tokio::test]
    async fn a_driver_that_panics_ends_alone() {
        let scheduler = Scheduler::start(Arc::default());
        let (end, ended) = oneshot::channel();
        scheduler.spawn(Box::pin(async { panic!("as a test of what follows") }));
        scheduler.spawn(Box::pin(async {
            end.send(()).unwrap();
        }));
        ended.await.unwrap();
    }

    #[test]
    fn what_is_driven_goes_with_the_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (held, mut dropped) = oneshot::channel::<()>();
        runtime.block_on(async {
            Scheduler::start(Arc::default()).spawn(Box::pin(async {
                let _held = held;
                std::future::pending::<()>().await;
            }));
            tokio::task::yield_now().await;
        });
        assert_eq!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(runtime);
        assert_eq!(
            dropped.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
    }
}
