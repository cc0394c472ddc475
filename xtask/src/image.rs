//! `cargo xtask image`: static binaries, and one image of each that does not depend on when it is made.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use p2pnode_tests::{
    bins,
    k8s::{IMAGE_ENV, IMAGE_USER},
};

use crate::{
    cargo::{output, workspace},
    target,
};

pub(crate) const IMAGES: [(&str, &str); 2] = [
    (
        "p2pnode",
        "A libp2p peer that reaches other peers behind NAT directly, from a configured range of source ports",
    ),
    ("relay-node", "A circuit relay v2 for p2pnode peers"),
];

const SIZE_LIMIT: u64 = 20_000_000;

/// Arguments of `image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Put before the names, as in registry.example.net/team
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<String>,
    /// The images' tag
    #[arg(long, default_value = VERSION)]
    tag: String,
    /// Cargo's profile of the binaries. Another than release is quick to build, as large as it comes out, and for tests alone
    #[arg(long, default_value = RELEASE)]
    profile: String,
}

/// The tag that the manifests in `k8s/` name.
const VERSION: &str = env!("CARGO_PKG_VERSION");
pub(crate) const RELEASE: &str = "release";

impl ImageArgs {
    pub(crate) fn of_manifests(profile: Option<&str>) -> Self {
        Self {
            registry: None,
            tag: VERSION.to_owned(),
            profile: profile.unwrap_or(RELEASE).to_owned(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Engine {
    program: &'static str,
    env: Vec<(&'static str, PathBuf)>,
}

pub(crate) fn run(args: &ImageArgs) -> Result<ExitCode> {
    make(&Engine::find()?, args)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the binaries and the images, each image twice: both have to be the same.
pub(crate) fn make(engine: &Engine, args: &ImageArgs) -> Result<()> {
    let binaries = target::build_static(&args.profile, &target::host()?)?;
    let created = source_date()?;
    for (name, description) in IMAGES {
        let context = context(name, description, &binaries.join(name), &args.tag)?;
        let name = match &args.registry {
            Some(registry) => format!("{registry}/{name}:{}", args.tag),
            None => format!("{name}:{}", args.tag),
        };
        let first = engine.build(&context, &name, created)?;
        let again = engine.build(&context, &name, created)?;
        ensure!(
            first == again,
            "{name} is {first}, and {again} when it is built again"
        );
        let size = engine.size(&name)?;
        ensure!(
            size <= SIZE_LIMIT || args.profile != RELEASE,
            "{name} has {size} bytes, more than {SIZE_LIMIT}"
        );
        println!("{name} {:.1} MB {first}", size as f64 / 1e6);
    }
    Ok(())
}

/// When the source is from, in seconds since 1970: `SOURCE_DATE_EPOCH`, or the time of the last commit.
pub(crate) fn source_date() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => git(&["log", "-1", "--format=%ct"])
            .context("SOURCE_DATE_EPOCH is not set, and the time of the last commit is unknown")?,
    };
    let text = text.trim();
    text.parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH {text:?} is no number of seconds since 1970"))
}

fn git(args: &[&str]) -> Result<String> {
    output(Command::new("git").args(args).current_dir(workspace()))
}

/// An error if a binary cannot run in an empty image.
pub(crate) fn ensure_static(binary: &Path) -> Result<()> {
    let elf = fs::read(binary).with_context(|| binary.display().to_string())?;
    ensure!(
        !asks_for_interpreter(&elf),
        "{} is not static: it asks for a dynamic linker, which an empty image does not have",
        binary.display()
    );
    Ok(())
}

fn context(name: &str, description: &str, binary: &Path, tag: &str) -> Result<PathBuf> {
    ensure_static(binary)?;
    let context = bins::target_dir()?.join("image").join(name);
    fs::create_dir_all(&context).with_context(|| context.display().to_string())?;
    let copy = context.join(name);
    fs::copy(binary, &copy).with_context(|| copy.display().to_string())?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let file = containerfile(name, &labels(name, description, tag));
    fs::write(context.join("Containerfile"), file)?;
    Ok(context)
}

/// What an image says about itself.
pub(crate) fn labels(name: &str, description: &str, tag: &str) -> Vec<(String, String)> {
    // What was built from uncommitted changes is no revision.
    let clean = git(&["status", "--porcelain"]).is_ok_and(|changes| changes.is_empty());
    let revision = git(&["rev-parse", "HEAD"]).ok().filter(|_| clean);
    let mut labels = vec![
        ("title", name),
        ("description", description),
        ("version", tag),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("source", env!("CARGO_PKG_REPOSITORY")),
    ];
    labels.extend(
        revision
            .iter()
            .map(|revision| ("revision", revision.trim())),
    );
    let full =
        |(key, value): (&str, &str)| (format!("org.opencontainers.image.{key}"), value.to_owned());
    labels.into_iter().map(full).collect()
}

fn containerfile(name: &str, labels: &[(String, String)]) -> String {
    let mut file = format!("FROM scratch\nCOPY {name} /usr/bin/{name}\n");
    for (key, value) in labels {
        file += &format!("LABEL {key}=\"{value}\"\n");
    }
    for (variable, value) in IMAGE_ENV {
        file += &format!("ENV {variable}={value}\n");
    }
    file + &format!("USER {IMAGE_USER}:{IMAGE_USER}\nENTRYPOINT [\"/usr/bin/{name}\"]\n")
}

/// Whether an ELF file of 64 bits, as of all targets that we build for, has a segment with the name of a dynamic linker.
fn asks_for_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at + length)?;
        let folded = bytes
            .iter()
            .rev()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        Some(folded)
    };
    let (Some(first), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| {
        let segment = number(first + index * size, 4);
        segment.is_some_and(|kind| u32::try_from(kind) == Ok(PT_INTERP))
    })
}

impl Engine {
    /// Podman is preferred, as it needs no daemon.
    fn find() -> Result<Self> {
        // A client without a daemon is no engine.
        let works = |program: &&str| {
            let asked = Command::new(program).arg("info").output();
            asked.is_ok_and(|output| output.status.success())
        };
        let program = ["podman", "docker"].into_iter().find(works).context(
            "images need podman, or docker with its daemon: install one (on Debian: apt-get install podman)",
        )?;
        let env = Vec::new();
        Ok(Self { program, env })
    }

    pub(crate) fn podman(env: &[(&'static str, PathBuf)]) -> Self {
        Self {
            program: "podman",
            env: env.to_vec(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The arguments that build `context` as an image whose files and layers are of the time `created`.
    fn build_args(&self, context: &Path, name: &str, created: u64) -> Vec<String> {
        let time: &[String] = match self.program {
            "podman" => &[format!("--timestamp={created}")],
            _ => &[
                "--provenance=false".to_owned(),
                format!("--build-arg=SOURCE_DATE_EPOCH={created}"),
                "--output=type=docker,rewrite-timestamp=true".to_owned(),
            ],
        };
        let context = context.display().to_string();
        let file = format!("--file={context}/Containerfile");
        let args = ["build", "--no-cache", "--quiet", "--tag", name, &file].map(str::to_owned);
        [&args, time, &[context]].concat()
    }

    fn build(&self, context: &Path, name: &str, created: u64) -> Result<String> {
        output(self.command().args(self.build_args(context, name, created)))?;
        let id = self.inspect(name, "{{.Id}}")?;
        Ok(id.trim_start_matches("sha256:").to_owned())
    }

    fn size(&self, name: &str) -> Result<u64> {
        let size = self.inspect(name, "{{.Size}}")?;
        size.parse()
            .with_context(|| format!("the size of {name}: {size:?}"))
    }

    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        let args = ["image", "inspect", "--format", format, name];
        Ok(output(self.command().args(args))?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_program_that_needs_a_dynamic_linker_is_told_from_one_that_does_not() {
        // Tests are linked dynamically.
        let this = fs::read(env::current_exe().unwrap()).unwrap();
        assert!(asks_for_interpreter(&this));
        // A header that names no segments, and what is no program at all.
        assert!(!asks_for_interpreter(&[0; 64]));
        assert!(!asks_for_interpreter(b"#!/bin/sh"));
    }
}
