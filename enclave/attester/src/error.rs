//! Why there is no evidence.

use std::path::PathBuf;

use crate::device::DeviceError;
use crate::gpu::GpuError;
use crate::snp::SnpError;
use crate::tdx::TdxError;
use crate::tsm::TsmError;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum AttesterError {
    /// configfs-tsm gave no report.
    #[error(transparent)]
    Tsm(#[from] TsmError),
    /// A TEE's device gave no report.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// SEV-SNP gave no evidence.
    #[error(transparent)]
    Snp(#[from] SnpError),
    /// TDX gave no evidence.
    #[error(transparent)]
    Tdx(#[from] TdxError),
    /// The GPUs gave no evidence.
    #[error(transparent)]
    Gpu(#[from] GpuError),
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
