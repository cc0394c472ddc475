//! A capture in a router: what each host sent before translation, and what left the NAT after it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use patchbay::Router;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, BufWriter, Lines},
    net::UdpSocket,
    process::{Child, ChildStderr, ChildStdout, Command},
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    command::{end_with_lab, run},
    host::Host,
    packet::{self, Packet},
    sandbox::tool,
};

/// Headers with all their options fit; the payload is encrypted anyhow.
const SNAPLEN: &str = "192";
/// What the kernel keeps for tcpdump, in KiB: some 100,000 packets, a second of all that a machine carries.
const KERNEL_BUFFER: &str = "32768";
/// As much as a pipe holds.
const READ_BUFFER: usize = 64 << 10;
/// The port that the fence is sent to, on the router's loopback: discard (RFC 863).
const FENCE_PORT: u16 = 9;
const PATIENCE: Duration = Duration::from_secs(20);
const FENCE_AGAIN: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On the port of a host or of a router below: before translation.
    Inside,
    /// On the interface towards the internet: after translation.
    Outside,
}

pub struct Capture {
    router: Router,
    wan: String,
    /// As of the last [`Capture::settle`]: hosts may come later than the capture.
    sides: Mutex<HashMap<u32, Side>>,
    loopback: u32,
    seen: Arc<Mutex<Vec<Packet>>>,
    count: watch::Receiver<usize>,
    /// How many packets tcpdump did not get, of each of its reports.
    dropped: watch::Receiver<Option<u64>>,
    // Killed when dropped.
    tcpdump: Child,
}

impl Capture {
    /// Starts tcpdump in the router; returns when it captures. `wan` is the router's outside interface.
    pub(crate) async fn start(router: &Router, wan: &str, file: &Path) -> Result<Self> {
        let (sides, loopback) = interfaces(router, wan)?;
        let mut command = Command::new(tool("tcpdump"));
        command
            .args("-i any -y LINUX_SLL2 -n -U --immediate-mode -w -".split(' '))
            .args(["-s", SNAPLEN, "-B", KERNEL_BUFFER, "tcp or udp"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        end_with_lab(&mut command);
        let runtime = Handle::current();
        let mut tcpdump = router.run_sync(move || {
            let _entered = runtime.enter();
            command.spawn().context("tcpdump: cannot be started")
        })?;
        let stdout = tcpdump.stdout.take().context("tcpdump has no stdout")?;
        let mut complaints =
            BufReader::new(tcpdump.stderr.take().context("tcpdump has no stderr")?).lines();
        let file = File::create(file)
            .await
            .with_context(|| format!("{}: cannot be made", file.display()))?;

        let ready = async {
            let mut said = Vec::new();
            while let Some(line) = complaints.next_line().await? {
                if line.contains("listening on") {
                    return Ok(());
                }
                said.push(line);
            }
            bail!("tcpdump in {}: {}", router.name(), said.join("; "))
        };
        timeout(PATIENCE, ready)
            .await
            .context("tcpdump does not start to capture")??;

        let seen = Arc::new(Mutex::new(Vec::new()));
        let (grown, count) = watch::channel(0);
        tokio::spawn(record(stdout, file, Arc::clone(&seen), grown));
        let (reports, dropped) = watch::channel(None);
        tokio::spawn(read_reports(complaints, reports));
        Ok(Self {
            router: router.clone(),
            wan: wan.to_owned(),
            sides: Mutex::new(sides),
            loopback,
            seen,
            count,
            dropped,
            tcpdump,
        })
    }

    pub fn router(&self) -> &str {
        self.router.name()
    }

    /// Returns when everything that passed the router before this call has been captured. A packet that the capture has lost is an error.
    pub async fn settle(&self) -> Result<()> {
        let (sides, _) = interfaces(&self.router, &self.wan)?;
        *self.sides.lock().unwrap_or_else(PoisonError::into_inner) = sides;
        let socket = self
            .router
            .spawn(|_| async { UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await })?
            .await??;
        let from = socket.local_addr()?;
        let is_fence = |packet: &Packet| packet.interface == self.loopback && packet.source == from;
        let send = async {
            loop {
                let fence = (Ipv4Addr::LOCALHOST, FENCE_PORT);
                socket.send_to(&[], fence).await?;
                sleep(FENCE_AGAIN).await;
            }
        };
        let seen = tokio::select! {
            seen = self.until("its own fence", PATIENCE, is_fence) => seen,
            failed = send => failed,
        };
        // What was dropped says more than a fence that was.
        self.is_whole().await?;
        seen
    }

    async fn is_whole(&self) -> Result<()> {
        let mut dropped = self.dropped.clone();
        dropped.mark_unchanged();
        let name = self.router.name();
        let pid = self.tcpdump.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("tcpdump in {name} has ended"))?;
        kill(Pid::from_raw(pid), Signal::SIGUSR1).context("tcpdump cannot be asked")?;
        timeout(PATIENCE, dropped.changed())
            .await
            .with_context(|| format!("tcpdump in {name} does not report"))??;
        let lost = dropped.borrow().unwrap_or_default();
        ensure!(lost == 0, "the capture in {name} has lost {lost} packets");
        Ok(())
    }

    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&Packet) -> bool,
    ) -> Result<()> {
        let mut count = self.count.clone();
        let caught = async {
            // Each packet is looked at once: there may be millions.
            let mut looked = 0;
            loop {
                {
                    let seen = self.lock();
                    if seen[looked..].iter().any(&look) {
                        return Ok(());
                    }
                    looked = seen.len();
                }
                count
                    .changed()
                    .await
                    .with_context(|| format!("the capture in {} has ended", self.router.name()))?;
            }
        };
        timeout(within, caught)
            .await
            .with_context(|| format!("the capture in {} does not see {what}", self.router.name()))?
    }

    pub fn packets(&self, side: Side) -> Vec<Packet> {
        let sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock()
            .iter()
            .filter(|packet| sides.get(&packet.interface) == Some(&side))
            .copied()
            .collect()
    }

    pub fn sent_by(&self, host: &[IpAddr]) -> Vec<Packet> {
        let mut packets = self.packets(Side::Inside);
        packets.retain(|packet| !packet.outgoing && host.contains(&packet.source.ip()));
        packets
    }

    pub fn strays(&self, host: &Host, range: &RangeInclusive<u16>) -> Vec<String> {
        let mut sent = self.sent_by(&host.addresses);
        sent.retain(|packet| !range.contains(&packet.source.port()));
        let mut strays: Vec<_> = sent.iter().map(ToString::to_string).collect();
        strays.dedup();
        strays
    }

    pub async fn keeps(&self, host: &Host, range: &RangeInclusive<u16>) -> Result<()> {
        self.settle().await?;
        let (name, strays) = (host.device.name(), self.strays(host, range));
        ensure!(
            strays.is_empty(),
            "{name} sent from outside {range:?}: {strays:?}"
        );
        let sent = self.sent_by(&host.addresses);
        ensure!(!sent.is_empty(), "the capture of {name} holds no packet");
        Ok(())
    }

    pub async fn has_flow(
        &self,
        host: &Host,
        protocol: &str,
        (local, remote): (SocketAddr, SocketAddr),
    ) -> Result<()> {
        self.settle().await?;
        let sent = self.sent_by(&host.addresses);
        let is_it = |packet: &Packet| {
            packet.protocol.name() == protocol
                && (packet.source, packet.destination) == (local, remote)
        };
        ensure!(
            sent.iter().any(is_it),
            "no {protocol} packet went from {local} to {remote}, as is reported"
        );
        Ok(())
    }

    /// The sources after translation that packets with this destination and protocol left with.
    pub fn left_as(&self, protocol: &str, destination: SocketAddr) -> Vec<SocketAddr> {
        let mut sources: Vec<_> = self
            .packets(Side::Outside)
            .into_iter()
            .filter(|packet| {
                packet.outgoing
                    && packet.protocol.name() == protocol
                    && packet.destination == destination
            })
            .map(|packet| packet.source)
            .collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Packet>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `tcpdump: 7 packets captured, 9 packets received by filter, 0 packets dropped by kernel`, after a SIGUSR1 (tcpdump(1)).
async fn read_reports(
    mut lines: Lines<BufReader<ChildStderr>>,
    reports: watch::Sender<Option<u64>>,
) -> Result<()> {
    while let Some(line) = lines.next_line().await? {
        let dropped = line
            .split(", ")
            .find(|part| part.contains("dropped by kernel"));
        let count = dropped.and_then(|part| part.split(' ').next()?.parse().ok());
        if count.is_some() {
            reports.send_replace(count);
        }
    }
    Ok(())
}

async fn record(
    stdout: ChildStdout,
    file: File,
    seen: Arc<Mutex<Vec<Packet>>>,
    grown: watch::Sender<usize>,
) -> Result<()> {
    let mut stream = BufReader::with_capacity(READ_BUFFER, stdout);
    let mut file = BufWriter::with_capacity(READ_BUFFER, file);
    let header = packet::read_header(&mut stream).await?;
    file.write_all(&header).await?;
    while let Some((bytes, packet)) = packet::read_record(&mut stream).await? {
        file.write_all(&bytes).await?;
        if let Some(packet) = packet {
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(packet);
            grown.send_modify(|count| *count += 1);
        }
        if stream.buffer().is_empty() {
            file.flush().await?;
        }
    }
    file.flush().await?;
    Ok(())
}

/// Which interface is on which side, and the index of the loopback. The bridge itself is left out: what passes it is seen
/// on its ports, and frames from one of them to another are seen only there.
fn interfaces(router: &Router, wan: &str) -> Result<(HashMap<u32, Side>, u32)> {
    let links = router.run_sync(|| run("ip", &["-o", "link", "show"]))?;
    let mut sides = HashMap::new();
    let mut loopback = 0;
    for line in links.lines() {
        // `7: ix@if6: <BROADCAST,MULTICAST,UP> mtu 1500 ...`
        let mut fields = line.splitn(3, ": ");
        let (Some(index), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        let index = index.trim().parse().with_context(|| line.to_owned())?;
        let name = name.split('@').next().unwrap_or(name);
        if name == "lo" {
            loopback = index;
        } else if name == wan {
            sides.insert(index, Side::Outside);
        } else if !name.starts_with("br-") {
            sides.insert(index, Side::Inside);
        }
    }
    Ok((sides, loopback))
}
