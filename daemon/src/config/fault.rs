//! The faults of a configuration, and where they are.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use p2pnode_protocol::escape;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The program.
    Default,
    /// The configuration file. Lines and columns count from 1.
    File {
        /// The path as the user gave it.
        path: PathBuf,
        /// Line and column, if known.
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
            Self::File { path, at: None } => f.write_str(&escape(path.display())),
            Self::File {
                path,
                at: Some((line, column)),
            } => write!(f, "{}:{line}:{column}", escape(path.display())),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One fault. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{}{problem}", self.prefix())]
pub struct Fault {
    /// Where the value came from.
    pub place: Place,
    /// The key's path, such as `dial.port_range`.
    pub key: Option<String>,
    /// The value, why it is wrong, and the remedy.
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

    /// The place, and the key unless the place names it, as flags and variables do.
    fn prefix(&self) -> String {
        let key = self.key.as_ref().map(escape);
        match (&self.place, &key) {
            (Place::Default, Some(key)) => format!("{key}: "),
            (place @ Place::File { .. }, Some(key)) => format!("{place}: {key}: "),
            (place, _) => format!("{place}: "),
        }
    }
}

/// All faults of a configuration, in the order of the sources and of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    faults: Vec<Fault>,
    /// The number of further faults.
    unlisted: usize,
}

impl Faults {
    /// A file with this many faults is not a configuration, and each fault costs a reading of the file to find its line.
    const MOST: usize = 64;

    /// Records a fault, or beyond [`Self::MOST`] only counts it.
    pub(super) fn note(
        &mut self,
        place: impl FnOnce() -> Place,
        key: Option<String>,
        problem: String,
    ) {
        if self.faults.len() == Self::MOST {
            self.unlisted += 1;
            return;
        }
        let place = place();
        self.faults.push(Fault {
            place,
            key,
            problem,
        });
    }

    /// Whether one of them is about `key` or a key below it.
    pub(super) fn are_of(&self, key: &str) -> bool {
        let keys = self.faults.iter().filter_map(|fault| fault.key.as_deref());
        keys.filter_map(|of| of.strip_prefix(key))
            .any(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// `Err` if there is any fault.
    pub(super) fn check(mut self) -> Result<(), Self> {
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.sort();
        self.faults.dedup();
        Err(self)
    }

    /// The faults.
    #[must_use]
    pub fn as_slice(&self) -> &[Fault] {
        &self.faults
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            unlisted: 0,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        if self.unlisted > 0 {
            write!(
                f,
                "\n{} more faults; is this the right file?",
                self.unlisted
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
