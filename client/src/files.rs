//! Small files of a tenant: keys, tokens, credentials.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Permission bits that no secret file may have: anything for others, and writing or running for the group. Reading by the group
/// is allowed, because that is how Kubernetes mounts secrets for a process that is not root.
pub const FORBIDDEN_MODE: u32 = 0o037;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read or change it.
    #[error("{path}: mode {mode:04o} lets others at a secret: chmod 600 it")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file.
    #[error("{0}: not a regular file")]
    NotAFile(PathBuf),
    /// Over the limit.
    #[error("{path}: larger than {limit} bytes, which is not what this file should be")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, bytes.
        limit: usize,
    },
    /// It exists, and would be lost.
    #[error("{0}: exists already and is not overwritten: move it away first")]
    Exists(PathBuf),
}

/// Reads a file that must not be open to others.
///
/// # Errors
///
/// See [`FileError`].
pub fn read_secret(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, limit, true)
}

/// Reads a file that is no secret.
///
/// # Errors
///
/// See [`FileError`]; the mode is not looked at.
pub fn read_public(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    read(path, limit, false).map(|bytes| bytes.to_vec())
}

/// Writes a new file with mode 0600, whole or not at all.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = write_beside(path, bytes)?;
    // A link, unlike a rename, fails when the name is taken.
    let linked = std::fs::hard_link(&temporary, path);
    let _ = std::fs::remove_file(&temporary);
    linked.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => FileError::Exists(path.to_owned()),
        _ => io(path)(source),
    })
}

/// Writes a file with mode 0600 in place of what is there. Readers see the old bytes or the new ones.
///
/// # Errors
///
/// The file cannot be written.
pub fn replace_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = write_beside(path, bytes)?;
    std::fs::rename(&temporary, path).map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        io(path)(source)
    })
}

/// Makes a directory, and those above it, that only its owner can enter. One that is there is left as it is.
///
/// # Errors
///
/// It cannot be made, or the name is taken by something else.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io(path))
}

fn read(path: &Path, limit: usize, secret: bool) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(io(path))?;
    // The opened file is looked at, not the name: the name may point elsewhere by now.
    let metadata = file.metadata().map_err(io(path))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if secret && mode & FORBIDDEN_MODE != 0 {
        return Err(FileError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    // One byte more than allowed shows that there is more; the capacity keeps a secret from being moved and left behind.
    let cap = limit.saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(cap));
    file.take(u64::try_from(cap).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)
        .map_err(io(path))?;
    if bytes.len() > limit {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", hex::encode(crate::random::bytes::<8>())));
    let temporary = PathBuf::from(name);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        io(path)(source)
    })?;
    Ok(temporary)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn new_secrets_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_secret(&path, b"one").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(create_secret(&path, b"two"), Err(FileError::Exists(_))));
        assert_eq!(&read_secret(&path, 16).unwrap()[..], b"one");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn replacing_keeps_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credential");
        replace_secret(&path, b"one").unwrap();
        replace_secret(&path, b"two").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(&read_secret(&path, 16).unwrap()[..], b"two");
    }

    #[test]
    fn open_modes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_secret(&path, b"x").unwrap();
        for (bits, allowed) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o604, false),
            (0o620, false),
            (0o644, false),
            (0o601, false),
        ] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
            assert_eq!(read_secret(&path, 16).is_ok(), allowed, "{bits:o}");
        }
    }

    #[test]
    fn large_files_and_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_secret(&path, &[b'x'; 17]).unwrap();
        assert!(matches!(read_secret(&path, 16), Err(FileError::TooLarge { .. })));
        assert!(read_secret(&path, 17).is_ok());
        assert!(matches!(read_secret(dir.path(), 16), Err(FileError::NotAFile(_))));
        assert!(matches!(
            read_public(&dir.path().join("none"), 16),
            Err(FileError::Io { .. })
        ));
    }
}
