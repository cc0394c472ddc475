//! Pages of `docs/reference/` that tests keep current: a test makes the page from the code and compares.
//!
//! With `P2PNODE_DOCS=write` the test writes the page instead. `cargo xtask docs --write` does that for all of them.

use std::{fs, path::Path};

/// The lines of a page that differ from what the code has, or nothing. `page` is a path in the repository.
///
/// # Errors
/// If the page cannot be read or written.
pub fn stale(page: &str, current: &str) -> std::io::Result<Option<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    if std::env::var_os("P2PNODE_DOCS").is_some_and(|mode| mode == "write") {
        fs::write(path, current)?;
        return Ok(None);
    }
    let written = fs::read_to_string(path)?;
    let differs = written
        .lines()
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(current.lines().map(Some).chain(std::iter::repeat(None)))
        .take_while(|(written, current)| written.is_some() || current.is_some())
        .find(|(written, current)| written != current);
    Ok(differs.map(|(written, current)| {
        format!(
            "{page} is not current; `cargo xtask docs --write` writes it\nwritten: {}\ncode:    {}",
            written.unwrap_or("(end)"),
            current.unwrap_or("(end)")
        )
    }))
}
