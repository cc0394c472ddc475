//! quinn's runtime for a socket that thousands of connections share: what arrives is read by a thread of its own.
//!
//! quinn reads a socket in a task among those of all its connections, for 50 µs at a time. With a thousand busy ones that task has its turn
//! too seldom: the kernel's queue overflows, keep-alives and acknowledgements are lost with the rest, and connections
//! end that nothing is wrong with (`docs/notes.md`). A thread has its turn from the kernel whatever the tasks do; reading costs little beside what
//! the packets of a connection cost, and what waits for a connection is handled in one go.

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
    backlog::{Backlog, Bounded},
    drivers::{Driver, Drivers},
};

/// The runtime of one endpoint. The first task that an endpoint spawns is the one that reads its socket, and goes to the thread;
/// all others drive connections, in turn ([`Drivers`]).
pub(super) struct Apart {
    thread: Handle,
    reads: Mutex<Option<oneshot::Sender<Driver>>>,
    connections: Drivers,
    backlog: Arc<Backlog>,
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apart").finish_non_exhaustive()
    }
}

impl Apart {
    /// Starts the thread. It ends with the endpoint, or with the runtime in which it is started.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no reactor.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let thread = runtime.handle().clone();
        let (reads, read) = oneshot::channel::<Driver>();
        let (mut serves, over) = oneshot::channel::<()>();
        // Dropped with the runtime, where nobody is left for whom to read.
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
            connections: Drivers::start(Arc::clone(&backlog)),
            backlog,
        }))
    }
}

impl Runtime for Apart {
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
        // Its readiness is told to the thread, not to workers that are busy with connections.
        let _thread = self.thread.enter();
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        let backlog = Arc::clone(&self.backlog);
        Ok(Arc::new(Bounded::new(socket, backlog)))
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
    async fn thread_of(runtime: &Apart) -> Option<String> {
        let (tell, told) = oneshot::channel();
        runtime.spawn(Box::pin(async {
            drop(tell.send(thread::current().name().map(str::to_owned)));
        }));
        told.await.unwrap()
    }

    #[tokio::test]
    async fn the_first_task_has_a_thread_of_its_own_and_the_others_have_not() {
        let runtime = Apart::start().unwrap();
        let here = thread::current().name().map(str::to_owned);
        assert_eq!(thread_of(&runtime).await.as_deref(), Some("quic-reader"));
        assert_eq!(thread_of(&runtime).await, here);
        assert_eq!(thread_of(&runtime).await, here);
    }
}
