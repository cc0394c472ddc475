//! The pages of the project: their files, their fenced blocks and inline code, their headings and links.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::cargo;

/// A page by its path in the repository.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A fenced block.
#[cfg(test)]
pub(crate) struct Block<'a> {
    pub(crate) language: &'a str,
    /// The number of its first line, from 1.
    pub(crate) line: usize,
    pub(crate) lines: Vec<&'a str>,
}

/// Every page: those of the root, of `docs` and of `k8s`.
pub(crate) fn all() -> Result<Vec<Page>> {
    let root = cargo::workspace();
    let mut paths = Vec::new();
    for entry in fs::read_dir(&root)? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "md"));
    for folder in ["docs", "k8s"] {
        below(&root.join(folder), &mut paths)?;
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let path = path.strip_prefix(&root).unwrap_or(&path).to_owned();
        Ok(Page { path, text })
    };
    paths.into_iter().map(read).collect()
}

fn below(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, paths)?;
        } else if path.extension().is_some_and(|kind| kind == "md") {
            paths.push(path);
        }
    }
    Ok(())
}

impl Page {
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        for (index, line) in self.text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(language)) => {
                    open = Some(Block {
                        language: language.trim(),
                        line: index + 2,
                        lines: Vec::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.lines.push(line),
                (None, None) => {}
            }
        }
        blocks
    }

    /// The lines outside of fenced blocks, with their numbers from 1. A line of a block is empty.
    pub(crate) fn outside(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut lines = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            let is_fence = line.trim_start().starts_with("```");
            fenced ^= is_fence;
            let shown = if fenced || is_fence { "" } else { line };
            lines.push((index + 1, shown));
        }
        lines
    }

    /// The targets of links, with the number of their line.
    pub(crate) fn links(&self) -> Vec<(usize, &str)> {
        let mut links = Vec::new();
        for (number, line) in self.outside() {
            let mut rest = line;
            while let Some((_, after)) = rest.split_once("](") {
                let Some((target, behind)) = after.split_once(')') else {
                    break;
                };
                links.push((number, target));
                rest = behind;
            }
        }
        links
    }

    /// The anchors of the headings.
    #[cfg(test)]
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.outside().into_iter().filter_map(|(_, line)| {
            let text = line.trim_start_matches('#');
            (text.len() < line.len() && text.starts_with(' ')).then(|| anchor(text.trim()))
        });
        headings.collect()
    }
}

#[cfg(test)]
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        other => other.is_alphanumeric().then_some(other),
    });
    kept.collect()
}

/// The path in the repository of what a link in a page of `folder` leads to.
pub(crate) fn resolved(folder: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path
}
