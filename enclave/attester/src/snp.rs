//! SEV-SNP: reports through configfs-tsm, else through `/dev/sev-guest`.

use std::path::{Path, PathBuf};

use cloister_attestation::binding::REPORT_DATA_LEN;
use cloister_attestation::snp::REPORT_LEN;
use cloister_attestation::{CpuEvidence, Tee};

use crate::certificates::{self, TableError};
use crate::device::{self, DeviceError, SevDevice, SevGuest};
use crate::folder::{self, FolderError, bytes};
use crate::tsm::{self, Configfs, Provider, Tsm, TsmError};
use crate::{AttesterError, CpuTee, Sources};

/// A guest of SEV-SNP.
pub struct SnpTee {
    source: Source,
    collateral: Option<PathBuf>,
}

enum Source {
    Tsm(Box<dyn Tsm>),
    Device(Box<dyn SevDevice>),
}

/// Why SEV-SNP gave no evidence.
#[derive(Debug, thiserror::Error)]
pub enum SnpError {
    /// Neither interface is there.
    #[error("no way to a report: {tsm}; and {device}")]
    NoSource {
        /// Why not through configfs-tsm.
        tsm: TsmError,
        /// Why not through the device.
        device: DeviceError,
    },
    /// A report of another length.
    #[error("the kernel gave a report of {0} bytes; those of {REPORT_LEN} are understood")]
    Length(usize),
    /// The report carries other bytes than asked for.
    #[error("the report carries other data than was asked for: another process uses the same request")]
    OtherData,
    /// The firmware signed it with no key.
    #[error("the report is signed with key {0}: only those of a VCEK (0) or a VLEK (1) can be verified")]
    SigningKey(u32),
    /// Signed by the operator's key, without its certificate.
    #[error(
        "the report is signed by the operator's key (VLEK), whose certificate the host does not hand out: ask its operator"
    )]
    NoVlek,
    /// The host's certificates.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Our own.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl SnpTee {
    /// Finds out which interface there is.
    ///
    /// # Errors
    /// [`AttesterError`] if there is none, or that of another TEE.
    pub fn open(sources: &Sources) -> Result<Self, AttesterError> {
        Self::with(
            Box::new(Configfs::new(sources.report_root.clone())),
            &sources.sev_guest,
            sources,
        )
    }

    /// The same over other operations than the kernel's.
    ///
    /// # Errors
    /// [`AttesterError`] as for [`Self::open`].
    pub fn with(tsm: Box<dyn Tsm>, device: &Path, sources: &Sources) -> Result<Self, AttesterError> {
        let source = match tsm::provider(tsm.as_ref()) {
            Ok(found) if found == Provider::SevGuest.as_str() => Source::Tsm(tsm),
            Ok(found) => {
                return Err(TsmError::OtherProvider {
                    expected: Provider::SevGuest.as_str(),
                    found,
                }
                .into());
            }
            Err(absent @ (TsmError::Absent(_) | TsmError::NoProvider { .. })) => match SevGuest::open(device) {
                Ok(device) => Source::Device(Box::new(device)),
                Err(device) => return Err(SnpError::NoSource { tsm: absent, device }.into()),
            },
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            source,
            collateral: sources.collateral.clone(),
        })
    }

    /// Over a device that is open, whatever it is.
    #[must_use]
    pub fn over(device: Box<dyn SevDevice>, collateral: Option<PathBuf>) -> Self {
        Self {
            source: Source::Device(device),
            collateral,
        }
    }

    /// The report with the host's table of certificates.
    fn extended(&self, report_data: &[u8; REPORT_DATA_LEN]) -> Result<(Vec<u8>, Vec<u8>), AttesterError> {
        match &self.source {
            Source::Tsm(tsm) => {
                let blobs = tsm::report(tsm.as_ref(), Provider::SevGuest, report_data)?;
                Ok((blobs.outblob, blobs.auxblob))
            }
            Source::Device(device) => {
                let made = device::extended_report(device.as_ref(), report_data)?;
                Ok((made.report, made.certificates))
            }
        }
    }

    /// Certificate of the key that signed `report`.
    fn vek(&self, report: &[u8; REPORT_LEN], table: &[u8]) -> Result<Vec<u8>, SnpError> {
        let certificates = certificates::parse(table)?;
        // SIGNING_KEY: bits 2 to 4 of the flags at 0x48 (56860, ATTESTATION_REPORT).
        match bytes::<4>(report, 0x48).map_or(u32::MAX, u32::from_le_bytes) >> 2 & 7 {
            0 => match certificates.vcek {
                Some(vcek) => Ok(vcek),
                None => Ok(folder::vcek(self.collateral.as_deref(), report)?),
            },
            1 => certificates.vlek.ok_or(SnpError::NoVlek),
            other => Err(SnpError::SigningKey(other)),
        }
    }
}

impl CpuTee for SnpTee {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn report(&self, report_data: &[u8; REPORT_DATA_LEN]) -> Result<CpuEvidence, AttesterError> {
        let (report, table) = self.extended(report_data)?;
        let fixed = <&[u8; REPORT_LEN]>::try_from(report.as_slice());
        let fixed = fixed.map_err(|_| SnpError::Length(report.len()))?;
        if bytes::<REPORT_DATA_LEN>(fixed, 0x50).as_ref() != Some(report_data) {
            return Err(SnpError::OtherData.into());
        }
        Ok(CpuEvidence::Snp {
            vek: self.vek(fixed, &table)?,
            report,
        })
    }
}
