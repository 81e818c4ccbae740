//! Evidence collection inside the TEE.
//!
//! [`Attester`] is what the rest of the enclave sees. The only one here is the [`SimulatedTee`], which protects nothing.

pub mod simulated;

use std::path::PathBuf;

use cloister_attestation::binding::REPORT_DATA_LEN;
use cloister_attestation::{CpuEvidence, Measurement, PlatformId, Tee};

pub use simulated::SimulatedTee;

/// The TEE that this process runs in.
pub trait Attester: Send + Sync {
    /// Its kind.
    fn tee(&self) -> Tee;

    /// The processor that it runs on.
    fn platform_id(&self) -> PlatformId;

    /// What it was started with.
    fn measurement(&self) -> Measurement;

    /// A fresh report that carries `report_data`, with what a verifier needs. May block for milliseconds.
    ///
    /// # Errors
    /// [`AttesterError`] if the TEE gives no report.
    fn evidence(&self, report_data: &[u8; REPORT_DATA_LEN]) -> Result<CpuEvidence, AttesterError>;
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum AttesterError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key of the SIMULATED TEE can be read by others than its owner.
    #[error(
        "{0} can be read by other users: set its mode to 0600, or remove it and initialise the SIMULATED TEE again"
    )]
    Permissions(PathBuf),
    /// The file of the SIMULATED TEE is damaged.
    #[error("{0} holds no SIMULATED TEE: remove it and initialise the SIMULATED TEE again")]
    Damaged(PathBuf),
    /// A key or signature could not be made.
    #[error("cannot make {0} of the SIMULATED TEE")]
    Crypto(&'static str),
    /// This machine's clock is before 1970 or after 2049.
    #[error("this machine's clock is out of range: set it")]
    Clock,
}
