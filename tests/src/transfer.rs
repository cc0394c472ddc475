//! Bulk transfers between two hosts of the lab: `tests/peers/transfer`, and iroh's program, which understands the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    args::{PATIENCE, Transport, range},
    bins,
    host::Host,
    nat::RANGE,
    node::{Launch, Process},
    usage,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Our transports, which dial from [`RANGE`].
    Ours,
    /// The same, QUIC with BBR instead of CUBIC.
    OursBbr,
    /// libp2p's own, TCP with Noise.
    Libp2p,
    Libp2pTls,
    /// QUIC without libp2p.
    Quinn,
    /// iroh, without its relay.
    Iroh,
}

impl Engine {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursBbr => "ours, bbr",
            Self::Libp2p => "plain libp2p",
            Self::Libp2pTls => "plain libp2p, TLS",
            Self::Quinn => "quinn",
            Self::Iroh => "iroh",
        }
    }

    fn words(self, transport: Transport) -> Vec<String> {
        let ours = format!("--engine ours --range {}", range(&RANGE));
        let words = match self {
            Self::Ours => ours,
            Self::OursBbr => ours + " --congestion bbr",
            Self::Libp2p => "--engine libp2p".to_owned(),
            Self::Libp2pTls => "--engine libp2p --security tls".to_owned(),
            Self::Quinn => "--engine quinn".to_owned(),
            Self::Iroh => return Vec::new(),
        };
        let words = format!("{words} --transport {transport}");
        words.split(' ').map(str::to_owned).collect()
    }
}

pub struct Route<'a> {
    pub from: &'a Host,
    pub to: &'a Host,
    pub engine: Engine,
    pub transport: Transport,
}

#[derive(Clone, Copy, Debug)]
pub struct Moved {
    pub bytes: u64,
    /// Seconds from the word to send until the last byte was confirmed.
    pub seconds: f64,
    /// Processor time of both processes meanwhile, in seconds.
    pub cpu_seconds: f64,
}

impl Route<'_> {
    pub async fn receive(&self, name: &str, args: &[&str]) -> Result<(Process, String)> {
        let listen = self.to.ip(false)?.to_string();
        let launch = self.launch(name, "receive")?.args(args);
        let launch = launch.args(["--listen", &listen]);
        let process = launch.on(self.to)?;
        let listening = process.event("listening", PATIENCE).await?;
        let address = listening.text("/address").to_owned();
        ensure!(!address.is_empty(), "{name}: {}", listening.line);
        Ok((process, address))
    }

    pub async fn open(
        &self,
        name: &str,
        address: &str,
        bytes: u64,
        streams: u16,
        args: &[&str],
    ) -> Result<Process> {
        let (bytes, streams) = (bytes.to_string(), streams.to_string());
        let words = [address, "--bytes", &bytes, "--streams", &streams];
        let launch = self.launch(name, "send")?.args(words).args(args).told();
        let process = launch.on(self.from)?;
        process.event("open", PATIENCE).await?;
        Ok(process)
    }

    pub async fn hold(
        &self,
        name: &str,
        address: &str,
        connections: usize,
        within: Duration,
    ) -> Result<Process> {
        let connections = connections.to_string();
        let words = [address, "--connections", &connections];
        let launch = self.launch(name, "hold")?.args(words);
        let process = launch.on(self.from)?;
        process.event("held", within).await?;
        Ok(process)
    }

    pub async fn transfer(&self, bytes: u64, streams: u16, within: Duration) -> Result<Moved> {
        let name = |side| format!("{}-{side}", self.engine.name().replace([' ', ','], "-"));
        let (receiver, address) = self.receive(&name("receive"), &[]).await?;
        let send = name("send");
        let mut sender = self.open(&send, &address, bytes, streams, &[]).await?;
        // Each has one thread that does all of it, and keeps its times when it ends until somebody waits for it, which nobody does
        // here.
        let cpu = |sender: &Process| {
            let both = [receiver.pid(), sender.pid()].map(usage::cpu_of_threads);
            let [receiver, sender] = both;
            anyhow::Ok((receiver? + sender?).as_secs_f64())
        };
        let before = cpu(&sender)?;
        sender.tell("go").await?;
        let sent = sender.event("sent", within).await?;
        let cpu_seconds = cpu(&sender)? - before;
        let number = |name: &str| {
            let value = sent.json[name].as_f64();
            value.with_context(|| format!("{send}: {} has no {name}", sent.line))
        };
        let all = number("bytes")? as u64 == bytes;
        ensure!(all, "{send}: {} for {bytes} bytes", sent.line);
        Ok(Moved {
            bytes,
            seconds: number("seconds")?,
            cpu_seconds,
        })
    }

    fn launch(&self, name: &str, command: &str) -> Result<Launch> {
        let program = if self.engine == Engine::Iroh {
            bins::iroh_peer()?
        } else {
            bins::transfer()?
        };
        let launch = Launch::new(name, program).arg(command);
        Ok(launch.args(self.engine.words(self.transport)))
    }
}
