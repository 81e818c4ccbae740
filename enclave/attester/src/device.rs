//! The TEEs' own devices, for kernels without configfs-tsm: `/dev/sev-guest` and `/dev/tdx_guest`.
//!
//! `/dev/sev-guest` gives a report that anybody can verify. `/dev/tdx_guest` gives a TDREPORT, which only the processor that
//! made it can check (it carries a MAC, no signature); the quote made of it comes through configfs-tsm, or from the host's
//! quoting service, which this program does not talk to. So for TDX there is no evidence without configfs-tsm, and the error
//! says so.
//!
//! Source: Linux `include/uapi/linux/sev-guest.h` and `tdx-guest.h`; for what the firmware answers SEV-SNP Firmware ABI
//! (56860), table MSG_REPORT_RSP.

mod ioctl;

use std::io;
use std::path::{Path, PathBuf};

use cloister_attestation::binding::REPORT_DATA_LEN;
use cloister_attestation::snp::REPORT_LEN;

pub use self::ioctl::{SevGuest, TdxGuest};

/// Where the kernel has SEV-SNP's device.
pub const SEV_GUEST: &str = "/dev/sev-guest";
/// Where the kernel has TDX's device.
pub const TDX_GUEST: &str = "/dev/tdx_guest";
/// Bytes of a TDREPORT.
pub const TDREPORT_LEN: usize = 1024;
/// Room for certificates in bytes: all that the kernel's driver takes (`SEV_FW_BLOB_MAX_SIZE`).
pub const CERTIFICATES_LEN: usize = 16 * 1024;
/// Bytes of `snp_report_resp`.
pub const RESPONSE_LEN: usize = 4000;

/// Bytes of `snp_report_req`: user data 64, VMPL u32, 28 of zeros.
const REQUEST_LEN: usize = 96;
/// Where the report begins in the firmware's answer: status u32, length u32, 24 reserved bytes.
const REPORT_OFFSET: usize = 32;
/// `SNP_GUEST_VMM_ERR_INVALID_LEN`: the certificates need more room.
const VMM_INVALID_LEN: u32 = 1;
/// `SNP_GUEST_VMM_ERR_BUSY`: the host wants the guest to ask again later.
const VMM_BUSY: u32 = 2;

/// Answer of `SNP_GET_EXT_REPORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReport {
    /// `snp_report_resp`.
    pub response: [u8; RESPONSE_LEN],
    /// The certificates that the host hands out.
    pub certificates: Vec<u8>,
}

/// A refused ioctl.
#[derive(Debug)]
pub struct RawRefusal {
    /// What the kernel said.
    pub source: io::Error,
    /// `exitinfo2`: error of the firmware below, of the host above.
    pub exitinfo2: u64,
}

/// The one call to `/dev/sev-guest`: the kernel's, or a fake's that works on the same bytes.
pub trait SevDevice: Send + Sync {
    /// `SNP_GET_EXT_REPORT` of `request`, a `snp_report_req`.
    ///
    /// # Errors
    /// [`RawRefusal`].
    fn extended_report(&self, request: &[u8; REQUEST_LEN]) -> Result<RawReport, RawRefusal>;
}

/// A report with its host's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedReport {
    /// The report.
    pub report: Vec<u8>,
    /// The table of certificates.
    pub certificates: Vec<u8>,
}

/// Why a device gave no report.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be opened.
    #[error("cannot open {path}: {source}; load the TEE's guest driver, and run as root in the guest")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ioctl failed.
    #[error("{call} failed: {source} (firmware error {firmware:#x}, host error {host:#x}){hint}")]
    Call {
        /// Name of the ioctl.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// Error of the firmware.
        firmware: u32,
        /// Error of the host.
        host: u32,
        /// What to do.
        hint: &'static str,
    },
    /// The firmware refused.
    #[error("the SEV-SNP firmware made no report: status {0:#x} (SEV-SNP Firmware ABI, MSG_REPORT_RSP)")]
    Status(u32),
    /// A report of another length.
    #[error("the SEV-SNP firmware made a report of {0} bytes; only those of {REPORT_LEN} are understood")]
    Length(u32),
}

/// A report that carries `report_data`, of the guest's most privileged level.
///
/// # Errors
/// [`DeviceError`].
pub fn extended_report(
    device: &dyn SevDevice,
    report_data: &[u8; REPORT_DATA_LEN],
) -> Result<ExtendedReport, DeviceError> {
    let raw = device.extended_report(&encode(report_data)).map_err(refused)?;
    Ok(ExtendedReport {
        report: decode(&raw.response)?,
        certificates: raw.certificates,
    })
}

/// `snp_report_req` of VMPL 0.
fn encode(report_data: &[u8; REPORT_DATA_LEN]) -> [u8; REQUEST_LEN] {
    let mut request = [0; REQUEST_LEN];
    for (to, from) in request.iter_mut().zip(report_data) {
        *to = *from;
    }
    request
}

/// The report in a `snp_report_resp`.
fn decode(response: &[u8; RESPONSE_LEN]) -> Result<Vec<u8>, DeviceError> {
    let word = |at: usize| {
        let bytes = response.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
    };
    let (status, length) = (word(0), word(4));
    if status != 0 {
        return Err(DeviceError::Status(status));
    }
    let report = response.get(REPORT_OFFSET..).and_then(|rest| rest.get(..REPORT_LEN));
    match report {
        Some(report) if usize::try_from(length) == Ok(REPORT_LEN) => Ok(report.to_vec()),
        _ => Err(DeviceError::Length(length)),
    }
}

fn refused(refusal: RawRefusal) -> DeviceError {
    let [a, b, c, d, e, f, g, h] = refusal.exitinfo2.to_le_bytes();
    let host = u32::from_le_bytes([e, f, g, h]);
    DeviceError::Call {
        call: "SNP_GET_EXT_REPORT",
        source: refusal.source,
        firmware: u32::from_le_bytes([a, b, c, d]),
        host,
        hint: match host {
            VMM_INVALID_LEN => ": the host's certificates are longer than 16 KiB, have its operator shorten them",
            VMM_BUSY => ": the host limits how often reports are made, ask again later",
            _ => "",
        },
    }
}

pub(crate) fn open_error(path: &Path, source: io::Error) -> DeviceError {
    DeviceError::Open {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(fn(&[u8; REQUEST_LEN]) -> Result<RawReport, RawRefusal>);

    impl SevDevice for Fake {
        fn extended_report(&self, request: &[u8; REQUEST_LEN]) -> Result<RawReport, RawRefusal> {
            (self.0)(request)
        }
    }

    /// A firmware's answer: the report is of sevens and carries the request's data at its place.
    fn answer(request: &[u8; REQUEST_LEN], status: u32, length: u32) -> RawReport {
        let mut response = [0; RESPONSE_LEN];
        response[..4].copy_from_slice(&status.to_le_bytes());
        response[4..8].copy_from_slice(&length.to_le_bytes());
        response[32..32 + REPORT_LEN].fill(7);
        response[32 + 0x50..32 + 0x90].copy_from_slice(&request[..64]);
        RawReport {
            response,
            certificates: b"table".to_vec(),
        }
    }

    fn ask(answer: fn(&[u8; REQUEST_LEN]) -> Result<RawReport, RawRefusal>) -> Result<ExtendedReport, DeviceError> {
        extended_report(&Fake(answer), &[0xab; 64])
    }

    #[test]
    fn a_request_is_encoded_and_its_answer_decoded() {
        let made = ask(|request| {
            assert_eq!(request[..64], [0xab; 64], "user_data");
            assert_eq!(request[64..], [0; 32], "vmpl 0 and 28 reserved bytes");
            Ok(answer(request, 0, 1184))
        })
        .unwrap();
        assert_eq!(made.report.len(), REPORT_LEN);
        assert_eq!(made.report[0x50..0x90], [0xab; 64]);
        assert_eq!(made.certificates, b"table");
    }

    #[test]
    fn a_status_of_the_firmware_is_an_error() {
        let error = ask(|request| Ok(answer(request, 0x16, 1184))).unwrap_err();
        assert!(matches!(error, DeviceError::Status(0x16)), "{error}");
    }

    #[test]
    fn a_report_of_another_length_is_an_error() {
        for error in [
            ask(|request| Ok(answer(request, 0, 0))).unwrap_err(),
            ask(|request| Ok(answer(request, 0, 1183))).unwrap_err(),
            ask(|request| Ok(answer(request, 0, u32::MAX))).unwrap_err(),
        ] {
            assert!(matches!(error, DeviceError::Length(_)), "{error}");
        }
    }

    #[test]
    fn a_refused_call_says_why() {
        let error = ask(|_| {
            Err(RawRefusal {
                source: io::Error::from_raw_os_error(5),
                exitinfo2: 1 << 32,
            })
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("SNP_GET_EXT_REPORT"), "{error}");
        assert!(error.contains("host error 0x1"), "{error}");
        assert!(error.contains("longer than 16 KiB"), "{error}");
    }
}
