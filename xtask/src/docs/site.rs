//! The site: mdBook over the pages of `docs`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::bins;

use super::pages::{self, Page};
use crate::cargo;

/// The release of mdBook that is built where there is none.
const MDBOOK: &str = "0.5.4";
/// Where what lies outside of `docs` can be read.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main");

/// Pages of the root that the site has as well, and their names there.
const OF_ROOT: [(&str, &str); 2] = [
    ("ARCHITECTURE.md", "architecture.md"),
    ("CHANGELOG.md", "changelog.md"),
];

/// Builds the site into `target/docs`.
pub(crate) fn build() -> Result<()> {
    let mdbook = mdbook()?;
    let target = bins::target_dir()?;
    let source = target.join("docs-source");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    stage(&source)?;
    let site = target.join("docs");
    let mut build = Command::new(mdbook);
    build.arg("build").arg(&source).arg("--dest-dir").arg(&site);
    cargo::run(&mut build)?;
    println!("the site is in {}", site.join("index.html").display());
    Ok(())
}

/// Copies `docs`, and [`OF_ROOT`]. Links that leave them lead to the repository there.
fn stage(source: &Path) -> Result<()> {
    copy(&cargo::workspace().join("docs"), source)?;
    let all = pages::all()?;
    for page in &all {
        let Some(path) = in_site(&page.path) else {
            continue;
        };
        let mut text = page.text.clone();
        for (_, target) in page.links() {
            if let Some(other) = elsewhere(&page.path, target) {
                text = text.replace(&format!("]({target})"), &format!("]({other})"));
            }
        }
        if path == Path::new("SUMMARY.md") {
            text = with_decisions(&text, &all);
        }
        let to = source.join(path);
        fs::create_dir_all(to.parent().unwrap_or(source))?;
        fs::write(to, text)?;
    }
    Ok(())
}

/// The place in the site of a page of the repository, if the site has the page.
fn in_site(page: &Path) -> Option<PathBuf> {
    let of_root = OF_ROOT.iter().find(|(root, _)| page == Path::new(root));
    match of_root {
        Some((_, name)) => Some(PathBuf::from(name)),
        None => page.strip_prefix("docs").ok().map(Path::to_owned),
    }
}

/// Copies what is no page: pictures, schemas, the book's settings.
fn copy(folder: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else if path.extension().is_none_or(|kind| kind != "md") {
            fs::copy(path, to)?;
        }
    }
    Ok(())
}

/// The summary, with each decision below the index of decisions.
fn with_decisions(summary: &str, pages: &[Page]) -> String {
    let mut entries = String::new();
    for page in pages {
        let name = page
            .path
            .strip_prefix("docs/decisions")
            .unwrap_or(Path::new("README.md"));
        let title = page
            .text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("# ");
        if name != Path::new("README.md") {
            entries += &format!("    - [{title}](decisions/{})\n", name.display());
        }
    }
    let index = "(decisions/README.md)\n";
    summary.replace(index, &format!("{index}{entries}"))
}

/// Where a link of `page` leads in the site, if that is not what the link says.
fn elsewhere(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with('#') {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = pages::resolved(page.parent()?, file);
    let anchor = match anchor {
        "" => String::new(),
        anchor => format!("#{anchor}"),
    };
    if page.starts_with("docs") && path.starts_with("docs") {
        return None;
    }
    let Some(to) = in_site(&path) else {
        return Some(format!("{REPOSITORY}/{}{anchor}", path.display()));
    };
    let up = "../".repeat(in_site(page)?.components().count() - 1);
    Some(format!("{up}{}{anchor}", to.display()))
}

/// mdBook of the system, or one that is built into `target/tools`.
fn mdbook() -> Result<PathBuf> {
    let tools = bins::target_dir()?.join("tools");
    let own = tools.join("bin/mdbook");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut known = env::split_paths(&path).map(|folder| folder.join("mdbook"));
    if let Some(found) = known.find(|path| path.exists()) {
        return Ok(found);
    }
    if !own.exists() {
        println!(
            "building mdBook {MDBOOK} into {}: some minutes, once",
            tools.display()
        );
        let mut install = cargo::cargo();
        install
            .args([
                "install",
                "--locked",
                "--debug",
                "--no-default-features",
                "--features",
                "search",
            ])
            .arg("--root")
            .arg(&tools)
            .arg(format!("mdbook@{MDBOOK}"));
        cargo::run(&mut install)?;
    }
    ensure!(own.exists(), "mdBook was not built");
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leaves_the_pages_leads_to_the_repository_and_one_of_the_root_into_the_site() {
        let page = Path::new("docs/guides/ssh.md");
        let path = |target| elsewhere(page, target);
        assert_eq!(path("../services.md"), None);
        assert_eq!(path("#ssh"), None);
        assert_eq!(path("https://example.net"), None);
        assert_eq!(
            path("../../k8s/README.md#images"),
            Some(format!("{REPOSITORY}/k8s/README.md#images"))
        );
        assert_eq!(
            path("../../ARCHITECTURE.md#layers"),
            Some("../architecture.md#layers".to_owned())
        );
        let of_root = elsewhere(Path::new("ARCHITECTURE.md"), "docs/decisions/README.md");
        assert_eq!(of_root.as_deref(), Some("decisions/README.md"));
    }
}
