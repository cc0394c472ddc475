//! `cargo xtask dist`: what is given to others. Static binaries, packages for Debian, an archive and an SBOM for each architecture, images
//! of all, Helm charts, and the sums.
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
    cargo::{self, workspace},
    files::{Compression, compress, copy, copy_tree, files, kibibytes, write},
    image::{self, IMAGES},
    oci::Layout,
    sbom,
    target::{self, Architecture},
    tools,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Arguments of `dist`.
#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// Cargo's profile of the binaries. Another than release is quick to build and for tests alone
    #[arg(long, default_value = image::RELEASE)]
    pub(crate) profile: String,
    /// Builds for this target, such as aarch64-unknown-linux-gnu, instead of for this host. May be repeated
    #[arg(long, value_name = "TRIPLE", conflicts_with = "binaries")]
    pub(crate) target: Vec<String>,
    /// Packages these binaries, p2pnode and relay-node in one directory, instead of building them. May be repeated, for one architecture
    /// each. In an image they have to be static
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) binaries: Vec<PathBuf>,
}

/// Both binaries for an architecture.
#[derive(Debug)]
struct Build {
    architecture: &'static Architecture,
    target: String,
    binaries: PathBuf,
}

impl Build {
    fn given(binaries: &Path) -> Result<Self> {
        let architecture = Architecture::of(&binaries.join("p2pnode"))?;
        Ok(Self {
            architecture,
            target: architecture.target(),
            binaries: binaries.to_owned(),
        })
    }

    fn built(profile: &str, target: String) -> Result<Self> {
        let binaries = target::build_static(profile, &target)?;
        for (name, _) in IMAGES {
            image::ensure_static(&binaries.join(name))?;
        }
        Ok(Self {
            target,
            ..Self::given(&binaries)?
        })
    }
}

/// A program as it is packaged.
struct Program<'a> {
    name: &'static str,
    description: &'static str,
    build: &'a Build,
    /// The build that prints manual pages and completions: all print the same, and not all run here.
    printer: &'a Build,
}

pub(crate) fn run(args: &DistArgs) -> Result<ExitCode> {
    let missing: Vec<_> = [("dpkg-deb", "dpkg"), ("tar", "tar"), ("gzip", "gzip")]
        .into_iter()
        .filter(|(tool, _)| !p2pnode_tests::sandbox::has_tool(tool))
        .collect();
    if !missing.is_empty() {
        tools::install("packages", &missing)?;
    }
    let targets = match args.target.is_empty() && args.binaries.is_empty() {
        true => vec![target::host()?],
        false => args.target.clone(),
    };
    let targets = targets.into_iter();
    let built = targets.map(|target| Build::built(&args.profile, target));
    let given = args.binaries.iter().map(|binaries| Build::given(binaries));
    let builds: Vec<Build> = built.chain(given).collect::<Result<_>>()?;
    let compression = match args.profile == image::RELEASE {
        true => Compression::Small,
        false => Compression::Quick,
    };
    for file in make(&builds, &bins::target_dir()?.join("dist"), compression)? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Packages these builds into `dist`, which it makes, and returns the files.
fn make(builds: &[Build], dist: &Path, compression: Compression) -> Result<Vec<PathBuf>> {
    if dist.exists() {
        fs::remove_dir_all(dist).with_context(|| dist.display().to_string())?;
    }
    let created = image::source_date()?;
    let mut here = builds.iter();
    let here = here.find(|build| matches!(build.architecture.emulator(), Ok(None)));
    let printer = here
        .or(builds.first())
        .context("nothing is to be packaged")?;
    let mut made = Vec::new();
    for build in builds {
        made.extend(of_build(build, printer, dist, created, compression)?);
    }
    for (name, description) in IMAGES {
        let archive = dist.join(format!("{name}-image-{VERSION}.tar"));
        let binaries: Vec<_> = builds
            .iter()
            .map(|build| (build.architecture, build.binaries.join(name)))
            .collect();
        let folder = &dist.join("build/image").join(name);
        let layout = Layout {
            folder,
            created,
            compression,
        };
        layout.archive((name, description), VERSION, &binaries, &archive)?;
        made.extend([archive, chart(name, dist, created, compression)?]);
    }
    made.push(sums(dist, &made)?);
    fs::remove_dir_all(dist.join("build"))?;
    Ok(made)
}

/// The packages, the archive and the bill of materials of one architecture.
fn of_build(
    build: &Build,
    printer: &Build,
    dist: &Path,
    created: u64,
    compression: Compression,
) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let archive = format!("p2pnode-{VERSION}-{}", build.target);
    let tree = dist.join("build").join(&archive);
    for (name, description) in IMAGES {
        let program = Program {
            name,
            description,
            build,
            printer,
        };
        made.push(program.debian(dist, created, compression)?);
        program.archive_into(&tree)?;
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&workspace().join(file), &tree.join(file), 0o644)?;
    }
    let packed = dist.join(format!("{archive}.tar.gz"));
    made.push(compress(&tree, &packed, created, compression)?);
    let bill = dist.join(format!("{archive}.cdx.json"));
    fs::write(&bill, sbom::cyclonedx(created, &build.target)?)?;
    made.push(bill);
    Ok(made)
}

/// The chart of a program as `helm package` makes it: an archive with a folder of its name. Its links become files.
fn chart(name: &str, dist: &Path, created: u64, compression: Compression) -> Result<PathBuf> {
    let tree = dist.join("build").join("chart").join(name);
    copy_tree(&workspace().join("k8s/charts").join(name), &tree)?;
    let archive = dist.join(format!("{name}-chart-{VERSION}.tgz"));
    compress(&tree, &archive, created, compression)
}

impl Program<'_> {
    fn binary(&self) -> PathBuf {
        self.build.binaries.join(self.name)
    }

    /// The program, for what it prints.
    fn command(&self) -> Result<Command> {
        let binary = self.printer.binaries.join(self.name);
        Ok(match self.printer.architecture.emulator()? {
            None => Command::new(binary),
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(binary);
                command
            }
        })
    }

    /// The package of this program.
    fn debian(&self, dist: &Path, created: u64, compression: Compression) -> Result<PathBuf> {
        let (name, architecture) = (self.name, self.build.architecture.name);
        let root = dist.join("build/deb").join(architecture).join(name);
        copy(&self.binary(), &root.join("usr/bin").join(name), 0o755)?;
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
        let size = kibibytes(&root)?;
        write(
            &control.join("control"),
            &self.control(architecture, size),
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
        cargo::output(&mut build)?;
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
        copy(&self.binary(), &tree.join("bin").join(name), 0o755)?;
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
        let script = cargo::output(self.command()?.args(["completions", shell]))?;
        write(file, &script, 0o644)
    }

    fn man(&self, directory: &Path, compress: bool) -> Result<()> {
        fs::create_dir_all(directory)?;
        cargo::output(self.command()?.args(["man", "--dir"]).arg(directory))?;
        for page in files(directory)? {
            fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
            if compress && page.extension().is_some_and(|kind| kind == "1") {
                // Without the name and the time of the file.
                cargo::output(Command::new("gzip").args(["-9", "-n"]).arg(&page))?;
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

/// The sums of `files`, as sha256sum(1) checks them in their directory.
fn sums(dist: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let sums = cargo::output(Command::new("sha256sum").current_dir(dist).args(names))?;
    let file = dist.join("SHA256SUMS");
    fs::write(&file, sums)?;
    Ok(file)
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
            cargo::output(Command::new("strip").arg("-o").arg(to).arg(binary)).unwrap();
        }
        directory
    }

    #[test]
    fn packages_hold_what_a_service_needs_and_are_the_same_when_they_are_made_again() {
        let (binaries, dist) = (stripped(), tempfile::tempdir().unwrap());
        let builds = [Build::given(binaries.path()).unwrap()];
        let architecture = builds[0].architecture.name;
        let made = |name: &str| {
            let dist = dist.path().join(name);
            make(&builds, &dist, Compression::Quick).unwrap();
            fs::read_to_string(dist.join("SHA256SUMS")).unwrap()
        };
        let sums = made("a");
        assert_eq!(sums, made("b"));
        assert_eq!(sums.lines().count(), 8, "{sums}");
        let dist = dist.path().join("a");
        cargo::output(
            Command::new("sha256sum")
                .args(["--check", "SHA256SUMS"])
                .current_dir(&dist),
        )
        .unwrap();
        for (name, _) in IMAGES {
            let chart = dist.join(format!("{name}-chart-{VERSION}.tgz"));
            let listed = cargo::output(Command::new("tar").arg("-tzf").arg(chart)).unwrap();
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
            let package = dist.join(format!("{name}_{VERSION}_{architecture}.deb"));
            let root = dist.join(name);
            cargo::output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root)).unwrap();
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
            cargo::output(&mut check).unwrap();
        }
    }
}
