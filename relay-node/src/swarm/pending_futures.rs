//! Futures that are polled together, for handlers: every connection has several such sets, and nearly all of them are empty nearly
//! always.

use std::task::{Context, Poll};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

/// Futures that run at once. Without any it takes no memory of the heap, where [`FuturesUnordered`] takes two blocks.
pub(crate) struct AtWork<T>(Option<FuturesUnordered<BoxFuture<'static, T>>>);

impl<T> Default for AtWork<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> AtWork<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// One more. To be called before the next [`Self::poll`] of the task, which alone wakes it for this one.
    pub(crate) fn push(&mut self, future: BoxFuture<'static, T>) {
        self.0.get_or_insert_default().push(future);
    }

    /// What the next that is done has come to. Without any this is pending, and nobody is woken.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use futures::{FutureExt as _, channel::oneshot, task::noop_waker_ref};

    use super::*;

    #[test]
    fn what_is_done_comes_out_in_that_order_and_nothing_is_kept() {
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut set = AtWork::default();
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
