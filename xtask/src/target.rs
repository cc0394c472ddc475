//! For which machines binaries are built, and where: with the toolchain of this host, or in a Debian of its own if that lacks the target.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    bins,
    sandbox::{has_tool, is_root},
};

use crate::{
    cargo::{self, output, workspace},
    tools,
};

/// Builds in a Debian, with its Rust and its compiler of C.
const CROSS: &str = include_str!("cross.sh");

/// A kind of processor that binaries are made for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// Rust's name of it, and GNU's.
    rust: &'static str,
    /// Debian's name of it, and that of images.
    pub(crate) name: &'static str,
    /// Its number in an ELF file.
    machine: u16,
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        rust: "x86_64",
        name: "amd64",
        machine: 62,
    },
    Architecture {
        rust: "aarch64",
        name: "arm64",
        machine: 183,
    },
];

impl Architecture {
    /// That of a binary.
    pub(crate) fn of(binary: &Path) -> Result<&'static Self> {
        let elf = fs::read(binary).with_context(|| binary.display().to_string())?;
        let machine = elf
            .get(18..20)
            .map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        let mut known = ARCHITECTURES.iter();
        known
            .find(|of| Some(of.machine) == machine)
            .with_context(|| {
                format!(
                    "{} is a program of neither x86-64 nor arm64",
                    binary.display()
                )
            })
    }

    fn of_target(target: &str) -> Result<&'static Self> {
        let mut known = ARCHITECTURES.iter();
        known
            .find(|of| target.split('-').next() == Some(of.rust))
            .with_context(|| format!("target {target:?} is of neither x86-64 nor arm64"))
    }

    fn is_here(&self) -> bool {
        self.rust == env::consts::ARCH
    }

    /// The target that its binaries are for, if nothing else is said.
    pub(crate) fn target(&self) -> String {
        format!("{}-unknown-linux-gnu", self.rust)
    }

    /// Debian's package of a compiler for it.
    fn gcc(&self) -> String {
        format!("gcc-{}-linux-gnu", self.rust.replace('_', "-"))
    }

    /// The emulator that runs its programs on this host; `None` if it is this host's own.
    ///
    /// # Errors
    ///
    /// There is none here.
    pub(crate) fn emulator(&self) -> Result<Option<String>> {
        if self.is_here() {
            return Ok(None);
        }
        let emulators = [
            format!("qemu-{}-static", self.rust),
            format!("qemu-{}", self.rust),
        ];
        let found = emulators.into_iter().find(|name| has_tool(name));
        found.map(Some).with_context(|| {
            format!(
                "programs of {} do not run on this host without qemu (on Debian: apt-get install qemu-user-static)",
                self.name
            )
        })
    }
}

pub(crate) fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV").current_dir(workspace()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// Builds both binaries without any shared library, as an empty image has none; returns their directory.
pub(crate) fn build_static(profile: &str, target: &str) -> Result<PathBuf> {
    let architecture = Architecture::of_target(target)?;
    let home = env::var("CARGO_HOME")
        .or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    // Paths of the machine would make each machine's binaries differ.
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=p2pnode --remap-path-prefix={home}=cargo",
        workspace().display()
    );
    // The target is named so that the flags are not used for build scripts and macros, which are shared libraries.
    let args = [
        "build",
        "--locked",
        "--profile",
        profile,
        "--target",
        target,
    ];
    let args = [
        &args[..],
        &["--package", "p2pnode", "--package", "relay-node"],
    ]
    .concat();
    let has_target = has_target(target)?;
    let mut results = bins::target_dir()?;
    let mut build = if has_target {
        cargo::cargo()
    } else {
        let root = results.join("cross-debian");
        results = results.join("cross");
        in_debian(&root, &results, &home, architecture)?
    };
    build.args(args).env("RUSTFLAGS", flags);
    if !architecture.is_here() {
        let linker = format!(
            "CARGO_TARGET_{}_LINKER",
            target.to_uppercase().replace('-', "_")
        );
        let gcc = format!("{}-linux-gnu-gcc", architecture.rust);
        if has_target && env::var_os(&linker).is_none() && !has_tool(&gcc) {
            let libc = format!("libc6-dev-{}-cross", architecture.name);
            let compiler = architecture.gcc();
            let packages = [&compiler, &libc].map(|package| (gcc.as_str(), package.as_str()));
            tools::install(&format!("a build for {}", architecture.name), &packages)?;
        }
        build.env(&linker, env::var_os(&linker).unwrap_or_else(|| gcc.into()));
    }
    println!("building for {target}");
    cargo::run(&mut build)?;
    // Cargo's oldest profile has a directory of another name.
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(results.join(target).join(directory))
}

/// Whether the toolchain has the standard library of a target.
fn has_target(target: &str) -> Result<bool> {
    let mut libraries = Command::new("rustc");
    libraries
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(workspace());
    Ok(Path::new(output(&mut libraries)?.trim()).is_dir())
}

/// Cargo in a Debian of its own, which is made in `root` if it is not there.
fn in_debian(root: &Path, results: &Path, home: &str, of: &Architecture) -> Result<Command> {
    ensure!(
        is_root(),
        "the toolchain has no {0}: `rustup target add {0}` adds it, or run this as root to build in a Debian of its own",
        of.target()
    );
    if !has_tool("debootstrap") {
        let debootstrap = [("debootstrap", "debootstrap")];
        tools::install(&format!("a build for {}", of.name), &debootstrap)?;
    }
    println!(
        "the toolchain has no {}: a Debian in {} builds",
        of.target(),
        root.display()
    );
    // What is missing is fetched here, since that Debian only reads.
    cargo::run(cargo::cargo().args(["fetch", "--locked"]))?;
    fs::create_dir_all(results)?;
    let mut build = Command::new("unshare");
    build
        .args(["--mount", "--propagation", "private", "sh", "-c", CROSS])
        .arg("cross.sh")
        .args([root, &workspace(), results, Path::new(home)])
        .args([of.name, &of.gcc(), "--offline"]);
    Ok(build)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn an_architecture_is_read_from_a_program_and_from_a_target() {
        let this = Architecture::of(&env::current_exe().unwrap()).unwrap();
        assert!(this.is_here());
        assert_eq!(this.emulator().unwrap(), None);
        for known in &ARCHITECTURES {
            assert_eq!(Architecture::of_target(&known.target()).unwrap(), known);
        }
        assert!(Architecture::of_target("riscv64gc-unknown-linux-gnu").is_err());
        assert!(Architecture::of(Path::new("/dev/null")).is_err());
    }
}
