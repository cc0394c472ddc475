//! Latency by a thread of this process, which packets wait for in NFQUEUE.

use std::{
    collections::VecDeque,
    io::{PipeReader, PipeWriter, Read as _, pipe},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        prctl,
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
            send, setsockopt, socket, sockopt::RcvBufForce,
        },
        time::TimeSpec,
    },
};
use patchbay::Ix;

use super::{
    link::{Family, Link},
    nfqueue::{self, Message},
};
use crate::command::run;

/// Which queue. Queues belong to a network namespace, so every lab may have the same.
const QUEUE: u16 = 1;

/// How many packets may wait: half a second of a fast transfer. More are dropped.
const PACKETS: u32 = 60_000;

/// What the kernel may have told that is not read yet: as much as belongs to [`PACKETS`].
const BUFFER: usize = 32 << 20;

/// How late the system may wake the thread. Its default of 50 µs each way would show.
const TIMER_SLACK: Duration = Duration::from_nanos(1);

/// The thread. It ends when this is dropped, and lets no packet pass from then on.
pub(crate) struct Worker {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was printed where it happened.
            let _ended = thread.join();
        }
    }
}

pub(super) fn impose(ix: &Ix, link: Link) -> Result<Worker> {
    // First who takes them, then the rules that send them.
    let queue = ix.run_sync(move || Queue::open(link))?;
    let (stopped, stop) = pipe().context("pipe")?;
    let thread = std::thread::Builder::new()
        .name("lab-delay".to_owned())
        .spawn(move || {
            let delay = Delay {
                queue,
                link,
                waiting: VecDeque::new(),
            };
            delay.run(stopped);
        })
        .context("thread")?;
    let worker = Worker {
        stop: Some(stop),
        thread: Some(thread),
    };
    ix.run_sync(move || send_packets_here(link))?;
    Ok(worker)
}

/// The rules. The internet is a bridge: some of what passes is bridged, some is routed, and both come here once.
fn send_packets_here(link: Link) -> Result<()> {
    let queue = QUEUE.to_string();
    let to_queue = ["-j", "NFQUEUE", "--queue-num", &queue];
    for (family, program, what, bridged) in [
        (Family::Ip4, "iptables", [].as_slice(), "iptables"),
        (
            Family::Ip6,
            "ip6tables",
            ["!", "-p", "icmpv6"].as_slice(),
            "ip6tables",
        ),
    ] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{bridged}");
        std::fs::write(&path, "1").with_context(|| path)?;
        let table = ["-w", "-t", "mangle"];
        run(program, &[&table[..], &["-F", "FORWARD"]].concat())?;
        if !link.slows(family) {
            continue;
        }
        let from = link.uplink.map(|uplink| uplink.from.to_string());
        let from = from.iter().flat_map(|from| ["-s", from]);
        let from: Vec<&str> = from.collect();
        run(
            program,
            &[&table[..], &["-A", "FORWARD"], &from, what, &to_queue].concat(),
        )?;
    }
    Ok(())
}

struct Queue(OwnedFd);

impl Queue {
    fn open(link: Link) -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .context("netfilter's netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("netfilter's netlink socket")?;
        // Where it is refused the default holds, and long bursts lose packets.
        let _best_effort = setsockopt(&socket, RcvBufForce, &BUFFER);
        let queue = Self(socket);
        for request in nfqueue::setup(QUEUE, PACKETS) {
            queue.ask(&request)?;
        }
        if link.loss_percent == 0.0 {
            // Many times as fast; where packets are lost each has a fate of its own. A kernel that cannot do it cuts them.
            let _best_effort = queue.ask(&nfqueue::whole(QUEUE));
        }
        Ok(queue)
    }

    /// Sends a request and takes its answer. No rule sends packets yet, so nothing else can come.
    fn ask(&self, request: &[u8]) -> Result<()> {
        self.send(request).context("nfnetlink_queue")?;
        let mut bytes = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())
            .context("nfnetlink_queue does not answer")?;
        let answer = nfqueue::read(&bytes[..length]);
        ensure!(
            matches!(answer[..], [Message::Answer(_)]),
            "nfnetlink_queue answers {answer:?}"
        );
        match answer[..] {
            [Message::Answer(code)] if code != 0 => {
                Err(nfqueue::error(code)).context("nfnetlink_queue")
            }
            _ => Ok(()),
        }
    }

    fn send(&self, message: &[u8]) -> nix::Result<usize> {
        send(self.0.as_raw_fd(), message, MsgFlags::empty())
    }
}

struct Delay {
    queue: Queue,
    link: Link,
    /// They leave in the order in which they came.
    waiting: VecDeque<(Instant, u32)>,
}

impl Delay {
    fn run(mut self, mut stopped: PipeReader) {
        // Only precision is at stake.
        let _best_effort =
            prctl::set_timerslack(u64::try_from(TIMER_SLACK.as_nanos()).unwrap_or(1));
        let mut bytes = vec![0; 1 << 16];
        loop {
            self.take(&mut bytes);
            self.release();
            let wait = self
                .waiting
                .front()
                .map(|(due, _)| due.saturating_duration_since(Instant::now()));
            let mut fds = [
                PollFd::new(self.queue.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            ];
            // Interrupted is as good as woken.
            let _woken = ppoll(&mut fds, wait.map(TimeSpec::from_duration), None);
            let ends = fds[1].revents().is_some_and(|events| !events.is_empty());
            if ends && stopped.read(&mut [0]).is_ok_and(|length| length == 0) {
                return;
            }
        }
    }

    fn take(&mut self, bytes: &mut [u8]) {
        loop {
            match recv(self.queue.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let now = Instant::now();
                    for message in nfqueue::read(&bytes[..length]) {
                        if let Message::Packet(packet) = message {
                            let due = self.due(now);
                            let is_kept = fastrand::f64() * 100.0 >= self.link.loss_percent;
                            match due.filter(|_| is_kept) {
                                Some(due) => self.waiting.push_back((due, packet)),
                                None => self.drop(packet),
                            }
                        }
                    }
                }
                // More came than the buffer holds. The kernel has dropped those packets, as any full queue would.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// When a packet leaves that comes now; `None` if the queue is full.
    fn due(&self, now: Instant) -> Option<Instant> {
        let due = now + self.link.one_way();
        let Some(uplink) = self.link.uplink else {
            return Some(due);
        };
        let before = self.waiting.back();
        let due = before.map_or(due, |(before, _)| due.max(*before + uplink.each));
        (due <= now + uplink.holds).then_some(due)
    }

    /// Lets go whose time has come. Their numbers rise, and those that were lost have their verdicts already, so the last one
    /// stands for all of them.
    fn release(&mut self) {
        let now = Instant::now();
        let mut last = None;
        while let Some((due, packet)) = self.waiting.front().copied()
            && due <= now
        {
            self.waiting.pop_front();
            last = Some(packet);
        }
        if let Some(last) = last {
            // Packets that are gone by now (their interface was removed) need no verdict.
            let _gone = self.queue.send(&nfqueue::accept_up_to(QUEUE, last));
        }
    }

    fn drop(&self, packet: u32) {
        let _gone = self.queue.send(&nfqueue::drop(QUEUE, packet));
    }
}
