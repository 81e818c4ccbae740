//! The folder of one deployment: keys, configurations, logs. Only its owner can enter it.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process as system,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::error::{Context, Result, bail};

/// Tells a folder of this tool from any other; held locked while a deployment runs.
const MARK: &str = ".cloister-up";

/// The folder, locked until this value is dropped.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    /// Whether it is removed after a clean stop.
    temporary: bool,
    _lock: File,
}

impl State {
    /// Opens `folder`, or makes it; without a name, makes a temporary one.
    ///
    /// # Errors
    ///
    /// The folder has other contents, or is in use.
    pub(super) fn open(folder: Option<&Path>) -> Result<Self> {
        let temporary = folder.is_none();
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => temporary_name(),
        };
        let made = DirBuilder::new().mode(0o700).create(&folder);
        if let Err(error) = made {
            // A temporary folder that somebody else made beforehand is not trusted.
            if temporary || !folder.is_dir() {
                bail!("{} cannot be made: {error}", folder.display());
            }
            let empty = fs::read_dir(&folder).context(folder.display())?.next().is_none();
            if !empty && !folder.join(MARK).is_file() {
                bail!(
                    "{} has other contents: give --state a new or empty folder",
                    folder.display()
                );
            }
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).context(folder.display())?;
        }
        let folder = folder.canonicalize().context(folder.display())?;
        let lock = File::create(folder.join(MARK)).context(folder.display())?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder,
                temporary,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => bail!("{} is in use by another `up`: stop that first", folder.display()),
            Err(TryLockError::Error(error)) => bail!("{} cannot be locked: {error}", folder.display()),
        }
    }

    /// Path of `name` in it.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes the subfolder `name` (mode 0700) if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(super) fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.join(name);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&path)
            .context(path.display())?;
        Ok(path)
    }

    /// Writes `text` to the file `name` (mode 0600).
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.join(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .context(path.display())?;
        Ok(path)
    }

    /// Removes a temporary folder after a clean stop; one with a name stays.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub(super) fn close(self) -> Result<()> {
        if self.temporary {
            fs::remove_dir_all(&self.folder).context(self.folder.display())
        } else {
            Ok(())
        }
    }
}

/// A name that this process has not given before: the folder of a failed deployment stays.
fn temporary_name() -> PathBuf {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("cloister-up-{}-{number}", system::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("cloister-xtask-state-{name}-{}", system::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_private_reused_and_kept() {
        let parent = parent("kept");
        let folder = parent.join("state");
        let state = State::open(Some(&folder)).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&state.write("file", "text").unwrap()), 0o600);
        let error = State::open(Some(&folder)).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        state.close().unwrap();
        let state = State::open(Some(&folder)).unwrap();
        assert_eq!(fs::read_to_string(state.join("file")).unwrap(), "text");
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_kept_temporary_folder_is_in_nobodys_way() {
        let kept = State::open(None).unwrap();
        let next = State::open(None).unwrap();
        assert_ne!(kept.path(), next.path());
        next.close().unwrap();
        kept.close().unwrap();
    }

    #[test]
    fn a_foreign_folder_is_left_alone() {
        let parent = parent("foreign");
        fs::write(parent.join("thesis.txt"), "").unwrap();
        let error = State::open(Some(&parent)).unwrap_err().to_string();
        assert!(error.contains("other contents"), "{error}");
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        fs::remove_dir_all(&parent).unwrap();
    }
}
