//! Files of the authority: whole or not there, keys never readable by others.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::PkiError;

const DIRECTORY_MODE: u32 = 0o700;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// The two files of a certificate.
pub(super) struct Names {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

// === impl Names ===

impl Names {
    pub(super) fn new(dir: &Path, name: &str) -> Self {
        Names {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        }
    }

    pub(super) fn both_exist(&self) -> bool {
        self.certificate.exists() && self.key.exists()
    }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(dir)
        .map_err(|source| PkiError::Write {
            path: dir.to_owned(),
            source,
        })
}

pub(super) fn write_key(path: &Path, pem: &str) -> Result<(), PkiError> {
    write(path, pem, KEY_MODE)
}

pub(super) fn write_certificate(path: &Path, pem: &str) -> Result<(), PkiError> {
    write(path, pem, CERTIFICATE_MODE)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    write_whole(path, text.as_bytes(), mode).map_err(|source| PkiError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes beside the file, then renames: a reader sees the old or the new file, with its mode from the start.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // Left by a run that was cut off, or not there.
        _ => {}
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
