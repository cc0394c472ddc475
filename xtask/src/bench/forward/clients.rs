//! Targets and clients of forwards. They are threads of this process, whose sockets are in the hosts of the lab.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::host::Host;

use crate::bench::programs::all_descriptors;

/// What a request and its answer have.
const KIB: usize = 1 << 10;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ports of targets. A forward has the same port plus its program's offset.
pub(super) const SINK: u16 = 7001;
pub(super) const ECHO: u16 = 7002;
pub(super) const IDLE: u16 = 7003;
pub(super) const UDP: u16 = 7004;
pub(super) const PACED: u16 = 7005;
const NEAR: u16 = 7006;

pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Starts all targets on `host`. They end with this process.
pub(super) fn targets(host: &Host) -> Result<()> {
    listen(host, SINK, |mut stream| {
        let mut bytes = vec![0; 256 << 10];
        let mut got = 0_u64;
        loop {
            match stream.read(&mut bytes)? {
                0 => return stream.write_all(&got.to_be_bytes()),
                read => got += read as u64,
            }
        }
    })?;
    listen(host, ECHO, |mut stream| {
        let mut bytes = [0; KIB];
        loop {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                read => stream.write_all(&bytes[..read])?,
            }
        }
    })?;
    let near = bind(host, NEAR)?;
    thread::spawn(move || near.incoming().for_each(drop));
    let udp = host.device.run_sync(|| Ok(UdpSocket::bind(local(UDP))?))?;
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut bytes) {
            // What is lost is lost.
            let _ = udp.send_to(&bytes[..length], from);
        }
    });
    Ok(())
}

/// Accepts connections and holds them.
pub(crate) fn hold_connections(port: u16) -> Result<ExitCode> {
    all_descriptors()?;
    let listener = TcpListener::bind(local(port))?;
    println!("listening");
    let held: Vec<_> = listener.incoming().collect();
    drop(held);
    Ok(ExitCode::SUCCESS)
}

/// What a second of 100 Mbit/s is, and how long it is sent.
const DATAGRAM: usize = 1_200;
const EACH_SECOND: u32 = 10_417;
const SENT: Duration = Duration::from_secs(4);

/// Datagrams at 100 Mbit/s from `from` by way of `to` to the receiver in `host`: the share that arrives, and the 99th percentile of
/// the milliseconds that one takes.
pub(super) fn paced(from: &Host, to: SocketAddr, host: &Host) -> Result<[f64; 2]> {
    let bind = |at: SocketAddr| move || Ok(UdpSocket::bind(at)?);
    let any = |port| (Ipv4Addr::UNSPECIFIED, port).into();
    let receiver = host.device.run_sync(bind(any(PACED)))?;
    receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
    let sender = from.device.run_sync(bind(any(0)))?;
    sender.connect(to)?;
    // A flow is open before.
    let begin = Instant::now();
    while receiver.recv(&mut [0; DATAGRAM]).is_err() {
        ensure!(begin.elapsed() < PATIENCE, "no datagram arrives");
        sender.send(&[0; DATAGRAM])?;
    }
    let begin = Instant::now();
    let receives = thread::spawn(move || {
        let (mut took, mut bytes) = (Vec::new(), [0; DATAGRAM]);
        while receiver.recv(&mut bytes).is_ok() {
            let sent = bytes[..16].try_into().map_or(0, u128::from_be_bytes);
            if sent > 0 {
                took.push((begin.elapsed().as_nanos() - sent) as f64 / 1e6);
            }
        }
        anyhow::Ok(took)
    });
    let (mut sent, mut bytes) = (0_u32, [7; DATAGRAM]);
    while begin.elapsed() < SENT {
        let due = Duration::from_secs(1) / EACH_SECOND * sent;
        thread::sleep(due.saturating_sub(begin.elapsed()));
        bytes[..16].copy_from_slice(&begin.elapsed().as_nanos().to_be_bytes());
        // A full queue of the host is a loss as well.
        let _ = sender.send(&bytes);
        sent += 1;
    }
    let took = join(vec![receives])?.concat();
    let share = 100.0 * took.len() as f64 / f64::from(sent);
    Ok([share, p99(took)?])
}

/// At all addresses: through a tunnel a target is reached at one of the host.
fn bind(host: &Host, port: u16) -> Result<TcpListener> {
    let at = (Ipv4Addr::UNSPECIFIED, port);
    host.device.run_sync(move || Ok(TcpListener::bind(at)?))
}

fn listen(
    host: &Host,
    port: u16,
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Copy + Send + 'static,
) -> Result<()> {
    let listener = bind(host, port)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(())
}

/// Milliseconds that a bare connect to the host of the targets takes: a round trip of the path.
pub(super) fn round_trip(host: &Host, to: IpAddr) -> Result<f64> {
    let begin = Instant::now();
    let connect = move || Ok(TcpStream::connect((to, NEAR))?);
    host.device.run_sync(connect)?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

pub(super) fn connect(host: &Host, at: SocketAddr) -> Result<TcpStream> {
    let connect = move || Ok(TcpStream::connect(at)?);
    let stream = host.device.run_sync(connect)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `bytes` over so many connections at once. Seconds until the target has confirmed all of them.
pub(super) fn bulk(host: &Host, at: SocketAddr, bytes: u64, connections: u64) -> Result<f64> {
    let streams: Result<Vec<_>> = (0..connections).map(|_| connect(host, at)).collect();
    let begin = Instant::now();
    let senders = streams?.into_iter().map(|mut stream| {
        thread::spawn(move || {
            let (piece, mut left) = (vec![7; 256 << 10], bytes / connections);
            while left > 0 {
                let length = piece.len().min(usize::try_from(left)?);
                stream.write_all(&piece[..length])?;
                left -= length as u64;
            }
            stream.shutdown(Shutdown::Write)?;
            let mut got = [0; 8];
            stream.read_exact(&mut got)?;
            let got = u64::from_be_bytes(got);
            ensure!(got == bytes / connections, "{got} bytes arrived");
            Ok(())
        })
    });
    join(senders.collect())?;
    Ok(begin.elapsed().as_secs_f64())
}

fn join<T>(threads: Vec<thread::JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    let joined = threads.into_iter().map(|thread| {
        let joined = thread.join();
        joined.map_err(|_| anyhow::anyhow!("a thread panicked"))?
    });
    joined.collect()
}

/// Milliseconds from the connect of a new client to its first byte.
pub(super) fn first_byte(host: &Host, at: SocketAddr) -> Result<f64> {
    // The thread that connects is made before.
    let begin = Instant::now();
    let mut stream = connect(host, at)?;
    stream.write_all(&[7])?;
    stream.read_exact(&mut [0])?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Requests a second, and the milliseconds of the 99th percentile, of so many clients at once that ask for `length`.
pub(super) fn requests(
    host: &Host,
    at: SocketAddr,
    clients: usize,
    length: Duration,
) -> Result<[f64; 2]> {
    let streams: Result<Vec<_>> = (0..clients).map(|_| connect(host, at)).collect();
    let begin = Instant::now();
    let clients = streams?.into_iter().map(|mut stream| {
        thread::spawn(move || {
            let (mut bytes, mut took) = ([7; KIB], Vec::new());
            while begin.elapsed() < length {
                let asked = Instant::now();
                stream.write_all(&bytes)?;
                stream.read_exact(&mut bytes)?;
                took.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(took)
        })
    });
    let took = join(clients.collect())?.concat();
    let rate = took.len() as f64 / begin.elapsed().as_secs_f64();
    Ok([rate, p99(took)?])
}

fn p99(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let at = values.len() * 99 / 100;
    values.get(at).copied().context("nothing was measured")
}

/// New connections at `rate` a second for `seconds`, each with a request of a KiB: the share that was answered, and the milliseconds
/// of the 99th percentile.
pub(super) fn opens(host: &Host, at: SocketAddr, rate: u32, seconds: u32) -> Result<[f64; 2]> {
    const THREADS: u32 = 50;
    let (begin, took) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let clients = (0..THREADS).map(|index| {
        let (host, took) = (host.clone(), Arc::clone(&took));
        thread::spawn(move || {
            for round in 0..rate * seconds / THREADS {
                let due = Duration::from_secs(1) / rate * (round * THREADS + index);
                thread::sleep(due.saturating_sub(begin.elapsed()));
                let asked = Instant::now();
                let answered = connect(&host, at).and_then(|mut stream| {
                    let mut bytes = [7; KIB];
                    stream.write_all(&bytes)?;
                    Ok(stream.read_exact(&mut bytes)?)
                });
                if answered.is_ok() {
                    let mut took = took.lock().unwrap_or_else(PoisonError::into_inner);
                    took.push(asked.elapsed().as_secs_f64() * 1e3);
                }
            }
            anyhow::Ok(())
        })
    });
    join(clients.collect())?;
    let took = std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner));
    let share = 100.0 * took.len() as f64 / f64::from(rate * seconds);
    Ok([share, p99(took)?])
}

/// Clients that do nothing, as long as they are held.
pub(super) fn idle(host: &Host, at: SocketAddr, clients: u16) -> Result<Vec<TcpStream>> {
    (0..clients).map(|_| connect(host, at)).collect()
}

/// The share of so many UDP clients that get their answers.
pub(super) fn flows(host: &Host, at: SocketAddr, clients: u16) -> Result<f64> {
    let bind = move || {
        let bind = |_| UdpSocket::bind(local(0));
        Ok((0..clients)
            .map(bind)
            .collect::<std::io::Result<Vec<_>>>()?)
    };
    let sockets = host.device.run_sync(bind)?;
    for socket in &sockets {
        socket.send_to(&[7; KIB], at)?;
        // Some 2,000 a second.
        thread::sleep(Duration::from_micros(500));
    }
    let (until, mut answered) = (Instant::now() + Duration::from_secs(2), 0);
    for socket in &sockets {
        let left = until.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        answered += u16::from(socket.recv(&mut [0; 2048]).is_ok());
    }
    Ok(100.0 * f64::from(answered) / f64::from(clients))
}
