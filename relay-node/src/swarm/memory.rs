//! How much memory the process takes, and that it takes no new connections above `limits.memory`.

use std::{
    convert::Infallible,
    fmt, fs,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// How old a measurement may be: a flood of connections costs one in this time, and no memory worth the name is taken in it.
const FRESH: Duration = Duration::from_millis(100);

/// The process takes as much memory as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    resident: u64,
    limit: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, limit } = self;
        write!(
            f,
            "{resident} bytes are resident, and limits.memory is {limit}"
        )
    }
}

impl std::error::Error for Exceeded {}

/// Refuses incoming connections above the limit. Those that are open, and what is asked for on them, it leaves alone.
#[derive(Debug)]
pub(crate) struct Behaviour {
    /// In bytes; 0 is none.
    limit: u64,
    measured: Option<(Instant, u64)>,
}

impl Behaviour {
    /// Refuses above `limit` bytes, of which 0 is none.
    pub(crate) fn new(limit: u64) -> Self {
        if limit > 0 && resident().is_none() {
            tracing::warn!(
                "this system does not tell how much memory is resident; limits.memory is not enforced"
            );
        }
        Self {
            limit,
            measured: None,
        }
    }

    /// Whether one more connection is taken at `now`; `measure` is asked if what is known is too old.
    fn check(
        &mut self,
        now: Instant,
        measure: impl FnOnce() -> Option<u64>,
    ) -> Result<(), Exceeded> {
        if self.limit == 0 {
            return Ok(());
        }
        let fresh = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) < FRESH;
        if !self.measured.as_ref().is_some_and(fresh) {
            self.measured = measure().map(|resident| (now, resident));
        }
        match self.measured {
            Some((_, resident)) if resident > self.limit => Err(Exceeded {
                resident,
                limit: self.limit,
            }),
            _ => Ok(()),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    /// Before the handshake, which takes memory as well.
    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.check(Instant::now(), resident)
            .map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Bytes that are resident; `None` where the system does not tell.
pub(crate) fn resident() -> Option<u64> {
    of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS` of a status as [proc(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html) describes it, in bytes.
fn of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_refused_above_the_limit_and_taken_again_below_it() {
        let (mut behaviour, now) = (Behaviour::new(100), Instant::now());
        assert_eq!(behaviour.check(now, || Some(100)), Ok(()));
        let later = now + FRESH;
        let exceeded = Err(Exceeded {
            resident: 101,
            limit: 100,
        });
        assert_eq!(behaviour.check(later, || Some(101)), exceeded);
        assert_eq!(
            behaviour.check(later, || Some(1)),
            exceeded,
            "measured just now"
        );
        assert_eq!(behaviour.check(later + FRESH, || Some(1)), Ok(()));
        assert_eq!(
            behaviour.check(later + FRESH * 2, || None),
            Ok(()),
            "unknown"
        );
        let mut unlimited = Behaviour::new(0);
        assert_eq!(unlimited.check(now, || Some(u64::MAX)), Ok(()));
    }

    #[test]
    fn the_resident_size_is_read_where_it_stands_and_nothing_is_guessed() {
        let status = "Name:\trelay-node\nVmSize:\t  999 kB\nVmRSS:\t   1234 kB\n";
        assert_eq!(of(status), Some(1234 * 1024));
        for none in [
            "",
            "VmRSS:\t12 MB\n",
            "VmRSS:\t-1 kB\n",
            "VmRSS:\t18446744073709551615 kB\n",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        assert!(resident().is_some_and(|bytes| bytes > 4096));
    }
}
