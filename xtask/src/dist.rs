//! `cargo xtask dist`: what is given to others. Static binaries, packages for Debian, an archive, Helm charts, an SBOM, and their sums.
//!
//! All files are of the time of the source, so the same source makes the same bytes.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;
use p2pnode_tests::bins;

use crate::{
    cargo::workspace,
    image::{self, IMAGES},
    sbom, tools,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Arguments of `dist`.
#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// Cargo's profile of the binaries. Another than release is quick to build and for tests alone
    #[arg(long, default_value = image::RELEASE)]
    pub(crate) profile: String,
    /// Packages these binaries, p2pnode and relay-node in one directory, instead of building them
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) binaries: Option<PathBuf>,
}

/// A program as it is packaged.
struct Program {
    name: &'static str,
    description: &'static str,
    binary: PathBuf,
}

pub(crate) fn run(args: &DistArgs) -> Result<ExitCode> {
    let missing: Vec<_> = [("dpkg-deb", "dpkg"), ("tar", "tar"), ("gzip", "gzip")]
        .into_iter()
        .filter(|(tool, _)| !p2pnode_tests::sandbox::has_tool(tool))
        .collect();
    if !missing.is_empty() {
        tools::install("packages", &missing)?;
    }
    let binaries = match &args.binaries {
        Some(directory) => directory.clone(),
        None => image::build_static(&args.profile)?,
    };
    let compression = match args.profile == image::RELEASE {
        true => Compression::Small,
        false => Compression::Quick,
    };
    for file in make(&binaries, &bins::target_dir()?.join("dist"), compression)? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// How much time goes into making files smaller.
#[derive(Debug, Clone, Copy)]
enum Compression {
    Small,
    Quick,
}

/// Packages the binaries in `binaries` into `dist`, which it makes, and returns the files.
fn make(binaries: &Path, dist: &Path, compression: Compression) -> Result<Vec<PathBuf>> {
    if dist.exists() {
        fs::remove_dir_all(dist).with_context(|| dist.display().to_string())?;
    }
    let created = image::source_date()?;
    let mut made = Vec::new();
    let archive = format!("p2pnode-{VERSION}-{}", image::host_target()?);
    let tree = dist.join("build").join(&archive);
    for (name, description) in IMAGES {
        let program = Program {
            name,
            description,
            binary: binaries.join(name),
        };
        made.push(program.debian(dist, created, compression)?);
        program.archive_into(&tree)?;
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&workspace().join(file), &tree.join(file), 0o644)?;
    }
    made.push(compress(
        &tree,
        &dist.join(format!("{archive}.tar.gz")),
        created,
        compression,
    )?);
    for (name, _) in IMAGES {
        made.push(chart(name, dist, created, compression)?);
    }
    let bill = dist.join(format!("p2pnode-{VERSION}.cdx.json"));
    fs::write(&bill, sbom::cyclonedx(created)?)?;
    made.push(bill);
    made.push(sums(dist, &made)?);
    fs::remove_dir_all(dist.join("build"))?;
    Ok(made)
}

/// The chart of a program as `helm package` makes it: an archive with a folder of its name. Its links become files.
fn chart(name: &str, dist: &Path, created: u64, compression: Compression) -> Result<PathBuf> {
    let tree = dist.join("build").join("chart").join(name);
    copy_tree(&workspace().join("k8s/charts").join(name), &tree)?;
    let archive = dist.join(format!("{name}-chart-{VERSION}.tgz"));
    compress(&tree, &archive, created, compression)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in files(from)? {
        let name = entry.file_name().context("an entry has a name")?;
        match entry.is_dir() {
            true => copy_tree(&entry, &to.join(name))?,
            false => copy(&entry, &to.join(name), 0o644)?,
        }
    }
    Ok(())
}

impl Program {
    /// The package of this program.
    fn debian(&self, dist: &Path, created: u64, compression: Compression) -> Result<PathBuf> {
        let (name, root) = (self.name, dist.join("build").join("deb").join(self.name));
        copy(&self.binary, &root.join("usr/bin").join(name), 0o755)?;
        let unit = format!("{name}.service");
        let units = root.join("usr/lib/systemd/system");
        copy(&packaging().join(&unit), &units.join(&unit), 0o644)?;
        let configuration = format!("{name}.yaml");
        let etc = root.join("etc").join(name);
        copy(
            &packaging().join(&configuration),
            &etc.join(&configuration),
            0o644,
        )?;
        self.man(&root.join("usr/share/man/man1"), true)?;
        let share = root.join("usr/share");
        self.completion(
            "bash",
            &share.join("bash-completion/completions").join(name),
        )?;
        self.completion(
            "zsh",
            &share
                .join("zsh/vendor-completions")
                .join(format!("_{name}")),
        )?;
        let fish = format!("{name}.fish");
        self.completion("fish", &share.join("fish/vendor_completions.d").join(fish))?;
        let copyright = root.join("usr/share/doc").join(name).join("copyright");
        write(&copyright, &copyright_text(), 0o644)?;

        let control = root.join("DEBIAN");
        let (size, architecture) = (kibibytes(&root)?, debian_architecture()?);
        write(
            &control.join("control"),
            &self.control(&architecture, size),
            0o644,
        )?;
        write(
            &control.join("conffiles"),
            &format!("/etc/{name}/{configuration}\n"),
            0o644,
        )?;
        write(&control.join("postinst"), &postinst(&unit), 0o755)?;
        write(&control.join("prerm"), &prerm(&unit), 0o755)?;
        write(&control.join("postrm"), &postrm(name), 0o755)?;

        let package = dist.join(format!("{name}_{VERSION}_{architecture}.deb"));
        let mut build = Command::new("dpkg-deb");
        build
            .arg("--root-owner-group")
            .args(match compression {
                Compression::Small => ["-Zxz", "-z9"],
                Compression::Quick => ["-Zgzip", "-z1"],
            })
            .arg("--build")
            .args([&root, &package])
            .env("SOURCE_DATE_EPOCH", created.to_string());
        image::output(&mut build)?;
        Ok(package)
    }

    fn control(&self, architecture: &str, kibibytes: u64) -> String {
        format!(
            "Package: {}\nVersion: {VERSION}\nArchitecture: {architecture}\nSection: net\nPriority: optional\n\
             Maintainer: p2pnode developers <p2pnode@localhost>\nInstalled-Size: {kibibytes}\nHomepage: {}\n\
             Description: {}\n The service {} starts once its configuration is in /etc/{}.\n",
            self.name,
            env!("CARGO_PKG_REPOSITORY"),
            self.description,
            self.name,
            self.name,
        )
    }

    fn archive_into(&self, tree: &Path) -> Result<()> {
        let name = self.name;
        copy(&self.binary, &tree.join("bin").join(name), 0o755)?;
        self.man(&tree.join("man/man1"), false)?;
        for shell in ["bash", "zsh", "fish"] {
            let file = tree.join("completions").join(format!("{name}.{shell}"));
            self.completion(shell, &file)?;
        }
        for kind in ["service", "yaml"] {
            let file = format!("{name}.{kind}");
            copy(
                &packaging().join(&file),
                &tree.join("systemd").join(&file),
                0o644,
            )?;
        }
        Ok(())
    }

    fn completion(&self, shell: &str, file: &Path) -> Result<()> {
        let script = image::output(Command::new(&self.binary).args(["completions", shell]))?;
        write(file, &script, 0o644)
    }

    fn man(&self, directory: &Path, compress: bool) -> Result<()> {
        fs::create_dir_all(directory)?;
        image::output(
            Command::new(&self.binary)
                .args(["man", "--dir"])
                .arg(directory),
        )?;
        for page in files(directory)? {
            fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
            if compress && page.extension().is_some_and(|kind| kind == "1") {
                // Without the name and the time of the file.
                image::output(Command::new("gzip").args(["-9", "-n"]).arg(&page))?;
            }
        }
        Ok(())
    }
}

fn packaging() -> PathBuf {
    workspace().join("packaging")
}

/// Services that run are restarted with the new program. A new service waits for its configuration.
fn postinst(unit: &str) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then\n    systemctl daemon-reload\n    \
         systemctl try-restart {unit}\nfi\n"
    )
}

fn prerm(unit: &str) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n    systemctl disable --now {unit}\nfi\n"
    )
}

/// A purge removes the key as well.
fn postrm(name: &str) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ \"$1\" = purge ]; then\n    rm -rf /var/lib/private/{name} /var/lib/{name}\nfi\n\
         if [ -d /run/systemd/system ]; then\n    systemctl daemon-reload\nfi\n"
    )
}

fn copyright_text() -> String {
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: p2pnode\nSource: {}\n\n\
         Files: *\nCopyright: p2pnode developers\nLicense: {}\n",
        env!("CARGO_PKG_REPOSITORY"),
        env!("CARGO_PKG_LICENSE"),
    )
}

fn debian_architecture() -> Result<String> {
    let name = image::output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(name.trim().to_owned())
}

fn compress(
    tree: &Path,
    archive: &Path,
    created: u64,
    compression: Compression,
) -> Result<PathBuf> {
    let (parent, name) = tree
        .parent()
        .zip(tree.file_name())
        .context("a tree below dist")?;
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{created}"))
        .arg("--use-compress-program")
        .arg(match compression {
            Compression::Small => "gzip -9 -n",
            Compression::Quick => "gzip -1 -n",
        })
        .args(["--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(parent)
        .arg(name);
    image::output(&mut tar)?;
    Ok(archive.to_owned())
}

/// The sums of `files`, as sha256sum(1) checks them in their directory.
fn sums(dist: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let sums = image::output(Command::new("sha256sum").current_dir(dist).args(names))?;
    let file = dist.join("SHA256SUMS");
    fs::write(&file, sums)?;
    Ok(file)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| from.display().to_string())?;
    place(to, &bytes, mode)
}

fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    place(to, text.as_bytes(), mode)
}

fn place(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let named = || to.display().to_string();
    let directory = to.parent().with_context(named)?;
    fs::create_dir_all(directory).with_context(named)?;
    fs::write(to, bytes).with_context(named)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(named)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// What the files below `root` need on a disk.
fn kibibytes(root: &Path) -> Result<u64> {
    let mut sum = 0;
    for path in files(root)? {
        sum += match path.is_dir() {
            true => kibibytes(&path)?,
            false => fs::metadata(&path)?.len().div_ceil(1024),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// The programs under test without what a debugger needs, so that packing them is quick.
    fn stripped() -> tempfile::TempDir {
        let built = bins::bins().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (binary, name) in [(built.p2pnode, "p2pnode"), (built.relay_node, "relay-node")] {
            let to = directory.path().join(name);
            image::output(Command::new("strip").arg("-o").arg(to).arg(binary)).unwrap();
        }
        directory
    }

    #[test]
    fn packages_hold_what_a_service_needs_and_are_the_same_when_they_are_made_again() {
        let (binaries, dist) = (stripped(), tempfile::tempdir().unwrap());
        let made = |name: &str| {
            let dist = dist.path().join(name);
            make(binaries.path(), &dist, Compression::Quick).unwrap();
            fs::read_to_string(dist.join("SHA256SUMS")).unwrap()
        };
        let sums = made("a");
        assert_eq!(sums, made("b"));
        assert_eq!(sums.lines().count(), 6, "{sums}");
        let dist = dist.path().join("a");
        image::output(
            Command::new("sha256sum")
                .args(["--check", "SHA256SUMS"])
                .current_dir(&dist),
        )
        .unwrap();
        for (name, _) in IMAGES {
            let chart = dist.join(format!("{name}-chart-{VERSION}.tgz"));
            let listed = image::output(Command::new("tar").arg("-tzf").arg(chart)).unwrap();
            for file in [
                "Chart.yaml",
                "values.yaml",
                "monitoring/prometheusrule.yaml",
            ] {
                assert!(
                    listed.contains(&format!("{name}/{file}\n")),
                    "{file}: {listed}"
                );
            }
            let package = dist.join(format!(
                "{name}_{VERSION}_{}.deb",
                debian_architecture().unwrap()
            ));
            let root = dist.join(name);
            image::output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root)).unwrap();
            for file in [
                format!("usr/bin/{name}"),
                format!("usr/lib/systemd/system/{name}.service"),
                format!("etc/{name}/{name}.yaml"),
                format!("usr/share/man/man1/{name}.1.gz"),
                format!("usr/share/man/man1/{name}-config-check.1.gz"),
                format!("usr/share/bash-completion/completions/{name}"),
            ] {
                assert!(root.join(&file).exists(), "{file}");
            }
            let configuration = root.join("etc").join(name).join(format!("{name}.yaml"));
            let mut check = Command::new(root.join("usr/bin").join(name));
            check
                .args(["config", "check", "--config"])
                .arg(configuration);
            image::output(&mut check).unwrap();
        }
    }
}
