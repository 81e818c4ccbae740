//! The directory: files that are whole or not there, and nothing outside it.

use super::name::Entry;
use rustix::fs::{self as unix, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Largest file of the store, bytes: revocation lists are the largest.
pub const MAX_ENTRY_BYTES: usize = 4 * 1024 * 1024;
/// Most files that are listed.
const MAX_LISTED: usize = 16 * 1024;
/// Deepest file: `amd/Milan/<chip>/<tcb>.der`.
const MAX_DEPTH: usize = 4;

/// A store that cannot be used, or a file of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something cannot be opened, read or written.
    #[error("{path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A link, a pipe or something else that is no regular file.
    #[error("{0}: not a regular file inside the store: links are not followed")]
    NotAFile(PathBuf),
    /// Over [`MAX_ENTRY_BYTES`].
    #[error("{path}: larger than {limit} bytes, which no collateral is")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, bytes.
        limit: usize,
    },
    /// More files than are listed.
    #[error("{0}: more than {MAX_LISTED} files: this is no store of collateral")]
    TooMany(PathBuf),
}

/// What tells one state of a file from another: name, inode, length, time of change.
pub(super) type Stamp = (Entry, u64, i64, i64, u64);

/// A store.
#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// A store that is there.
    ///
    /// # Errors
    ///
    /// It is not, or is no directory.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = unix::open(path, flags, Mode::empty()).map_err(io(path))?;
        Ok(Self {
            root,
            path: path.to_owned(),
        })
    }

    /// A store, made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::open(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's bytes; `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// It is there and cannot be used.
    pub fn read(&self, entry: &Entry) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path_of(entry);
        let Some((dir, name)) = self.walk(entry, false)? else {
            return Ok(None);
        };
        // Not blocking, or a pipe in the place of a file would hold the reader for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match unix::openat(&dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(StoreError::NotAFile(path)),
            Err(error) => return Err(io(&path)(error)),
        };
        read_regular(file, &path, MAX_ENTRY_BYTES).map(Some)
    }

    /// Puts a file in its place: readers see what was there or all of `bytes`.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, entry: &Entry, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path_of(entry);
        if bytes.len() > MAX_ENTRY_BYTES {
            let limit = MAX_ENTRY_BYTES;
            return Err(StoreError::TooLarge { path, limit });
        }
        let Some((dir, name)) = self.walk(entry, true)? else {
            return Err(io(&path)(Errno::NOENT));
        };
        // A leading dot: no reader and no listing looks at it.
        let temporary = format!(".{}.tmp", hex::encode(crate::random::bytes::<8>()));
        let written = write_new(&dir, &temporary, bytes)
            .and_then(|()| Ok(unix::renameat(&dir, &temporary, &dir, name)?))
            // The directory too, or the new name may not outlive a power cut.
            .and_then(|()| Ok(unix::fsync(&dir)?));
        written.map_err(|source| {
            let _ = unix::unlinkat(&dir, &temporary, AtFlags::empty());
            StoreError::Io { path, source }
        })
    }

    /// Every file, by name.
    ///
    /// # Errors
    ///
    /// A directory cannot be read, or there are too many files.
    pub fn list(&self) -> Result<BTreeSet<Entry>, StoreError> {
        Ok(self.stamps()?.into_iter().map(|(entry, ..)| entry).collect())
    }

    /// Every file with its state, by name.
    pub(super) fn stamps(&self) -> Result<Vec<Stamp>, StoreError> {
        let mut found = Vec::new();
        for vendor in ["amd", "intel", "nvidia"] {
            self.list_below(self.root.as_fd(), &[vendor.to_owned()], &mut found)?;
        }
        found.sort();
        Ok(found)
    }

    /// Where an entry is.
    pub(crate) fn path_of(&self, entry: &Entry) -> PathBuf {
        let mut path = self.path.clone();
        path.extend(entry.parts());
        path
    }

    fn list_below(&self, parent: impl AsFd, parts: &[String], found: &mut Vec<Stamp>) -> Result<(), StoreError> {
        let path: PathBuf = self.path.join(parts.join("/"));
        let Some(name) = parts.last() else { return Ok(()) };
        let dir = match unix::openat(parent, name.as_str(), directory_flags(), Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(io(&path)(error)),
        };
        for entry in unix::Dir::read_from(&dir).map_err(io(&path))? {
            let entry = entry.map_err(io(&path))?;
            let Some(child) = entry.file_name().to_str().ok().map(str::to_owned) else {
                continue;
            };
            let below: Vec<String> = parts.iter().cloned().chain([child]).collect();
            let Some(listed) = Entry::listed(below.clone()) else {
                continue;
            };
            let name = below.last().map_or("", String::as_str);
            // The kind in the directory is a hint that some file systems do not give.
            let stat = match unix::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed since the directory was read.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(io(&path)(error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    found.push((listed, stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec));
                }
                FileType::Directory if below.len() < MAX_DEPTH => self.list_below(&dir, &below, found)?,
                _ => {}
            }
            if found.len() > MAX_LISTED {
                return Err(StoreError::TooMany(self.path.clone()));
            }
        }
        Ok(())
    }

    /// The directory that an entry is in, and its name there. Each step is opened from the last, and no link is followed.
    fn walk<'e>(&self, entry: &'e Entry, create: bool) -> Result<Option<(OwnedFd, &'e str)>, StoreError> {
        let mut path = self.path.clone();
        let mut dir = self.root.try_clone().map_err(|source| StoreError::Io {
            path: path.clone(),
            source,
        })?;
        let Some((name, parents)) = entry.parts().split_last() else {
            return Ok(None);
        };
        for part in parents {
            path.push(part);
            if create {
                match unix::mkdirat(&dir, part.as_str(), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(io(&path)(error)),
                }
            }
            dir = match unix::openat(&dir, part.as_str(), directory_flags(), Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(StoreError::NotAFile(path)),
                Err(error) => return Err(io(&path)(error)),
            };
        }
        Ok(Some((dir, name)))
    }
}

/// Reads an opened file that must be a regular one.
pub(super) fn read_regular(file: File, path: &Path, limit: usize) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more.
    let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(cap).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(StoreError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

fn write_new(dir: &OwnedFd, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(unix::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(bytes)?;
    // No secret, and often read by another user than the one who fetches; set here, whatever the umask is.
    unix::fchmod(&file, Mode::from_raw_mode(0o644))?;
    file.sync_all()
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn io(path: &Path) -> impl Fn(Errno) -> StoreError + '_ {
    move |error| StoreError::Io {
        path: path.to_owned(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collateral::Product;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    fn crl() -> Entry {
        Entry::amd_crl(Product::Milan)
    }

    #[test]
    fn what_is_written_is_read_and_listed() {
        let (_dir, store) = store();
        assert_eq!(store.read(&crl()).unwrap(), None);
        store.write(&crl(), b"old").unwrap();
        store.write(&crl(), b"new").unwrap();
        assert_eq!(store.read(&crl()).unwrap().unwrap(), b"new");
        assert_eq!(store.list().unwrap(), BTreeSet::from([crl()]));
        let mode = std::fs::metadata(store.path_of(&crl())).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
        // Nothing is left over beside it.
        let beside = std::fs::read_dir(store.path().join("amd/Milan")).unwrap();
        assert_eq!(beside.count(), 1);
    }

    #[test]
    fn partial_files_are_not_seen() {
        let (_dir, store) = store();
        store.write(&crl(), b"whole").unwrap();
        std::fs::write(store.path().join("amd/Milan/.abc.tmp"), b"part").unwrap();
        assert_eq!(store.list().unwrap(), BTreeSet::from([crl()]));
    }

    #[test]
    fn a_link_to_a_file_outside_is_not_followed() {
        let (dir, store) = store();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, b"secret").unwrap();
        store.write(&crl(), b"x").unwrap();
        std::fs::remove_file(store.path_of(&crl())).unwrap();
        symlink(&outside, store.path_of(&crl())).unwrap();
        assert!(matches!(store.read(&crl()), Err(StoreError::NotAFile(_))));
        assert_eq!(store.list().unwrap(), BTreeSet::new());
        // A writer replaces the link, and not what it points to.
        store.write(&crl(), b"mine").unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
        assert_eq!(store.read(&crl()).unwrap().unwrap(), b"mine");
    }

    #[test]
    fn a_link_to_a_directory_outside_is_not_followed() {
        let (dir, store) = store();
        let outside = dir.path().join("Milan");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("crl.der"), b"planted").unwrap();
        std::fs::create_dir(store.path().join("amd")).unwrap();
        symlink(&outside, store.path().join("amd/Milan")).unwrap();
        assert!(matches!(store.read(&crl()), Err(StoreError::NotAFile(_))));
        assert!(matches!(store.write(&crl(), b"x"), Err(StoreError::NotAFile(_))));
        assert_eq!(store.list().unwrap(), BTreeSet::new());
        assert_eq!(std::fs::read(outside.join("crl.der")).unwrap(), b"planted");
    }

    #[test]
    fn what_is_too_large_is_neither_read_nor_written() {
        let (_dir, store) = store();
        let large = vec![0; MAX_ENTRY_BYTES + 1];
        assert!(matches!(store.write(&crl(), &large), Err(StoreError::TooLarge { .. })));
        store.write(&crl(), b"x").unwrap();
        std::fs::write(store.path_of(&crl()), &large).unwrap();
        assert!(matches!(store.read(&crl()), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn a_pipe_or_a_directory_is_no_file() {
        let (_dir, store) = store();
        std::fs::create_dir_all(store.path_of(&crl())).unwrap();
        assert!(matches!(store.read(&crl()), Err(StoreError::NotAFile(_))));
        std::fs::remove_dir(store.path_of(&crl())).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            store.path_of(&crl()),
            FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert!(matches!(store.read(&crl()), Err(StoreError::NotAFile(_))));
    }
}
