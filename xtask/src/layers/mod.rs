//! `cargo xtask layers`: the module graph of each crate by folder, held to the layers of the project.
//!
//! 1. [`source`] reads each crate as syntax and lists which file names an item of which other file.
//! 2. [`graph`] joins these uses to arrows, between files and between the folders of one module, and finds circles.
//! 3. [`rules`] is the table: which crate, which folder may name which.
//!
//! What is an arrow: file A names an item that file B defines. A re-export stands for the item that it names. Without an arrow
//! of their own are `mod x;`, the `use` of a whole module (what is then reached through it counts), and a `pub use` of what a
//! module's own descendants define. Methods are not seen, as syntax does not tell whose they are. Tests are exempt.

mod graph;
mod rules;
mod source;
#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cargo;
use source::{Root, Tree};

pub(crate) fn run() -> Result<ExitCode> {
    print!("{}", graph::show(&project()?));
    check()?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check() -> Result<()> {
    let faults = faults(&project()?);
    for fault in &faults {
        println!("\n{fault}");
    }
    ensure!(
        faults.is_empty(),
        "{} faults in the layers of the crates",
        faults.len()
    );
    Ok(())
}

fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = rules::faults(tree);
    faults.extend(graph::circles(tree));
    faults
}

fn project() -> Result<Tree> {
    let mut command = cargo::cargo();
    command.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]);
    let output = command.output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let workspace = cargo::workspace();
    let mut roots = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let (Some(name), Some(path)) = (text(&package["name"]), text(&target["src_path"]))
            else {
                continue;
            };
            let is = |kind: &str| target["kind"][0] == kind;
            if is("lib") || is("bin") {
                let path = PathBuf::from(path);
                let file = path.strip_prefix(&workspace).unwrap_or(&path).to_owned();
                roots.push(Root {
                    crate_name: name,
                    is_lib: is("lib"),
                    file,
                });
            }
        }
    }
    Tree::read(&roots, &|file| {
        fs::read_to_string(workspace.join(file)).ok()
    })
}
