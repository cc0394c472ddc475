#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, mpsc},
    time::Instant,
};

use super::*;

/// Longer than any answer takes, for what must not come.
const NOTHING: Duration = Duration::from_millis(200);

/// More than a pipe and the server hold for a client that does not read.
const LARGE: usize = 4 * 1024 * 1024;

fn router(finish: &Arc<Notify>) -> Router {
    let finish = finish.clone();
    Router::new()
        .route("/quick", get(async || "here\n"))
        .route("/large", get(async || "x".repeat(LARGE)))
        .route(
            "/slow",
            get(async move || {
                finish.notified().await;
                "done\n"
            }),
        )
        .route("/echo", post(async |body: String| body))
}

async fn served(bounds: Bounds) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let finish = Arc::new(Notify::new());
    tokio::spawn(serve(
        listener,
        router(&finish),
        bounds,
        std::future::pending(),
    ));
    (addr, finish)
}

/// Connections without a kernel. A paused clock runs ahead while the kernel moves bytes, which on a busy machine takes turns.
struct Pipes(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

fn served_over_pipes(bounds: Bounds) -> mpsc::UnboundedSender<DuplexStream> {
    let (dial, dialed) = mpsc::unbounded_channel();
    let router = router(&Arc::default());
    tokio::spawn(serve(Pipes(dialed), router, bounds, std::future::pending()));
    dial
}

async fn pipe(dial: &mpsc::UnboundedSender<DuplexStream>, request: &str) -> DuplexStream {
    let (mut stream, served) = tokio::io::duplex(64 * 1024);
    dial.send(served).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn connect(addr: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// All that the server sends until it closes the connection. A reset is such an end.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn ask(addr: SocketAddr, head: &str) -> String {
    rest(connect(addr, &format!("{head}Connection: close\r\n\r\n")).await).await
}

async fn is_open(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    timeout(NOTHING, stream.read(&mut byte)).await.is_err()
}

#[tokio::test]
async fn half_requests_hold_no_connection_from_others_and_the_oldest_goes_first() {
    let (addr, _) = served(Bounds::admin(&[])).await;
    let mut half = Vec::new();
    for _ in 0..600 {
        half.push(connect(addr, "GET /quick HTTP/1.1\r\nHost: 127.").await);
    }
    let answer = ask(addr, "GET /quick HTTP/1.1\r\nHost: localhost\r\n").await;
    assert!(answer.ends_with("\r\nhere\n"), "{answer}");
    let mut open = Vec::new();
    for (n, stream) in half.iter_mut().enumerate() {
        let mut byte = [0];
        let ended = match stream.try_read(&mut byte) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        };
        if !ended {
            open.push(n);
        }
    }
    // The server may not have taken the last of them yet.
    assert!(open.len() <= 64 && !open.contains(&0), "{open:?}");
    assert!(open.contains(&599), "{open:?}");
}

#[tokio::test(start_paused = true)]
async fn half_headers_idle_connections_and_half_bodies_end_after_ten_seconds() {
    let dial = served_over_pipes(Bounds::admin(&[]));
    for (request, status) in [
        ("", ""),
        ("GET /quick HT", ""),
        ("GET /quick HTTP/1.1\r\nHost: ::1\r\nX: ", ""),
        ("GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK"),
        (
            "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf",
            "408",
        ),
    ] {
        let start = Instant::now();
        let answer = rest(pipe(&dial, request).await).await;
        let took = start.elapsed();
        assert!(answer.contains(status), "{request:?}: {answer}");
        assert!(took >= Duration::from_secs(10), "{request:?}: {took:?}");
        assert!(took <= Duration::from_secs(21), "{request:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_answer_is_disconnected() {
    let dial = served_over_pipes(Bounds::admin(&[]));
    let stream = pipe(&dial, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    tokio::time::sleep(2 * STALL).await;
    assert!(rest(stream).await.len() < LARGE);
    let request = "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let whole = rest(pipe(&dial, request).await).await;
    assert!(whole.len() > LARGE);
}

#[tokio::test]
async fn a_body_or_a_header_that_is_too_long_is_refused() {
    let (addr, _) = served(Bounds::admin(&[])).await;
    let head =
        |length| format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
    let answer =
        rest(connect(addr, &format!("{}Connection: close\r\n\r\nbody", head(4))).await).await;
    assert!(answer.ends_with("\r\nbody"), "{answer}");
    let answer = ask(addr, &head(ADMIN_BODY_LIMIT + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let long = "x".repeat(2 * HEADER_LIMIT);
    let answer = ask(addr, &format!("GET /quick HTTP/1.1\r\nX: {long}\r\n")).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn requests_under_the_names_of_others_are_refused_with_the_remedy() {
    let (addr, _) = served(Bounds::admin(&["metrics.example.net".to_owned()])).await;
    for host in [
        "localhost",
        "LocalHost:9464",
        "localhost.",
        "127.0.0.1",
        "10.1.2.3:9464",
        "[::1]:9464",
        "[fe80::1%25eth0]:9464",
        "",
        "Metrics.Example.Net:80",
        "metrics.example.net.",
    ] {
        let answer = ask(addr, &format!("GET /quick HTTP/1.1\r\nHost: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host:?}: {answer}");
    }
    let answer = ask(addr, "GET /quick HTTP/1.0\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    for request in [
        "GET /quick HTTP/1.1\r\nHost: evil.example\r\n",
        "GET /quick HTTP/1.1\r\nHost: evil.example:9464\r\n",
        "GET /quick HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n",
        "GET /quick HTTP/1.1\r\nHost: localhost.evil.example\r\n",
        "GET /quick HTTP/1.1\r\nHost: notmetrics.example.net\r\n",
        "GET /quick HTTP/1.1\r\nHost: user@evil.example\r\n",
        "GET /quick HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        "GET http://evil.example/quick HTTP/1.1\r\nHost: localhost\r\n",
        "GET /quick HTTP/1.1\r\nHost: \x01\r\n",
        "GET /quick HTTP/1.0\r\nHost: evil.example\r\n",
    ] {
        let answer = ask(addr, request).await;
        assert!(!answer.contains("200 OK"), "{request:?}: {answer}");
        if request.contains("Host: evil.example\r\n") {
            assert!(answer.contains(" 421 "), "{answer}");
            assert!(answer.contains("admin.hosts"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_control_socket_keeps_those_that_wait_for_an_answer() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s");
    let finish = Arc::new(Notify::new());
    let listener = UnixListener::bind(&path).unwrap();
    let bounds = Bounds::control();
    let places = bounds.connections;
    tokio::spawn(serve(
        listener,
        router(&finish),
        bounds,
        std::future::pending(),
    ));
    let ask = async |path: &str, at: &std::path::Path| {
        let mut stream = UnixStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let mut waiting = Vec::new();
    for _ in 0..places {
        waiting.push(ask("/slow", &path).await);
    }
    let refused = rest(ask("/quick", &path).await).await;
    assert_eq!(refused, "");
    // One that ends makes place.
    finish.notify_one();
    let (answer, _, others) =
        futures::future::select_all(waiting.into_iter().map(|stream| Box::pin(rest(stream)))).await;
    assert!(answer.ends_with("done\n"), "{answer}");
    let answer = rest(ask("/quick", &path).await).await;
    assert!(answer.ends_with("here\n"), "{answer}");
    for _ in 1..places {
        finish.notify_one();
        tokio::task::yield_now().await;
    }
    finish.notify_waiters();
    drop(others);
}

#[tokio::test]
async fn an_idle_connection_goes_before_one_that_waits_for_an_answer() {
    let (addr, finish) = served(Bounds::admin(&[])).await;
    let slow = connect(addr, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut idle = Vec::new();
    for _ in 0..63 {
        idle.push(connect(addr, "").await);
    }
    let answer = ask(addr, "GET /quick HTTP/1.1\r\nHost: localhost\r\n").await;
    assert!(answer.ends_with("here\n"), "{answer}");
    assert!(!is_open(&mut idle[0]).await);
    finish.notify_one();
    let mut slow = slow;
    let mut answer = vec![0; 1000];
    let length = slow.read(&mut answer).await.unwrap();
    assert!(answer[..length].ends_with(b"done\n"));
}

/// The reading half of a connection on which nothing comes, counted while it is open.
struct Silent(Arc<AtomicUsize>);

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So many connections at once.
struct Crowd {
    left: usize,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    over: Arc<Notify>,
}

impl Listener for Crowd {
    type Io = tokio::io::Join<Silent, tokio::io::Sink>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        if self.left == 0 {
            self.over.notify_one();
            std::future::pending::<()>().await;
        }
        self.left -= 1;
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(open, Ordering::Relaxed);
        let silent = Silent(self.open.clone());
        (tokio::io::join(silent, tokio::io::sink()), ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn of_a_crowd_that_comes_at_once_no_more_are_open_than_have_a_place_and_the_newcomer() {
    let (open, most, over) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Notify>)>::default();
    let crowd = Crowd {
        left: 600,
        open: open.clone(),
        most: most.clone(),
        over: over.clone(),
    };
    let router = router(&Arc::default());
    let bounds = Bounds::admin(&[]);
    let places = bounds.connections;
    tokio::spawn(serve(crowd, router, bounds, std::future::pending()));
    over.notified().await;
    assert_eq!(open.load(Ordering::Relaxed), places);
    assert_eq!(most.load(Ordering::Relaxed), places + 1);
}

#[tokio::test(start_paused = true)]
async fn of_requests_without_end_so_many_are_answered_in_a_second_and_a_newcomer_waits_its_turn() {
    let dial = served_over_pipes(Bounds::admin(&[]));
    let request = "GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answered = Arc::<AtomicUsize>::default();
    for _ in 0..60 {
        let (mut read, mut write) = tokio::io::split(pipe(&dial, "").await);
        let answered = answered.clone();
        tokio::spawn(async move { while write.write_all(request.as_bytes()).await.is_ok() {} });
        tokio::spawn(async move {
            let mut answer = [0; 4096];
            while let Ok(read @ 1..) = read.read(&mut answer).await {
                let answers = answer[..read].windows(5).filter(|text| text == b"here\n");
                answered.fetch_add(answers.count(), Ordering::Relaxed);
            }
        });
    }
    sleep(Duration::from_secs(10)).await;
    let second = answered.load(Ordering::Relaxed);
    assert!((2000..=2200).contains(&second), "{second}");
    let began = Instant::now();
    let last = "GET /quick HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = rest(pipe(&dial, last).await).await;
    assert!(answer.ends_with("here\n"), "{answer}");
    let waited = began.elapsed();
    assert!(waited <= Duration::from_millis(5 * 62), "{waited:?}");
}
