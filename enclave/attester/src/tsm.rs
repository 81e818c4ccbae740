//! Reports through configfs-tsm, the kernel's one interface to every TEE.
//!
//! A folder made under `/sys/kernel/config/tsm/report` is a request: the kernel fills it with attributes at once. What is
//! written to `inblob` goes into the report, which is made when `outblob` is first read; `auxblob` is what came with it.
//! `generation` counts the writes: a report is ours only if it moved by our one write. The folder is removed in any case.
//!
//! The kernel keeps the bytes for `inblob` until the file is closed and tells of no error then (`fs/configfs/file.c`); a
//! `generation` that did not move is how that shows.
//!
//! Source: Linux, `Documentation/ABI/testing/configfs-tsm-report` and `drivers/virt/coco/guest/report.c` (from 6.7 on).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use cloister_attestation::binding::REPORT_DATA_LEN;

/// Where configfs has the reports.
pub const REPORT_ROOT: &str = "/sys/kernel/config/tsm/report";
/// Longest `outblob` in bytes. The kernel's own limit was 32 KiB and has grown; a quote of TDX has about 5 KiB.
pub const MAX_OUTBLOB_LEN: usize = 128 * 1024;
/// Longest `auxblob` in bytes: the kernel's driver for SEV-SNP takes certificates of 16 KiB (`SEV_FW_BLOB_MAX_SIZE`).
pub const MAX_AUXBLOB_LEN: usize = 32 * 1024;
/// Requests at once, over all processes. A process that was killed in one leaves its folder behind.
pub const MAX_ENTRIES: u32 = 32;
/// Times that a report is asked for when others write to our folder.
pub const MAX_TRIES: u32 = 4;

/// Longest `provider` or `generation` in bytes.
const MAX_LINE_LEN: usize = 64;

/// What makes the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// AMD SEV-SNP.
    SevGuest,
    /// Intel TDX.
    TdxGuest,
}

/// A file of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// Who makes the report.
    Provider,
    /// Number of writes so far.
    Generation,
    /// The report.
    Outblob,
    /// What came with it.
    Auxblob,
}

/// The operations on requests: the kernel's, or those of a fake that behaves like it.
pub trait Tsm: Send + Sync {
    /// Folder of the requests, for errors.
    fn root(&self) -> &Path;

    /// Makes the request `entry`.
    ///
    /// # Errors
    /// What the system says.
    fn make(&self, entry: &str) -> io::Result<()>;

    /// Removes it.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, entry: &str) -> io::Result<()>;

    /// Reads an attribute; at most one byte more than [`Attribute::max_len`].
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, entry: &str, attribute: Attribute) -> io::Result<Vec<u8>>;

    /// Writes `inblob` in one piece.
    ///
    /// # Errors
    /// What the system says.
    fn write_inblob(&self, entry: &str, data: &[u8]) -> io::Result<()>;
}

/// configfs, or a folder that stands in for it.
#[derive(Debug, Clone)]
pub struct Configfs {
    root: PathBuf,
}

/// What the kernel made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blobs {
    /// The report.
    pub outblob: Vec<u8>,
    /// What came with it; empty if nothing did.
    pub auxblob: Vec<u8>,
}

/// Why configfs-tsm gave no report.
#[derive(Debug, thiserror::Error)]
pub enum TsmError {
    /// There is no such interface.
    #[error(
        "{0} is not there: mount configfs (mount -t configfs none /sys/kernel/config) and load the TEE's guest driver; it \
         needs Linux 6.7 or later"
    )]
    Absent(PathBuf),
    /// The interface is there, but no TEE behind it.
    #[error("no TEE answers at {root} ({source}): load its guest driver ({driver}); a machine outside a TEE has none")]
    NoProvider {
        /// Folder of the requests.
        root: PathBuf,
        /// Driver that would answer.
        driver: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Not allowed.
    #[error("may not {action} {path} ({source}): configfs is root's, run as root in the guest")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every name is taken.
    #[error(
        "all {MAX_ENTRIES} requests {root}/cloister-* are taken: remove (rmdir) those that ended processes left there"
    )]
    Occupied {
        /// Folder of the requests.
        root: PathBuf,
    },
    /// Another TEE than the configured one.
    #[error(
        "the reports of this machine are made by {found:?}, not by {expected}: set tee.kind to what this machine is"
    )]
    OtherProvider {
        /// Name of the provider that was expected.
        expected: &'static str,
        /// Name that the kernel gave.
        found: String,
    },
    /// An attribute is not what it is documented to be.
    #[error("{path} is {what}")]
    Malformed {
        /// Which attribute.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Someone else writes to our requests.
    #[error(
        "another process wrote to {path} while the report was made, {MAX_TRIES} times in a row: find out which, it can have \
         reports made of its choice"
    )]
    Moved {
        /// The request.
        path: PathBuf,
    },
}

/// Has a report made that carries `report_data`.
///
/// # Errors
/// [`TsmError`]. The request is removed in any case.
pub fn report(tsm: &dyn Tsm, provider: Provider, report_data: &[u8; REPORT_DATA_LEN]) -> Result<Blobs, TsmError> {
    let mut path = tsm.root().to_owned();
    for _ in 0..MAX_TRIES {
        let request = Request::make(tsm, provider)?;
        path = request.path();
        let made = request.report(provider, report_data);
        let removed = request.remove();
        if let Some(blobs) = made? {
            removed?;
            return Ok(blobs);
        }
        removed?;
    }
    Err(TsmError::Moved { path })
}

/// Name of who makes reports here, whoever that is.
///
/// # Errors
/// [`TsmError`].
pub fn provider(tsm: &dyn Tsm) -> Result<String, TsmError> {
    let request = Request::make(tsm, Provider::SevGuest)?;
    let name = request.line(Attribute::Provider);
    request.remove()?;
    name
}

// === impl Provider ===

impl Provider {
    /// Its name in the kernel.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SevGuest => "sev_guest",
            Self::TdxGuest => "tdx_guest",
        }
    }

    /// How its driver is loaded.
    const fn driver(self) -> &'static str {
        match self {
            Self::SevGuest => "modprobe sev-guest",
            Self::TdxGuest => "modprobe tdx-guest",
        }
    }
}

// === impl Attribute ===

impl Attribute {
    /// Name of its file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Generation => "generation",
            Self::Outblob => "outblob",
            Self::Auxblob => "auxblob",
        }
    }

    /// Most bytes that it may have.
    #[must_use]
    pub const fn max_len(self) -> usize {
        match self {
            Self::Provider | Self::Generation => MAX_LINE_LEN,
            Self::Outblob => MAX_OUTBLOB_LEN,
            Self::Auxblob => MAX_AUXBLOB_LEN,
        }
    }
}

// === impl Configfs ===

impl Configfs {
    /// The folder `root`: [`REPORT_ROOT`] but in tests.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn file(&self, entry: &str, name: &str) -> PathBuf {
        self.root.join(entry).join(name)
    }
}

impl Tsm for Configfs {
    fn root(&self) -> &Path {
        &self.root
    }

    fn make(&self, entry: &str) -> io::Result<()> {
        fs::create_dir(self.root.join(entry))
    }

    fn remove(&self, entry: &str) -> io::Result<()> {
        // Attributes are no content: the kernel removes them with their folder.
        fs::remove_dir(self.root.join(entry))
    }

    fn read(&self, entry: &str, attribute: Attribute) -> io::Result<Vec<u8>> {
        let file = File::open(self.file(entry, attribute.as_str()))?;
        let mut bytes = Vec::new();
        let limit = attribute.max_len().saturating_add(1) as u64;
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_inblob(&self, entry: &str, data: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.file(entry, "inblob"))?;
        file.write_all(data)
    }
}

/// A request that was made and has to be removed.
struct Request<'a> {
    tsm: &'a dyn Tsm,
    entry: Option<String>,
}

impl<'a> Request<'a> {
    /// Takes the first free name: `mkdir` is atomic, so two processes never share one.
    fn make(tsm: &'a dyn Tsm, provider: Provider) -> Result<Self, TsmError> {
        for number in 0..MAX_ENTRIES {
            let entry = format!("cloister-{number}");
            match tsm.make(&entry) {
                Ok(()) => {
                    return Ok(Self {
                        tsm,
                        entry: Some(entry),
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(refused(tsm.root(), &entry, provider, source)),
            }
        }
        Err(TsmError::Occupied {
            root: tsm.root().to_owned(),
        })
    }

    fn entry(&self) -> &str {
        self.entry.as_deref().unwrap_or_default()
    }

    fn path(&self) -> PathBuf {
        self.tsm.root().join(self.entry())
    }

    /// `None` if somebody else wrote to the request.
    fn report(&self, provider: Provider, report_data: &[u8; REPORT_DATA_LEN]) -> Result<Option<Blobs>, TsmError> {
        let found = self.line(Attribute::Provider)?;
        if found != provider.as_str() {
            return Err(TsmError::OtherProvider {
                expected: provider.as_str(),
                found,
            });
        }
        let before = self.generation()?;
        self.tsm
            .write_inblob(self.entry(), report_data)
            .map_err(|source| self.failed("write", "inblob", source))?;
        // EBUSY: the TEE is at work on another's report.
        let Some(outblob) = self.blob(Attribute::Outblob)? else {
            return Ok(None);
        };
        let Some(auxblob) = self.blob(Attribute::Auxblob)? else {
            return Ok(None);
        };
        let moved = self.generation()? != before.wrapping_add(1);
        if outblob.is_empty() {
            return Err(self.malformed(
                Attribute::Outblob,
                "empty: the TEE's firmware made no report, see the kernel's log",
            ));
        }
        Ok((!moved).then_some(Blobs { outblob, auxblob }))
    }

    fn blob(&self, attribute: Attribute) -> Result<Option<Vec<u8>>, TsmError> {
        match self.tsm.read(self.entry(), attribute) {
            Ok(bytes) if bytes.len() > attribute.max_len() => {
                Err(self.malformed(attribute, "longer than any report is"))
            }
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
            Err(source) => Err(self.failed("read", attribute.as_str(), source)),
        }
    }

    /// The attribute's one line.
    fn line(&self, attribute: Attribute) -> Result<String, TsmError> {
        let bytes = self
            .tsm
            .read(self.entry(), attribute)
            .map_err(|source| self.failed("read", attribute.as_str(), source))?;
        if bytes.len() > attribute.max_len() {
            return Err(self.malformed(attribute, "longer than one line"));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.malformed(attribute, "not text"))?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    fn generation(&self) -> Result<u64, TsmError> {
        self.line(Attribute::Generation)?
            .parse()
            .map_err(|_| self.malformed(Attribute::Generation, "not a number"))
    }

    fn remove(mut self) -> Result<(), TsmError> {
        let path = self.path();
        let Some(entry) = self.entry.take() else {
            return Ok(());
        };
        self.tsm
            .remove(&entry)
            .map_err(|source| refusal("remove", path, source))
    }

    fn failed(&self, action: &'static str, attribute: &str, source: io::Error) -> TsmError {
        refusal(action, self.path().join(attribute), source)
    }

    fn malformed(&self, attribute: Attribute, what: &'static str) -> TsmError {
        TsmError::Malformed {
            path: self.path().join(attribute.as_str()),
            what,
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            // Only when the caller unwinds: there is nobody to tell.
            drop(self.tsm.remove(&entry));
        }
    }
}

/// What a refused `mkdir` means.
fn refused(root: &Path, entry: &str, provider: Provider, source: io::Error) -> TsmError {
    /// `errno` of a kernel without a provider (`tsm_report_make_item`).
    const ENXIO: i32 = 6;
    if source.kind() == ErrorKind::NotFound {
        return TsmError::Absent(root.to_owned());
    }
    if source.raw_os_error() == Some(ENXIO) {
        return TsmError::NoProvider {
            root: root.to_owned(),
            driver: provider.driver(),
            source,
        };
    }
    refusal("make", root.join(entry), source)
}

fn refusal(action: &'static str, path: PathBuf, source: io::Error) -> TsmError {
    if source.kind() == ErrorKind::PermissionDenied {
        TsmError::Denied { action, path, source }
    } else {
        TsmError::Io { action, path, source }
    }
}
