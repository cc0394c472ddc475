//! An image of a program for several architectures, as an archive in the [layout of OCI](https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
//!
//! The image has one layer with one file, so it is written here, without an engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use p2pnode_tests::k8s::{IMAGE_ENV, IMAGE_USER};
use serde_json::{Value, json};

use crate::{
    cargo::output,
    files::{self, Compression},
    image,
    target::Architecture,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A folder in which an archive grows.
pub(crate) struct Layout<'a> {
    pub(crate) folder: &'a Path,
    /// When the source is from, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) compression: Compression,
}

impl Layout<'_> {
    /// Writes the image of the program `name`, with a binary for each architecture, to `archive`.
    pub(crate) fn archive(
        &self,
        (name, description): (&str, &str),
        tag: &str,
        binaries: &[(&Architecture, PathBuf)],
        archive: &Path,
    ) -> Result<()> {
        let labels = image::labels(name, description, tag);
        let mut manifests = Vec::new();
        for (architecture, binary) in binaries {
            let mut manifest = self.manifest(name, &labels, architecture, binary)?;
            manifest["platform"] = json!({ "architecture": architecture.name, "os": "linux" });
            manifests.push(manifest);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let mut image = self.json(INDEX, &index)?;
        image["annotations"] =
            json!({ "org.opencontainers.image.ref.name": format!("{name}:{tag}") });
        let top = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [image] });
        let tree = self.folder.join("layout");
        fs::write(tree.join("index.json"), top.to_string())?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(tree.join("oci-layout"), version.to_string())?;
        self.tar(&tree, ".", archive)
    }

    fn manifest(
        &self,
        name: &str,
        labels: &[(String, String)],
        architecture: &Architecture,
        binary: &Path,
    ) -> Result<Value> {
        let tree = self.folder.join("layer");
        let layer = self.folder.join("layer.tar");
        files::place(&tree.join("usr/bin").join(name), &fs::read(binary)?, 0o755)?;
        self.tar(&tree, "usr", &layer)?;
        fs::remove_dir_all(&tree)?;
        let content = sum(&layer)?;
        let gzip = self.compression.gzip();
        output(Command::new("gzip").args(gzip).arg("--force").arg(&layer))?;
        let layer = self.blob(LAYER, &fs::read(layer.with_extension("tar.gz"))?)?;
        let labels: serde_json::Map<_, _> = labels
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        let time = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.created),
        );
        let config = json!({
            "created": time.to_string(),
            "architecture": architecture.name,
            "os": "linux",
            "config": {
                "User": format!("{IMAGE_USER}:{IMAGE_USER}"),
                "Env": IMAGE_ENV.map(|(variable, value)| format!("{variable}={value}")),
                "Entrypoint": [format!("/usr/bin/{name}")],
                "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [content] },
        });
        let config = self.json(CONFIG, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
        });
        self.json(MANIFEST, &manifest)
    }

    fn json(&self, kind: &str, value: &Value) -> Result<Value> {
        self.blob(kind, value.to_string().as_bytes())
    }

    /// Adds a blob under its sum, and returns its descriptor.
    fn blob(&self, kind: &str, bytes: &[u8]) -> Result<Value> {
        let blobs = self.folder.join("layout/blobs/sha256");
        let new = blobs.join("new");
        files::place(&new, bytes, 0o644)?;
        let (digest, size) = (sum(&new)?, bytes.len());
        fs::rename(&new, blobs.join(digest.trim_start_matches("sha256:")))?;
        Ok(json!({ "mediaType": kind, "digest": digest, "size": size }))
    }

    fn tar(&self, tree: &Path, name: &str, archive: &Path) -> Result<()> {
        let mut tar = files::tar(self.created);
        tar.arg("--create").arg("--file").arg(archive);
        output(tar.arg("--directory").arg(tree).arg(name))?;
        Ok(())
    }
}

fn sum(file: &Path) -> Result<String> {
    let sum = output(Command::new("sha256sum").arg(file))?;
    let sum = sum.split(' ').next().context("sha256sum prints nothing")?;
    Ok(format!("sha256:{sum}"))
}
