//! How often a remote may open a stream. Pure, but for [`Pause`].
//!
//! A stream that is opened and dropped at once costs its remote 24 bytes, and this side a task, a negotiation and an answer. What is
//! opened faster waits as if all streams were in use.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use p2pnode_protocol::bucket::Bucket;
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep_until},
};

use super::{Class, Pace};

/// The streams that a remote has opened of late.
#[derive(Debug)]
pub(crate) struct Opens {
    pace: Pace,
    class: Class,
    left: Bucket,
}

impl Opens {
    pub(crate) fn new(pace: Pace, class: Class, now: Instant) -> Self {
        Self {
            pace,
            class,
            left: Bucket::full(pace(class), now),
        }
    }

    /// A higher class may begin with its whole burst.
    pub(crate) fn set_class(&mut self, class: Class, now: Instant) {
        if class > self.class {
            self.left = Bucket::full((self.pace)(class), now);
        }
        self.class = class;
    }

    /// When the next stream may be used, if not now.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Instant> {
        let at = self.left.ready_at((self.pace)(self.class), now);
        (at > now).then_some(at)
    }

    /// One is used.
    pub(crate) fn used(&mut self, now: Instant) {
        self.left.admits((self.pace)(self.class), now);
    }
}

/// The wait of one task.
#[derive(Debug, Default)]
pub(crate) struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    pub(crate) fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if Handle::try_current().is_err() {
            // Without a runtime nothing can wait.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let at = at.into();
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        ready!(sleep.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stranger_that_opens_without_end_is_held_to_a_pace_and_a_higher_class_begins_with_more() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut opens = Opens::new(Class::opens, Class::Stranger, now);
        let used = |opens: &mut Opens, at| {
            let more = || opens.wait(at).is_none().then(|| opens.used(at));
            std::iter::from_fn(more).count()
        };
        assert_eq!(used(&mut opens, now), 256);
        assert_eq!(opens.wait(now), Some(now + Duration::from_millis(50)));
        assert_eq!(used(&mut opens, now + second), 20);
        opens.set_class(Class::Serving, now + second);
        assert_eq!(used(&mut opens, now + second), 32_768);
        opens.set_class(Class::Stranger, now + second);
        assert_eq!(used(&mut opens, now + second), 0);
        assert_eq!(used(&mut opens, now + 2 * second), 20);
    }

    #[test]
    fn a_relay_knows_no_sessions() {
        for class in [Class::Known, Class::Carrying, Class::Serving] {
            assert_eq!(class.opens_at_relay(), Class::Known.opens());
        }
        assert_eq!(Class::Stranger.opens_at_relay(), Class::Stranger.opens());
    }
}
