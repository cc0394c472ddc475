//! What is wrong with a configuration, and where.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Built in.
    Default,
    /// The configuration file. Lines and columns count from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Line and column, where known.
        at: Option<(usize, usize)>,
    },
    /// An environment variable.
    Env(String),
    /// A command-line flag or argument.
    Flag(String),
}

impl Place {
    pub(super) fn file(path: &Path) -> Self {
        Self::File {
            path: path.to_owned(),
            at: None,
        }
    }

    pub(super) fn line(path: &Path, line: usize, column: usize) -> Self {
        Self::File {
            path: path.to_owned(),
            at: Some((line, column)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, at: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                at: Some((line, column)),
            } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong, told on one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {}{problem}", .key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// The key's path, such as `dial.port_range`.
    pub key: Option<String>,
    /// The value, why it is wrong and what would be right.
    pub problem: String,
}

impl Fault {
    pub(super) fn at(place: Place, problem: String) -> Self {
        Self {
            place,
            key: None,
            problem,
        }
    }
}

/// Everything that is wrong with a configuration, in the order in which it is read; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// `Err` if there is any fault.
    pub(super) fn check(mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort();
        faults.dedup();
        Err(Self(faults))
    }

    /// The faults.
    #[must_use]
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
