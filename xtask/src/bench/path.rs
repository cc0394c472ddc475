//! A path of two routers that neither translate nor filter, with a link of some length and loss between them, and transfers on
//! it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use p2pnode_tests::{
    args::Transport,
    delay::Link,
    host::Host,
    lab::{Lab, Site},
    nat::{NatKind, RANGE},
    node,
    sandbox::{has_tool, tool},
    transfer::{Engine, Moved, Route},
};
use serde_json::Value;

/// With what the size of a transfer is sought: it takes a moment at any rate of interest.
const FIRST: u64 = 4_000_000;

/// More is not moved at once, nor less.
const MOST: u64 = 20_000_000_000;
const LEAST: u64 = 1_000_000;

/// What is wanted, as a multiple of a transfer that was long enough to tell the rate.
const ENOUGH: f64 = 1.25;

/// How much longer than sought a transfer may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the captured transfer moves: some ten thousand packets, which tcpdump keeps up with.
const CAPTURED: u64 = 16_000_000;
const IPERF_PORT: u16 = 5201;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Between {
    /// What is added to the round trip, in milliseconds.
    pub(super) rtt: u64,
    /// Packets of a hundred that are lost, each way.
    pub(super) loss: f64,
}

pub(super) struct Path {
    pub(super) lab: Lab,
    from: Host,
    to: Host,
    site: Site,
    // Its router is part of the path.
    _other: Site,
}

impl Path {
    pub(super) async fn new(name: &str, between: Between) -> Result<Self> {
        let name = format!("{name}-{}-{}", between.rtt, between.loss);
        let mut lab = Lab::new(&name).await?;
        let site = lab.site("a", NatKind::None).await?;
        let other = lab.site("b", NatKind::None).await?;
        let from = lab.host("host-a", &site).await?;
        let to = lab.host("host-b", &other).await?;
        if between.rtt > 0 || between.loss > 0.0 {
            let link = Link::rtt(Duration::from_millis(between.rtt));
            lab.impair(link.loss(between.loss))?;
        }
        Ok(Self {
            lab,
            from,
            to,
            site,
            _other: other,
        })
    }

    /// From where to where transfers go.
    pub(super) fn hosts(&self) -> (&Host, &Host) {
        (&self.from, &self.to)
    }

    pub(super) fn route(&self, engine: Engine, transport: Transport) -> Route<'_> {
        Route {
            from: &self.from,
            to: &self.to,
            engine,
            transport,
        }
    }

    pub(super) async fn size(
        &self,
        engine: Engine,
        transport: Transport,
        streams: u16,
        seconds: f64,
    ) -> Result<u64> {
        let mut bytes = FIRST;
        loop {
            let moved = self.transfer(engine, transport, streams, bytes).await?;
            match sized(bytes, moved.seconds, seconds) {
                Size::Is(bytes) => return Ok(bytes),
                Size::Try(more) => bytes = more,
            }
        }
    }

    pub(super) async fn transfer(
        &self,
        engine: Engine,
        transport: Transport,
        streams: u16,
        bytes: u64,
    ) -> Result<Moved> {
        let route = self.route(engine, transport);
        let moved = route.transfer(bytes, streams, PATIENCE).await;
        moved.with_context(|| format!("{} over {}", engine.name(), transport.name()))
    }

    /// Captures a transfer of ours in the sender's router, and fails if a packet left from outside the range.
    pub(super) async fn hold_range(&self, transport: Transport) -> Result<()> {
        let capture = self.lab.capture(&self.site).await?;
        self.transfer(Engine::Ours, transport, 1, CAPTURED).await?;
        capture.keeps(&self.from, &RANGE).await
    }

    pub(super) async fn iperf3(&self, streams: u16, seconds: f64) -> Result<Moved> {
        let (ip, port) = (self.to.ip(false)?.to_string(), IPERF_PORT.to_string());
        let serve = ["--server", "--one-off", "--forceflush", "--bind", &ip];
        let server = node::Launch::new("iperf3-server", tool("iperf3"))
            .args(serve)
            .args(["--port", &port])
            .on(&self.to)?;
        server
            .until("that it listens", Duration::from_secs(20), |lines| {
                let mut lines = lines.iter();
                lines
                    .any(|line| line.line.contains("listening"))
                    .then_some(())
            })
            .await?;
        let (time, streams) = (format!("{seconds:.0}"), streams.to_string());
        let to = ["--client", &ip, "--port", &port, "--json"];
        let args = [&to[..], &["--time", &time, "--parallel", &streams]].concat();
        let client = tool("iperf3");
        let output = node::output(&self.from.device, &client, &args, PATIENCE).await?;
        let json: Value = serde_json::from_slice(&output.stdout).context("iperf3 --json")?;
        iperf3_moved(&json["end"]).with_context(|| format!("iperf3: {}", json["error"]))
    }
}

pub(super) fn without_iperf3() -> Option<String> {
    (!has_tool("iperf3")).then(|| {
        "no row of iperf3, the ceiling: iperf3 is not installed; on Debian `apt-get install iperf3`"
            .to_owned()
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Size {
    Is(u64),
    Try(u64),
}

/// What follows from `bytes` having taken `seconds` where `sought` are wanted. A transfer that was too short tells little of the rate:
/// connections begin slowly, and on a long path that is seconds in which each round trip carries twice what the one before did.
fn sized(bytes: u64, seconds: f64, sought: f64) -> Size {
    let factor = sought / seconds.max(1e-3);
    let scaled = |factor: f64| ((bytes as f64 * factor) as u64).clamp(LEAST, MOST);
    if factor <= ENOUGH || bytes >= MOST {
        Size::Is(scaled(factor))
    } else {
        Size::Try(scaled(factor.clamp(2.0, 8.0)))
    }
}

fn iperf3_moved(end: &Value) -> Option<Moved> {
    let number = |pointer: &str| end.pointer(pointer)?.as_f64();
    let seconds = number("/sum_received/seconds")?;
    let cpu = "/cpu_utilization_percent";
    let percent = number(&format!("{cpu}/host_total"))? + number(&format!("{cpu}/remote_total"))?;
    Some(Moved {
        bytes: number("/sum_received/bytes")? as u64,
        seconds,
        cpu_seconds: percent / 100.0 * seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_sought_in_steps_and_scaled_once_it_is_near() {
        // A hundred times too short: eight times as much.
        assert_eq!(sized(4_000_000, 0.02, 2.0), Size::Try(32_000_000));
        // Nearly long enough, but perhaps nothing but its beginning.
        assert_eq!(sized(4_000_000, 1.2, 2.0), Size::Try(8_000_000));
        assert_eq!(sized(32_000_000, 0.5, 2.0), Size::Try(128_000_000));
        assert_eq!(sized(128_000_000, 1.6, 2.0), Size::Is(160_000_000));
        // Far too long, as over a link that loses much.
        assert_eq!(sized(4_000_000, 20.0, 2.0), Size::Is(LEAST));
        assert_eq!(sized(4_000_000, 4.0, 2.0), Size::Is(2_000_000));
        assert_eq!(sized(MOST, 0.1, 2.0), Size::Is(MOST));
    }
}
