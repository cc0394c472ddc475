#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, os::unix::fs::PermissionsExt as _, os::unix::net::UnixListener};

use axum::{Json, Router, routing::get};

use super::*;

const OWNER: Owner = Owner {
    noun: "demo",
    run: "demo run",
};

fn router() -> Router {
    Router::new()
        .route("/v1/status", get(async || Json(7)))
        .route(
            "/v1/gone",
            get(async || -> Result<Json<u8>, Refusal> { Err(Refusal::stopping(OWNER)) }),
        )
        .route("/v1/odd", get(async || "no number\nat all"))
}

#[tokio::test]
async fn a_socket_is_private_answers_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/control.sock");
    let server = Server::start(OWNER, &path, router()).await.unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let client = Client::new(OWNER, &path);
    assert!(client.is_served().await.unwrap());
    assert_eq!(client.get::<u8>("/v1/status").await.unwrap(), 7);
    let refused = client.get::<u8>("/v1/gone").await.unwrap_err();
    assert_eq!(refused.to_string(), "the demo is stopping");
    let broken = client.get::<u8>("/v1/odd").await.unwrap_err().to_string();
    assert!(broken.contains("another version"), "{broken}");
    let taken = Server::start(OWNER, &path, router()).await.unwrap_err();
    assert!(matches!(taken, ServerError::Taken { .. }), "{taken}");
    server.stop().await;
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_dead_socket_and_another_file_are_errors_with_the_path_and_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("control.sock");
    let client = Client::new(OWNER, &path);
    let missing = client.get::<u8>("/v1/status").await.unwrap_err();
    // What a process that was killed leaves behind.
    drop(UnixListener::bind(&path).unwrap());
    let dead = client.get::<u8>("/v1/status").await.unwrap_err();
    for error in [missing.to_string(), dead.to_string()] {
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.starts_with("no demo answers"), "{error}");
        assert!(error.contains("`demo run`"), "{error}");
    }
    Server::start(OWNER, &path, router())
        .await
        .unwrap()
        .stop()
        .await;
    for link in [false, true] {
        let precious = home.path().join("precious");
        fs::create_dir(&precious).unwrap();
        match link {
            true => std::os::unix::fs::symlink(&precious, &path).unwrap(),
            false => fs::create_dir(&path).unwrap(),
        }
        let error = Server::start(OWNER, &path, router()).await.unwrap_err();
        assert!(matches!(error, ServerError::NotASocket(_)), "{error}");
        match link {
            true => fs::remove_file(&path).unwrap(),
            false => fs::remove_dir(&path).unwrap(),
        }
        fs::remove_dir(&precious).unwrap();
    }
    fs::write(&path, "precious").unwrap();
    let error = Server::start(OWNER, &path, router()).await.unwrap_err();
    assert!(matches!(error, ServerError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn of_two_that_start_at_once_over_a_dead_socket_one_gets_it_and_keeps_it() {
    for _ in 0..50 {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let start = || {
            let path = path.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let server = runtime.block_on(Server::start(OWNER, &path, router()));
                (runtime, server)
            })
        };
        let (first, second) = (start(), start());
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        let (winner, loser) = match first.1.is_ok() {
            true => (first, second),
            false => (second, first),
        };
        let error = loser.1.unwrap_err();
        assert!(matches!(error, ServerError::Taken { .. }), "{error}");
        let client = Client::new(OWNER, &path);
        assert_eq!(client.get::<u8>("/v1/status").await.unwrap(), 7);
        let (runtime, server) = winner;
        runtime.spawn(server.unwrap().stop()).await.unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        runtime.shutdown_background();
        loser.0.shutdown_background();
    }
}

#[tokio::test]
async fn at_its_end_a_server_leaves_the_socket_of_another_one() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("control.sock");
    let first = Server::start(OWNER, &path, router()).await.unwrap();
    // A user has removed it by hand and started another process.
    fs::remove_file(&path).unwrap();
    let second = Server::start(OWNER, &path, router()).await.unwrap();
    first.stop().await;
    let client = Client::new(OWNER, &path);
    assert_eq!(client.get::<u8>("/v1/status").await.unwrap(), 7);
    second.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_somebody_removes_is_bound_again_and_one_of_another_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/control.sock");
    let server = Server::start(OWNER, &path, router()).await.unwrap();
    let client = Client::new(OWNER, &path);
    // The socket alone, and its directory as well.
    for with_directory in [false, true] {
        match with_directory {
            false => fs::remove_file(&path).unwrap(),
            true => fs::remove_dir_all(path.parent().unwrap()).unwrap(),
        }
        while !client.is_served().await.unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(client.get::<u8>("/v1/status").await.unwrap(), 7);
    }
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    // The server looks whether it may have the path.
    while other.accept().is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.stop().await;
    tokio::net::UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_process_that_takes_no_clients_now_keeps_its_socket() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("control.sock");
    let busy = UnixListener::bind(&path).unwrap();
    // Nobody accepts, and the queue is full at some time.
    let mut clients = Vec::new();
    loop {
        match tokio::net::UnixStream::connect(&path).await {
            Ok(client) => clients.push(client),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    let error = Server::start(OWNER, &path, router()).await.unwrap_err();
    assert!(matches!(error, ServerError::Taken { .. }), "{error}");
    drop((busy, clients));
}

#[tokio::test]
async fn a_path_that_no_client_could_open_and_one_of_another_user_are_errors() {
    let home = tempfile::tempdir().unwrap();
    let long = home.path().join("x".repeat(108));
    let error = Server::start(OWNER, &long, router()).await.unwrap_err();
    assert!(error.to_string().contains("set control.socket"), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    let path = home.path().join("new/deep/control.sock");
    let server = Server::start(OWNER, &path, router()).await.unwrap();
    for made in [path.parent().unwrap(), &home.path().join("new")] {
        assert_eq!(
            fs::metadata(made).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
    server.stop().await;
    // Only root can give a file to another user.
    if rustix::process::geteuid().is_root() {
        let path = home.path().join("theirs.sock");
        drop(UnixListener::bind(&path).unwrap());
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        let error = Server::start(OWNER, &path, router()).await.unwrap_err();
        assert!(
            matches!(error, ServerError::NotOurs { uid: 12345, .. }),
            "{error}"
        );
        assert!(path.exists());
    }
}
