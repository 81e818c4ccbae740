//! The one file of a SIMULATED TEE: private key of the chip, its certificate, intermediate, root, all in PEM.
//!
//! One file, so that there is never half of it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::AttesterError;

/// Name of the file in its folder.
pub const FILE_NAME: &str = "SIMULATED-tee.pem";

/// Longest file that is read, in bytes; one has about 7 KiB.
const MAX_FILE_LEN: u64 = 64 * 1024;
const MODE: u32 = 0o600;
const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

/// The content, each part as DER.
pub(super) struct Stored {
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) vcek: Vec<u8>,
    pub(super) ask: Vec<u8>,
    pub(super) ark: Vec<u8>,
}

pub(super) fn exists(dir: &Path) -> Result<bool, AttesterError> {
    let path = dir.join(FILE_NAME);
    path.try_exists().map_err(io("look for", &path))
}

/// Writes the file unless there is one: a complete one appears at once, and never replaces another.
pub(super) fn save(dir: &Path, stored: &Stored) -> Result<(), AttesterError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io("create", dir))?;
    let mut suffix = [0; 8];
    SystemRandom::new()
        .fill(&mut suffix)
        .map_err(|_| AttesterError::Crypto("random bytes"))?;
    let temporary = dir.join(format!(".{FILE_NAME}.{}", hex::encode(suffix)));
    let written = write_new(&temporary, &encode(stored)?).and_then(|()| {
        let path = dir.join(FILE_NAME);
        match fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(io("create", &path)(error)),
            _ => Ok(()),
        }
    });
    let removed = fs::remove_file(&temporary).map_err(io("remove", &temporary));
    written.and(removed)
}

/// Reads the file, if none but its owner can.
pub(super) fn load(dir: &Path) -> Result<Stored, AttesterError> {
    let path = dir.join(FILE_NAME);
    let file = fs::File::open(&path).map_err(io("open", &path))?;
    let mode = file.metadata().map_err(io("read", &path))?.mode();
    if mode & 0o077 != 0 {
        return Err(AttesterError::Permissions(path));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_LEN)
        .read_to_string(&mut text)
        .map_err(io("read", &path))?;
    decode(&text).ok_or(AttesterError::Damaged(path))
}

fn write_new(path: &Path, text: &str) -> Result<(), AttesterError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(io("create", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io("write", path))
}

fn encode(stored: &Stored) -> Result<Zeroizing<String>, AttesterError> {
    let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
    let parts = [
        (KEY, stored.key.as_slice()),
        (CERTIFICATE, &stored.vcek),
        (CERTIFICATE, &stored.ask),
        (CERTIFICATE, &stored.ark),
    ];
    for (label, der) in parts {
        let block = der::pem::encode_string(label, LineEnding::LF, der)
            .map(Zeroizing::new)
            .map_err(|_| AttesterError::Crypto("the file"))?;
        text.push_str(&block);
    }
    Ok(text)
}

fn decode(text: &str) -> Option<Stored> {
    let mut rest = text;
    let mut next = |label: &str| {
        let end = format!("-----END {label}-----\n");
        let (block, after) = rest.split_at_checked(rest.find(&end)?.checked_add(end.len())?)?;
        rest = after;
        let (found, der) = der::pem::decode_vec(block.as_bytes()).ok()?;
        (found == label).then_some(der)
    };
    let key = Zeroizing::new(next(KEY)?);
    let stored = Stored {
        key,
        vcek: next(CERTIFICATE)?,
        ask: next(CERTIFICATE)?,
        ark: next(CERTIFICATE)?,
    };
    rest.is_empty().then_some(stored)
}

fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> AttesterError {
    let path: PathBuf = path.into();
    move |source| AttesterError::Io {
        action,
        path: path.clone(),
        source,
    }
}
