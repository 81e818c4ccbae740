//! What the enclave is made of, hashed: its program and its model. The engine's image is hashed by the engine crate.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256, SHA384};
use cloister_attestation::{ManifestError, ModelFile, ModelManifest, Sha256Digest};

/// Something that cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a file nor a folder, or a name that is no UTF-8.
    #[error("{0} is neither a file nor a folder with a plain name")]
    Kind(PathBuf),
    /// A model without files.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> MeasureError + '_ {
    move |source| MeasureError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Digest of one file.
fn hash_file(path: &Path, mut context: Context) -> Result<(Vec<u8>, u64), MeasureError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut size = 0u64;
    loop {
        let read = file.read(&mut buffer).map_err(io_error(path))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        context.update(bytes);
        size = size.saturating_add(bytes.len() as u64);
    }
    Ok((context.finish().as_ref().to_vec(), size))
}

/// Launch measurement of the SIMULATED TEE: SHA-384 of the program that runs.
///
/// # Errors
/// [`MeasureError`].
pub fn program() -> Result<[u8; 48], MeasureError> {
    let path = PathBuf::from("/proc/self/exe");
    let (digest, _) = hash_file(&path, Context::new(&SHA384))?;
    <[u8; 48]>::try_from(digest.as_slice()).map_err(|_| MeasureError::Kind(path))
}

/// Files below `path`, or `path` itself, by their name relative to it, in order. Links are refused.
fn files(path: &Path) -> Result<Vec<(String, PathBuf)>, MeasureError> {
    let kind = std::fs::metadata(path).map_err(io_error(path))?;
    if kind.is_file() {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| MeasureError::Kind(path.to_owned()))?;
        return Ok(vec![(name.to_owned(), path.to_owned())]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(io_error(&folder))? {
            let entry = entry.map_err(io_error(&folder))?;
            let here = entry.path();
            let kind = entry.file_type().map_err(io_error(&here))?;
            if kind.is_dir() {
                folders.push(here);
            } else if kind.is_file() {
                let name = here.strip_prefix(path).ok().and_then(Path::to_str);
                let name = name.ok_or_else(|| MeasureError::Kind(here.clone()))?.to_owned();
                found.push((name, here));
            } else {
                return Err(MeasureError::Kind(here));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Manifest of the model at `path`, a file or a folder.
///
/// # Errors
/// [`MeasureError`].
pub fn model(path: &Path) -> Result<ModelManifest, MeasureError> {
    let mut entries = Vec::new();
    for (name, file) in files(path)? {
        let (digest, size) = hash_file(&file, Context::new(&SHA256))?;
        let sha256 = Sha256Digest::try_from(digest.as_slice()).map_err(|_| MeasureError::Kind(file))?;
        entries.push(ModelFile { name, size, sha256 });
    }
    Ok(ModelManifest::new(entries)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let digest = || model(dir.path()).unwrap().digest();
        write("a", "1");
        write("sub/b", "2");
        let first = digest();
        assert_eq!(digest(), first);
        write("sub/b", "3");
        let second = digest();
        assert_ne!(second, first);
        write("sub/c", "");
        assert_ne!(digest(), second);
        assert_eq!(model(&dir.path().join("a")).unwrap().files().len(), 1);
    }

    #[test]
    fn links_and_empty_models_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(model(dir.path()), Err(MeasureError::Manifest(_))));
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(matches!(model(dir.path()), Err(MeasureError::Kind(_))));
    }

    #[test]
    fn the_program_has_a_measurement() {
        assert_eq!(program().unwrap(), program().unwrap());
        assert_ne!(program().unwrap(), [0; 48]);
    }
}
