//! A folder that behaves as the kernel's configfs-tsm. Files and folders are real and the code under test reads, writes, makes
//! and removes them itself ([`Configfs`]); what the kernel does at each step is done here, between two of them: attributes
//! appear with their folder and go with it, `generation` counts writes, the report is there when it is read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cloister_enclave_attester::tsm::{Attribute, Configfs, Tsm};
use tempfile::TempDir;

const ATTRIBUTES: [&str; 5] = ["provider", "generation", "inblob", "outblob", "auxblob"];

/// What the TEE makes of an `inblob`: `outblob` and `auxblob`.
pub(crate) type Report = dyn Fn(&[u8]) -> (Vec<u8>, Vec<u8>) + Send + Sync;

pub(crate) struct FakeConfigfs {
    files: Configfs,
    pub(crate) provider: &'static str,
    pub(crate) report: Arc<Report>,
    /// Reports during which another process writes to the request.
    pub(crate) intrusions: AtomicU32,
    /// The operation that fails, and its `errno`.
    pub(crate) fails: Option<(&'static str, i32)>,
    /// What `generation` says, instead of a number.
    pub(crate) generation: Option<&'static str>,
    dir: Arc<TempDir>,
}

impl FakeConfigfs {
    pub(crate) fn new(
        provider: &'static str,
        report: impl Fn(&[u8]) -> (Vec<u8>, Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self {
            files: Configfs::new(dir.path().to_owned()),
            provider,
            report: Arc::new(report),
            intrusions: AtomicU32::new(0),
            fails: None,
            generation: None,
            dir,
        }
    }

    /// The folder, which outlives this.
    pub(crate) fn dir(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    fn file(&self, entry: &str, name: &str) -> PathBuf {
        self.dir.path().join(entry).join(name)
    }

    fn fail(&self, operation: &str) -> io::Result<()> {
        match self.fails {
            Some((failing, errno)) if failing == operation => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn advance(&self, entry: &str) {
        let path = self.file(entry, "generation");
        let count: u64 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        fs::write(path, format!("{}\n", count + 1)).unwrap();
    }
}

impl Tsm for FakeConfigfs {
    fn root(&self) -> &Path {
        self.files.root()
    }

    fn make(&self, entry: &str) -> io::Result<()> {
        self.fail("make")?;
        self.files.make(entry)?;
        for name in ATTRIBUTES {
            let text = match name {
                "provider" => format!("{}\n", self.provider),
                "generation" => self.generation.unwrap_or("0\n").to_owned(),
                _ => String::new(),
            };
            fs::write(self.file(entry, name), text).unwrap();
        }
        Ok(())
    }

    fn remove(&self, entry: &str) -> io::Result<()> {
        self.fail("remove")?;
        for name in ATTRIBUTES {
            fs::remove_file(self.file(entry, name)).unwrap();
        }
        self.files.remove(entry)
    }

    fn read(&self, entry: &str, attribute: Attribute) -> io::Result<Vec<u8>> {
        self.fail(attribute.as_str())?;
        if attribute == Attribute::Outblob {
            let less = |left: u32| left.checked_sub(1);
            if self
                .intrusions
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok()
            {
                self.advance(entry);
            }
        }
        self.files.read(entry, attribute)
    }

    fn write_inblob(&self, entry: &str, data: &[u8]) -> io::Result<()> {
        self.fail("inblob")?;
        self.files.write_inblob(entry, data)?;
        self.advance(entry);
        let (outblob, auxblob) = (self.report)(&fs::read(self.file(entry, "inblob")).unwrap());
        fs::write(self.file(entry, "outblob"), outblob).unwrap();
        fs::write(self.file(entry, "auxblob"), auxblob).unwrap();
        Ok(())
    }
}

/// Names of the requests that are left in `dir`.
pub(crate) fn left(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
