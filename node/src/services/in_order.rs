//! Tasks that begin in the order in which they are spawned.
//!
//! A worker of tokio runs the task first that was spawned last. Two connections of one client would reach their target in reversed order.

use std::{
    future::Future,
    task::{Context, Poll, Waker},
};

/// Begins the task at once, up to where it waits for something, and runs the rest as [`tokio::spawn`] does.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    let mut task = Box::pin(task);
    // Its first poll as a task of its own registers it where it waits.
    let begun = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    if begun == Poll::Pending {
        tokio::spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn tasks_begin_in_their_order_and_go_on_where_they_waited() {
        let (order, (done, mut all)) = (
            Arc::new(Mutex::new(Vec::new())),
            tokio::sync::mpsc::channel(8),
        );
        for number in 0..8 {
            let (order, done) = (Arc::clone(&order), done.clone());
            spawn(async move {
                order.lock().expect("no panic").push(number);
                tokio::task::yield_now().await;
                done.send(()).await.expect("it is received");
            });
        }
        for _ in 0..8 {
            all.recv().await;
        }
        assert_eq!(*order.lock().expect("no panic"), (0..8).collect::<Vec<_>>());
    }
}
