//! `cargo xtask docs`: the pages as a site, their references made from the code, and their prose held to the rules of the project.
//!
//! 1. [`pages`] reads the pages: fenced blocks, commands, links.
//! 2. [`prose`] finds sentences that are too long, and words that the project does not use.
//! 3. [`site`] builds the site with mdBook.
//!
//! The references are made by tests, which compare them with the code; `--write` runs these tests so that they write.

#[cfg(test)]
mod names;
mod pages;
mod prose;
#[cfg(test)]
mod reference;
mod site;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::cargo;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the references in docs/reference from the code instead
    #[arg(long, conflicts_with = "prose")]
    write: bool,
    /// Print what is wrong with the prose of the pages instead; a path prints it for that file or folder, whatever it is
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "")]
    prose: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.prose {
        Some(path) if path.is_empty() => check()?,
        Some(path) => {
            let findings = prose::of_path(path)?;
            for finding in &findings {
                println!("{finding}");
            }
            println!("{} findings in {path}", findings.len());
        }
        None if args.write => write()?,
        None => site::build()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails if the prose of a page breaks a rule.
pub(crate) fn check() -> Result<()> {
    let findings = prose::findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "{} findings in prose", findings.len());
    Ok(())
}

/// Runs the tests that compare the references, so that they write them.
fn write() -> Result<()> {
    let mut tests = cargo::cargo();
    tests
        .args(["test", "--workspace", "--lib", "--bins", "--", "reference"])
        .env("P2PNODE_DOCS", "write");
    println!("running `{}`", cargo::show(&tests));
    cargo::run(&mut tests)
}
