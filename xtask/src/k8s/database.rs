//! PostgreSQL in one cluster, and a client of another that reaches it through the pods.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{host::Host, node::Launch, sandbox, services};

/// PostgreSQL does not run as root.
const NOBODY: u32 = 65534;

/// A client on `near` asks the pod at `forward` and is answered by the database on `far`.
pub(super) async fn queried(near: &Host, forward: &str, far: &Host) -> Result<()> {
    let bin = services::postgresql_bin()?;
    let data = tempfile::tempdir().context("a directory for PostgreSQL")?;
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o700))?;
    chown(data.path(), Some(NOBODY), Some(NOBODY))?;
    let data = data.path();
    let initdb = as_nobody("initdb", bin.join("initdb")).arg(data);
    let initdb = initdb.args(["-U", "postgres", "-A", "trust", "--no-sync"]);
    services::succeeds(initdb.on(far)?).await?;
    let hba = data.join("pg_hba.conf");
    fs::write(&hba, "host all all 0.0.0.0/0 trust\n").with_context(|| hba.display().to_string())?;
    let settings = [
        "listen_addresses=*",
        "fsync=off",
        "unix_socket_directories=",
    ];
    let settings = settings.into_iter().flat_map(|setting| ["-c", setting]);
    let postgres = as_nobody("postgres", bin.join("postgres"))
        .arg("-D")
        .arg(data);
    let _postgres = postgres.args(settings).on(far)?;
    let query = [
        "-h",
        forward,
        "-U",
        "postgres",
        "-Atc",
        "select inet_server_addr()",
    ];
    let answer = services::until_ok(near, "psql", &query).await?;
    let own = far.ip(false)?.to_string();
    ensure!(answer.trim() == own, "{answer} answered, and not {own}");
    println!("  psql -h {forward} in one cluster is answered by {own} in the other");
    Ok(())
}

fn as_nobody(name: &str, program: PathBuf) -> Launch {
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    Launch::new(name, sandbox::tool("setpriv"))
        .args([&user, &group])
        .args(["--clear-groups"])
        .arg(program)
}
