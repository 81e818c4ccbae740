//! A folder with the fake `libnvidia-ml.so.1`, loaded by the real wrapper, and what it answers with: real captured reports.

#[path = "../../../../tests/fake-nvml/library.rs"]
mod library;

use std::fs;
use std::path::PathBuf;

use cloister_enclave_attester::{GpuError, Gpus};
use tempfile::TempDir;

use self::library::library;
use crate::snp::testdata;

/// One copy of the library with the file that says how it behaves.
pub(crate) struct FakeNvml {
    dir: TempDir,
}

/// Two GPUs with real reports and chains.
pub(crate) const TWO: &str =
    "gpu GPU-0 hopper hopper.hex hopper.pem\ngpu GPU-1 blackwell blackwell.hex blackwell.pem\n";

impl FakeNvml {
    pub(crate) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(library(), dir.path().join("libnvidia-ml.so.1")).unwrap();
        for (name, from) in [
            ("hopper.hex", "nvidia/e2e_pass/report.hex"),
            ("hopper.pem", "nvidia/e2e_pass/cert_chain.pem"),
            (
                "blackwell.hex",
                "nvidia/reports/sdk_sample_blackwellAttestationReport.txt",
            ),
            ("blackwell.pem", "nvidia/reports/sdk_sample_blackwellCertChain.txt"),
        ] {
            fs::write(dir.path().join(name), testdata(from)).unwrap();
        }
        let fake = Self { dir };
        fake.behave(script);
        fake
    }

    /// From now on.
    pub(crate) fn behave(&self, script: &str) {
        fs::write(self.dir.path().join("fake-nvml.txt"), script).unwrap();
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    pub(crate) fn open(&self) -> Result<Gpus, GpuError> {
        Gpus::open(&self.library())
    }
}
