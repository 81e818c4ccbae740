//! The directories of an engine: what it may write, and what it may not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};

use crate::config::OwnedEngineConfig;
use crate::error::StartError;
use crate::image;

use super::confinement::Confinement;

/// Longest path of a unix socket in bytes.
const MAX_SOCKET_PATH: usize = 107;
/// Where a slot directory is made when the runtime directory is not in memory.
const MEMORY: &str = "/dev/shm";
/// `f_type` of tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The runtime directory, locked for this process.
///
/// The enclave owns it (mode 0700); in it lie the record of the process, which the engine cannot touch, and `engine/`,
/// which the engine owns and which is made anew at each start.
pub(crate) struct RuntimeDirectory {
    root: PathBuf,
    own: PathBuf,
    slots: Option<PathBuf>,
    _lock: File,
}

impl RuntimeDirectory {
    /// The socket, relative to the engine's own directory.
    pub(crate) const SOCKET: &str = "engine.sock";

    /// Makes and locks the runtime directory.
    pub(crate) fn open(config: &OwnedEngineConfig) -> Result<Self, StartError> {
        // The engine is started elsewhere, so relative paths would mean something else there.
        let root = std::path::absolute(&config.runtime_dir).map_err(at(&config.runtime_dir))?;
        let own = root.join("engine");
        if own.join(Self::SOCKET).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(at(&root)(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too long for a unix socket; choose a shorter one",
            )));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(at(&root))?;
        check_owner(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(at(&root))?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StartError::RuntimeDirectoryInUse(root.clone()))?;
        let slots = if config.has_slots() {
            Some(slots_path(&root)?)
        } else {
            None
        };
        Ok(Self {
            root,
            own,
            slots,
            _lock: lock,
        })
    }

    /// Removes everything that a former engine could write, and makes it anew for the next one.
    pub(crate) fn renew(&self, config: &OwnedEngineConfig, confinement: Confinement) -> Result<(), StartError> {
        let owner = (confinement != Confinement::Weak).then_some(config.user);
        for directory in std::iter::once(&self.own).chain(&self.slots) {
            remove(directory)?;
            DirBuilder::new().mode(0o700).create(directory).map_err(at(directory))?;
        }
        if confinement == Confinement::Full {
            self.make_mount_points(config)?;
        }
        if let Some(user) = owner {
            for directory in std::iter::once(&self.own).chain(&self.slots) {
                chown(directory, Some(user.uid), Some(user.gid)).map_err(at(directory))?;
            }
        }
        Ok(())
    }

    /// Removes what the engine could write, after its end.
    pub(crate) fn clear(&self) -> Result<(), StartError> {
        std::iter::once(&self.own)
            .chain(&self.slots)
            .try_for_each(|directory| remove(directory))
    }

    /// The engine's own directory.
    pub(crate) fn own(&self) -> &Path {
        &self.own
    }

    /// The slot directory, if the engine has one.
    pub(crate) fn slots(&self) -> Option<&Path> {
        self.slots.as_deref()
    }

    /// The socket as the enclave reaches it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.own.join(Self::SOCKET)
    }

    /// The record of the process.
    pub(crate) fn record(&self) -> PathBuf {
        self.root.join("engine.json")
    }

    fn make_mount_points(&self, config: &OwnedEngineConfig) -> Result<(), StartError> {
        let base = self.own.join("in");
        DirBuilder::new().mode(0o755).create(&base).map_err(at(&base))?;
        for (name, source) in &config.paths {
            let point = base.join(name);
            let made = if fs::metadata(source).map_err(at(source))?.is_dir() {
                DirBuilder::new().mode(0o755).create(&point)
            } else {
                File::create(&point).map(drop)
            };
            made.map_err(at(&point))?;
        }
        Ok(())
    }
}

impl Drop for RuntimeDirectory {
    /// Leaves nothing in memory behind; the lock is given up after it.
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "what the engine wrote could not be removed");
        }
    }
}

/// A directory in memory for slots: inside the runtime directory if that is in memory, else in `/dev/shm` under a name
/// that is the runtime directory's alone.
fn slots_path(root: &Path) -> Result<PathBuf, StartError> {
    let in_memory = |path: &Path| {
        // The type is wider on some machines.
        statfs(path).is_ok_and(|found| i128::from(found.f_type) == i128::from(TMPFS_MAGIC))
    };
    if in_memory(root) {
        return Ok(root.join("slots"));
    }
    let memory = Path::new(MEMORY);
    if !in_memory(memory) {
        let source = io::Error::new(
            io::ErrorKind::Unsupported,
            "neither it nor /dev/shm is in memory (tmpfs)",
        );
        return Err(at(root)(source));
    }
    Ok(memory.join(format!("cloister-slots-{}", image::short_name(root))))
}

fn check_owner(path: &Path) -> Result<(), StartError> {
    let found = fs::symlink_metadata(path).map_err(at(path))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(at(path)(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a directory of this user",
        )));
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), StartError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(directory)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::RuntimeDirectory { path, source }
}
