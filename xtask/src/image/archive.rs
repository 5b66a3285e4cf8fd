//! An image as one tar file: an OCI image layout, or what `docker load` reads. Nothing in it depends on when, where or by whom it was made.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Format;

/// Any fixed moment does: the start of 2024.
const MODIFIED: u64 = 1_704_067_200;

/// Files by their paths in the image.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(PathBuf),
}

#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) layers: Vec<Layer>,
    pub(crate) command: Vec<String>,
}

impl Layer {
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.add(Path::new(path), Entry::Directory(mode));
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        self.add(Path::new(path), Entry::File(mode, contents));
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.add(Path::new(path), Entry::Link(target.into()));
    }

    /// A program or a library of this machine.
    pub(crate) fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let read = || Ok::<_, std::io::Error>((fs::read(from)?, fs::metadata(from)?.permissions().mode()));
        let (contents, mode) = read().with_context(|| format!("read {}", from.display()))?;
        self.add(to, Entry::File(if mode & 0o111 == 0 { 0o644 } else { 0o755 }, contents));
        Ok(())
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        let path = path.strip_prefix("/").unwrap_or(path);
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.entries.entry(above.to_owned()).or_insert(Entry::Directory(0o755));
        }
        self.entries.insert(path.to_owned(), entry);
    }

    fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = Tar::default();
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory(mode) => tar.add(path, tar::EntryType::Directory, *mode, &[])?,
                Entry::File(mode, contents) => tar.add(path, tar::EntryType::Regular, *mode, contents)?,
                Entry::Link(target) => tar.link(path, target)?,
            }
        }
        tar.finish()
    }
}

impl Image {
    /// Writes it and returns the size of its compressed layers.
    pub(crate) fn write(&self, format: Format, out: &Path) -> Result<u64> {
        let mut blobs = Vec::new();
        let mut unpacked = Vec::new();
        for layer in &self.layers {
            let tar = layer.tar()?;
            unpacked.push(digest(&tar));
            let mut packed = GzEncoder::new(Vec::new(), Compression::new(6));
            packed.write_all(&tar).and_then(|()| packed.try_finish()).context("compress a layer")?;
            blobs.push(packed.finish().context("compress a layer")?);
        }
        let size = blobs.iter().map(|blob| blob.len() as u64).sum();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"], "Entrypoint": self.command },
            "rootfs": { "type": "layers", "diff_ids": unpacked.iter().map(|hex| format!("sha256:{hex}")).collect::<Vec<_>>() },
        });
        let config = text(&config)?;
        let archive = match format {
            Format::Docker => self.docker(&config, &blobs)?,
            Format::Oci => self.oci(&config, &blobs)?,
        };
        if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let mut file = BufWriter::new(File::create(out).with_context(|| format!("create {}", out.display()))?);
        file.write_all(&archive).and_then(|()| file.flush()).with_context(|| format!("write {}", out.display()))?;
        Ok(size)
    }

    fn docker(&self, config: &[u8], layers: &[Vec<u8>]) -> Result<Vec<u8>> {
        let mut tar = Tar::default();
        let mut names = Vec::new();
        for layer in layers {
            let name = format!("{}.tar.gz", digest(layer));
            tar.add(Path::new(&name), tar::EntryType::Regular, 0o644, layer)?;
            names.push(name);
        }
        let config_name = format!("{}.json", digest(config));
        tar.add(Path::new(&config_name), tar::EntryType::Regular, 0o644, config)?;
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": names }]);
        tar.add(Path::new("manifest.json"), tar::EntryType::Regular, 0o644, &text(&manifest)?)?;
        tar.finish()
    }

    fn oci(&self, config: &[u8], layers: &[Vec<u8>]) -> Result<Vec<u8>> {
        let mut blobs = BTreeMap::new();
        let mut descriptor = |kind: &str, blob: &[u8]| {
            let hex = digest(blob);
            let descriptor = json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{hex}"), "size": blob.len(),
            });
            blobs.insert(hex, blob.to_vec());
            descriptor
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", config),
            "layers": layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
        });
        let mut manifest = descriptor("manifest.v1+json", &text(&manifest)?);
        // What imports one looks for the name in either.
        manifest["annotations"] = json!({
            "io.containerd.image.name": self.full_name(), "org.opencontainers.image.ref.name": self.full_name(),
        });
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
        });
        let mut tar = Tar::default();
        tar.add(Path::new("oci-layout"), tar::EntryType::Regular, 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.add(Path::new("index.json"), tar::EntryType::Regular, 0o644, &text(&index)?)?;
        for directory in ["blobs", "blobs/sha256"] {
            tar.add(Path::new(directory), tar::EntryType::Directory, 0o755, &[])?;
        }
        for (hex, blob) in blobs {
            tar.add(&Path::new("blobs/sha256").join(hex), tar::EntryType::Regular, 0o644, &blob)?;
        }
        tar.finish()
    }

    /// With a registry, as container runtimes store it.
    fn full_name(&self) -> String {
        match self.name.split_once('/') {
            Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => self.name.clone(),
            Some(_) => format!("docker.io/{}", self.name),
            None => format!("docker.io/library/{}", self.name),
        }
    }
}

/// A tar of root's files of one moment.
struct Tar {
    builder: tar::Builder<Vec<u8>>,
}

impl Default for Tar {
    fn default() -> Self {
        Self { builder: tar::Builder::new(Vec::new()) }
    }
}

impl Tar {
    fn add(&mut self, path: &Path, kind: tar::EntryType, mode: u32, contents: &[u8]) -> Result<()> {
        let mut header = header(kind, mode);
        header.set_size(contents.len() as u64);
        self.builder.append_data(&mut header, path, contents).with_context(|| format!("pack {}", path.display()))
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        header.set_size(0);
        self.builder.append_link(&mut header, path, target).with_context(|| format!("pack {}", path.display()))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.builder.into_inner().context("pack")
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(MODIFIED);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("write JSON")
}

/// As OCI names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn small() -> Image {
        let mut layer = Layer::default();
        layer.file("/usr/bin/tool", 0o755, b"program".to_vec());
        layer.directory("tmp", 0o1777);
        layer.link("bin", "usr/bin");
        Image { name: "tool:1".to_owned(), layers: vec![layer], command: vec!["/usr/bin/tool".to_owned()] }
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).expect("its contents");
            files.insert(path, contents);
        }
        files
    }

    fn written(format: Format) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("fsi-image-{}-{format:?}.tar", std::process::id()));
        small().write(format, &path).expect("written");
        let archive = fs::read(&path).expect("there");
        fs::remove_file(&path).expect("removed");
        archive
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(written(Format::Oci), written(Format::Oci));
        assert_eq!(written(Format::Docker), written(Format::Docker));
    }

    #[test]
    fn every_digest_of_a_layout_is_that_of_its_blob() {
        let files = files(&written(Format::Oci));
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        let blob = |descriptor: &Value| {
            let hex = descriptor["digest"].as_str().and_then(|name| name.strip_prefix("sha256:")).expect("a digest");
            let blob = &files[&format!("blobs/sha256/{hex}")];
            assert_eq!(digest(blob), hex);
            assert_eq!(descriptor["size"], blob.len());
            blob
        };
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/library/tool:1");
        let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).expect("JSON");
        let config: Value = serde_json::from_slice(blob(&manifest["config"])).expect("JSON");
        let mut layer = Vec::new();
        let packed = blob(&manifest["layers"][0]).as_slice();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut layer).expect("gzip");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer)));
        assert_eq!(self::files(&layer)["usr/bin/tool"], b"program");
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let layer = small().layers.remove(0).tar().expect("packed");
        let mut archive = tar::Archive::new(layer.as_slice());
        let names: Vec<_> = archive
            .entries()
            .expect("a tar")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        assert_eq!(names, ["bin", "tmp", "usr", "usr/bin", "usr/bin/tool"]);
    }
}
