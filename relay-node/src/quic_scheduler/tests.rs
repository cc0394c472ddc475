#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{future::poll_fn, sync::Arc};

use quinn::{AsyncUdpSocket as _, udp::RecvMeta};

use super::{
    backpressure::{Backlog, BackpressureSocket, tests::Flood},
    scheduler::Scheduler,
};

#[tokio::test]
async fn a_flood_that_is_for_no_connection_does_not_stop_the_reader() {
    let backlog = Arc::new(Backlog::default());
    let socket = BackpressureSocket::new(Arc::new(Flood), Arc::clone(&backlog));
    let _scheduler = Scheduler::start(backlog);
    let mut meta = [RecvMeta::default(); 2];
    let mut waited = 0;
    for _ in 0..1000 {
        poll_fn(|cx| {
            let read = socket.poll_recv(cx, &mut [], &mut meta);
            waited += usize::from(read.is_pending());
            read
        })
        .await
        .unwrap();
    }
    assert!(waited > 10, "{waited}");
}
