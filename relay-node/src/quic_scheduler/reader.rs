//! quinn's runtime for a socket that thousands of connections share: a thread of its own reads it.
//!
//! quinn reads a socket in a task among those of all its connections, for 50 µs at a time. With a thousand busy connections that
//! task has its turn too seldom. The kernel's queue overflows, keep-alives and acknowledgements are lost with the rest, and sound
//! connections end (`docs/notes.md`). A thread has its turn from the kernel whatever the tasks do. Reading costs little compared
//! with handling the packets, and what waits for a connection is handled in one go.

use std::{
    fmt, io,
    net::UdpSocket,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use futures::future::select;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use super::{
    backpressure::{Backlog, BackpressureSocket},
    scheduler::{Driver, Scheduler},
};

/// The runtime of one endpoint. The first task that an endpoint spawns reads its socket, and goes to the thread. All others drive
/// connections, and go to the [`Scheduler`].
pub(crate) struct FairRuntime {
    thread: Handle,
    reads: Mutex<Option<oneshot::Sender<Driver>>>,
    connections: Scheduler,
    backlog: Arc<Backlog>,
}

impl fmt::Debug for FairRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairRuntime").finish_non_exhaustive()
    }
}

impl FairRuntime {
    /// Starts the thread. It ends with the endpoint, or with the runtime in which it is started.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no reactor.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let thread = runtime.handle().clone();
        let (reads, read) = oneshot::channel::<Driver>();
        let (mut serves, over) = oneshot::channel::<()>();
        // Dropped with the runtime: nobody is left who needs what is read.
        tokio::spawn(async move { serves.closed().await });
        thread::Builder::new()
            .name("quic-reader".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    // Without an endpoint there is nothing to read.
                    if let Ok(driver) = read.await {
                        select(driver, over).await;
                    }
                });
            })?;
        let backlog = Arc::<Backlog>::default();
        Ok(Arc::new(Self {
            thread,
            reads: Mutex::new(Some(reads)),
            connections: Scheduler::start(Arc::clone(&backlog)),
            backlog,
        }))
    }
}

impl Runtime for FairRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Driver) {
        let first = self
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match first {
            // The thread waits for it until it is there.
            Some(reads) => drop(reads.send(task)),
            None => self.connections.spawn(task),
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        // The reactor of the thread reports when it is readable, not that of the workers, which are busy with connections.
        let _thread = self.thread.enter();
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        let backlog = Arc::clone(&self.backlog);
        Ok(Arc::new(BackpressureSocket::new(socket, backlog)))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// The name of the thread that runs a task.
    async fn thread_of(runtime: &FairRuntime) -> Option<String> {
        let (name, named) = oneshot::channel();
        runtime.spawn(Box::pin(async {
            drop(name.send(thread::current().name().map(str::to_owned)));
        }));
        named.await.unwrap()
    }

    #[tokio::test]
    async fn the_first_task_has_a_thread_of_its_own_and_the_others_have_not() {
        let runtime = FairRuntime::start().unwrap();
        let here = thread::current().name().map(str::to_owned);
        assert_eq!(thread_of(&runtime).await.as_deref(), Some("quic-reader"));
        assert_eq!(thread_of(&runtime).await, here);
        assert_eq!(thread_of(&runtime).await, here);
    }
}
