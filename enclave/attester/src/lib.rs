//! Evidence collection inside the TEE.
//!
//! [`Attester`] is what the rest of the enclave sees: a nonce in, bound evidence of CPU and GPUs out. A [`Machine`] is made of
//! a [`CpuTee`] (SEV-SNP, TDX, or SIMULATED) and the GPUs beside it.
//!
//! The SIMULATED TEE protects nothing. It is there with the feature `simulated` only, which is on by default so that tests and
//! `cargo xtask up` run anywhere; images of a release are built with `--no-default-features` and hold no such thing, which
//! `cargo xtask deps` checks.

pub mod certificates;
pub mod device;
pub mod folder;
pub mod gpu;
pub mod snp;
pub mod tdx;
pub mod tsm;

#[cfg(feature = "simulated")]
pub mod simulated;

mod error;
mod machine;

use std::path::PathBuf;

use cloister_attestation::binding::{NONCE_LEN, REPORT_DATA_LEN};
use cloister_attestation::bundle::{Bundle, DeviceEvidence};
use cloister_attestation::{CpuEvidence, EnclaveId, Tee};

pub use error::AttesterError;
pub use gpu::{GpuError, Gpus};
pub use machine::Machine;
#[cfg(feature = "simulated")]
pub use simulated::SimulatedTee;
pub use snp::SnpTee;
pub use tdx::TdxTee;

/// What an enclave can show of the machine that it runs on.
pub trait Attester: Send + Sync {
    /// Kind of its CPU's TEE.
    fn tee(&self) -> Tee;

    /// Fresh evidence of `enclave` over `nonce`: first that of its GPUs, then that of the CPU, which binds it. May block for
    /// seconds where there are GPUs.
    ///
    /// # Errors
    /// [`AttesterError`] if CPU or any GPU gives none.
    fn evidence(&self, nonce: &[u8; NONCE_LEN], enclave: &EnclaveId) -> Result<Collected, AttesterError>;
}

/// The TEE of the CPU that this process runs on.
pub trait CpuTee: Send + Sync {
    /// Its kind.
    fn tee(&self) -> Tee;

    /// A fresh report that carries `report_data`, with what a verifier needs. May block for milliseconds.
    ///
    /// # Errors
    /// [`AttesterError`] if the TEE gives no report.
    fn report(&self, report_data: &[u8; REPORT_DATA_LEN]) -> Result<CpuEvidence, AttesterError>;
}

/// Evidence of one machine, bound to one nonce and one enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Of the CPU.
    pub cpu: CpuEvidence,
    /// Of the devices, in the order in which the CPU's report binds them.
    pub devices: Vec<DeviceEvidence>,
}

/// Where a machine has its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Folder of configfs-tsm's requests.
    pub report_root: PathBuf,
    /// Device of SEV-SNP.
    pub sev_guest: PathBuf,
    /// Device of TDX.
    pub tdx_guest: PathBuf,
    /// Folder of certificates and collateral; see [`folder`].
    pub collateral: Option<PathBuf>,
}

// === impl Collected ===

impl Collected {
    /// As a bundle that answers `nonce`.
    #[must_use]
    pub fn into_bundle(self, nonce: &[u8; NONCE_LEN]) -> Bundle {
        Bundle {
            cpu: Some(self.cpu),
            devices: self.devices,
            nonce: Some(nonce.to_vec()),
        }
    }
}

// === impl Sources ===

impl Default for Sources {
    fn default() -> Self {
        Self {
            report_root: tsm::REPORT_ROOT.into(),
            sev_guest: device::SEV_GUEST.into(),
            tdx_guest: device::TDX_GUEST.into(),
            collateral: None,
        }
    }
}
