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
    assert!(client.is_served().await);
    assert_eq!(client.get::<u8>("/v1/status").await.unwrap(), 7);
    let refused = client.get::<u8>("/v1/gone").await.unwrap_err();
    assert_eq!(refused.to_string(), "the demo is stopping");
    let broken = client.get::<u8>("/v1/odd").await.unwrap_err().to_string();
    assert!(broken.contains("broke off"), "{broken}");
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
    fs::write(&path, "precious").unwrap();
    let error = Server::start(OWNER, &path, router()).await.unwrap_err();
    assert!(matches!(error, ServerError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
