//! Certificates and keys from PEM files.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use zeroize::Zeroizing;

/// Cap on a PEM file, bytes: a bundle of some hundred certificates.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// Mode bits that would let another user of the machine read a key.
const GROUP_AND_OTHERS: u32 = 0o077;

/// A PEM file that cannot be used. Never holds what the file contains.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be opened or read.
    #[error("cannot read {what} {path}: {source}; check the path and that this process may read it", path = .path.display())]
    Read {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("{what} {path} is not a regular file; give the path of a PEM file", path = .path.display())]
    NotAFile {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// More than the cap.
    #[error("{what} {path} is larger than {MAX_PEM_BYTES} bytes; give a PEM file that holds only what is needed", path = .path.display())]
    TooLarge {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A private key that users other than its owner may read or write.
    #[error("private key {path} has mode {mode:03o}, so users other than its owner can reach it; run `chmod 600` on it", path = .path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing of the wanted kind in the file, or broken PEM.
    #[error("{what} {path} holds no usable PEM section: {reason}; it must hold {wanted}", path = .path.display())]
    Malformed {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The PEM sections that are accepted.
        wanted: &'static str,
        /// What is wrong, without content.
        reason: &'static str,
    },
}

/// All certificates of a file, in order; at least one.
pub(crate) fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(what, path, Secret::No)?;
    let malformed = |reason| PemError::Malformed {
        what,
        path: path.to_owned(),
        wanted: "CERTIFICATE",
        reason,
    };
    let found = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(reason(&error)))?;
    if found.is_empty() {
        return Err(malformed("no such section"));
    }
    Ok(found)
}

/// The first private key of a file that only its owner can read.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let what = "private key";
    let text = read(what, path, Secret::Yes)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| PemError::Malformed {
        what,
        path: path.to_owned(),
        wanted: "PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY",
        reason: reason(&error),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secret {
    Yes,
    No,
}

/// Reads a whole file; the checks are made on the open file, so that it cannot be exchanged in between.
pub(crate) fn read(what: &'static str, path: &Path, secret: Secret) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let failed = |source| PemError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(PemError::NotAFile {
            what,
            path: path.to_owned(),
        });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if secret == Secret::Yes && mode & GROUP_AND_OTHERS != 0 {
        return Err(PemError::KeyExposed {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.len() > MAX_PEM_BYTES {
        return Err(PemError::TooLarge {
            what,
            path: path.to_owned(),
        });
    }
    // The capacity is final: a buffer that grows would leave copies of a key behind.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0);
    let mut text = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(metadata.len()).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// The parser's own message may quote the line it stumbled on.
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "no such section",
        pem::Error::MissingSectionEnd { .. } => "a section has no end line",
        pem::Error::IllegalSectionStart { .. } => "a section's begin line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "malformed PEM",
    }
}
