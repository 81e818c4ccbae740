//! TDX: quotes through configfs-tsm. `/dev/tdx_guest` alone gives no evidence; see the module `device`.

use std::path::{Path, PathBuf};

use cloister_attestation::binding::REPORT_DATA_LEN;
use cloister_attestation::{CpuEvidence, Tee};
use dcap_qvl::intel::{quote_ca, quote_fmspc};
use dcap_qvl::quote::Quote;

use crate::device::TdxGuest;
use crate::folder::{self, FolderError, bytes};
use crate::tsm::{self, Configfs, Provider, Tsm, TsmError};
use crate::{AttesterError, CpuTee, Sources};

/// A guest of TDX.
pub struct TdxTee {
    tsm: Box<dyn Tsm>,
    collateral: Option<PathBuf>,
}

/// Why TDX gave no evidence.
#[derive(Debug, thiserror::Error)]
pub enum TdxError {
    /// No configfs-tsm, which makes the quotes.
    #[error("no way to a quote: {tsm}. {device}")]
    NoSource {
        /// Why not.
        tsm: TsmError,
        /// What the device can do.
        device: &'static str,
    },
    /// A quote that ends before it should, of a form that is not known, or with more behind it.
    #[error("the kernel gave {0} bytes that are no TDX quote of version 4 or 5: {1}")]
    Quote(usize, &'static str),
    /// The quote carries other bytes than asked for.
    #[error("the quote carries other data than was asked for: another process uses the same request")]
    OtherData,
    /// The quote does not say which platform made it.
    #[error("the quote holds no certificate that says which platform made it: {0}")]
    Platform(String),
    /// Our collateral.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// The device works: the guest is one of TDX, and lacks only the kernel's interface.
const DEVICE_WORKS: &str = "/dev/tdx_guest works, but gives a TDREPORT only, which no other machine can verify: use a kernel \
                            with configfs-tsm (Linux 6.7 or later)";
const NO_DEVICE: &str = "/dev/tdx_guest gives no TDREPORT either: this is no TDX guest, or its driver is not loaded";

impl TdxTee {
    /// Looks for configfs-tsm.
    ///
    /// # Errors
    /// [`AttesterError`] if there is none, or that of another TEE.
    pub fn open(sources: &Sources) -> Result<Self, AttesterError> {
        Self::with(
            Box::new(Configfs::new(sources.report_root.clone())),
            &sources.tdx_guest,
            sources,
        )
    }

    /// The same over other operations than the kernel's.
    ///
    /// # Errors
    /// [`AttesterError`] as for [`Self::open`].
    pub fn with(tsm: Box<dyn Tsm>, device: &Path, sources: &Sources) -> Result<Self, AttesterError> {
        match tsm::provider(tsm.as_ref()) {
            Ok(found) if found == Provider::TdxGuest.as_str() => Ok(Self {
                tsm,
                collateral: sources.collateral.clone(),
            }),
            Ok(found) => Err(TsmError::OtherProvider {
                expected: Provider::TdxGuest.as_str(),
                found,
            }
            .into()),
            Err(tsm @ (TsmError::Absent(_) | TsmError::NoProvider { .. })) => {
                let report = TdxGuest::open(device).and_then(|device| device.report(&[0; 64]));
                let device = if report.is_ok() { DEVICE_WORKS } else { NO_DEVICE };
                Err(TdxError::NoSource { tsm, device }.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl CpuTee for TdxTee {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn report(&self, report_data: &[u8; REPORT_DATA_LEN]) -> Result<CpuEvidence, AttesterError> {
        let made = tsm::report(self.tsm.as_ref(), Provider::TdxGuest, report_data)?.outblob;
        let (quote, carried) = split(&made)?;
        if carried != *report_data {
            return Err(TdxError::OtherData.into());
        }
        Ok(CpuEvidence::Tdx {
            collateral: collateral(self.collateral.as_deref(), quote)?,
            quote: quote.to_vec(),
        })
    }
}

/// Collateral of the platform that made `quote`.
fn collateral(folder: Option<&Path>, quote: &[u8]) -> Result<String, TdxError> {
    let unknown = |error: &dyn std::fmt::Display| TdxError::Platform(error.to_string());
    let parsed = Quote::parse(quote).map_err(|error| unknown(&error))?;
    let fmspc = quote_fmspc(&parsed).map_err(|error| unknown(&error))?;
    let authority = quote_ca(&parsed).map_err(|error| unknown(&error))?;
    Ok(folder::collateral(folder, &fmspc, authority.as_id_str())?)
}

/// The quote without the zeros that some hosts fill its buffer with, and its report data.
///
/// Head of 48 bytes; in version 5 a type (u16) and a length (u32) of the body; the body, which carries the report data at
/// 520; a length (u32), and so many bytes of signature. Source: Intel TDX DCAP Quoting Library API, A.3 and A.4.
fn split(made: &[u8]) -> Result<(&[u8], [u8; REPORT_DATA_LEN]), TdxError> {
    let refused = |what| TdxError::Quote(made.len(), what);
    let version = bytes::<2>(made, 0).map(u16::from_le_bytes);
    let (body, body_len) = match version {
        Some(4) => (48usize, Some(584)),
        Some(5) => (54, bytes::<4>(made, 50).map(u32::from_le_bytes)),
        _ => return Err(refused("another version")),
    };
    let number = |value: Option<u32>| value.and_then(|value| usize::try_from(value).ok());
    let body_end = number(body_len).and_then(|length| body.checked_add(length));
    let signature = body_end.and_then(|end| number(bytes::<4>(made, end).map(u32::from_le_bytes)));
    let end = body_end
        .zip(signature)
        .and_then(|(end, length)| end.checked_add(4)?.checked_add(length));
    let end = end.ok_or_else(|| refused("it ends before its signature"))?;
    let (quote, rest) = made
        .split_at_checked(end)
        .ok_or_else(|| refused("it ends within its signature"))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(refused("there is more behind its signature"));
    }
    let carried = bytes::<REPORT_DATA_LEN>(quote, body.saturating_add(520));
    Ok((quote, carried.ok_or_else(|| refused("it has no report data"))?))
}
