//! Reads a whole configuration.

use std::collections::BTreeSet;

use super::{
    document::Document,
    fault::Faults,
    reader::{Reader, Taken},
    shape,
    source::{Origin, Program, Sources},
};

/// A configuration without faults, and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    pub(super) values: Vec<Taken>,
    pub(super) file: Option<Document>,
}

/// Reads a configuration.
///
/// # Errors
///
/// Every fault, in every source.
pub fn load<C>(
    program: &Program,
    sources: &Sources,
    read: impl FnOnce(&mut Reader<'_>) -> C,
) -> Result<Loaded<C>, Faults> {
    let mut reader = Reader::new(program, sources);
    let config = read(&mut reader);
    shape::check(&mut reader);
    reader.faults.check()?;
    Ok(Loaded {
        config,
        values: reader.values,
        file: sources.file.clone(),
    })
}

impl<C> Loaded<C> {
    /// Whether any source set `key`.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        let is_given = |taken: &Taken| taken.key == key && !matches!(taken.origin, Origin::Default);
        self.values.iter().any(is_given)
    }

    /// Whether no source sets any key.
    #[must_use]
    pub fn is_default(&self) -> bool {
        let mut origins = self.values.iter().map(|taken| &taken.origin);
        origins.all(|origin| matches!(origin, Origin::Default))
    }

    /// The keys whose values differ in `new`.
    #[must_use]
    pub fn changed<D>(&self, new: &Loaded<D>) -> BTreeSet<String> {
        let values = |taken: &[Taken]| -> BTreeSet<(String, String)> {
            let values = taken.iter();
            values
                .map(|taken| (taken.key.clone(), taken.value.to_string()))
                .collect()
        };
        let (old, new) = (values(&self.values), values(&new.values));
        let differing = old.symmetric_difference(&new);
        differing.map(|(key, _)| key.clone()).collect()
    }
}
