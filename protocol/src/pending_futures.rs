//! Futures that a connection handler polls together.
//!
//! Every connection has several such sets, and most of them are empty most of the time.

use std::task::{Context, Poll};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

/// Futures that run at once. An empty set takes no heap memory, where an empty [`FuturesUnordered`] takes two blocks.
pub struct PendingFutures<T>(Option<FuturesUnordered<BoxFuture<'static, T>>>);

impl<T> Default for PendingFutures<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> PendingFutures<T> {
    /// The number of futures.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// Whether there is no future.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a future. Call [`Self::poll`] afterwards: only that registers the task to be woken for it.
    pub fn push(&mut self, future: BoxFuture<'static, T>) {
        self.0.get_or_insert_default().push(future);
    }

    /// The output of the next future that ends. Pending if there is none, and then nothing wakes the task.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(running) = &mut self.0 {
            match running.poll_next_unpin(cx) {
                Poll::Ready(Some(done)) => return Poll::Ready(done),
                Poll::Ready(None) => self.0 = None,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

impl<T> std::fmt::Debug for PendingFutures<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PendingFutures").field(&self.len()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use futures::{FutureExt as _, channel::oneshot, task::noop_waker_ref};

    use super::*;

    #[test]
    fn outputs_come_in_the_order_in_which_futures_end_and_an_empty_set_keeps_nothing() {
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut set = PendingFutures::default();
        assert!(set.poll(&mut cx).is_pending());
        let ends = [(); 3].map(|()| {
            let (end, ended) = oneshot::channel::<u8>();
            set.push(ended.map(Result::unwrap).boxed());
            end
        });
        assert_eq!(set.len(), 3);
        assert!(set.poll(&mut cx).is_pending());
        for (number, end) in (0..).zip(ends).collect::<Vec<_>>().into_iter().rev() {
            end.send(number).unwrap();
            assert_eq!(set.poll(&mut cx), Poll::Ready(number));
        }
        assert!(set.poll(&mut cx).is_pending());
        assert!(set.0.is_none());
        assert_eq!(set.len(), 0);
        set.push(async { 7 }.boxed());
        assert_eq!(set.poll(&mut cx), Poll::Ready(7));
    }
}
