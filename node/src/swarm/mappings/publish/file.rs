//! A file of JSON, replaced as a whole.

use std::{fs, io::Write as _, path::Path};

use serde::Serialize;

use crate::core::mappings::{Entry, Publication};

#[derive(Serialize)]
struct Document {
    mappings: Vec<Mapping>,
}

#[derive(Serialize)]
struct Mapping {
    name: String,
    protocol: p2pnode_protocol::mapping::Protocol,
    public: std::net::SocketAddr,
    private: std::net::SocketAddr,
}

impl From<&Entry> for Mapping {
    fn from(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            protocol: entry.protocol,
            public: entry.public,
            private: entry.private,
        }
    }
}

/// Writes a new file and puts it in the place of the old one, so that a reader sees either.
pub(super) fn write(path: &Path, publication: &Publication) -> Result<(), String> {
    let document = Document {
        mappings: publication.entries.iter().map(Mapping::from).collect(),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = || {
        let mut text = serde_json::to_vec(&document)?;
        text.push(b'\n');
        // What an earlier process with this number has left is no file to write through.
        let _ = fs::remove_file(&new);
        let mut file = fs::File::create_new(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&new);
        format!("cannot replace {}: {error}", path.display())
    })
}
