//! Finds the two binaries under test, and the programs of other make that they are tested with.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};

#[derive(Clone, Debug)]
pub struct Bins {
    pub p2pnode: PathBuf,
    pub relay_node: PathBuf,
}

/// The binaries named by `P2PNODE_BIN` and `RELAY_NODE_BIN`, or else those of this workspace, built once per process.
pub fn bins() -> Result<Bins> {
    static FOUND: Once<Bins> = OnceLock::new();
    once(&FOUND, find)
}

fn find() -> Result<Bins> {
    if let (Some(p2pnode), Some(relay_node)) = (named("P2PNODE_BIN")?, named("RELAY_NODE_BIN")?) {
        return Ok(Bins {
            p2pnode,
            relay_node,
        });
    }
    let dir = profile_dir()?;
    let packages = ["--bins", "-p", "p2pnode", "-p", "relay-node"];
    build(&packages, is_release()?)?;
    Ok(Bins {
        p2pnode: dir.join("p2pnode"),
        relay_node: dir.join("relay-node"),
    })
}

fn build(args: &[&str], release: bool) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(target_dir()?)
        .args(args)
        // The toolchain file is found from the working directory.
        .current_dir(workspace())
        .stdin(Stdio::null());
    if release {
        cargo.arg("--release");
    }
    let built = cargo.status().context("cargo: cannot be run")?;
    ensure!(built.success(), "cargo build {args:?} failed ({built})");
    Ok(())
}

pub fn plain_libp2p() -> Result<PathBuf> {
    peer("PLAIN_LIBP2P_BIN", "plain-libp2p")
}

pub fn stranger() -> Result<PathBuf> {
    peer("STRANGER_BIN", "stranger")
}

pub fn fleet() -> Result<PathBuf> {
    peer("FLEET_BIN", "fleet")
}

pub fn transfer() -> Result<PathBuf> {
    peer("TRANSFER_BIN", "transfer")
}

pub fn iroh_peer() -> Result<PathBuf> {
    static FOUND: Once = OnceLock::new();
    match named("IROH_PEER_BIN")? {
        Some(program) => Ok(program),
        None => once(&FOUND, || build_iroh_peer(is_release()?)),
    }
}

/// All but iroh's are of one workspace, which is built as a whole, once per process.
fn peer(variable: &str, program: &str) -> Result<PathBuf> {
    static PLAIN: Once = OnceLock::new();
    match named(variable)? {
        Some(program) => Ok(program),
        None => {
            let plain = once(&PLAIN, || build_plain_libp2p(is_release()?));
            Ok(plain?.with_file_name(program))
        }
    }
}

type Once<T = PathBuf> = OnceLock<Result<T, String>>;

fn once<T: Clone>(found: &Once<T>, find: impl Fn() -> Result<T>) -> Result<T> {
    let found = found.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

/// Builds the plain libp2p peer in the target directory of this executable, which shares what has been compiled there. The others
/// of `tests/peers` lie beside it then, but for those that are heavy and seldom needed.
pub fn build_plain_libp2p(release: bool) -> Result<PathBuf> {
    build_peer("plain-libp2p", &[], release)
}

pub fn build_iroh_peer(release: bool) -> Result<PathBuf> {
    build_peer("iroh-peer", &["--package", "iroh-peer"], release)
}

fn build_peer(program: &str, selection: &[&str], release: bool) -> Result<PathBuf> {
    let manifest = ["--manifest-path", "tests/peers/Cargo.toml"];
    build(&[&manifest[..], selection].concat(), release)?;
    let profile = if release { "release" } else { "debug" };
    Ok(target_dir()?.join(profile).join(program))
}

fn named(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = env::var_os(variable).map(PathBuf::from) else {
        return Ok(None);
    };
    ensure!(
        path.is_file(),
        "{variable}={}: no such file",
        path.display()
    );
    Ok(Some(path))
}

fn profile_dir() -> Result<PathBuf> {
    let exe = env::current_exe().context("path of this executable")?;
    let dir = exe.parent().context("this executable has no directory")?;
    // A test's is in `deps`.
    let nested = dir.file_name().is_some_and(|name| name == "deps");
    let outer = dir.parent().filter(|_| nested);
    Ok(outer.unwrap_or(dir).to_path_buf())
}

fn is_release() -> Result<bool> {
    Ok(profile_dir()?
        .file_name()
        .is_some_and(|name| name == "release"))
}

pub fn target_dir() -> Result<PathBuf> {
    let profile = profile_dir()?;
    Ok(profile.parent().unwrap_or(&profile).to_path_buf())
}

fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}
