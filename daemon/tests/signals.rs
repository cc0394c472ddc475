//! Signals end a process, so the process under test is a child: this very binary, running the ignored test `child`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::print_stdout,
    reason = "the child reports its progress to its parent"
)]

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use p2pnode_daemon::signals::Shutdown;

#[test]
#[ignore = "is the child of the other tests"]
fn child() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let is_bounded = std::env::var("STUCK").is_ok_and(|stuck| stuck == "bounded");
        let grace = is_bounded.then_some(Duration::from_millis(100));
        let shutdown = Shutdown::on_signals(grace).unwrap();
        println!("\nready");
        shutdown.requested().await;
        println!("\nrequested");
        if std::env::var_os("STUCK").is_some() {
            std::future::pending::<()>().await;
        }
    });
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(stuck: Option<&str>) -> Self {
        // Whoever runs the tests may ignore SIGHUP, as `nohup` does, and children inherit that.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=HUP")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .stdout(Stdio::piped());
        if let Some(stuck) = stuck {
            command.env("STUCK", stuck);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { child, lines };
        running.until("ready");
        running
    }

    fn until(&mut self, line: &str) {
        assert!(self.lines.any(|read| read.unwrap() == line), "{line}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn the_first_signal_requests_shutdown() {
    for name in ["TERM", "INT"] {
        let mut running = Running::start(None);
        running.signal(name);
        running.until("requested");
        assert_eq!(running.code(), Some(0));
    }
}

#[test]
fn a_second_signal_exits_at_once_with_its_number() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut running = Running::start(Some("for ever"));
        running.signal("TERM");
        running.until("requested");
        running.signal(name);
        assert_eq!(running.code(), Some(code));
    }
}

#[test]
fn a_shutdown_that_takes_longer_than_its_grace_ends_with_the_number_of_the_first_signal() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let running = Running::start(Some("bounded"));
        running.signal(name);
        assert_eq!(running.code(), Some(code));
    }
}

#[test]
fn sighup_is_for_a_program_without_a_grace_to_read_its_configuration_again() {
    let mut running = Running::start(None);
    running.signal("HUP");
    running.signal("TERM");
    running.until("requested");
    assert_eq!(running.code(), Some(0));
}
