//! Whether another host uses the key of this node. Pure.
//!
//! A place that a dial finds may answer with this node's own id. It is this node if the dial came back: then the node meets itself
//! on an inbound connection at the same moment. If it does not, another host has the key.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The two ends of a connection to oneself learn of each other within this time.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What was seen of this node's own id elsewhere.
#[derive(Debug, Default)]
pub(crate) struct OwnKey {
    /// Where it has answered, and when that is judged.
    answered: Option<(SocketAddr, Instant)>,
    met_itself: Option<Instant>,
    /// Where another host has the key.
    elsewhere: Option<SocketAddr>,
}

impl OwnKey {
    /// This node's own id has answered at an address that this host does not have.
    pub(crate) fn handle_answered(&mut self, at: SocketAddr, now: Instant) {
        let came_back = self.met_itself.is_some_and(|met| now < met + AT_ONCE);
        if !came_back && self.elsewhere != Some(at) {
            self.answered = Some((at, now + AT_ONCE));
        }
    }

    /// An inbound connection was this node's own.
    pub(crate) fn handle_met_itself(&mut self, now: Instant) {
        self.met_itself = Some(now);
        self.answered = None;
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.answered.map(|(_, judged)| judged)
    }

    /// Where another host has the key, if that is news.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<SocketAddr> {
        let (at, _) = self.answered.filter(|(_, judged)| *judged <= now)?;
        self.answered = None;
        let is_news = self.elsewhere.is_none();
        self.elsewhere = Some(at);
        is_news.then_some(at)
    }

    /// Where another host has the key.
    pub(crate) const fn elsewhere(&self) -> Option<SocketAddr> {
        self.elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_id_at_another_host_is_reported_once_and_a_dial_that_came_back_is_not() {
        let at: SocketAddr = ([192, 0, 2, 7], 443).into();
        let (mut key, mut now) = (OwnKey::default(), Instant::now());
        // Through the address of a service, before and after the inbound end is seen.
        key.handle_answered(at, now);
        key.handle_met_itself(now + AT_ONCE / 2);
        assert_eq!(
            (key.handle_timeout(now + AT_ONCE), key.poll_timeout()),
            (None, None)
        );
        key.handle_answered(at, now + AT_ONCE);
        assert_eq!(key.poll_timeout(), None);

        now += 4 * AT_ONCE;
        key.handle_answered(at, now);
        assert_eq!(key.handle_timeout(now), None);
        assert_eq!(key.poll_timeout(), Some(now + AT_ONCE));
        assert_eq!(key.handle_timeout(now + AT_ONCE), Some(at));
        key.handle_answered(at, now + 2 * AT_ONCE);
        assert_eq!(key.handle_timeout(now + 4 * AT_ONCE), None);
        assert_eq!(key.elsewhere(), Some(at));
    }
}
